"""``Evolver.run``: the plan in the calling thread, for a command in a deployment."""

from __future__ import annotations

import threading

import pytest

from tests import apps
from tgext.evolve.errors import PlanError, StoreAway
from tgext.evolve.evolver import Ended
from tgext.evolve.records import Records
from tgext.evolve.stores.base import Owner


def boom(evolution):
    raise ValueError('no')


def records(made):
    return Records(made.evolver.options, made.evolver.plan, made.evolver.store, patience=0)


@pytest.mark.parametrize('mode', ['background', 'blocking', 'wait'])
def test_it_runs_everything_here_whatever_the_mode(site, url, mode):
    threads = []
    made = site(
        url, [apps.evolution('it', lambda e: threads.append(threading.current_thread()))], options={'mode': mode}
    )
    assert made.evolver.run() is Ended.DONE
    assert threads == [threading.current_thread()]
    assert made.gate.is_open
    assert not made.evolver.store.snapshot().lease.alive


def test_it_starts_no_thread_that_runs_on(site, url):
    made = site(url, [apps.evolution('it')])
    before = set(threading.enumerate())
    made.evolver.run()
    assert set(threading.enumerate()) == before


def test_with_nothing_pending_nothing_is_written(site, url):
    made = site(url, [])
    with apps.statements() as statements:
        assert made.evolver.run() is Ended.DONE
    assert not [
        statement for statement in statements if not statement.lstrip().upper().startswith(('SELECT', 'PRAGMA'))
    ]


def test_until_an_id_it_runs_a_part_and_what_that_depends_on(site, url):
    evolutions = [apps.evolution('a', depends_on=('c',)), apps.evolution('b'), apps.evolution('c')]
    made = site(url, evolutions)
    assert made.evolver.run(until='c') is Ended.DONE
    assert made.history() == {'b': 'done', 'c': 'done'}
    assert not made.gate.is_open
    assert made.evolver.run(until='a') is Ended.DONE
    assert made.gate.is_open


def test_until_an_id_that_there_is_not(site, url):
    made = site(url, [apps.evolution('a')])
    with pytest.raises(PlanError, match="no evolution 'x'"):
        made.evolver.run(until='x')
    assert made.history() == {}


def test_a_failure_for_good_ends_it(site, url):
    made = site(url, [apps.evolution('a', boom), apps.evolution('b')])
    assert made.evolver.run() is Ended.STUCK
    assert made.history() == {'a': 'failed'}
    assert made.gate.verdict.reason.value == 'failed'


def test_a_failure_that_may_be_tried_again_is_waited_for(site, url):
    evolution = apps.evolution('a', boom, rerunnable=True)
    made = site(url, [evolution], options={'retry_delay': 0.05, 'max_attempts': 3})
    assert made.evolver.run() is Ended.STUCK
    assert evolution.runs == 3


def test_somebody_elses_lease_is_waited_for_no_longer_than_asked(site, url):
    evolution = apps.evolution('a')
    made = site(url, [evolution])
    store = made.evolver.store
    store.prepare()
    grant = store.acquire(Owner(), 60)
    assert made.evolver.run() is Ended.TAKEN
    assert made.evolver.run(patience=0.1) is Ended.TAKEN
    assert evolution.runs == 0
    store.release(grant)
    assert made.evolver.run() is Ended.DONE


def test_a_lease_that_is_given_back_while_it_waits_is_taken(site, url):
    made = site(url, [apps.evolution('a')])
    store = made.evolver.store
    store.prepare()
    store.acquire(Owner(), 0.3)
    assert made.evolver.run(patience=30) is Ended.DONE


def test_paused_it_begins_nothing(site, url):
    evolution = apps.evolution('a')
    made = site(url, [evolution])
    records(made).pause()
    assert made.evolver.run() is Ended.PAUSED
    assert evolution.runs == 0
    records(made).resume()
    assert made.evolver.run() is Ended.DONE


def test_paused_while_one_runs_it_begins_no_other(site, url):
    made = site(url, [apps.evolution('a', lambda e: records(made).pause()), apps.evolution('b')])
    assert made.evolver.run() is Ended.PAUSED
    assert made.history() == {'a': 'done'}


def test_told_to_leave_it_ends_at_the_next_report(site, url):
    def work(evolution):
        made.evolver.leave()
        evolution.progress(1)

    made = site(url, [apps.evolution('a', work)])
    assert made.evolver.run() is Ended.LEFT
    assert made.history() == {'a': 'interrupted'}


def test_closed_by_hand_it_runs_all_the_same_and_stays_closed(site, url):
    evolution = apps.evolution('a')
    made = site(url, [evolution])
    records(made).down('later')
    assert made.evolver.run() is Ended.DONE
    assert evolution.runs == 1
    assert made.gate.verdict.reason.value == 'down'


def test_what_another_namespace_recorded_ends_it(site, url):
    evolution = apps.evolution('a')
    assert site(url, [evolution]).evolver.run() is Ended.DONE
    made = site(url, [evolution], options={'namespace': 'another'})
    assert made.evolver.run() is Ended.STUCK
    assert made.gate.verdict.reason.value == 'other-namespace'
    assert evolution.runs == 1


def test_a_history_that_is_ahead_ends_it_where_that_is_refused(site, url):
    assert site(url, [apps.evolution('gone')]).evolver.run() is Ended.DONE
    made = site(url, [apps.evolution('a')], options={'unknown': 'refuse'})
    assert made.evolver.run() is Ended.STUCK
    assert made.history() == {'gone': 'done'}


def test_a_database_that_is_away_raises(site):
    made = site('postgresql+psycopg://nobody@127.0.0.1:1/none', [apps.evolution('a')])
    with pytest.raises(StoreAway):
        made.evolver.run()


def test_overview_moves_nothing_and_names_what_keeps_it_from_beginning(site, url):
    site(url, [apps.evolution('a')]).evolver.run()
    made = site(url, [apps.evolution('a')], options={'namespace': 'another'})
    before = made.gate.verdict
    overview = made.evolver.overview()
    assert overview.verdict.reason.value == 'other-namespace'
    assert 'gearbox evolve claim' in overview.verdict.detail
    assert made.gate.verdict is before


def test_overview_has_the_message_of_who_closed_the_gate(site, url):
    made = site(url, [])
    records(made).down('back at noon')
    assert made.evolver.overview().verdict.message == 'back at noon'
