"""What an operator wants to see at a glance: each evolution with its state, and why it is closed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .agenda import Agenda
from .gate import Progress, Verdict
from .history import SETTLED, Attempt, History, State
from .plan import Plan, PlannedEvolution
from .policy import Permission, RetryPolicy
from .stores.base import LeaseRow, Snapshot

#: What has not been begun, or may be begun again, has no state in the history.
PENDING = 'pending'

#: Another tool did it: only the version table of its system says so.
APPLIED = 'applied'


@dataclass(frozen=True)
class Entry:
    """One evolution as an operator sees it.

    :param state: ``pending``, the state of the attempt that counts, or ``applied``.
    :param why: in a few words, why it is not done; empty when it is.
    :param attempts: every attempt that is recorded, under all of its ids, oldest first.
    :param changed: its code is not the code that ran; None when that is not known.
    :param planned: None for what only the history knows.
    :param progress: of the one that runs now.
    :param seconds: how long the attempt that counts took, or has been running.
    :param counts: the attempt that says what its state is.
    :param held: it does not run by itself now.
    :param after: when it is tried again by itself, by the database's clock (milliseconds).
    """

    id: str
    state: str
    why: str = ''
    attempts: tuple[Attempt, ...] = ()
    changed: bool | None = None
    planned: PlannedEvolution | None = None
    progress: Progress | None = None
    seconds: float | None = None
    counts: Attempt | None = None
    held: bool = False
    after: int | None = None

    @property
    def latest(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def is_settled(self) -> bool:
        return self.state in _SETTLED

    @property
    def needs_a_person(self) -> bool:
        return self.state in (State.FAILED.value, State.CANCELLED.value, State.INTERRUPTED.value)


_SETTLED = frozenset([*(state.value for state in SETTLED), APPLIED])


@dataclass(frozen=True)
class Overview:
    """The plan against the history, at one moment of the database's clock (``now``, milliseconds).

    :param entries: the evolutions of the plan: what is done in the order of the plan, then what is
        pending in the order in which it will run.
    :param unknown: what the history knows and the plan does not.
    """

    entries: tuple[Entry, ...]
    unknown: tuple[Entry, ...]
    verdict: Verdict
    lease: LeaseRow | None
    down: Attempt | None
    now: int

    @property
    def holder(self) -> LeaseRow | None:
        """The lease, while somebody holds it."""
        return self.lease if self.lease is not None and self.lease.alive else None

    @property
    def paused(self) -> int | None:
        """Since when nothing begins (milliseconds)."""
        return self.lease.requests.paused if self.lease is not None else None

    @property
    def pending(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if not entry.is_settled)

    def find(self, id: str) -> Entry | None:
        """The entry of this id, also by one that it replaces."""
        for entry in (*self.entries, *self.unknown):
            if entry.id == id or (entry.planned is not None and id in entry.planned.names):
                return entry
        return None

    @classmethod
    def of(cls, plan: Plan, snapshot: Snapshot, agenda: Agenda, verdict: Verdict, policy: RetryPolicy) -> Overview:
        history, now = snapshot.history, snapshot.now
        alive = snapshot.lease is not None and snapshot.lease.alive
        look = _Look(plan, history, agenda, policy, now, snapshot.lease if alive else None)
        waiting = {planned.id for planned in agenda.pending}
        return cls(
            entries=tuple(
                look.entry(planned) for planned in (*(each for each in plan if each.id not in waiting), *agenda.pending)
            ),
            unknown=tuple(look.unknown(id) for id in plan.unknown(history)),
            verdict=verdict,
            lease=snapshot.lease,
            down=history.down,
            now=now,
        )


class _Look:
    def __init__(
        self,
        plan: Plan,
        history: History,
        agenda: Agenda,
        policy: RetryPolicy,
        now: int,
        holder: LeaseRow | None,
    ):
        self._plan = plan
        self._history = history
        self._agenda = agenda
        self._policy = policy
        self._now = now
        self._holder = holder
        self._stopped = {stopped.planned.id: stopped for stopped in agenda.stopped}
        self._pending = {planned.id for planned in agenda.pending}

    def entry(self, planned: PlannedEvolution) -> Entry:
        attempts = tuple(self._history.under(planned.names))
        if planned.id not in self._pending:
            counts = next((a for a in attempts if _counts(a, planned)), None)
            if counts is None:
                return Entry(id=planned.id, state=APPLIED, attempts=attempts, planned=planned)
            ran = counts.state is State.DONE and counts.fingerprint is not None
            return Entry(
                id=planned.id,
                state=counts.state.value,
                attempts=attempts,
                changed=counts.fingerprint != planned.fingerprint if ran else None,
                planned=planned,
                seconds=_seconds(counts, self._now) if counts.state is State.DONE else None,
                counts=counts,
            )
        latest = attempts[-1] if attempts else None
        runs = latest is not None and latest.state is State.RUNNING and self._holder is not None
        stopped = self._stopped.get(planned.id)
        return Entry(
            id=planned.id,
            state=self._state(planned, latest, runs),
            why='' if runs else self._why(planned, latest),
            attempts=attempts,
            planned=planned,
            progress=self._progress(planned.names) if runs else None,
            seconds=None if latest is None else _seconds(latest, self._now, runs=runs),
            counts=latest,
            held=planned.id in self._agenda.held,
            after=stopped.decision.after if stopped is not None else None,
        )

    def _state(self, planned: PlannedEvolution, latest: Attempt | None, runs: bool) -> str:
        if runs:
            return State.RUNNING.value
        stopped = self._stopped.get(planned.id)
        if stopped is not None and stopped.decision.permission is Permission.NEVER:
            return stopped.latest.state.value
        return PENDING

    def _why(self, planned: PlannedEvolution, latest: Attempt | None) -> str:
        stopped = self._stopped.get(planned.id)
        if stopped is not None:
            return stopped.decision.why
        if latest is not None and latest.state is State.RUNNING:
            return 'its process died or was cut off; it is marked interrupted when the lease is taken'
        waits = [id for id in self._plan.dependencies[planned.id] if id in self._pending]
        if waits:
            return f'depends on {_listed(waits)}'
        if planned.id in self._agenda.held:
            before = [id for id, s in self._stopped.items() if s.planned.serving is planned.serving]
            return f'stands after {_listed(before)}' if before else 'stands after one that is stopped'
        if planned.repeatable and latest is not None and latest.state in SETTLED:
            return 'its content changed since it ran'
        if latest is not None and latest.state in SETTLED:
            return 'it was taken back: its version table does not have it any more'
        if latest is not None and latest.fingerprint is None:
            return 'a person asked for another attempt'
        if latest is not None and latest.state in (State.FAILED, State.INTERRUPTED):
            return f'{latest.state.value}, and runs again'
        return 'is next' if planned is self._agenda.next else 'not run yet'

    def _progress(self, names: Iterable[str]) -> Progress | None:
        report = self._holder.report if self._holder is not None else None
        if report is None or report.done is None or report.evolution_id not in tuple(names):
            return None
        elapsed = None if report.since is None else max(0.0, (self._now - report.since) / 1000)
        return Progress(report.done, report.total, report.message, elapsed)

    def unknown(self, id: str) -> Entry:
        attempts = tuple(self._history.of(id))
        if not attempts:
            return Entry(id=id, state=APPLIED, why='a version table has it, and this release does not know it')
        settled = [a for a in attempts if a.state in SETTLED]
        counts = settled[0] if settled else attempts[-1]
        return Entry(
            id=id,
            state=counts.state.value,
            why='this release does not know it: it was removed, or a newer release was here',
            attempts=attempts,
            seconds=_seconds(counts, self._now),
            counts=counts,
        )


def _counts(attempt: Attempt, planned: PlannedEvolution) -> bool:
    """Does this attempt say that it is done?"""
    return attempt.state in SETTLED and (not planned.repeatable or attempt.fingerprint == planned.fingerprint)


def _seconds(attempt: Attempt, now: int, *, runs: bool = False) -> float | None:
    end = now if runs else attempt.finished
    if end is None or attempt.started is None:
        return None
    return max(0.0, (end - attempt.started) / 1000)


def _listed(ids: list[str]) -> str:
    more = f' and {len(ids) - 3} more' if len(ids) > 3 else ''
    return ', '.join(map(repr, ids[:3])) + more
