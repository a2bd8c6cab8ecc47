"""Plan, gate, lease, history and verdict against plain Python that says the same in another way."""

from __future__ import annotations

import itertools
import tempfile
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.chaos.clock import Clock, on_this_clock
from tests.chaos.effort import effort
from tests.stores import open_store
from tests.unit.making import CODE, at, ids, naive_order, one, plans, written
from tgext.evolve.agenda import Agenda, judge
from tgext.evolve.gate import Gate, Reason, Serving, Verdict
from tgext.evolve.history import Attempt, History, State
from tgext.evolve.plan import Plan
from tgext.evolve.policy import RetryPolicy
from tgext.evolve.stores import ming as ming_store
from tgext.evolve.stores.base import Grant, Owner, Renewal, Report

#: The long form takes minutes, and making a failure small does too.
pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(900)]


LEVELS = ['nothing', 'reads', 'everything']


def strictest(levels) -> str:
    return LEVELS[min((LEVELS.index(level) for level in levels), default=2)]


# -- the plan, over many releases


class Releases(RuleBasedStateMachine):
    """A plan that is edited from release to release, and a database that has any part of it.

    Every set of applied evolutions is legal: what was inserted late runs, what was removed is ignored, reordering runs
    nothing again, and a new name keeps the record of the old one.
    """

    def __init__(self):
        super().__init__()
        self.written = []
        self.rows = []
        self.numbers = itertools.count()
        #: What is done in truth, by the id that the plan has for it now.
        self.done: set[str] = set()

    @rule(place=st.integers(0, 20), level=st.sampled_from(LEVELS), needs=st.lists(st.integers(0, 20), max_size=2))
    def insert(self, place, level, needs):
        needed = {self.written[number % len(self.written)].id for number in needs} if self.written else set()
        made = one(f'e{next(self.numbers)}', serving=level, depends_on=tuple(sorted(needed)))
        self.written.insert(place % (len(self.written) + 1), made)

    @rule(number=st.integers(0, 20))
    def remove(self, number):
        loose = [each for each in self.written if not any(set(each.names) & set(o.depends_on) for o in self.written)]
        if loose:
            gone = loose[number % len(loose)]
            self.written.remove(gone)
            self.done.discard(gone.id)

    @rule(data=st.data())
    def reorder(self, data):
        self.written = data.draw(st.permutations(self.written))

    @precondition(lambda self: self.written)
    @rule(number=st.integers(0, 20))
    def rename(self, number):
        """Others may go on depending on the old name."""
        place = number % len(self.written)
        old = self.written[place]
        new = one(
            f'e{next(self.numbers)}',
            serving=old.serving.value,
            depends_on=old.depends_on,
            replaces=(old.id, *old.replaces),
        )
        self.written[place] = new
        if old.id in self.done:
            self.done.remove(old.id)
            self.done.add(new.id)

    @rule(times=st.integers(1, 3))
    def run(self, times):
        for _ in range(times):
            agenda = Agenda.of(Plan(self.written), History(self.rows), RetryPolicy(), 0)
            if agenda.next is None:
                assert {each.id for each in self.written} == self.done
                return
            names = {name: each.id for each in self.written for name in each.names}
            assert agenda.next.id not in self.done
            assert {names[id] for id in agenda.next.depends_on} <= self.done
            self.rows.append(at(agenda.next.id, token=len(self.rows) + 1))
            self.done.add(agenda.next.id)

    @invariant()
    def what_is_left_is_exactly_what_is_not_done(self):
        plan, history = Plan(self.written), History(self.rows)
        assert set(ids(plan)) == {each.id for each in self.written}
        names = {name: each.id for each in self.written for name in each.names}
        by_its_own_name = [
            one(each.id, serving=each.serving.value, depends_on=tuple(names[id] for id in each.depends_on))
            for each in self.written
        ]
        assert ids(plan.pending(history)) == ids(naive_order(by_its_own_name, self.done))
        assert plan.unknown(history) == sorted({row.evolution_id for row in self.rows} - set(names))


def test_a_plan_stays_right_over_many_releases():
    run_state_machine_as_test(Releases, settings=effort(400, 25, stateful_step_count=25))


# -- the gate


