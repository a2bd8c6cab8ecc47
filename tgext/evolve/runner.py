"""Runs what is pending, under a lease."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum

from . import failure
from .agenda import Agenda
from .errors import Cancelled, LeaseLost, StoreAway, StoreBusy, TimedOut
from .evolution import running
from .gate import Progress, Serving
from .history import Attempt, History, State
from .lease import Lease
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


@dataclass
class Runner:
    """Runs the pending part of a plan while it holds the lease.

    :param around: entered around each evolution, for example to give the thread its configuration.
    :param leaving: set when the process ends.
    :param announce: seconds for which an evolution that keeps users out is announced to older
        processes before it starts; 0: not at all.
    :param changed: called with each new snapshot of the history, for the gate.
    :param progressed: called when an evolution reports progress, for the gate.
    """

    plan: Plan
    store: Store
    policy: RetryPolicy
    around: Callable[[], AbstractContextManager[object]]
    leaving: threading.Event
    announce: float = 0.0
    changed: Callable[[Snapshot], object] = lambda snapshot: None
    progressed: Callable[[Progress], None] = lambda progress: None
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
            point('after-marking')
            while not self.leaving.is_set():
                snapshot = self.store.snapshot()
                self.changed(snapshot)
                agenda = Agenda.of(self.plan, snapshot.history, self.policy, snapshot.now)
                if agenda.next is None:
                    return Outcome.IDLE
                self._attempt(lease, agenda.next, snapshot.history)
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
        try:
            lease.renew()
        except LeaseLost:
            # The row may be younger than the later holder's marking: nobody would mark it any more.
            self.store.withdraw(attempt)
            raise
        log.info('[%s] %r starts (attempt %d, token %d)', self.store.namespace, planned.id, number, lease.token)
        run = _Run(lease, planned, attempt, self.leaving, self.progressed)
        began = False
        try:
            self._announce(lease, planned, history)
            run.started = time.monotonic()
            with self.store.work(attempt, planned):
                began = True
                point('before-evolve')
                with self.around(), running(run), ends_in_a_fork():
                    planned.evolution.evolve()
                point('after-evolve')
                lease.check()
        except (LeaseLost, StoreAway):
            # The next holder, which may be this process, marks the attempt and reads its fate.
            raise
        except StoreBusy as busy:
            self._interrupted(attempt, began, busy.thing)
            raise
        except Cancelled as cancelled:
            if began and not self.leaving.is_set():
                # Raised by the evolution itself: run again at once, it would do so for ever.
                self._failed(attempt, planned, cancelled)
            else:
                self._interrupted(attempt, began, str(cancelled))
        except KeyboardInterrupt:
            if threading.current_thread() is threading.main_thread():
                self._record(attempt, State.INTERRUPTED, 'interrupted by Ctrl-C')
                raise
            self._failed(attempt, planned, KeyboardInterrupt())
        except BaseException as error:  # also SystemExit: an evolution must not end the server
            self._failed(attempt, planned, error)
        else:
            log.info('[%s] %r is done (%.1f s)', self.store.namespace, planned.id, time.monotonic() - run.started)
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

    def _failed(self, attempt: Attempt, planned: PlannedEvolution, error: BaseException) -> None:
        traceback = (type(error), error, error.__traceback__)
        log.error(
            '[%s] %r failed (attempt %d): %s',
            self.store.namespace,
            planned.id,
            attempt.attempt,
            failure.brief(error),
            # Once is enough; each attempt's own stands in the history.
            exc_info=traceback if attempt.attempt == 1 else None,
        )
        self._record(attempt, State.FAILED, failure.describe(error))

    def _interrupted(self, attempt: Attempt, began: bool, why: str) -> None:
        if began:
            self._record(attempt, State.INTERRUPTED, why)
        else:
            # It has changed nothing: not an attempt, not even for rerunnable = False.
            self.store.withdraw(attempt)

    def _record(self, attempt: Attempt, state: State, error: str) -> None:
        """Record an outcome other than done, under the fence.

        :raises LeaseLost: a later holder has marked this attempt already.
        """
        if not self.store.record(attempt, state, error):
            raise LeaseLost(f'{attempt.evolution_id!r} was marked by a later holder')


class _Run:
    """What ``self.progress()`` of the evolution that runs talks to."""

    def __init__(
        self,
        lease: Lease,
        planned: PlannedEvolution,
        attempt: Attempt,
        leaving: threading.Event,
        progressed: Callable[[Progress], None],
    ):
        self.started = time.monotonic()
        self._lease = lease
        self._planned = planned
        self._attempt = attempt
        self._leaving = leaving
        self._progressed = progressed
        self._pid = os.getpid()

    def progress(self, done: float, total: float | None, message: str | None) -> None:
        if os.getpid() != self._pid:
            return  # a child that the evolution forked: its copy of the lease is not renewed
        self._lease.check()
        if self._leaving.is_set():
            raise Cancelled('the process is leaving')
        limit = self._planned.timeout
        if limit is not None and time.monotonic() - self.started > limit:
            raise TimedOut.of(self._planned.id, limit, self._planned.origin)
        now = Progress(
            done=float(done),
            total=None if total is None else float(total),
            message=None if message is None else failure.clean(str(message))[:255],
            elapsed=time.monotonic() - self.started,
        )
        self._progressed(now)
        self._lease.report(Report(self._planned.id, now.done, now.total, now.message, self._attempt.started))
