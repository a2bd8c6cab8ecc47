"""Who runs evolutions when, and what the gate does about what it finds."""

from __future__ import annotations

import logging

import pytest
import tg

import tgext.evolve
from tests import apps
from tgext.evolve import processes
from tgext.evolve.errors import EvolutionFailed, NotPlugged


def boom(evolution):
    raise ValueError('password=hunter2 in SELECT secret')


@pytest.fixture
def as_server(monkeypatch):
    """Applications are created as a server creates them."""
    monkeypatch.setattr(processes, 'role', lambda: processes.Role.SERVER)


def test_a_server_needs_no_request_to_begin(site, url, as_server):
    started = site(url, [apps.evolution('it')])
    assert started.gate.wait(10)
    assert started.history() == {'it': 'done'}


def test_blocking_comes_back_when_all_is_done(site, url, as_server):
    evolution = apps.evolution('it')
    started = site(url, [evolution], options={'mode': 'blocking'})
    assert evolution.runs == 1
    assert started.get('/').status_int == 200


def test_blocking_raises_when_an_evolution_fails(site, url, as_server):
    with pytest.raises(EvolutionFailed, match=r"'it' failed.*gearbox evolve retry it"):
        site(url, [apps.evolution('it', boom)], options={'mode': 'blocking'})


def test_blocking_raises_when_the_database_is_away(site, as_server):
    url = 'postgresql+psycopg://nobody@127.0.0.1:1/none'
    with pytest.raises(EvolutionFailed, match='database-away'):
        site(url, [apps.evolution('it')], options={'mode': 'blocking'})


def test_blocking_serves_all_the_same_where_that_was_asked_for(site, url, as_server):
    started = site(url, [apps.evolution('it', boom)], options={'mode': 'blocking', 'on_failure': 'open'})
    assert started.get('/').status_int == 200
    assert started.history() == {'it': 'failed'}


def test_blocking_in_an_unknown_server_runs_in_the_first_request(site, url):
    evolution = apps.evolution('it')
    started = site(url, [evolution], options={'mode': 'blocking'})
    assert evolution.runs == 0
    assert started.get('/').status_int == 200
    assert evolution.runs == 1


def test_waiting_never_runs_but_sees_that_another_process_did(site, url):
    evolution = apps.evolution('it')
    waiting = site(url, [evolution], options={'mode': 'wait'})
    assert waiting.get('/').status_int == 503
    waiting.becomes('waiting')
    running = site(url, [evolution])
    assert running.opens()
    assert waiting.gate.wait(10)
    assert waiting.get('/').status_int == 200
    assert evolution.runs == 1


def test_start_begins_below_any_middleware(site, url):
    evolution = apps.evolution('it')
    started = site(url, [evolution])

    def middleware(application):
        return lambda environ, start_response: application(environ, start_response)

    class Another:
        def __init__(self, application):
            self.application = application

        def __call__(self, environ, start_response):
            return self.application(environ, start_response)

    tgext.evolve.start(Another(middleware(started.app)))
    assert started.gate.wait(10)
    assert evolution.runs == 1


def test_start_takes_the_configuration_too(site, url):
    started = site(url, [apps.evolution('it')])
    tgext.evolve.start(tg.config)
    assert started.gate.wait(10)


def test_wait_waits_for_a_server(site, url):
    evolution = apps.evolution('it')
    script = site(url, [evolution])
    server = site(url, [evolution])
    assert server.opens()
    assert tgext.evolve.wait(script.conf, 10)
    assert tgext.evolve.is_open(script.conf)


def test_what_is_not_plugged_is_said_so(site):
    def application(environ, start_response):
        raise AssertionError

    with pytest.raises(NotPlugged, match='not found in this application'):
        tgext.evolve.start(application)
    for conf in ({}, {'debug': True}, None):
        with pytest.raises(NotPlugged, match='not plugged'):
            tgext.evolve.is_open(conf)


# -- failures


def test_a_failure_is_loud_and_stays(site, url, caplog):
    later = apps.evolution('later')
    first = site(url, [apps.evolution('first', boom), later])
    verdict = first.fails()
    assert 'gearbox evolve retry' in verdict.detail
    assert later.runs == 0
    assert first.history() == {'first': 'failed'}
    failed = first.evolver.store.history().latest('first')
    error = first.evolver.store.error_of(failed)
    assert 'Traceback' in error
    assert 'ValueError' in error
    assert 'hunter2' not in error
    for path in ('/', '/_evolve/ready', '/_evolve/status'):
        answer = first.get(path, accept='*/*')
        assert not any(word in answer.text for word in ('first', 'ValueError', 'hunter2', 'SELECT'))
    assert first.status()['reason'] == 'failed'


def test_a_second_process_does_not_run_it_again(site, url):
    failing = apps.evolution('it', boom)
    assert site(url, [failing]).fails()
    second = site(url, [failing])
    second.fails()
    assert failing.runs == 1


def test_mended_code_runs_at_once(site, url):
    class Sometimes(tgext.evolve.Evolution):
        evolution_id = 'it'

        def __init__(self, fail):
            self.fail = fail

        def evolve(self):
            if self.fail:
                boom(self)

    assert site(url, [Sometimes(fail=True)]).fails()
    mended = site(url, [Sometimes(fail=False)])
    assert mended.opens()
    assert [a.state.value for a in mended.evolver.store.history().of('it')] == ['failed', 'done']


def test_what_a_person_asks_for_is_tried_at_once(site, url):
    failing = apps.evolution('it', boom)
    started = site(url, [failing])
    assert started.fails()
    failing.evolve = lambda self: None
    assert tgext.evolve.retry(started.conf, ['it']) == 1
    assert started.gate.wait(10)
    with pytest.raises(tgext.evolve.OptionError, match="no evolution 'other'"):
        tgext.evolve.retry(started.conf, ['other'])


