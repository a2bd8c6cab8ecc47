"""The verbs that only look, on each kind of database; what they print is what scripts and people rely on."""

from __future__ import annotations

import json

import pytest

from tests import apps
from tgext.evolve import Evolution
from tgext.evolve.history import State

pytestmark = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mongodb'], indirect=True)


def boom(evolution):
    raise ValueError('no such page, password=hunter2')


def plan():
    return [
        apps.evolution('one', description='the first'),
        apps.evolution('two', boom),
        apps.evolution('three', depends_on=('two',)),
    ]


TOP = {'version', 'command', 'enabled', 'namespace', 'store', 'mode'}
LOOKED = TOP | {'now', 'gate', 'lease', 'paused', 'down', 'pending'}
EVOLUTION = {
    *('id', 'state', 'why', 'description', 'serving', 'transactional', 'depends_on', 'origin', 'attempts'),
    *('started', 'finished', 'seconds', 'host', 'pid', 'changed', 'progress', 'needs_a_person'),
}


# -- status


def test_status_of_a_database_that_was_never_seen_writes_nothing(site):
    evolutions = plan()
    site.has(*evolutions)
    looked = site.type('status')
    assert looked.code == 0
    assert looked.err == 'an application that prints\n'
    assert ['pending', 'one', '-', '-', '-', '-', 'is next'] in looked.rows
    assert 'evolutions: 0 of 3 done, 3 pending' in looked.out
    assert site.states() == {}
    assert all(evolution.runs == 0 for evolution in evolutions)


def test_status_after_a_failure_says_what_to_type(site):
    site.has(*plan())
    assert site.type('run').code == 1
    looked = site.type('status')
    [one, two, three] = [row for row in looked.rows if row and row[0] in ('done', 'failed', 'pending')]
    assert one[:2] == ['done', 'one']
    assert two[:2] == ['failed', 'two']
    assert two[-1].endswith('type: gearbox evolve retry two')
    assert three[-1] == "depends on 'two'"
    assert looked.code == 0


def test_status_as_json_has_this_schema(site):
    site.has(*plan())
    site.type('run')
    document = site.type('status', '--json').json
    assert set(document) == LOOKED | {'evolutions', 'unknown'}
    assert set(document['gate']) == {'serving', 'reason', 'detail', 'message'}
    assert set(document['lease']) == {'held', 'host', 'pid', 'token', 'expires', 'evolution', 'cancelling'}
    assert all(set(each) == EVOLUTION for each in document['evolutions'])
    assert [(each['id'], each['state']) for each in document['evolutions']] == [
        ('one', 'done'),
        ('two', 'failed'),
        ('three', 'pending'),
    ]
    assert document['pending'] == ['two', 'three']
    assert document['gate']['reason'] == 'failed'
    assert document['evolutions'][1]['needs_a_person'] is True
    assert document['evolutions'][0]['started'].endswith('Z')


def test_status_shows_who_runs_what_and_how_far_it_is(site):
    [one, *_] = site_plan = plan()
    site.has(*site_plan)
    site.hold(one, done=25, total=100, message='pages')
    looked = site.type('status')
    assert "lease: held by elsewhere:4711, runs 'one'" in looked.out
    assert '25% (25 of 100)' in looked.out
    [row] = [row for row in looked.rows if row[:1] == ['running']]
    assert row[1] == 'one'
    document = site.type('status', '--json').json
    assert document['lease']['host'] == 'elsewhere'
    assert document['evolutions'][0]['progress']['fraction'] == 0.25


def test_status_shows_what_only_the_history_knows_and_code_that_changed(site):
    site.has(apps.evolution('gone'), apps.evolution('stays', parameter=1))
    assert site.type('run').code == 0
    changed = apps.evolution('stays')()
    changed.parameter = 2
    site.has(changed)
    looked = site.type('status')
    assert 'unknown: 1 that the database knows and this code does not' in looked.out
    assert 'its code has changed since it ran' in looked.out
    document = site.type('status', '--json').json
    assert [each['id'] for each in document['unknown']] == ['gone']
    assert document['evolutions'][0]['changed'] is True
    assert document['pending'] == []


