"""One application's story in this process: look, run or wait, open the gate."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from enum import Enum

from .agenda import Agenda, judge
from .arrival import Arrival
from .batches import Around, Batches, count
from .errors import (
    EvolutionFailed,
    EvolveError,
    PlanError,
    StoreAway,
    StoreBusy,
    StoreError,
)
from .events import Event, Listeners, What, fields
from .gate import Gate, Progress, Reason, Serving, Verdict
from .history import Attempt, History, State
from .lease import Lease
from .leaving import Leaving, leave_at_exit
from .ledger import Ledger
from .options import Options
from .overview import Overview
from .plan import Plan, PlannedEvolution
from .points import point
from .policy import RetryPolicy
from .processes import forget_after_fork, threads_run
from .runner import Outcome, Runner
from .stores.base import Checkpoint, LeaseRow, Owner, Snapshot, Store

log = logging.getLogger(__name__)

#: After how many seconds a process that still gets requests has evidently not ended.
_STAYED = 60.0

#: Which part of ``watch`` passes between two looks, at most: the looks themselves take time as well.
_IN_TIME = 0.75

#: The longest pause between two tries while the database is away, in seconds.
_LONGEST_PAUSE = 5.0


class Ended(Enum):
    """How :meth:`Evolver.run` ended."""

    #: Everything that was to run is done.
    DONE = 'done'
    #: Only a person can go on: the verdict of the gate says why.
    STUCK = 'stuck'
    #: Somebody else holds the lease, and was waited for long enough.
    TAKEN = 'taken'
    #: A person asked that nothing begins.
    PAUSED = 'paused'
    #: This process was told to leave.
    LEFT = 'left'


class Evolver:
    """Finds out what is pending, runs it or waits for who does, and moves the gate.

    :param around: entered around each evolution; the glue gives the thread its configuration.
    :param application: how another process makes the application, for partitions that it works on.
    """

    def __init__(
        self,
        options: Options,
        plan: Plan,
        store: Store,
        around: Around = nullcontext,
        application: str | None = None,
    ):
        self.options = options
        self.plan = plan
        self.store = store
        self.ledger = Ledger(plan, store)
        self.gate = Gate()
        #: Told what happens in this process, see :class:`tgext.evolve.events.Event`.
        self.listeners = Listeners()
        self.around = around
        self._application = application
        self._policy = RetryPolicy(options.max_attempts, options.retry_delay)
        self._arrival = Arrival(plan, store, options.namespace)
        self._warned: set[str] = set()
        self._said: tuple[Attempt | None, str] = (None, '')
        self._had_history = False
        #: Was it said that the database gives no answer, though the gate is open?
        self._in_trouble = False
        self._pending = True
        #: What listeners know of the gate of this process; None: nothing yet.
        self._told_open: bool | None = None
        self._telling = threading.RLock()
        self._thread: threading.Thread | None = None
        self._started_in: int | None = None
        self._owner: Owner | None = None
        self._forget_parent()
        forget_after_fork(self)
        for warning in plan.warnings:
            log.warning('%s', warning)

    # -- looking

    def look(self) -> Verdict:
        """One read query, and the gate moves by what it says. Nothing is written."""
        try:
            history = self.ledger.history()
            agenda = self._agenda(history, now=0)
            if not agenda.pending and not agenda.newer:
                return self._judge(history, agenda, lease=None)
            return self._judge_snapshot(self.ledger.snapshot())
        except StoreError as error:
            return self._cannot(error)
        finally:
            # A preloading server forks after this: no connection may be shared with a child.
            self.store.close()

    def _agenda(self, history: History, now: int) -> Agenda:
        return Agenda.of(self.plan, history, self._policy, now)

    def _judge_snapshot(self, snapshot: Snapshot) -> Verdict:
        agenda = self._agenda(snapshot.history, snapshot.now)
        return self._judge(snapshot.history, agenda, snapshot.lease)

    def _judge(self, history: History, agenda: Agenda, lease: LeaseRow | None) -> Verdict:
        alive = lease is not None and lease.alive
        if self._in_trouble:
            self._in_trouble = False
            log.info('[%s] the database answers again', self.options.namespace, extra=fields(self.options.namespace))
        verdict = self._verdict(history, agenda, lease)
        if history.down is not None:
            verdict = replace(verdict, message=self._message_of(history.down))
        elif verdict.reason is Reason.PENDING:
            if self.gate.verdict.reason in _BEFORE_BEGINNING and not alive:
                # What kept us from beginning is looked at again when we try to.
                return self.gate.verdict
            if alive and self._is_mine(lease):
                verdict = replace(verdict, reason=Reason.RUNNING)
            elif self.options.mode == 'wait':
                verdict = replace(verdict, reason=Reason.WAITING)
        if alive and verdict.serving is Serving.EVERYTHING and self.gate.verdict.reason is Reason.NEWER_RELEASE:
            # The newer release is between two of its evolutions.
            return self.gate.verdict
        self._warn_of_unknown(history)
        self._had_history = self._had_history or bool(history.recorded)
        self._pending = bool(agenda.pending)
        return self._move(verdict)

    def _verdict(self, history: History, agenda: Agenda, lease: LeaseRow | None) -> Verdict:
        alive = lease is not None and lease.alive
        return judge(
            self.plan,
            agenda,
            history,
            lease_alive=alive,
            progress=_progress(lease) if alive else None,
            paused=lease is not None and lease.requests.paused is not None,
            open_on_failure=self.options.on_failure == 'open',
            refuse_unknown=self.options.unknown == 'refuse',
        )

    def overview(self) -> Overview:
        """The plan against the history, for operators, by one look. The gate does not move.

        :raises StoreError: when the database cannot be looked at.
        """
        try:
            snapshot = self.ledger.snapshot()
            history = snapshot.history
            agenda = self._agenda(history, snapshot.now)
            verdict = self._verdict(history, agenda, snapshot.lease)
            if history.down is not None:
                verdict = replace(verdict, message=self._message_of(history.down))
            elif agenda.pending:
                # What keeps us from beginning is no part of the history: it has to be looked for.
                verdict = self._arrival.obstacle(snapshot, had_history=False) or verdict
        finally:
            if not self._watches():
                self.store.close()
        return Overview.of(self.plan, snapshot, agenda, verdict, self._policy)

    def count(self, id: str) -> int | None:
        """How many items of a batched evolution are left to be processed; None where that cannot be told.

        :raises PlanError: when there is no such evolution.
        """
        planned = self._find(id)
        if not planned.batched:
            counts = getattr(planned.evolution, 'count', None)
            return counts() if callable(counts) else None
        with self.around():
            return count(self.store, planned.evolution)

    def dry_run(self, id: str) -> int:
        """Process one batch of a batched evolution and roll it back; how many items it had.

        :raises PlanError: when there is no such evolution, or it is not batched, or nothing can be rolled back here.
        """
        planned = self._find(id)
        refusal = self.store.keeps(planned) if planned.batched else 'it is not batched'
        if refusal is not None:
            raise PlanError(
                f'{id!r} cannot be tried: {refusal}',
                place=planned.origin,
                remedy='Only batches in a transaction can be processed and rolled back.',
            )
        known = [each for each in self.store.checkpoints(id) if not each.finished]
        nobody = Attempt(id, 0, 0, 'dry run', State.RUNNING)
        return Batches(self.store, planned, nobody, self.around).try_one(known[0] if known else Checkpoint(0))

    def _find(self, id: str) -> PlannedEvolution:
        planned = self.plan.find(id)
        if planned is None:
            raise PlanError(f'there is no evolution {id!r}', place='the plan', remedy='Use an id of the plan.')
        return planned

    def _message_of(self, down: Attempt) -> str:
        """What the person who closed the gate wants the public to read; asked for once."""
        if self._said[0] != down:
            self._said = (down, self.store.error_of(down) or '')
        return self._said[1]

    def _warn_of_unknown(self, history: History) -> None:
        if self.options.unknown != 'warn':
            return
        new = [id for id in self.plan.unknown(history) if id not in self._warned]
        if new:
            self._warned.update(new)
            log.warning(
                '[%s] the history in %s knows evolutions that this release does not: %s. They were '
                'removed, or a newer release was here (tgext.evolve.unknown = ignore or refuse)',
                self.options.namespace,
                self.store.name,
                ', '.join(map(repr, new)),
            )

    def _cannot(self, error: EvolveError) -> Verdict:
        """The database does not say what may be served: closed, unless it was open before."""
        if self.gate.is_open:
            # What was known to be done stays done.
            if not self._in_trouble:
                self._in_trouble = True
                log.warning(
                    '[%s] what is open stays open, but %s',
                    self.options.namespace,
                    error,
                    extra=fields(self.options.namespace),
                )
            return self.gate.verdict
        reason = Reason.DATABASE_REFUSES
        if isinstance(error, StoreAway):
            reason = Reason.DATABASE_AWAY
        elif isinstance(error, StoreBusy):
            reason = Reason.DATABASE_BUSY
        return self._move(Verdict(Serving.NOTHING, reason, detail=str(error)))

    def _move(self, verdict: Verdict) -> Verdict:
        before = self.gate.verdict
        if _told(before) != _told(verdict):
            level = logging.WARNING
            closed = verdict.serving is not Serving.EVERYTHING
            if before.reason is Reason.RETRYING and verdict.reason in _GOOD_REASONS and closed:
                level = logging.DEBUG  # the attempts themselves are logged
            elif verdict.reason in _GOOD_REASONS:
                level = logging.INFO
            elif verdict.reason in _BAD_REASONS and verdict.serving is Serving.NOTHING:
                level = logging.ERROR
            log.log(
                level,
                '[%s] may serve %s: %s%s',
                self.options.namespace,
                verdict.serving.value,
                verdict.reason.value,
                f' ({verdict.detail})' if verdict.detail else '',
                extra=fields(self.options.namespace, event='gate', reason=verdict.reason.value),
            )
        # After it was said: whoever sees the gate moved finds out why.
        self.gate.move(verdict)
        self._tell_gate()
        return verdict

    def _tell_gate(self) -> None:
        """Whoever listens hears where the gate of this process stands, once it serves.

        What only looks (a shell, a command, the master of a preloading server) has no gate that
        anybody passes.
        """
        if not self._serves:
            return
        with self._telling:
            verdict = self.gate.verdict
            is_open = verdict.serving is Serving.EVERYTHING
            if is_open is self._told_open:
                return
            self._told_open = is_open
            what = What.OPENED if is_open else What.CLOSED
            self.listeners(Event(what, self.options.namespace, verdict=verdict))

    # -- starting

    def start(self) -> None:
        """Begin to run or wait in this process; once per process, also after a fork."""
        if self._started_in == os.getpid() or not self._starting.acquire(blocking=False):
            return
        try:
            if self._started_in == os.getpid():
                return
            self._begin_process()
            self._serves = True
            if not self.store.threads or (self.options.mode == 'blocking' and not self.gate.is_open):
                self._run_here()
            if not self.store.threads:
                pass  # no other thread would see this database
            elif not threads_run():
                if not self.gate.is_open:
                    log.error(_NO_THREADS, self.options.namespace, extra=fields(self.options.namespace))
            elif self.options.watch or self._pending or not self.gate.is_open:
                self._thread = threading.Thread(
                    target=self._main, name=f'tgext.evolve {self.options.namespace}', daemon=True
                )
                self._thread.start()
            self._started_in = os.getpid()
            self.gate.arm()
            if self._thread is None:
                self._tell_gate()
        finally:
            self._starting.release()

    def _begin_process(self) -> None:
        self._owner = Owner()
        self.store.close()
        leave_at_exit(self)

    def _forget_parent(self) -> None:
        """Nothing of this is shared with the process that this one was forked from."""
        self._leaving = Leaving()
        self._left_at: float | None = None
        self._starting = threading.Lock()
        self._thread = None
        self._started_in = None
        self._owner = None
        self._glanced = 0.0
        self._serves = False
        self._told_open = None
        self._telling = threading.RLock()
        self.gate.disarm()

    def after_fork(self) -> None:
        """In a child that a recognised server has just forked."""
        self._forget_parent()
        self.start()

    def ensure_started(self) -> None:
        """At a request while the gate is closed, and at the first one of a process."""
        if self._has_ended_early():
            self._started_in = None
        if self._started_in != os.getpid():
            self.start()
        if self._thread is None and not self.gate.is_open:
            self._glance()

    def _has_ended_early(self) -> bool:
        """The thread is gone, and nobody would ever open the gate.

        A process that was told to leave and goes on serving long after that did not mean it.
        """
        thread = self._thread
        if thread is None or thread.is_alive() or self.gate.is_open or self._started_in != os.getpid():
            return False
        if self._left_at is not None and time.monotonic() - self._left_at < _STAYED:
            return False
        self._left_at = None
        self._leaving = Leaving()
        return True

    def _glance(self) -> None:
        """No thread looks here, so the closed path does: at most once per ``poll``."""
        now = time.monotonic()
        if now - self._glanced >= self.options.poll and self._starting.acquire(blocking=False):
            try:
                self._glanced = now
                self.look()
            finally:
                self._starting.release()

    # -- waiting elsewhere

    def is_open_now(self) -> bool:
        """May everything be served? Where no thread keeps the gate up to date, by one look."""
        if self._watches():
            return self.gate.is_open
        return self.look().serving is Serving.EVERYTHING

    def _watches(self) -> bool:
        return self._started_in == os.getpid() and self._thread is not None and self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything may be served; False when ``timeout`` (seconds) ran out."""
        if self._watches():
            return self.gate.wait(timeout)
        until = None if timeout is None else time.monotonic() + timeout
        while not self.is_open_now():
            left = self.options.poll if until is None else min(self.options.poll, until - time.monotonic())
            if left <= 0:
                return False
            time.sleep(left)
        return True

    # -- running and waiting

    def _main(self) -> None:
        """The background thread: turn after turn until nothing can change any more."""
        leaving = self._leaving
        away = self.options.poll
        self._tell_gate()
        while not leaving.is_set():
            pause: float | None
            try:
                pause = self._turn()
                away = self.options.poll
            except StoreBusy as busy:
                # The database itself has waited already, for as long as it is patient.
                self._cannot(busy)
                pause = self.options.poll
            except StoreError as error:
                self._cannot(error)
                pause = away = min(away * 2, _LONGEST_PAUSE)
            except Exception:
                log.exception(
                    '[%s] unexpected; it is tried again', self.options.namespace, extra=fields(self.options.namespace)
                )
                pause = away = min(away * 2, _LONGEST_PAUSE)
            if pause is None:
                break
            leaving.wait(pause * random.uniform(0.8, 1.0))
        self.store.close()

    def _turn(self) -> float | None:
        """One look and what follows from it.

        :returns: seconds until the next turn; None when there will be nothing to do.
        """
        snapshot = self.ledger.look_again()
        agenda = self._agenda(snapshot.history, snapshot.now)
        verdict = self._judge(snapshot.history, agenda, snapshot.lease)
        if agenda.next is not None and self._may_run(verdict, snapshot):
            outcome = self._take_and_run(snapshot)
            if outcome is Outcome.IDLE:
                return 0.0
            if outcome is Outcome.YIELDED:
                # Whoever asked looks again within its own poll.
                return max(1.0, 3 * self.options.poll)
        elif self.gate.is_open and not agenda.pending:
            # Between two far looks nothing is held.
            self.store.close()
            # A newer release announces itself for ``watch`` seconds: the next look must be over by then.
            return self.options.watch * _IN_TIME or None
        if agenda.wake_at is not None:
            return max(0.0, min((agenda.wake_at - snapshot.now) / 1000, self.options.poll))
        return self.options.poll

    def _may_run(self, verdict: Verdict, snapshot: Snapshot) -> bool:
        if snapshot.lease is not None and snapshot.lease.requests.paused is not None:
            return False
        return self.options.mode != 'wait' and verdict.reason is not Reason.UNKNOWN_EVOLUTIONS

    def _take_and_run(self, snapshot: Snapshot, plan: Plan | None = None) -> Outcome | None:
        """Take the lease if it is free and run what is pending; None when it was not taken.

        :param plan: the part of our own that is to be run; None: all of it.
        """
        if snapshot.lease is not None and snapshot.lease.alive and not self._is_mine(snapshot.lease):
            self._want(snapshot)
            return None
        if not self._may_begin(snapshot):
            return None
        if snapshot.lease is None or not snapshot.history:
            self.store.prepare()
        point('before-take')
        assert self._owner is not None
        try:
            lease = Lease.take(self.store, self._owner, self.options.lease)
        except StoreBusy as busy:
            if snapshot.lease is None:
                raise
            raise StoreBusy(
                f'{busy.thing}; the lease was last held by {snapshot.lease}',
                place=self.store.name,
                remedy='That process is waited for until it goes on or dies.',
            ) from busy
        if lease is None:
            return None
        point('after-take')
        with lease:
            if not self._arrive(lease):
                return None
            outcome = self._runner(plan or self.plan).run(lease)
            if outcome is Outcome.IDLE:
                # What is done is known: open before the lease is given back.
                self._judge_snapshot(self.ledger.snapshot())
            point('before-release')
        point('after-release')
        return outcome

    def _want(self, snapshot: Snapshot) -> None:
        """Ask the holder for the lease, if it runs what is laxer than what waits here: batches can be left."""
        lease = snapshot.lease
        agenda = self._agenda(snapshot.history, snapshot.now)
        if lease is None or agenda.next is None or self._owner is None:
            return
        runs = snapshot.history.latest(lease.report.evolution_id or '')
        if runs is None or runs.state is not State.RUNNING:
            return
        wanted = agenda.next.serving
        asked = lease.requests.wanted
        if wanted.rank >= Serving.strictest([runs.serving]).rank:
            return
        if asked is None or wanted.rank < Serving.strictest([asked]).rank:
            self.store.ask(self._owner, wanted=wanted.value)

    def _may_begin(self, snapshot: Snapshot) -> bool:
        """When nothing is recorded here: is that because the record stands elsewhere?"""
        obstacle = self._arrival.obstacle(snapshot, had_history=self._had_history)
        if obstacle is not None:
            self._move(obstacle)
        return obstacle is None

    def _arrive(self, lease: Lease) -> bool:
        """Under the lease: what was looked at before it was taken may have changed."""
        snapshot = self.ledger.snapshot()
        if not self._may_begin(snapshot):
            return False
        if not snapshot.history:
            self._arrival.import_predecessor(lease)
        return True

    def _runner(self, plan: Plan) -> Runner:
        return Runner(
            plan=plan,
            store=self.store,
            ledger=self.ledger,
            policy=self._policy,
            around=self.around,
            application=self._application,
            leaving=self._leaving,
            announce=self.options.watch,
            changed=self._judge_snapshot,
            notify=self.listeners,
            show=self.gate.show,
        )

    def _is_mine(self, lease: LeaseRow | None) -> bool:
        return lease is not None and self._owner is not None and lease.owner == self._owner.id

    def _run_here(self) -> bool:
        """Turn after turn in the calling thread; did the gate open?

        Comes back as well when only a person can change something.
        """
        while not self._leaving.is_set():
            pause: float | None
            try:
                pause = self._turn()
            except StoreBusy as busy:
                self._cannot(busy)
                pause = self.options.poll
            except StoreError as error:
                self._cannot(error)
                break
            if self.gate.is_open or self.gate.verdict.reason in _STUCK_REASONS:
                break
            if self.gate.verdict.reason is Reason.DOWN and not self._pending:
                break
            self._leaving.wait(self.options.poll if pause is None else pause)
        return self.gate.is_open

    def block(self) -> None:
        """``mode = blocking``: come back when the gate is open.

        :raises EvolutionFailed: when an evolution failed, the database is away, or something else
            that only a person can mend keeps the gate closed.
        """
        self._begin_process()
        if self._run_here():
            return
        verdict = self.gate.verdict
        if verdict.reason is Reason.DOWN and not self._pending:
            return  # nothing is wrong: it answers 503 until a person opens it
        if self.options.on_failure == 'open':
            self._move(replace(verdict, serving=Serving.EVERYTHING, reason=Reason.FAILURE_IGNORED))
            return
        raise EvolutionFailed(
            f'the application may not start, {verdict.reason.value}: {verdict.detail}',
            place=f'namespace {self.options.namespace!r} of {self.store.name}',
            remedy='Start it again when that is mended (the errors are in tgext_evolve_history), or '
            'set tgext.evolve.on_failure = open to serve all the same.',
        )

    # -- running in the foreground

    def run(self, *, until: str | None = None, patience: float = 0.0) -> Ended:
        """Run what is pending in the calling thread, whatever ``mode`` says: for a command in a deployment.

        What failed and may be tried again by itself is waited for. Nothing else of this process
        is touched: the gate moves, for who looks at it, and SIGTERM ends it in good order.

        :param until: run the plan up to and with this id; None: all of it.
        :param patience: how long to wait for somebody else who holds the lease, in seconds.
        :raises PlanError: when there is no such id.
        :raises StoreError: when the database is away or refuses.
        """
        plan = self.plan if until is None else self.plan.until(until)
        self._begin_process()
        waited_since: float | None = None
        while not self._leaving.is_set():
            snapshot = self.ledger.snapshot()
            agenda = Agenda.of(plan, snapshot.history, self._policy, snapshot.now)
            verdict = self._judge_snapshot(snapshot)
            if not agenda.pending:
                return Ended.DONE
            lease = snapshot.lease
            if lease is not None and lease.requests.paused is not None:
                return Ended.PAUSED
            if verdict.reason is Reason.UNKNOWN_EVOLUTIONS:
                return Ended.STUCK
            pause = self.options.poll
            if lease is not None and lease.alive and not self._is_mine(lease):
                waited_since = waited_since or time.monotonic()
                if time.monotonic() - waited_since >= patience:
                    return Ended.TAKEN
            elif agenda.next is not None:
                waited_since = None
                try:
                    if self._take_and_run(snapshot, plan) is Outcome.IDLE:
                        pause = 0.0
                    elif self.gate.verdict.reason in _BEFORE_BEGINNING:
                        return Ended.STUCK
                except StoreBusy as busy:
                    self._cannot(busy)
            elif agenda.given_up:
                return Ended.STUCK
            elif agenda.wake_at is not None:
                pause = max(0.0, min((agenda.wake_at - snapshot.now) / 1000, pause))
            self._leaving.wait(pause)
        return Ended.LEFT

    # -- leaving

    def leave(self) -> None:
        """The process ends: stop at the next possible moment. Does not wait."""
        self._left_at = time.monotonic()
        self._leaving.set()

    def join(self, patience: float) -> bool:
        """Wait until the evolver's thread has ended; it gives its lease back itself.

        A lease is never given back from elsewhere, where user code may still write: if the thread
        does not end in time, the lease expires by itself.

        :param patience: seconds.
        """
        thread = self._thread
        if thread is None or self._started_in != os.getpid() or thread is threading.current_thread():
            return True
        thread.join(patience)
        return not thread.is_alive()


