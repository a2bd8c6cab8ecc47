"""Several processes of two releases in one: any step of any of them may be its last, or the one where another begins.

Nothing sleeps here. Each process is an evolver of its own with a connection of its own to one SQLite file, whose clock
is in the test's hand; between any two statements of a process another one may take its turn, the lease may run out,
the connection may break, or the answer to a statement may be lost.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.chaos.clock import Clock, on_this_clock
from tests.chaos.effort import effort
from tests.stores import open_store
from tests.unit.making import CODE, written
from tgext.evolve.errors import StoreAway, StoreError
from tgext.evolve.evolution import Evolution
from tgext.evolve.evolver import Evolver
from tgext.evolve.gate import Reason, Serving
from tgext.evolve.history import SETTLED, Attempt, State
from tgext.evolve.options import Options
from tgext.evolve.plan import Plan
from tgext.evolve.stores.sqlalchemy import SQLAlchemyStore
from tgext.evolve.stores.sqlalchemy.engines import own_engine

#: The long form takes minutes, and making a failure small does too.
pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(900)]

#: Seconds. So long that no heartbeat comes in between by itself.
LEASE = 1000.0


class Died(BaseException):
    """A process was killed in the middle of an evolution."""


class Cable(SQLAlchemyStore):
    """One process's store, which something may happen to at each use of the database."""

    def __init__(self, world: World, process: Process, url: str):
        super().__init__('testing', own_engine({'sqlalchemy.url': url}, 'sqlalchemy.'))
        self.world = world
        self.process = process
        self.away = False
        #: What happens at which use of the database, counted from here: number, before or after it, what.
        self.trouble: tuple[int, str, str] | None = None
        #: Something came in right after this process was told that it has the lease: it cannot know.
        self.unsure = False
        self.renewing = False

    def _run(self, operation, **kw):
        due = None
        if self.trouble is not None:
            number, when, what = self.trouble
            self.trouble = (number - 1, when, what) if number else None
            due = (when, what) if not number else None
        if due and due[0] == 'before':
            self._happen(due[1])
        if self.away:
            raise away()
        result = super()._run(operation, **kw)
        if due and due[0] == 'after':
            self._happen(due[1])
            self.unsure = self.renewing
            if due[1] == 'lost' or self.away:
                raise away()
        return result

    def _happen(self, what: str) -> None:
        if what == 'lost':
            self.away = True
            self.world.after_this_turn.append(self.process)
        elif what == 'others':
            self.world.somebody_else(self.process)
        else:
            self.world.let_the_lease_run_out()
            self.world.somebody_else(self.process)

    def renew(self, grant, ttl, report):
        self.unsure, self.renewing = False, True
        try:
            return super().renew(grant, ttl, report)
        finally:
            self.renewing = False


def away() -> StoreAway:
    return StoreAway('the cable is broken', place='the test', remedy='None.')


class Step(Evolution):
    def __init__(self, world: World, id: str):
        self.world = world
        self.evolution_id = id

    def evolve(self) -> None:
        self.world.evolves(self)


@dataclasses.dataclass(eq=False)
class Process:
    evolver: Evolver
    plan: Plan
    busy: bool = False

    @property
    def cable(self) -> Cable:
        store = self.evolver.store
        assert isinstance(store, Cable)
        return store


