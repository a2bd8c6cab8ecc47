"""What operators see of each evolution, from plan and history alone."""

from __future__ import annotations

import pytest

from tgext.evolve.agenda import Agenda, judge
from tgext.evolve.history import History, State
from tgext.evolve.overview import Overview
from tgext.evolve.plan import Plan
from tgext.evolve.policy import RetryPolicy
from tgext.evolve.stores.base import LeaseRow, Report, Requests, Snapshot

from .making import at, ids, one

NOW = 100_000


def lease(*, alive=True, report=None, paused=None):
    expires = NOW + 5_000 if alive else NOW - 1
    return LeaseRow(7, 'owner', 'host', 42, 10_000, expires, NOW, report or Report(), Requests(paused))


def overview(evolutions, *attempts, lease=None):
    plan, history, policy = Plan(evolutions), History(attempts), RetryPolicy()
    agenda = Agenda.of(plan, history, policy, NOW)
    alive = lease is not None and lease.alive
    verdict = judge(plan, agenda, history, lease_alive=alive)
    return Overview.of(plan, Snapshot(history, lease, NOW), agenda, verdict, policy)


def states(seen):
    return {entry.id: entry.state for entry in seen.entries}


def whys(seen):
    return {entry.id: entry.why for entry in seen.entries}


def test_what_is_done_comes_first_and_the_rest_in_the_order_in_which_it_will_run():
    seen = overview([one('a', serving='everything'), one('b'), one('c')], at('c'))
    assert ids(seen.entries) == ['c', 'b', 'a']
    assert ids(seen.pending) == ['b', 'a']


@pytest.mark.parametrize('state', ['done', 'stamped', 'imported'])
def test_a_settled_one_has_its_state_and_no_why(state):
    [entry] = overview([one('a')], at('a', state)).entries
    assert (entry.state, entry.why, entry.is_settled, entry.held) == (state, '', True, False)
    assert entry.counts is not None
    assert entry.counts.state.value == state


def test_the_attempt_that_counts_is_the_good_one():
    attempts = [at('a', 'failed', attempt=1), at('a', attempt=2, started=1_000, finished=3_500)]
    [entry] = overview([one('a')], *attempts).entries
    assert entry.counts is attempts[1]
    assert entry.seconds == 2.5
    assert len(entry.attempts) == 2


def test_code_that_changed_since_it_ran():
    seen = overview([one('a'), one('b'), one('c'), one('d')], at('a'), at('b', code='older'), at('c', 'stamped'))
    assert [entry.changed for entry in seen.entries] == [False, True, None, None]


def test_pending_ones_say_what_they_wait_for():
    seen = overview([one('a'), one('b', depends_on=('a',)), one('c')])
    assert whys(seen) == {'a': 'is next', 'b': "depends on 'a'", 'c': 'not run yet'}
    assert not any(entry.held for entry in seen.entries)


def test_a_failed_one_needs_a_person_and_holds_the_others():
    seen = overview([one('a'), one('b'), one('c', depends_on=('a',))], at('a', 'failed', finished=1))
    assert states(seen) == {'a': 'failed', 'b': 'pending', 'c': 'pending'}
    first, second, third = seen.entries
    assert first.needs_a_person
    assert first.why.startswith('it raised')
    assert second.why == "stands after 'a'"
    assert third.why == "depends on 'a'"
    assert all(entry.held for entry in seen.entries)


def test_one_that_will_be_tried_again_says_when():
    [entry] = overview([one('a', rerunnable=True)], at('a', 'failed', finished=NOW - 1_000)).entries
    assert entry.state == 'pending'
    assert not entry.needs_a_person
    assert entry.after == NOW + 4_000
    assert 'attempt 2 of 5' in entry.why


def test_a_cancelled_one_needs_a_person():
    [entry] = overview([one('a')], at('a', 'cancelled', finished=1)).entries
    assert (entry.state, entry.why, entry.needs_a_person) == ('cancelled', 'a person cancelled it', True)


def test_one_that_a_person_asked_to_retry_is_pending():
    [entry] = overview([one('a')], at('a', 'failed', code=None)).entries
    assert (entry.state, entry.why) == ('pending', 'a person asked for another attempt')


def test_one_that_runs_has_its_progress():
    report = Report('a', 25.0, 100.0, 'pages', NOW - 2_000)
    seen = overview([one('a')], at('a', 'running', started=NOW - 3_000), lease=lease(report=report))
    [entry] = seen.entries
    assert (entry.state, entry.why, entry.seconds) == ('running', '', 3.0)
    assert entry.progress is not None
    assert (entry.progress.fraction, entry.progress.elapsed) == (0.25, 2.0)
    assert seen.holder is not None


def test_progress_of_another_one_is_not_its_own():
    [entry] = overview([one('a')], at('a', 'running'), lease=lease(report=Report('b', 25.0, 100.0))).entries
    assert entry.progress is None


def test_one_that_runs_under_its_older_id():
    report = Report('old', 1.0, 2.0)
    [entry] = overview([one('new', replaces=('old',))], at('old', 'running'), lease=lease(report=report)).entries
    assert entry.state == 'running'
    assert entry.progress is not None


def test_one_whose_process_died_does_not_run():
    seen = overview([one('a')], at('a', 'running'), lease=lease(alive=False))
    [entry] = seen.entries
    assert entry.state == 'pending'
    assert 'died or was cut off' in entry.why
    assert seen.holder is None
    assert seen.lease is not None


def test_what_only_the_history_knows():
    seen = overview([one('a')], at('gone'), at('begun', 'failed'))
    assert {entry.id: entry.state for entry in seen.unknown} == {'begun': 'failed', 'gone': 'done'}
    assert all(entry.planned is None for entry in seen.unknown)
    assert ids(seen.entries) == ['a']


def test_find_knows_older_ids_and_what_only_the_history_knows():
    seen = overview([one('new', replaces=('old',))], at('gone'))
    assert seen.find('old') is seen.find('new')
    assert seen.find('old').id == 'new'
    assert seen.find('gone').state == 'done'
    assert seen.find('nowhere') is None


def test_paused_and_down():
    down = at('', 'down', started=5)
    seen = overview([one('a')], down, lease=lease(alive=False, paused=17))
    assert seen.paused == 17
    assert seen.down is not None
    assert seen.down.state is State.DOWN
    assert seen.verdict.reason.value == 'down'
    assert overview([one('a')]).paused is None
