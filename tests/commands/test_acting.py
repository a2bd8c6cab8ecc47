"""The verbs that record what people decide, on each kind of database."""

from __future__ import annotations

import pytest

from tests import apps
from tgext.evolve.history import State

pytestmark = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mongodb'], indirect=True)

TOP = {'version', 'command', 'enabled', 'namespace', 'store', 'mode', 'said'}


def boom(evolution):
    raise ValueError('it is broken')


def three():
    return [apps.evolution(id) for id in ('one', 'two', 'three')]


# -- stamp, unstamp


def test_stamp_records_without_running(site):
    evolutions = three()
    site.has(*evolutions)
    typed = site.type('stamp', 'one', 'two')
    assert (typed.code, typed.out) == (0, 'recorded as done without running: one, two\n')
    assert site.states() == {'one': 'stamped', 'two': 'stamped'}
    document = site.type('stamp', '--all', '--json').json
    assert set(document) == TOP | {'ids'}
    assert document['ids'] == ['three']
    assert [evolution.runs for evolution in evolutions] == [0, 0, 0]
    assert site.type('check').code == 0


@pytest.mark.parametrize('argv', [[], ['one', '--all']])
def test_stamp_takes_either_ids_or_all(site, argv):
    site.has(*three())
    typed = site.type('stamp', *argv)
    assert typed.code == 2
    assert 'stamp takes ids, or --all' in typed.error
    assert site.states() == {}


@pytest.mark.parametrize('verb', ['stamp', 'unstamp', 'retry'])
def test_an_id_that_is_unknown_changes_nothing(site, verb):
    site.has(*three())
    typed = site.type(verb, 'one', 'thre')
    assert typed.code == 65
    assert "Did you mean 'three'?" in typed.error
    assert site.states() == {}


def test_a_lease_that_is_held_is_named_and_not_waited_for(site):
    site.has(*three())
    site.hold()
    for argv in (['stamp', 'one'], ['claim'], ['adopt', 'one']):
        typed = site.type(*argv)
        assert typed.code == 75
        assert 'elsewhere:4711' in typed.error
    assert site.type('stamp', 'one', '--json').json['error']['kind'] == 'lease-held'
    assert site.states() == {}


def test_a_lease_is_waited_for_when_asked(site):
    site.has(*three())
    site.hold(ttl=1.5)
    assert site.type('stamp', 'one', '--wait', '30').code == 0
    assert site.states() == {'one': 'stamped'}


def test_unstamp_makes_pending_again_and_leaves_what_really_ran(site):
    evolutions = three()
    site.has(*evolutions)
    site.type('stamp', 'one')
    site.type('run', '--until', 'two')
    typed = site.type('unstamp', 'one', 'two')
    assert typed.code == 0
    assert typed.out.splitlines() == [
        'pending again: one',
        'neither stamped nor imported, so it stays as it is: two',
    ]
    assert site.states() == {'two': 'done'}
    document = site.type('unstamp', 'two', '--json').json
    assert (document['ids'], document['unchanged']) == ([], ['two'])
    assert site.type('unstamp', 'two').code == 1


# -- retry


def test_retry_lets_what_failed_run_again(site):
    failing = apps.evolution('-odd id', boom)
    site.has(failing)
    assert site.type('run').code == 1
    [shown] = [row for row in site.type('status').rows if row[:1] == ['failed']]
    assert shown[-1].endswith("type: gearbox evolve retry -- '-odd id'")
    typed = site.type('retry', '--', '-odd id')
    assert typed.code == 0
    assert '1 attempt no longer count' in typed.out
    assert site.type('run').code == 1
    assert failing.runs == 2
    document = site.type('retry', '--json', '--', '-odd id').json
    assert document['attempts'] == 1
    assert 'nothing changes' in site.type('retry', '--', '-odd id').out


# -- pause, resume, cancel


def test_pause_keeps_everything_from_beginning_until_resume(site):
    evolutions = three()
    site.has(*evolutions)
    typed = site.type('pause')
    assert typed.code == 0
    assert 'gearbox evolve resume' in typed.out
    run = site.type('run')
    assert run.code == 75
    assert 'gearbox evolve resume' in run.error
    assert site.type('run', '--json').json['error']['kind'] == 'paused'
    assert site.type('resume').code == 0
    assert site.type('run').code == 0
    assert [evolution.runs for evolution in evolutions] == [1, 1, 1]


def test_pause_says_what_runs_already(site):
    [one, *_] = evolutions = three()
    site.has(*evolutions)
    site.hold(one)
    assert site.type('pause', '--json').json['running'] == 'one'


def test_cancel_asks_whoever_runs_it_and_says_what_follows(site):
    [one, *_] = evolutions = three()
    site.has(*evolutions)
    site.hold(one)
    typed = site.type('cancel')
    assert typed.code == 0
    assert 'gearbox evolve retry one' in typed.out
    assert site.store.requests().cancel == 'one'
    assert site.type('cancel', '--json').json['id'] == 'one'


def test_cancel_of_nothing(site):
    site.has(*three())
    typed = site.type('cancel')
    assert typed.code == 1
    assert 'gearbox evolve pause' in typed.error
    assert site.type('cancel', '--json').json['error']['kind'] == 'nothing-runs'


# -- down, up


