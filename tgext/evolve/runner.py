"""Runs what is pending, under a lease."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from enum import Enum

from . import failure
from .agenda import Agenda
from .batches import Around
from .errors import (
    BrokeTransaction,
    Cancelled,
    CancelledByHand,
    LeaseLost,
    Paused,
    StoreAway,
    StoreBusy,
    TimedOut,
    Yielded,
)
from .events import Event, Listener, What, fields
from .evolution import running
from .gate import Progress, Serving
from .history import Attempt, History, State
from .lease import Lease
from .leaving import Leaving
from .ledger import Ledger
from .partitions import Conductor, Sum
from .plan import Plan, PlannedEvolution
from .points import point
from .policy import Permission, RetryPolicy
from .processes import ends_in_a_fork, threads_run
from .stores.base import Report, Snapshot, Store

log = logging.getLogger(__name__)

#: Progress is told at most this often, in seconds, however often an evolution reports.
TICK = 0.5

#: How long the outcome of an attempt waits for a listener that still deals with its progress, in seconds.
_SLOW = 5.0


class Outcome(Enum):
    """Why the runner stopped."""

    #: Nothing that may run now is left.
    IDLE = 'idle'
    #: The lease is held by somebody else now.
    LOST = 'lost'
    #: This process is leaving.
    LEAVING = 'leaving'
    #: A person asked that nothing begins.
    PAUSED = 'paused'
    #: A process that waits for something stricter gets the lease.
    YIELDED = 'yielded'


@dataclass
class Runner:
    """Runs the pending part of a plan while it holds the lease.

    :param around: entered around each evolution, for example to give the thread its configuration.
    :param leaving: set when the process ends.
    :param announce: seconds for which an evolution that keeps users out is announced to older
        processes before it starts; 0: not at all.
    :param changed: called with each new snapshot of the history, for the gate.
    :param application: how another process makes the application, for partitions that it works on.
    :param notify: told what becomes of each attempt, and of its progress: the former when it is
        recorded and nothing is open on the database, the latter in a thread of its own.
    :param show: called with each new progress at once, in the thread of the evolution, and with None
        when one begins; it must be quick.
    """

    plan: Plan
    store: Store
    ledger: Ledger
    policy: RetryPolicy
    around: Around
    leaving: Leaving
    announce: float = 0.0
    changed: Callable[[Snapshot], object] = lambda snapshot: None
    notify: Listener = lambda event: None
    show: Callable[[Progress | None], object] = lambda progress: None
    application: str | None = None
    _announced: bool = False

    def run(self, lease: Lease) -> Outcome:
        """Run until nothing more may run now.

        :raises StoreError: the database does not answer; what became of the attempt that ran is
            found out by taking the lease anew.
        """
        try:
            # Marked first, read afterwards: what an older holder still does cannot be recorded
            # any more, so what is read now stays true.
            older = self._interrupt_older(lease)
            point('after-marking')
            while not self.leaving.is_set():
                snapshot = self.ledger.snapshot()
                while older:
                    self._tell_interrupted(older.pop(0), snapshot.history)
                self.changed(snapshot)
                self._forget_cancel(lease, snapshot)
                agenda = Agenda.of(self.plan, snapshot.history, self.policy, snapshot.now)
                if agenda.next is None:
                    return Outcome.IDLE
                if snapshot.lease is not None and snapshot.lease.requests.paused is not None:
                    return Outcome.PAUSED
                self._attempt(lease, agenda.next, snapshot.history)
        except Yielded as yielded:
            log.info('[%s] %s', self.store.namespace, yielded)
            return Outcome.YIELDED
        except LeaseLost as lost:
            log.warning(
                '[%s] %s; this process goes on as a waiter',
                self.store.namespace,
                lost,
                extra=fields(self.store.namespace, token=lease.token),
            )
            return Outcome.LOST
        except Cancelled:
            pass
        return Outcome.LEAVING

    def _interrupt_older(self, lease: Lease) -> list[Attempt]:
        """Mark what older holders left running; who holds the lease tells what became of it."""
        said = False
        while True:
            point('before-marking')
            try:
                interrupted = self.store.interrupt_older(lease.grant)
                for attempt in interrupted:
                    log.warning(
                        '[%s] %r was interrupted: %s:%s died or lost the lease',
                        self.store.namespace,
                        attempt.evolution_id,
                        attempt.host,
                        attempt.pid,
                        extra=self._interruption(attempt).extra,
                    )
                return interrupted
            except StoreBusy as busy:
                if not said:
                    log.warning('[%s] %s', self.store.namespace, busy, extra=fields(self.store.namespace))
                said = True
            lease.check()
            if self.leaving.wait(0.2):
                raise Cancelled('the process is leaving')

    def _forget_cancel(self, lease: Lease, snapshot: Snapshot) -> None:
        """Who asked for the end of an evolution meant that run: once it is over, no later one is cancelled for it."""
        asked = snapshot.lease.requests.cancel if snapshot.lease is not None else None
        planned = None if asked is None else self.plan.find(asked)
        if planned is None:
            return
        settled = self.plan.is_settled(planned, snapshot.history)
        if settled or self.policy.decide(planned, snapshot.history).permission is Permission.NEVER:
            self.store.ask(lease.grant.owner, cancel='')

    def _interruption(self, attempt: Attempt) -> Event:
        return Event(What.INTERRUPTED, self.store.namespace, attempt.evolution_id, attempt.attempt, attempt.token)

    def _tell_interrupted(self, attempt: Attempt, history: History) -> None:
        """The process that ran it cannot tell any more."""
        planned = self.plan.find(attempt.evolution_id)
        final = None
        if planned is not None:
            final = self.policy.decide(planned, history).permission is Permission.NEVER
        self.notify(replace(self._interruption(attempt), final=final))

    def _attempt(self, lease: Lease, planned: PlannedEvolution, history: History) -> None:
        number = max((a.attempt for a in history.of(planned.id)), default=0) + 1
        point('before-attempt')
        attempt = self.store.begin(lease.grant, planned, number, planned.fingerprint)
        point('after-attempt')
        # Only a renewal after the row is there proves that every later holder will mark it.
        lease.report(Report(evolution_id=planned.id, since=attempt.started))
        try:
            lease.renew()
        except LeaseLost:
            # The row may be younger than the later holder's marking: nobody would mark it any more.
            self.store.withdraw(attempt)
            raise
        run = _Run(self, lease, planned, attempt)
        started = run.event(What.STARTED)
        log.info(
            '[%s] %r starts (attempt %d, token %d)',
            self.store.namespace,
            planned.id,
            number,
            lease.token,
            extra=started.extra,
        )
        self.show(None)  # what the one before has told is over
        self.notify(started)
        began = False
        try:
            self._announce(lease, planned, history)
            run.started = time.monotonic()
            try:
                with self.store.work(attempt, planned):
                    began = True
                    point('before-evolve')
                    # What is batched enters it around each batch, whose checkpoint is saved after it.
                    around = nullcontext if planned.batched else self.around
                    with around(), running(run), ends_in_a_fork():
                        planned.evolution.evolve()
                    point('after-evolve')
                    lease.check()
            finally:
                run.end()
        except (LeaseLost, StoreAway):
            # The next holder, which may be this process, marks the attempt and reads its fate.
            raise
        except StoreBusy as busy:
            self._interrupted(run, began, busy.thing)
            raise
        except CancelledByHand as cancelled:
            self._record(attempt, State.CANCELLED, str(cancelled))
            event = run.event(What.CANCELLED)
            log.warning('[%s] %r was cancelled', self.store.namespace, planned.id, extra=event.extra)
            run.tell(event)
        except Cancelled as cancelled:
            if type(cancelled) is Cancelled and began and not self.leaving.is_set():
                # Raised by the evolution itself: run again at once, it would do so for ever.
                self._failed(run, cancelled, history)
            else:
                self._interrupted(run, began, str(cancelled))
                if isinstance(cancelled, Yielded):
                    raise
        except KeyboardInterrupt:
            if threading.current_thread() is threading.main_thread():
                self._interrupted(run, True, 'interrupted by Ctrl-C')
                raise
            self._failed(run, KeyboardInterrupt(), history)
        except BaseException as error:  # also SystemExit: an evolution must not end the server
            self._failed(run, error, history)
        else:
            event = run.event(What.FINISHED)
            log.info('[%s] %r is done (%.1f s)', self.store.namespace, planned.id, event.seconds, extra=event.extra)
            run.tell(event)
        finally:
            lease.report(Report())
        point('after-record')

    def _announce(self, lease: Lease, planned: PlannedEvolution, history: History) -> None:
        """Let processes of an older release see the attempt before it changes anything."""
        if self._announced or not self.announce or planned.serving is not Serving.NOTHING:
            return
        # Once for the whole run: while the lease is held, nobody who closed for it opens again.
        self._announced = True
        if not history.settled:
            return  # nobody can serve what was never evolved
        if any(a.serving == Serving.NOTHING.value for a in history.unsettled()):
            return  # they have been kept out already
        log.info(
            '[%s] announced for %g seconds to processes of an older release',
            self.store.namespace,
            self.announce,
            extra=fields(self.store.namespace, id=planned.id, token=lease.token),
        )
        if self.leaving.wait(self.announce):
            raise Cancelled('the process is leaving')
        lease.check()

    def _failed(self, run: _Run, error: BaseException, history: History) -> None:
        """:param history: as it was before this attempt."""
        planned, attempt = run.planned, run.attempt
        before = [a for a in history.under(planned.names) if a.fingerprint == attempt.fingerprint]
        # What ended its own transaction may be saved in part: again and again would be worse.
        broke = isinstance(error, BrokeTransaction)
        then = History([*history.attempts, replace(attempt, state=State.FAILED, final=broke)])
        event = replace(
            run.event(What.FAILED, error),
            repeated=any(a.state is State.FAILED for a in before),
            final=self.policy.decide(planned, then).permission is Permission.NEVER,
        )
        traceback = (type(error), error, error.__traceback__)
        log.error(
            '[%s] %r failed (attempt %d): %s',
            self.store.namespace,
            event.evolution_id,
            event.attempt,
            failure.brief(error),
            # Once is enough for the same code; each attempt's own stands in the history.
            exc_info=None if event.repeated else traceback,
            extra=event.extra,
        )
        self._record(run.attempt, State.FAILED, failure.describe(error), final=broke)
        run.tell(event)

    def _interrupted(self, run: _Run, began: bool, why: str) -> None:
        if not began:
            # It has changed nothing: not an attempt, not even for rerunnable = False.
            self.store.withdraw(run.attempt)
            return
        self._record(run.attempt, State.INTERRUPTED, why)
        event = run.event(What.INTERRUPTED)
        log.info('[%s] %r was interrupted: %s', self.store.namespace, event.evolution_id, why, extra=event.extra)
        run.tell(event)

    def _record(self, attempt: Attempt, state: State, error: str, *, final: bool = False) -> None:
        """Record an outcome other than done, under the fence.

        :param final: it does not run again by itself.

        :raises LeaseLost: a later holder has marked this attempt already.
        """
        if not self.store.record(attempt, state, error, final=final):
            raise LeaseLost(f'{attempt.evolution_id!r} was marked by a later holder')


class _Run:
    """What ``self.progress()`` of the evolution that runs talks to.

    A report costs the evolution next to nothing: it is noted, and told to others now and then. Those
    who listen are called in another thread, where the evolution's transaction is not open.
    """

    def __init__(self, runner: Runner, lease: Lease, planned: PlannedEvolution, attempt: Attempt):
        self.started = time.monotonic()
        self.attempt = attempt
        self.planned = planned
        self._names = frozenset(planned.names)
        self._runner = runner
        self._lease = lease
        self._leaving = runner.leaving
        self._notify = runner.notify
        self._show = runner.show
        # What earlier attempts at a batched evolution took, in seconds: estimates are about all of them.
        self._before: float | None = None
        self._pid = os.getpid()
        self._threads = lease.store.threads and threads_run()
        self._reported: tuple[float, float | None, str | None] | None = None
        self._due = 0.0
        self._telling = threading.Lock()
        self._ended = threading.Event()
        self._new = threading.Event()
        self._teller: threading.Thread | None = None

    def event(self, what: What, error: BaseException | None = None) -> Event:
        return Event(
            what,
            self._lease.store.namespace,
            self.planned.id,
            self.attempt.attempt,
            self._lease.token,
            time.monotonic() - self.started,
            self._progress(),
            error,
        )

    def fields(self) -> dict[str, object]:
        return fields(
            self._lease.store.namespace,
            id=self.planned.id,
            attempt=self.attempt.attempt,
            token=self._lease.token,
            duration=time.monotonic() - self.started,
        )

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        if os.getpid() != self._pid:
            return  # a child that the evolution forked: its copy of the lease is not renewed
        self._check()
        self._note(done, total, message)

    def batches(self) -> None:
        Conductor(
            self._lease.store,
            self.planned,
            self.attempt,
            self._runner.around,
            self._between,
            self._leaving.wait,
            self._runner.application,
        ).run()

    def _between(self, so_far: Sum) -> None:
        """Between two batches: tell how far it is, and stop where somebody asked for it."""
        self._check()
        asked = self._lease.requests
        if asked.paused is not None:
            raise Paused('a person paused it')
        if asked.wanted is not None and Serving.strictest([asked.wanted]).rank < self.planned.serving.rank:
            raise Yielded('another process waits for the lease, for what keeps users out')
        if self._before is None:
            self._before = so_far.seconds
        self._note(so_far.done, so_far.total, None)

    def _check(self) -> None:
        self._lease.check()
        if self._leaving.is_set():
            raise Cancelled('the process is leaving')
        if self._lease.requests.cancel in self._names:
            raise CancelledByHand('a person cancelled it')
        now = time.monotonic()
        limit = self.planned.timeout
        if limit is not None and now - self.started > limit:
            raise TimedOut.of(self.planned.id, limit, self.planned.origin)

    def _note(self, done: float, total: float | None, message: str | None) -> None:
        now = time.monotonic()
        self._reported = (
            float(done),
            None if total is None else float(total),
            None if message is None else str(message),
        )
        if now >= self._due:
            self._due = now + TICK
            self._tell()
        if self._teller is None and self._threads:
            self._teller = threading.Thread(target=self._tell_on, name='tgext.evolve progress', daemon=True)
            self._teller.start()
        if not self._new.is_set():
            self._new.set()

    def _progress(self) -> Progress | None:
        if self._reported is None:
            return None
        done, total, message = self._reported
        return Progress(
            done=done,
            total=total,
            message=None if message is None else failure.clean(message)[:255],
            elapsed=time.monotonic() - self.started + (self._before or 0.0),
        )

    def _tell(self) -> bool:
        """To the gate, and with the next renewal to every process; False: the attempt is over."""
        with self._telling:
            now = self._progress()
            if now is None or self._ended.is_set():
                return False
            self._show(now)
            since = self.attempt.started
            if since is not None:
                since -= round((self._before or 0.0) * 1000)
            self._lease.report(Report(self.planned.id, now.done, now.total, now.message, since))
            return True

    def _tell_on(self) -> None:
        """The teller's thread: also the last of many quick reports is told."""
        while self._new.wait():
            self._new.clear()
            if not self._tell():
                return
            self._notify(self.event(What.PROGRESS))
            self._ended.wait(TICK)

    def end(self) -> None:
        """Nothing is told of its progress any more."""
        with self._telling:
            self._ended.set()
        self._new.set()

    def tell(self, event: Event) -> None:
        """Its outcome, after all that was told of its progress."""
        if self._teller is not None:
            self._teller.join(_SLOW)
            if self._teller.is_alive():
                log.warning(
                    '[%s] a listener to the progress of %r takes long; the outcome is told all the same',
                    event.namespace,
                    event.evolution_id,
                    extra=event.extra,
                )
        self._notify(event)