@pytest.mark.parametrize('attributes', [{'transactional': True}, {'rerunnable': True}])
def test_what_may_be_tried_again_by_itself_is_five_times(site, url, attributes):
    failing = apps.evolution('it', boom, **attributes)
    started = site(url, [failing], options={'retry_delay': 0.001})
    assert started.fails()
    assert failing.runs == 5
    assert 'it raised 5 times' in started.gate.verdict.detail


def test_on_failure_open_serves_all_the_same(site, url):
    later = apps.evolution('later')
    started = site(url, [apps.evolution('it', boom), later], options={'on_failure': 'open'})
    assert started.opens()
    assert started.get('/').status_int == 200
    assert started.status()['reason'] == 'failure-ignored'
    assert later.runs == 0


@pytest.mark.parametrize('error', [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_evolution_cannot_end_the_server(site, url, error):
    def work(evolution):
        raise error

    started = site(url, [apps.evolution('it', work)])
    started.fails()
    assert started.history() == {'it': 'failed'}


# -- plan and history


def test_every_set_of_applied_evolutions_is_legal(site, url):
    a, b, c, d = (apps.evolution(id) for id in 'abcd')
    assert site(url, [a, c]).opens()
    assert site(url, [d, c, b]).opens()  # a removed, c moved, b and d inserted
    renamed = apps.evolution('c-renamed', replaces=('c',))
    assert site(url, [renamed, b, a, d]).opens()
    assert [each.runs for each in (a, b, c, d, renamed)] == [1, 1, 1, 1, 0]


def test_a_history_ahead_of_the_plan_is_named(site, url, caplog):
    a, b = apps.evolution('a'), apps.evolution('b')
    assert site(url, [a, b]).opens()
    caplog.set_level(logging.WARNING, 'tgext.evolve')
    caplog.clear()
    assert site(url, [a]).get('/').status_int == 200
    assert "does not: 'b'" in caplog.text
    caplog.clear()
    assert site(url, [a], options={'unknown': 'ignore'}).get('/').status_int == 200
    assert [record for record in caplog.records if record.name.startswith('tgext.evolve')] == []
    refusing = site(url, [a, apps.evolution('new')], options={'unknown': 'refuse'})
    assert refusing.get('/').status_int == 503
    assert "'b'" in refusing.becomes('unknown-evolutions').detail
    assert 'new' not in refusing.history()


def test_an_older_process_closes_while_a_newer_release_evolves(site, url):
    a = apps.evolution('a')
    old = site(url, [a], options={'watch': 0.1})
    assert old.opens()
    b = apps.held('b')
    new = site(url, [a, b], options={'watch': 0.3})
    new.get('/')
    assert old.becomes('newer-release').serving.value == 'nothing'
    assert old.get('/').status_int == 503
    assert b.began.wait(10), 'it is announced, and then begins'
    b.go_on.set()
    assert new.gate.wait(10)
    assert old.gate.wait(10)
    assert old.get('/').status_int == 200
    assert b.runs == 1


def test_reads_are_served_while_an_evolution_allows_them(site, url):
    evolution = apps.held('it', serving='reads')
    started = site(url, [evolution])
    started.get('/')
    assert evolution.began.wait(10)
    assert started.get('/').status_int == 200
    assert started.request('/', 'HEAD').status_int == 200
    assert started.request('/write', 'POST').status_int == 503
    evolution.go_on.set()
    assert started.gate.wait(10)
    assert started.request('/write', 'POST').status_int == 200


def test_everything_is_served_while_an_evolution_allows_it(site, url):
    evolution = apps.held('it', serving='everything')
    started = site(url, [apps.evolution('first'), evolution])
    assert started.opens()
    assert evolution.began.wait(10)
    assert started.request('/write', 'POST').status_int == 200
    evolution.go_on.set()
    started.becomes('complete')
    assert started.history() == {'first': 'done', 'it': 'done'}


# -- two in one process


def test_two_applications_have_each_their_own_gate_namespace_and_configuration(site, tmp_path):
    seen = {}

    def work(evolution):
        seen[evolution.evolution_id] = tg.config['package_name']

    held = apps.held('one', work=work)
    one = site(f'sqlite:///{tmp_path}/one.db', [held], name='app_one')
    two = site(f'sqlite:///{tmp_path}/two.db', [apps.evolution('two', work)], name='app_two')
    one.get('/')
    assert held.began.wait(10)
    assert two.opens()
    assert one.get('/').status_int == 503
    assert two.get('/').status_int == 200
    held.go_on.set()
    assert one.gate.wait(10)
    assert seen == {'one': 'app_one', 'two': 'app_two'}
    assert (one.evolver.store.namespace, two.evolver.store.namespace) == ('app_one', 'app_two')


def test_two_applications_in_one_database_keep_apart_when_they_say_so(site, url):
    shared = apps.evolution('shared')
    one = site(url, [shared], name='app_one')
    assert one.opens()
    two = site(url, [shared], name='app_two')
    two.get('/')
    detail = two.becomes('other-namespace').detail
    assert "'app_one'" in detail
    assert "'app_two'" in detail
    tgext.evolve.claim(two.conf)
    assert two.gate.wait(10)
    assert shared.runs == 2


def test_two_of_the_same_namespace_run_it_once(site, url):
    evolution = apps.held('it')
    sites = [site(url, [evolution]) for _ in range(2)]
    for each in sites:
        each.get('/')
    assert evolution.began.wait(10)
    evolution.go_on.set()
    assert all(each.gate.wait(10) for each in sites)
    assert evolution.runs == 1