class GateMachine(RuleBasedStateMachine):
    """Never passing unless it is open and armed; whoever waits is let through when it opens, and not before."""

    def __init__(self):
        super().__init__()
        self.gate = Gate()
        self.armed = False
        self.open = False
        self.waiting: list[tuple[threading.Thread, list[bool]]] = []

    @rule(serving=st.sampled_from(Serving), reason=st.sampled_from(Reason))
    def move(self, serving, reason):
        before = self.gate.verdict
        assert self.gate.move(Verdict(serving, reason)) is before
        self.open = serving is Serving.EVERYTHING
        if self.open:
            for thread, told in self.waiting:
                thread.join(20)
                assert told == [True]
            self.waiting = []

    @rule()
    def arm(self):
        self.gate.arm()
        self.armed = True

    @precondition(lambda self: not self.waiting)
    @rule()
    def fork(self):
        """The child has none of the parent's threads, and may have one of its locks."""
        self.gate._moved.acquire()
        self.gate.disarm()
        self.armed = False

    @precondition(lambda self: not self.open)
    @rule()
    def wait_for_it(self):
        told: list[bool] = []
        thread = threading.Thread(target=lambda: told.append(self.gate.wait(60)), daemon=True)
        thread.start()
        self.waiting.append((thread, told))

    @rule()
    def glance(self):
        assert self.gate.wait(0) is self.open

    @invariant()
    def it_passes_only_when_open_and_armed(self):
        assert self.gate.is_open is self.open
        assert self.gate.passing is (self.open and self.armed)
        assert all(not told for _, told in self.waiting)
        for method in ('GET', 'HEAD', 'OPTIONS', 'POST', 'DELETE'):
            level = self.gate.verdict.serving.value
            reads = level == 'reads' and method in ('GET', 'HEAD', 'OPTIONS')
            assert self.gate.verdict.lets_through(method) is (level == 'everything' or reads)

    def teardown(self):
        self.move(Serving.EVERYTHING, Reason.COMPLETE)


def test_a_gate_never_passes_unless_it_is_open_and_armed():
    run_state_machine_as_test(GateMachine, settings=effort(300, 25, stateful_step_count=20))


# -- lease and history


@dataclass
class Held:
    """The lease as plain Python has it."""

    owner: Owner
    token: int
    ttl: int
    expires_at: int
    report: Report = field(default_factory=Report)


Key = tuple[str, int, int]

IDS = ['a', 'A', 'b', 'c']
STEPS = [1, 300, 999, 1000, 1001, 2000, 4999, 5001, 9999, 10_000, 10_001, 60_000]