class World(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.url = f'sqlite:///{Path(self.directory.name, "evolve.db")}'
        self.clock = Clock()
        self.observer = open_store(self.url)
        on_this_clock(self.observer, self.clock)
        self.processes: list[Process] = []
        self.running: list[Process] = []
        self.script: list[str] = []
        self.after_this_turn: list[Process] = []
        #: What came to its end: id and token of the lease under which it began.
        self.ended: Counter[tuple[str, int]] = Counter()
        self.seen: dict[tuple[str, int, int], Attempt] = {}
        logging.disable(logging.CRITICAL)

    @initialize(old=written(most=3), new=written(most=3, ids=['x', 'y']), renames=st.booleans())
    def two_releases(self, old, new, renames):
        """The newer one has all of the older, under new names perhaps, and more."""
        renamed = [
            dataclasses.replace(
                each,
                id=f'{each.id}-renamed',
                replaces=(each.id,),
                depends_on=tuple(each.depends_on),
            )
            if renames and number == 0
            else each
            for number, each in enumerate(old)
        ]
        self.releases = [self._plan(old), self._plan([*renamed, *new])]
        self.start(0)
        self.start(1)

    def _plan(self, evolutions) -> Plan:
        made = []
        for each in evolutions:
            real = dataclasses.replace(each, evolution=Step(self, each.id), transactional=False)
            vars(real)['fingerprint'] = CODE
            made.append(real)
        return Plan(made)

    # -- processes

    @precondition(lambda self: len(self.processes) < 4)
    @rule(release=st.integers(0, 1))
    def start(self, release):
        process = Process.__new__(Process)
        options = Options(namespace='testing', lease=LEASE, watch=0.0, poll=0.1)
        cable = Cable(self, process, self.url)
        on_this_clock(cable, self.clock)

        @contextmanager
        def around():
            self.running.append(process)
            try:
                yield
            finally:
                self.running.remove(process)

        plan = self.releases[release]
        process.__init__(Evolver(options, plan, cable, around), plan)
        process.evolver._begin_process()
        self.processes.append(process)
        process.evolver.look()

    def _turn(self, process: Process) -> None:
        """As the evolver's own thread does it."""
        process.busy = True
        try:
            process.evolver._turn()
        except StoreError as error:
            process.evolver._cannot(error)
        except Died:
            pass
        finally:
            process.busy = False
            process.cable.trouble = None

    @precondition(lambda self: self.processes)
    @rule(
        number=st.integers(0, 3),
        script=st.lists(
            st.sampled_from(['others', 'expired', 'raise', 'die', 'cut', 'leave', 'progress', 'end']), max_size=4
        ),
        trouble=st.none()
        | st.tuples(
            st.integers(0, 14), st.sampled_from(['before', 'after']), st.sampled_from(['lost', 'others', 'expired'])
        ),
    )
    def turn(self, number, script, trouble):
        process = self.processes[number % len(self.processes)]
        self.script = script
        process.cable.trouble = trouble
        self._turn(process)
        self.script = []
        for each in self.after_this_turn:
            each.cable.away = False
        self.after_this_turn = []

    def somebody_else(self, than: Process) -> None:
        """In the middle of one process's step, another one takes its turn."""
        for other in self.processes:
            if other is not than and not other.busy and other.plan.order:
                self._turn(other)
                return

    @precondition(lambda self: self.processes)
    @rule(number=st.integers(0, 3))
    def look(self, number):
        self.processes[number % len(self.processes)].evolver.look()

    @precondition(lambda self: self.processes)
    @rule(number=st.integers(0, 3))
    def mend_its_connection(self, number):
        self.processes[number % len(self.processes)].cable.away = False

    @rule(milliseconds=st.sampled_from([1, 6_000, 90_000]))
    def time_goes_by(self, milliseconds):
        self.clock.now += milliseconds

    @rule()
    def let_the_lease_run_out(self):
        self.clock.now += round(LEASE * 1000) + 1

    @rule()
    def the_clock_jumps_back(self):
        self.clock.now -= 3_600_000

    @rule()
    def a_person_lets_all_be_tried_again(self):
        with suppress(StoreError):  # nothing was ever recorded
            self.observer.forgive([planned.id for plan in self.releases for planned in plan])

    # -- what runs

    def evolves(self, step: Step) -> None:
        process = self.running[-1]
        id = str(step.evolution_id)
        history, lease = self.observer.history(), self.observer.snapshot().lease
        assert lease is not None
        planned = process.plan.by_id[id]
        for needed in process.plan.dependencies[id]:
            assert self._is_settled(process.plan.by_id[needed], history.settled), f'{id} runs before {needed}'
        mine = [a for a in history.of(id) if a.owner == process.evolver._owner.id]
        assert mine, 'it runs without a record'
        token = mine[-1].token
        if not process.cable.unsure:
            assert (lease.owner, lease.token) == (mine[-1].owner, token), 'it runs without the lease'
            assert not self._is_settled(planned, history.settled), f'{id} runs again'
            running = [a for a in history.attempts if a.state is State.RUNNING]
            assert running == [mine[-1]], 'it runs beside another one'
        while self.script:
            action = self.script.pop(0)
            if action == 'end':
                break
            if action == 'others':
                self.somebody_else(process)
            elif action == 'expired':
                self.let_the_lease_run_out()
                self.somebody_else(process)
            elif action == 'progress':
                step.progress(1)
            elif action == 'raise':
                raise ValueError('this evolution fails')
            elif action == 'cut':
                process.cable.away = True
            elif action == 'leave':
                self.processes.remove(process)
                process.evolver.leave()
                step.progress(2)
                raise AssertionError('it was not told that its process leaves')
            elif action == 'die':
                self.processes.remove(process)
                process.cable.away = True
                raise Died
        self.ended[id, token] += 1

    @staticmethod
    def _is_settled(planned, settled) -> bool:
        return bool({planned.id, *planned.replaces} & settled)

    # -- what must always hold

    @invariant()
    def what_was_recorded_stays(self):
        history = self.observer.history()
        now = {(a.evolution_id, a.token, a.attempt): a for a in history.attempts}
        for key, before in self.seen.items():
            if before.state is State.RUNNING:
                continue
            after = now.get(key)
            assert after is not None, f'{key} has vanished'
            assert (before.state, before.finished) == (after.state, after.finished), f'{key} was changed'
        self.seen = now
        done = Counter(a.evolution_id for a in history.attempts if a.state in SETTLED)
        assert all(number == 1 for number in done.values()), f'recorded as done twice: {done}'
        for attempt in history.attempts:
            if attempt.state is State.DONE:
                assert self.ended[attempt.evolution_id, attempt.token] == 1, f'{attempt} never came to its end'
            if attempt.state is State.RUNNING:
                assert attempt.token <= self.observer.snapshot().lease.token

    @invariant()
    def nobody_serves_what_is_not_done(self):
        settled = self.observer.history().settled
        for process in self.processes:
            serving = process.evolver.gate.verdict.serving
            for planned in process.plan:
                if not self._is_settled(planned, settled):
                    assert serving.rank <= planned.serving.rank, f'{serving} before {planned.id!r} is done'

    def teardown(self):
        try:
            self._all_ends_well()
        finally:
            logging.disable(logging.NOTSET)
            self.directory.cleanup()

    def _all_ends_well(self) -> None:
        """When nothing is broken any more, all is done, and everybody serves everything."""
        if not hasattr(self, 'releases'):
            return
        self.script = []
        for process in self.processes:
            process.cable.away = False
        self.start(1)
        newest = self.processes[-1]
        for _ in range(12):
            self.let_the_lease_run_out()
            self.a_person_lets_all_be_tried_again()
            for process in self.processes:
                self._turn(process)
            if all(process.evolver.gate.verdict.reason is Reason.COMPLETE for process in self.processes):
                break
        for process in self.processes:
            verdict = process.evolver.gate.verdict
            if process.plan is self.releases[0] and self._was_begun_under_its_new_name():
                assert verdict.reason in (Reason.NEWER_RELEASE, Reason.COMPLETE)  # by what it may serve
                continue
            assert (verdict.serving, verdict.reason) == (Serving.EVERYTHING, Reason.COMPLETE)
        self.what_was_recorded_stays()
        self.nobody_serves_what_is_not_done()
        settled = self.observer.history().settled
        assert all(self._is_settled(planned, settled) for planned in newest.plan)
        # Who has nothing to do opens by looking, and writes nothing.
        before = self.observer.snapshot()
        self.start(1)
        assert self.processes[-1].evolver.gate.is_open
        after = self.observer.snapshot()
        assert (after.lease, after.history.attempts) == (before.lease, before.history.attempts)

    def _was_begun_under_its_new_name(self) -> bool:
        """The one that waits for a person: what the older release did itself was begun before by the newer one.

        To the older release that is another evolution, which never was done.
        """
        unsettled = {attempt.evolution_id for attempt in self.observer.history().unsettled()}
        return any(planned.replaces and planned.id in unsettled for planned in self.releases[1])


def test_whatever_happens_between_any_two_statements_nothing_is_lost_or_stuck_and_nobody_is_early():
    run_state_machine_as_test(World, settings=effort(600, 25, stateful_step_count=12))
