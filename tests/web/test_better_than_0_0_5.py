"""What 0.0.5 got wrong when it was measured, one experiment each, and what happens instead."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest
import sqlalchemy
from sqlalchemy import text

import tgext.evolve
from tests import apps
from tests.web.conftest import PATIENCE
from tgext.evolve import PlanError
from tgext.evolve.component import EVOLVER
from tgext.evolve.stores.base import Grant, Owner


@pytest.fixture
def release(site, url):
    """Starts a release with these evolutions on the one database, waits until it serves, and ends it."""

    def run(*evolutions, **rest):
        each = site(url, evolutions, **rest)
        assert each.opens(), each.gate.verdict
        each.stop()
        return each

    return run


def logged(id, log, **attributes):
    return apps.evolution(id, lambda evolution: log.append(evolution.evolution_id), **attributes)


def test_a_503_says_when_to_come_again_and_is_not_stored(closed):
    """Was: no Retry-After, no Cache-Control."""
    site = closed()
    for method in ('GET', 'POST', 'HEAD'):
        response = site.request('/', method, HTTP_ACCEPT='application/json')
        assert response.status_int == 503
        assert response.content_type == 'application/json'
        assert int(response.headers['Retry-After']) > 0
        assert response.headers['Cache-Control'] == 'no-store'


def test_a_request_at_once_after_a_cold_start_is_not_served_and_the_evolution_runs(site, tmp_path):
    """Was: 200 in 9 of 30, and in-process the evolution never ran in 21 of 30."""
    for number in range(30):
        evolution = apps.held()
        each = site(f'sqlite:///{tmp_path}/{number}.db', [evolution])
        assert each.get('/').status_int == 503
        assert evolution.began.wait(PATIENCE)
        assert each.get('/').status_int == 503
        evolution.go_on.set()
        assert each.gate.wait(PATIENCE)
        assert evolution.runs == 1


def test_one_early_answer_does_not_open_for_the_whole_evolution(closed):
    """Was: after one early 200 the process served for the whole evolution."""
    site = closed(options={'bypass': '/write'})
    assert site.get('/write').status_int == 200
    assert site.get('/').status_int == 503


def test_an_evolution_that_raises_keeps_the_gate_closed_and_is_recorded(site, url, caplog):
    """Was: nothing recorded, the log said "Evolutions Completed", half-evolved data was served."""

    def broken(evolution):
        raise ValueError('half of the data is evolved')

    with caplog.at_level(logging.INFO):
        each = site(url, [apps.evolution('a', broken)])
        each.fails()
    assert each.get('/').status_int == 503
    [attempt] = each.evolver.store.history().attempts
    assert attempt.state.value == 'failed'
    error = each.evolver.store.error_of(attempt)
    assert 'Traceback' in error
    assert 'half of the data is evolved' in error
    said = [record.getMessage() for record in caplog.records if record.name.startswith('tgext.evolve')]
    assert not [message for message in said if 'complete' in message.lower()], said
    assert any('gearbox evolve retry a' in message for message in said)
    each.stop()
    assert site(url, [apps.evolution('a', broken)]).get('/').status_int == 503


def test_one_inserted_before_the_last_applied_runs(release):
    """Was: it never ran."""
    log = []
    release(logged('a', log), logged('c', log))
    release(logged('a', log), logged('b', log), logged('c', log))
    assert log == ['a', 'c', 'b']


def test_after_the_last_applied_is_removed_new_ones_run(release, caplog):
    """Was: nothing ever ran again, silently."""
    log = []
    release(logged('a', log), logged('b', log))
    release(logged('a', log), logged('c', log))
    assert log == ['a', 'b', 'c']
    assert "'b'" in caplog.text


def test_after_the_last_applied_is_renamed_new_ones_run_and_it_does_not(release):
    """Was: nothing ever ran again, silently."""
    log = []
    release(logged('a', log), logged('b', log))
    release(logged('a', log), logged('b-better', log, replaces=('b',)), logged('c', log))
    assert log == ['a', 'b', 'c']


def test_reordering_runs_nothing_again(release):
    """Was: it ran them again."""
    log = []
    release(*(logged(id, log) for id in 'abc'))
    release(*(logged(id, log) for id in 'cab'))
    assert log == ['a', 'b', 'c']


def test_a_duplicate_id_is_an_error_that_names_it(site, url):
    """Was: an infinite loop."""
    with pytest.raises(PlanError, match="'twice'"):
        site(url, [apps.evolution('twice'), apps.evolution('other'), apps.evolution('twice')])


def test_ids_that_are_numbers_work_like_all_others(release):
    """Was: new ones never ran after a restart."""
    log = []
    for newest in range(9, 13):
        release(*(logged(number, log) for number in range(1, newest)))
    assert log == list(range(1, 12))
    release(*(logged(str(number), log) for number in range(1, 12)))
    assert log == list(range(1, 12))


def test_a_restart_with_nothing_pending_takes_no_lock(release):
    """Was: it took the lock all the same."""
    before = release(apps.evolution('a')).evolver.store.snapshot().lease
    with apps.statements() as statements:
        after = release(apps.evolution('a'))
    assert {statement.split()[0] for statement in statements} == {'SELECT'}
    assert after.evolver.store.snapshot().lease.token == before.token


def test_a_503_costs_no_sql(closed):
    """Was: one SQL statement per 503."""
    site = closed()
    with apps.statements(thread=threading.get_ident()) as statements:
        for _ in range(50):
            assert site.get('/').status_int == 503
    assert statements == []


@pytest.mark.parametrize('word', [True, 'true', 'yes', '1', 'on', 1])
def test_every_word_for_true_enables(site, url, word):
    """Was: ``yes``, ``1`` and ``on`` silently disabled, and a bool crashed."""
    each = site(url, [apps.evolution('a')], options={'enabled': word})
    assert each.get('/').status_int == 503
    assert each.gate.wait(PATIENCE)


@pytest.mark.parametrize('word', [False, 'false', 'no', '0', 'off', 0])
def test_every_word_for_false_disables(site, url, word):
    evolution = apps.evolution('a')
    assert site(url, [evolution], options={'enabled': word}).get('/').text == 'served'
    assert evolution.runs == 0


def test_owners_with_the_same_pid_are_not_the_same(site, url):
    """Was: a bare pid, equal in every container."""
    one, other = Owner(host='web', pid=1), Owner(host='web', pid=1)
    assert one.id != other.id
    store = site(url, []).evolver.store
    store.prepare()
    held = store.acquire(one, 30)
    assert store.acquire(other, 30) is None
    assert store.snapshot().lease.owner == one.id == held.owner.id


def test_nobody_unlocks_somebody_elses_lock(site, url):
    """Was: one process could unlock another's."""
    store = site(url, []).evolver.store
    store.prepare()
    held = store.acquire(Owner(host='web', pid=1), 30)
    for stranger in (Grant(Owner(host='web', pid=1), held.token), Grant(held.owner, held.token - 1)):
        store.release(stranger)
    assert store.snapshot().lease.alive


# -- and what worked stays


class Duck:
    """0.0.5 asked for no base class."""

    evolution_id = 'duck'
    runs = 0

    def evolve(self):
        Duck.runs += 1


def test_an_application_of_0_0_5_works_unchanged(site, url):
    import transaction

    model = apps.Model()

    class AddRows(tgext.evolve.Evolution):
        evolution_id = 'rows'

        def evolve(self):
            model.metadata.create_all(model.engine)
            model.DBSession.add(model.Page(title='one'))
            model.DBSession.flush()
            transaction.commit()

    Duck.runs = 0
    each = site(url, [AddRows, Duck()], model=model, options={'global_models': True, 'appid': None})
    assert each.opens()
    assert Duck.runs == 1
    with model.engine.connect() as connection:
        assert connection.execute(text('SELECT title FROM page')).scalars().all() == ['one']
    assert 'tgext_evolve' not in sqlalchemy.inspect(model.engine).get_table_names()
    assert each.conf[EVOLVER] is each.evolver


def test_anything_with_an_id_and_an_evolve_is_an_evolution(site, url):
    done = []
    thing = SimpleNamespace(evolution_id='thing', evolve=lambda: done.append(True))
    assert site(url, [thing]).opens()
    assert done == [True]