class StoreMachine(RuleBasedStateMachine):
    """A real store beside a model of it: any owner may do anything at any time, in any order, by any clock.

    The database's clock is in the test's hand, and far from the process's own.
    """

    grants = Bundle('grants')
    attempts = Bundle('attempts')

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.store = self.open()
        self.store.prepare()
        self.owners = [Owner() for _ in range(3)]
        self.lease: Held | None = None
        self.rows: dict[Key, Attempt] = {}
        self.errors: dict[Key, str | None] = {}
        self.tokens = [0]
        self.owner_of: dict[int, str] = {}
        #: The newest token under which older attempts were marked.
        self.marked = 0
        #: Attempts whose holder was sure of its lease after it had recorded them: only these really run.
        self.sure: set[Key] = set()

    def open(self):
        raise NotImplementedError

    # -- time

    @rule(milliseconds=st.sampled_from(STEPS))
    def time_goes_by(self, milliseconds):
        self.clock.now += milliseconds

    @rule(milliseconds=st.sampled_from(STEPS))
    def the_clock_jumps_back(self, milliseconds):
        self.clock.now -= milliseconds

    # -- the lease

    def _alive(self) -> bool:
        held = self.lease
        return held is not None and held.expires_at - held.ttl - 5000 <= self.clock.now < held.expires_at

    def _mine(self, grant: Grant) -> bool:
        return self.lease is not None and (self.lease.owner.id, self.lease.token) == (grant.owner.id, grant.token)

    def _acquire(self, owner: Owner, ttl: float) -> Grant | None:
        free = not self._alive() or (self.lease is not None and self.lease.owner.id == owner.id)
        grant = self.store.acquire(owner, ttl)
        assert (grant is not None) is free
        if grant is None:
            return None
        assert grant.owner is owner
        assert grant.token > max(self.tokens), 'tokens must grow'
        assert (
            grant.token
            == (self.lease.token if self.lease else max([0, *(row.token for row in self.rows.values())])) + 1
        )
        self.tokens.append(grant.token)
        self.owner_of[grant.token] = owner.id
        milliseconds = round(ttl * 1000)
        self.lease = Held(owner, grant.token, milliseconds, self.clock.now + milliseconds)
        return grant

    @rule(target=grants, number=st.integers(0, 2), ttl=st.sampled_from([1.0, 2.0, 10.0]))
    def acquire(self, number, ttl):
        grant = self._acquire(self.owners[number], ttl)
        return multiple() if grant is None else grant

    @rule(target=grants, number=st.integers(0, 2))
    def take_over(self, number):
        """As a runner begins: take it, then mark what is older, so that nothing of it can be recorded any more."""
        grant = self._acquire(self.owners[number], 10.0)
        if grant is None:
            return multiple()
        self.interrupt_older(grant)
        return grant

    @rule(grant=grants, ttl=st.sampled_from([1.0, 10.0]), done=st.none() | st.integers(0, 9))
    def renew(self, grant, ttl, done):
        report = Report('a', done, None, None if done is None else f'$at {done}', self.clock.now)
        renewal = self.store.renew(grant, ttl, report)
        assert renewal is (Renewal.KEPT if self._mine(grant) else Renewal.LOST)
        if renewal is Renewal.KEPT:
            milliseconds = round(ttl * 1000)
            self.lease = Held(grant.owner, grant.token, milliseconds, self.clock.now + milliseconds, report)

    @rule(grant=grants)
    def release(self, grant):
        self.store.release(grant)
        if self._mine(grant):
            self.lease.expires_at = 0
            self.lease.report = Report()

    @precondition(lambda self: self.lease and self.lease.token == max((r.token for r in self.rows.values()), default=0))
    @rule(target=grants, number=st.integers(0, 2))
    def somebody_deletes_the_lease(self, number):
        """The next holder's token still is above all that are on record."""
        self.delete_lease()
        self.lease = None
        return self._acquire(self.owners[number], 10.0)

    def delete_lease(self):
        raise NotImplementedError

    # -- the history

    @rule(target=attempts, grant=grants, id=st.sampled_from(IDS), sure=st.booleans(), level=st.sampled_from(LEVELS))
    def begin(self, grant, id, sure, level):
        number = max((row.attempt for row in self.rows.values() if row.evolution_id == id), default=0) + 1
        attempt = self.store.begin(grant, one(id, serving=level), number, CODE)
        expected = Attempt(
            id,
            number,
            grant.token,
            grant.owner.id,
            State.RUNNING,
            serving=level,
            fingerprint=CODE,
            host=grant.owner.host,
            pid=grant.owner.pid,
            started=self.clock.now,
        )
        assert attempt == expected
        key = (id, grant.token, number)
        self.rows[key] = attempt
        self.errors[key] = None
        if sure:
            # As the runner does: only who is sure of the lease afterwards runs anything.
            mine = self._mine(grant)
            self.renew(grant, 10.0, None)
            if mine:
                self.sure.add(key)
        return key

    @rule(grant=grants)
    def interrupt_older(self, grant):
        older = [key for key, row in self.rows.items() if row.state is State.RUNNING and row.token < grant.token]
        found = self.store.interrupt_older(grant)
        assert sorted(_key(attempt) for attempt in found) == sorted(older)
        assert {attempt.state for attempt in found} <= {State.RUNNING}
        for key in older:
            self._change(key, state=State.INTERRUPTED, reached=0)
            self.errors[key] = f'interrupted: its process died or lost the lease; {grant.owner} took over'
        self.marked = max(self.marked, grant.token)

    def _change(self, key, **values):
        self.rows[key] = replace(self.rows[key], **values)

    @rule(
        key=attempts,
        state=st.sampled_from([State.DONE, State.DONE, State.FAILED, State.INTERRUPTED, State.CANCELLED]),
        error=st.none() | st.sampled_from(['Traceback: $boom', '']),
    )
    def finish(self, key, state, error):
        row = self.rows.get(key)
        recorded = self.store.finish(self._attempt_at(key), state, error)
        if row is not None and row.state is state:
            # A store may say yes when just this is recorded already: the answer of an earlier try may be lost.
            assert recorded in (True, False)
            return
        assert recorded is (row is not None and row.state is State.RUNNING)
        if recorded:
            assert key not in self.sure or key[1] >= self.marked, 'a deposed holder recorded something'
            reached = None if state is State.DONE else 0
            self._change(key, state=state, finished=self.clock.now, reached=reached)
            self.errors[key] = error

    def _attempt_at(self, key) -> Attempt:
        """What who began it still knows of it."""
        return Attempt(key[0], key[2], key[1], self.owner_of[key[1]], State.RUNNING)

    @rule(key=consumes(attempts))
    def withdraw(self, key):
        row = self.rows.get(key)
        self.store.withdraw(self._attempt_at(key))
        if row is not None and row.state is State.RUNNING:
            del self.rows[key]
            self.sure.discard(key)

    @rule(
        grant=grants,
        chosen=st.lists(st.sampled_from(IDS), max_size=3),
        state=st.sampled_from([State.STAMPED, State.IMPORTED]),
    )
    def settle(self, grant, chosen, state):
        known = self._settled()
        self.store.settle(grant, chosen, state)
        for id in set(chosen) - known:
            key = (id, grant.token, 0)
            self.rows[key] = Attempt(
                id,
                0,
                grant.token,
                grant.owner.id,
                state,
                host=grant.owner.host,
                pid=grant.owner.pid,
                started=self.clock.now,
                finished=self.clock.now,
            )
            self.errors[key] = None

    def _settled(self) -> set[str]:
        settled = (State.DONE, State.STAMPED, State.IMPORTED)
        return {row.evolution_id for row in self.rows.values() if row.state in settled}

    @rule(grant=grants, chosen=st.lists(st.sampled_from(IDS), max_size=3))
    def unsettle(self, grant, chosen):
        self.store.unsettle(grant, chosen)
        by_hand = (State.STAMPED, State.IMPORTED)
        self.rows = {
            key: row for key, row in self.rows.items() if row.evolution_id not in chosen or row.state not in by_hand
        }

    @rule(chosen=st.lists(st.sampled_from(IDS), max_size=3, unique=True))
    def forgive(self, chosen):
        unlucky = (State.FAILED, State.CANCELLED, State.INTERRUPTED)
        hit = [
            key
            for key, row in self.rows.items()
            if row.evolution_id in chosen and row.state in unlucky and row.fingerprint is not None
        ]
        assert self.store.forgive(chosen) == len(hit)
        for key in hit:
            self._change(key, fingerprint=None)

    # -- what both say

    @invariant()
    def the_store_says_what_the_model_says(self):
        snapshot = self.store.snapshot()
        assert snapshot.now == self.clock.now
        found = {_key(attempt): attempt for attempt in snapshot.history.attempts}
        assert len(found) == len(snapshot.history.attempts)
        assert found == self.rows
        assert snapshot.history.settled == self._settled()
        row = snapshot.lease
        if self.lease is None:
            assert row is None
            return
        assert (row.owner, row.token, row.ttl, row.expires_at, row.report, row.alive) == (
            self.lease.owner.id,
            self.lease.token,
            self.lease.ttl,
            self.lease.expires_at,
            self.lease.report,
            self._alive(),
        )

    def teardown(self):
        for key, row in self.rows.items():
            assert self.store.error_of(row) == self.errors[key]
        self.store.close()