def test_status_shows_pause_and_down_with_what_takes_them_back(site):
    site.has(*plan())
    site.type('pause')
    site.type('down', '--message', 'Back at noon')
    looked = site.type('status')
    assert 'gearbox evolve resume' in looked.out
    assert "saying 'Back at noon'; to open it again, type: gearbox evolve up" in looked.out
    document = site.type('status', '--json').json
    assert document['paused'] is not None
    assert document['down']['message'] == 'Back at noon'
    assert document['gate'] == {**document['gate'], 'reason': 'down', 'message': 'Back at noon'}


def test_status_in_mode_wait_says_that_no_server_runs_it(site):
    site.write(mode='wait')
    site.has(*plan())
    assert 'gearbox evolve run' in site.type('status').out


@pytest.mark.parametrize('mode', ['blocking', 'wait'])
def test_looking_starts_nothing_whatever_the_mode(site, mode):
    site.write(mode=mode)
    evolutions = plan()
    site.has(*evolutions)
    for verb in ('status', 'plan', 'history', 'graph'):
        assert site.type(verb).code == 0
    assert site.type('check').code == 1
    assert [evolution.runs for evolution in evolutions] == [0, 0, 0]
    assert site.states() == {}


def test_what_another_namespace_recorded_is_named(site):
    site.has(*plan())
    site.type('stamp', '--all')
    site.write(namespace='elsewhere')
    looked = site.type('status')
    assert 'other-namespace' in looked.out
    assert 'gearbox evolve claim' in looked.out


# -- plan


class Counted(Evolution):
    evolution_id = 'counted'

    def evolve(self): ...

    def count(self):
        return 1234


class Uncountable(Evolution):
    evolution_id = 'uncountable'

    def evolve(self): ...

    def count(self):
        raise ValueError('no table')


def test_plan_is_what_would_run_with_its_rows(site):
    site.has(Counted, Uncountable, apps.evolution('plain'))
    looked = site.type('plan')
    assert looked.rows[0] == ['3 would run now, in this order:']
    assert looked.rows[2:] == [
        ['1', 'counted', 'nothing', '1,234', '-'],
        ['2', 'uncountable', 'nothing', '-', '-'],
        ['3', 'plain', 'nothing', '-', '-'],
    ]
    assert "count() of 'uncountable' failed: ValueError: no table" in looked.err
    document = site.type('plan', '--json').json
    assert set(document) == LOOKED | {'would_run', 'held'}
    assert [each['rows'] for each in document['would_run']] == [1234, None, None]
    assert set(document['would_run'][0]) == EVOLUTION | {'rows'}


def test_plan_says_what_does_not_run_and_why(site):
    site.has(*plan())
    site.type('run')
    looked = site.type('plan')
    assert 'not now: two: it raised' in looked.out
    assert "not now: three: depends on 'two'" in looked.out
    document = site.type('plan', '--json').json
    assert document['would_run'] == []
    assert [each['id'] for each in document['held']] == ['two', 'three']


def test_plan_of_nothing(site):
    site.has()
    assert site.type('plan').out == 'nothing is pending\n'


# -- check


def test_check_is_an_exit_code(site):
    site.has(apps.evolution('one'))
    checked = site.type('check')
    assert (checked.code, checked.out) == (1, "1 pending: 'one'\n")
    site.type('run')
    checked = site.type('check')
    assert (checked.code, checked.out) == (0, 'nothing is pending\n')
    assert set(site.type('check', '--json').json) == LOOKED


@pytest.mark.parametrize('verb', ['status', 'plan', 'check', 'watch', 'history', 'graph', 'run', 'pause', 'up'])
def test_a_database_that_is_away_is_69_and_one_line(site, verb):
    site.write(url=site.nowhere)
    site.has(*plan())
    looked = site.type(verb)
    assert looked.code == 69
    assert looked.out == ''
    assert 'secret' not in looked.error
    document = site.type(verb, '--json').json
    assert document['error']['kind'] == 'database-away'
    assert document['error']['exit'] == 69


# -- history


