"""Runs what is pending, under a lease."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum

from . import failure
from .agenda import Agenda
from .batches import Around
from .errors import Cancelled, CancelledByHand, LeaseLost, Paused, StoreAway, StoreBusy, TimedOut, Yielded
from .events import Event, Listener, What
from .evolution import running
from .gate import Progress, Serving
from .history import Attempt, History, State
from .lease import Lease
from .partitions import Conductor, Sum
from .plan import Plan, PlannedEvolution
from .points import point
from .policy import RetryPolicy
from .processes import ends_in_a_fork
from .stores.base import Report, Snapshot, Store

log = logging.getLogger(__name__)


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
    :param notify: told what becomes of each attempt, and of its progress.
    """

    plan: Plan
    store: Store
    policy: RetryPolicy
    around: Around
    leaving: threading.Event
    announce: float = 0.0
    changed: Callable[[Snapshot], object] = lambda snapshot: None
    notify: Listener = lambda event: None
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
            self._interrupt_older(lease)
            while not self.leaving.is_set():
                snapshot = self.store.snapshot()
                self.changed(snapshot)
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
            log.warning('[%s] %s; this process goes on as a waiter', self.store.namespace, lost)
            return Outcome.LOST
        except Cancelled:
            pass
        return Outcome.LEAVING

    def _interrupt_older(self, lease: Lease) -> None:
        said = False
        while True:
            point('before-marking')
            try:
                for attempt in self.store.interrupt_older(lease.grant):
                    log.warning(
                        '[%s] %r was interrupted: %s:%s died or lost the lease',
                        self.store.namespace,
                        attempt.evolution_id,
                        attempt.host,
                        attempt.pid,
                    )
                return
            except StoreBusy as busy:
                if not said:
                    log.warning('%s', busy)
                said = True
            lease.check()
            if self.leaving.wait(0.2):
                raise Cancelled('the process is leaving')

    def _attempt(self, lease: Lease, planned: PlannedEvolution, history: History) -> None:
        number = max((a.attempt for a in history.of(planned.id)), default=0) + 1
        point('before-attempt')
        attempt = self.store.begin(lease.grant, planned, number, planned.fingerprint)
        point('after-attempt')
        # Only a renewal after the row is there proves that every later holder will mark it.
        lease.report(Report(evolution_id=planned.id, since=attempt.started))
        lease.renew()
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
        self.notify(started)
        began = False
        try:
            self._announce(lease, planned, history)
            run.started = time.monotonic()
            with self.store.work(attempt, planned):
                began = True
                point('before-evolve')
                # What is batched enters it around each batch, whose checkpoint is saved after it.
                around = nullcontext if planned.batched else self.around
                with around(), running(run), ends_in_a_fork():
                    planned.evolution.evolve()
                point('after-evolve')
                lease.check()
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
            self.notify(event)
        except Cancelled as cancelled:
            self._interrupted(run, began, str(cancelled))
            if isinstance(cancelled, Yielded):
                raise
        except KeyboardInterrupt:
            if threading.current_thread() is threading.main_thread():
                self._interrupted(run, True, 'interrupted by Ctrl-C')
                raise
            self._failed(run, KeyboardInterrupt())
        except BaseException as error:  # also SystemExit: an evolution must not end the server
            self._failed(run, error)
        else:
            event = run.event(What.FINISHED)
            log.info('[%s] %r is done (%.1f s)', self.store.namespace, planned.id, event.seconds, extra=event.extra)
            self.notify(event)
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
        log.info('[%s] announced for %g seconds to processes of an older release', self.store.namespace, self.announce)
        if self.leaving.wait(self.announce):
            raise Cancelled('the process is leaving')
        lease.check()

    def _failed(self, run: _Run, error: BaseException) -> None:
        event = run.event(What.FAILED, error)
        traceback = (type(error), error, error.__traceback__)
        log.error(
            '[%s] %r failed (attempt %d): %s',
            self.store.namespace,
            event.evolution_id,
            event.attempt,
            failure.brief(error),
            # Once is enough; each attempt's own stands in the history.
            exc_info=traceback if event.attempt == 1 else None,
            extra=event.extra,
        )
        self._record(run.attempt, State.FAILED, failure.describe(error))
        self.notify(event)

    def _interrupted(self, run: _Run, began: bool, why: str) -> None:
        if not began:
            # It has changed nothing: not an attempt, not even for rerunnable = False.
            self.store.withdraw(run.attempt)
            return
        self._record(run.attempt, State.INTERRUPTED, why)
        self.notify(run.event(What.INTERRUPTED))

    def _record(self, attempt: Attempt, state: State, error: str) -> None:
        """Record an outcome other than done, under the fence.

        :raises LeaseLost: a later holder has marked this attempt already.
        """
        if not self.store.record(attempt, state, error):
            raise LeaseLost(f'{attempt.evolution_id!r} was marked by a later holder')


class _Run:
    """What ``self.progress()`` of the evolution that runs talks to."""

    def __init__(self, runner: Runner, lease: Lease, planned: PlannedEvolution, attempt: Attempt):
        self.started = self._begun = time.monotonic()
        self.attempt = attempt
        self._runner = runner
        self._lease = lease
        self._planned = planned
        self._leaving = runner.leaving
        self._notify = runner.notify
        self._pid = os.getpid()

    def event(self, what: What, error: BaseException | None = None, progress: Progress | None = None) -> Event:
        return Event(
            what,
            self._lease.store.namespace,
            self._planned.id,
            self.attempt.attempt,
            self._lease.token,
            time.monotonic() - self.started,
            progress,
            error,
        )

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        if os.getpid() != self._pid:
            return  # a child that the evolution forked: its copy of the lease is not renewed
        self._check()
        elapsed = time.monotonic() - self.started
        self._tell(
            Progress(
                done=float(done),
                total=None if total is None else float(total),
                message=None if message is None else failure.clean(str(message))[:255],
                elapsed=elapsed,
            ),
            since=self.attempt.started,
        )

    def batches(self) -> None:
        Conductor(
            self._lease.store,
            self._planned,
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
        if asked.wanted is not None and Serving.strictest([asked.wanted]).rank < self._planned.serving.rank:
            raise Yielded('another process waits for the lease, for what keeps users out')
        # Estimates are about all attempts together.
        began = None
        if self.attempt.started is not None:
            began = self.attempt.started + round((time.monotonic() - self._begun - so_far.seconds) * 1000)
        self._tell(Progress(float(so_far.done), so_far.total, elapsed=so_far.seconds), since=began)

    def _check(self) -> None:
        self._lease.check()
        if self._leaving.is_set():
            raise Cancelled('the process is leaving')
        if self._lease.requests.cancel in self._planned.names:
            raise CancelledByHand('a person cancelled it')
        limit = self._planned.timeout
        if limit is not None and time.monotonic() - self.started > limit:
            raise TimedOut(
                f'{self._planned.id!r} ran for more than {limit:g} seconds',
                place=self._planned.origin,
                remedy='Make it faster, or give it a longer timeout.',
            )

    def _tell(self, progress: Progress, since: int | None) -> None:
        self._notify(self.event(What.PROGRESS, progress=progress))
        self._lease.report(Report(self._planned.id, progress.done, progress.total, progress.message, since))