def _key(attempt: Attempt) -> Key:
    return attempt.evolution_id, attempt.token, attempt.attempt


class SQLiteMachine(StoreMachine):
    def open(self):
        self.directory = tempfile.TemporaryDirectory()
        store = open_store(f'sqlite:///{Path(self.directory.name, "evolve.db")}')
        on_this_clock(store, self.clock)
        return store

    def delete_lease(self):
        with self.store._engine.connect() as connection:
            connection.exec_driver_sql('DELETE FROM tgext_evolve_lease')

    def teardown(self):
        super().teardown()
        self.directory.cleanup()


class MimMachine(StoreMachine):
    numbers = itertools.count()

    def open(self):
        self.patched = mock.patch.object(ming_store, '_client_now', self.clock.milliseconds)
        self.patched.start()
        return open_store(f'mim:///models_{next(self.numbers)}')

    def delete_lease(self):
        self.store._database.tgext_evolve_lease.drop()

    def teardown(self):
        super().teardown()
        self.patched.stop()


@pytest.mark.parametrize('machine', [SQLiteMachine, MimMachine])
def test_a_store_does_what_its_model_does_whoever_comes_in_whatever_order(machine):
    run_state_machine_as_test(machine, settings=effort(600, 25, stateful_step_count=40))


# -- the verdict