def test_history_has_every_attempt_and_what_it_raised(site):
    site.has(*plan())
    site.type('run')
    site.type('retry', 'two')
    site.type('run')
    looked = site.type('history')
    assert [row[:3] for row in looked.rows[1:]] == [
        ['done', 'one', '1'],
        ['failed', 'two', '1'],
        ['failed', 'two', '2'],
    ]
    assert looked.rows[2][-1] == 'ValueError: no such page, password=***'
    assert 'Traceback' not in looked.out
    document = site.type('history', '--json').json
    assert set(document) == TOP | {'attempts'}
    assert set(document['attempts'][0]) == {
        *('id', 'attempt', 'state', 'serving', 'token', 'started', 'finished', 'seconds', 'host', 'pid'),
        *('fingerprint', 'error'),
    }
    assert 'ValueError' in document['attempts'][2]['error']


def test_history_of_one_has_its_traceback(site):
    site.has(*plan())
    site.type('run')
    looked = site.type('history', 'two')
    assert looked.code == 0
    assert 'Traceback' in looked.out
    assert 'hunter2' not in looked.out
    assert site.type('history', 'three').out == "nothing was ever recorded of 'three'\n"


def test_history_of_an_id_that_is_unknown_names_those_that_look_alike(site):
    site.has(apps.evolution('2026-11-backfill-slugs'))
    looked = site.type('history', '2026-10-backfill-slug')
    assert looked.code == 65
    assert "Did you mean '2026-11-backfill-slugs'?" in looked.error
    assert "Did you mean '2026-11-backfill-slugs'?" in site.type('history', 'Slugs').error
    assert 'gearbox evolve status' in site.type('history', 'quite different').error
    assert site.type('history', 'nope', '--json').json['error']['kind'] == 'no-such-id'


# -- graph


def test_graph_is_mermaid_with_states_and_escaped_ids(site):
    site.has(apps.evolution('one"<b>'), apps.evolution('two', depends_on=('one"<b>',)))
    drawn = site.type('graph')
    assert drawn.code == 0
    assert drawn.out.splitlines() == [
        'flowchart TD',
        '    n0["one#34;#60;b#62;<br/>pending"]:::pending',
        '    n1["two<br/>pending"]:::pending',
        '    n0 --> n1',
        '    classDef pending fill:#fff9c4,color:#000',
    ]


def test_graph_as_dot(site):
    site.has(apps.evolution('one"\\'), apps.evolution('two', depends_on=('one"\\',)))
    drawn = site.type('graph', '--format', 'dot').out.splitlines()
    assert drawn[0] == 'digraph evolutions {'
    assert '    n0 [label="one\\"\\\\\\npending", fillcolor="#fff9c4"];' in drawn
    assert '    n0 -> n1;' in drawn
    assert drawn[-1] == '}'


def test_graph_as_json(site):
    site.has(apps.evolution('one'), apps.evolution('two', depends_on=('one',)))
    document = site.type('graph', '--json').json
    assert set(document) == TOP | {'nodes', 'edges'}
    assert document['edges'] == [{'from': 'one', 'to': 'two'}]
    assert document['nodes'][0] == {'id': 'one', 'state': 'pending'}


# -- watch


def test_watch_ends_at_once_when_nothing_is_left(site):
    site.has()
    watched = site.type('watch')
    assert watched.code == 0
    assert 'gate: may serve everything: complete; lease free' in watched.out


def test_watch_tells_what_changes_until_nothing_is_left(site, monkeypatch):
    one = apps.evolution('one')
    site.has(one)
    grant = site.hold(one, done=5, total=10)
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            site.store.settle(grant, ['one'], State.STAMPED)

    monkeypatch.setattr('tgext.evolve.commands.reading.pause', sleep)
    watched = site.type('watch', '--interval', '0.5')
    assert watched.code == 0
    assert looks == [0.5, 0.5]
    told = [line.split('  ', 1)[1] for line in watched.out.splitlines()]
    assert told[1].startswith('running  one  50% (5 of 10)')
    assert told[-1] == 'stamped  one'
    looks.clear()
    lines = site.type('watch', '--json').out.splitlines()
    assert [json.loads(line)['command'] for line in lines] == ['watch']


def test_watch_ends_by_ctrl_c(site, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    site.has(apps.evolution('one'))
    monkeypatch.setattr('tgext.evolve.commands.reading.pause', interrupt)
    assert site.type('watch').code == 130