_NO_THREADS = (
    '[%s] this uwsgi runs no threads, so evolutions cannot run in the background: start it with '
    '--enable-threads, or set tgext.evolve.mode = blocking. The gate stays closed until another '
    'process has run them.'
)

_GOOD_REASONS = frozenset({Reason.STARTING, Reason.PENDING, Reason.RUNNING, Reason.WAITING, Reason.COMPLETE})

#: What somebody has to mend. What a person did, a newer release does or is tried again by itself is
#: no error: it must wake nobody up.
_BAD_REASONS = frozenset(
    {
        Reason.FAILED,
        Reason.DATABASE_AWAY,
        Reason.DATABASE_REFUSES,
        Reason.PREDECESSOR,
        Reason.OTHER_NAMESPACE,
        Reason.UNKNOWN_EVOLUTIONS,
    }
)

#: What is found out only by trying to begin.
_BEFORE_BEGINNING = frozenset(
    {Reason.PREDECESSOR, Reason.OTHER_NAMESPACE, Reason.DATABASE_REFUSES, Reason.DATABASE_BUSY}
)

#: What does not change by itself while nobody does anything.
_STUCK_REASONS = frozenset(
    {
        Reason.FAILED,
        Reason.CANCELLED,
        Reason.PAUSED,
        Reason.PREDECESSOR,
        Reason.OTHER_NAMESPACE,
        Reason.UNKNOWN_EVOLUTIONS,
        Reason.DATABASE_REFUSES,
    }
)


def _told(verdict: Verdict) -> tuple[object, ...]:
    """What is logged again when it changes: of a newer release also *what* it began, which somebody has to stamp."""
    detail = verdict.detail if verdict.reason is Reason.NEWER_RELEASE else ''
    return verdict.serving, verdict.reason, verdict.message, detail


def _progress(lease: LeaseRow | None) -> Progress | None:
    if lease is None or lease.report.done is None:
        return None
    report = lease.report
    elapsed = None if report.since is None else max(0.0, (lease.now - report.since) / 1000)
    return Progress(report.done or 0.0, report.total, report.message, elapsed)