def rows_of(names):
    """Attempts of any fate at any of these, by this release or another."""
    row = st.builds(
        at,
        st.sampled_from(names),
        st.sampled_from([state for state in State if state is not State.DOWN]),
        token=st.integers(1, 9),
        attempt=st.integers(1, 9),
        code=st.sampled_from([CODE, 'other', None]),
        serving=st.sampled_from(LEVELS),
        started=st.just(0),
        finished=st.none() | st.integers(0, 10_000),
    )
    return st.lists(row, max_size=12, unique_by=lambda row: (row.evolution_id, row.token, row.attempt))


@given(plans(most=6), st.data())
@effort(4000, 150)
def test_a_gate_is_open_exactly_when_all_that_closes_it_is_done(plan, data):
    renamed = [
        one(
            each.id,
            serving=each.serving.value,
            depends_on=each.depends_on,
            replaces=(f'old-{each.id}',) if data.draw(st.booleans()) else (),
        )
        for each in plan.written
    ]
    plan = Plan(renamed)
    names = [*ids(plan), *(f'old-{id}' for id in ids(plan)), 'newer', 'newest']
    rows = data.draw(rows_of(names))
    history = History(rows)
    now = data.draw(st.sampled_from([0, 5000, 20_000]))
    refuse, open_on_failure, lease_alive = (data.draw(st.booleans()) for _ in range(3))
    agenda = Agenda.of(plan, history, RetryPolicy(), now)
    verdict = judge(
        plan, agenda, history, lease_alive=lease_alive, open_on_failure=open_on_failure, refuse_unknown=refuse
    )

    # The oracle. Nothing of it asks whether the lease is free.
    done = {row.evolution_id for row in rows if row.state.value in ('done', 'stamped', 'imported')}
    left = [each for each in renamed if not {each.id, *each.replaces} & done]
    own = strictest(each.serving.value for each in left)
    mine = {name for each in renamed for name in each.names}
    newer = {}
    for row in sorted(rows, key=lambda row: (row.token, row.attempt)):
        if row.evolution_id not in mine | done:
            newer[row.evolution_id] = row
    begun = [
        row.serving for row in newer.values() if not open_on_failure or row.state.value not in ('failed', 'cancelled')
    ]
    if open_on_failure and agenda.given_up:
        assert all(each.id in agenda.held for each in left)
        own = 'everything'
    expected = strictest([own, *begun])
    if refuse and {row.evolution_id for row in rows} - mine:
        expected = 'nothing'
    assert verdict.serving.value == expected
    assert [each.id for each in left] == [each.id for each in renamed if each in agenda.pending]


@given(written(most=6), st.data())
@effort(1000, 40)
def test_what_is_recorded_never_closes_what_was_open_and_nothing_is_asked_for_twice(evolutions, data):
    """One evolution after the other is done: levels only get laxer, and the last one opens."""
    plan = Plan(evolutions)
    rows, levels = [], []
    while True:
        history = History(rows)
        agenda = Agenda.of(plan, history, RetryPolicy(), 0)
        levels.append(LEVELS.index(judge(plan, agenda, history, lease_alive=data.draw(st.booleans())).serving.value))
        if agenda.next is None:
            break
        assert agenda.next.id not in history.ids
        rows.append(at(agenda.next.id, data.draw(st.sampled_from(['done', 'stamped', 'imported'])), token=len(rows)))
    assert len(rows) == len(plan)
    assert levels[-1] == 2
    if not any(each.depends_on for each in evolutions):
        assert levels == sorted(levels)