def test_down_and_up(site):
    site.has()
    typed = site.type('down', '--message', "We move house, don't worry")
    assert typed.code == 0
    assert 'gearbox evolve up' in typed.out
    assert 'watch = 0' in typed.out  # those that run do not look
    assert site.type('status', '--json').json['gate']['message'] == "We move house, don't worry"
    assert site.type('up').out.startswith('up: ')
    assert site.type('up').out == 'it was not down\n'
    assert site.type('up', '--json').json['was_down'] is False


def test_down_says_within_what_time_processes_close(site):
    site.write(watch=5)
    site.has()
    assert site.type('down').out.startswith('down: within 5.0 s (tgext.evolve.watch) every process closes.')


# -- unlock, adopt, claim


def old(site, version='two', lock='4711'):
    """What 0.0.5 leaves behind."""
    if site.url.startswith('mongodb'):
        from pymongo import MongoClient

        with MongoClient(site.url) as client:
            documents = [{'type': 'lock', 'process': lock}, {'type': 'version', 'current': version}]
            client.get_default_database().tgext_evolve.insert_many(d for d in documents if None not in d.values())
        return
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    with create_engine(site.url, poolclass=NullPool).begin() as connection:
        connection.execute(
            text('CREATE TABLE tgext_evolve (type VARCHAR(16) PRIMARY KEY, value VARCHAR(255) NOT NULL)')
        )
        for kind, value in (('lock', lock), ('version', version)):
            if value is not None:
                connection.execute(text('INSERT INTO tgext_evolve VALUES (:k, :v)'), {'k': kind, 'v': value})


def test_unlock_refuses_while_the_lease_lives_and_names_its_holder(site):
    [one, *_] = evolutions = three()
    site.has(*evolutions)
    site.hold(one)
    typed = site.type('unlock', '--yes')
    assert typed.code == 75
    assert 'elsewhere:4711' in typed.error
    assert "runs 'one'" in typed.error
    assert site.store.snapshot().lease.alive


def test_unlock_of_an_expired_lease_says_that_it_needs_nothing(site):
    [one, *_] = evolutions = three()
    site.has(*evolutions)
    site.hold(one, ttl=0.01)
    typed = site.type('unlock')
    assert typed.code == 0
    assert 'It needs nothing from you' in typed.out
    assert 'elsewhere:4711' in typed.out


def test_unlock_of_nothing(site):
    site.has(*three())
    typed = site.type('unlock')
    assert (typed.code, typed.out) == (0, 'nobody holds the lease\n')


def test_unlock_adopts_what_a_killed_0_0_5_left_only_when_a_person_says_so(site, at_a_terminal):
    site.has(*three())
    old(site)
    assert 'gearbox evolve unlock' in site.type('status').out
    refused = site.type('unlock')
    assert refused.code == 2
    assert 'process 4711' in refused.error
    assert refused.error.endswith('add --yes')
    assert site.states() == {}
    typed = site.type('unlock', '--yes')
    assert typed.code == 0
    assert 'one, two' in typed.out
    assert site.states() == {'one': 'imported', 'two': 'imported'}
    assert 'nothing looks at any more' in site.type('unlock').out
    assert site.type('unlock', '--json').json['lock_of_0_0_5'] == '4711'


@pytest.mark.parametrize(('answer', 'states'), [('n\n', {}), ('y\n', {'one': 'imported', 'two': 'imported'})])
def test_unlock_asks_at_a_terminal(site, at_a_terminal, answer, states):
    site.has(*three())
    old(site)
    at_a_terminal(answer)
    typed = site.type('unlock')
    assert typed.code == (0 if states else 1)
    assert 'Go on? [y/N]' in typed.err
    assert site.states() == states


def test_unlock_with_a_version_that_nobody_knows_says_what_to_type(site):
    site.has(*three())
    old(site, version='gone')
    typed = site.type('unlock', '--yes')
    assert typed.code == 1
    assert 'gearbox evolve adopt ID' in typed.error
    assert site.states() == {}


def test_adopt_takes_over_up_to_the_id_that_is_named(site):
    site.has(*three())
    old(site, version='gone')
    assert 'gearbox evolve unlock' in site.type('status').out
    assert site.type('adopt', 'on').code == 65
    assert site.type('adopt', 'one').code == 2  # nobody said that the lock is a leftover
    typed = site.type('adopt', 'one', '--yes')
    assert (typed.code, typed.out) == (0, 'these count as done: one\n')
    assert site.states() == {'one': 'imported'}


def test_a_version_that_nobody_knows_is_shown_with_what_to_type(site):
    site.has(*three())
    old(site, version='gone', lock=None)
    assert 'gearbox evolve adopt ID' in site.type('status').out
    assert 'gearbox evolve adopt ID' in site.type('run').error


def test_adopt_of_nothing(site):
    site.has(*three())
    typed = site.type('adopt')
    assert typed.code == 1
    assert 'gearbox evolve adopt ID' in typed.error


def test_claim_begins_a_history_of_its_own(site):
    site.has(*three())
    site.type('stamp', '--all')
    site.write(namespace='another')
    stuck = site.type('run')
    assert stuck.code == 1
    assert 'gearbox evolve claim' in stuck.error
    assert site.type('claim').code == 0
    assert site.type('run').code == 0
    assert {attempt.state for attempt in site.store.history().attempts} == {State.STAMPED}
