"""What is to be done now: the pending part of a plan, seen against the history. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .gate import Progress, Reason, Serving, Verdict
from .history import Attempt, History, State
from .plan import Plan, PlannedEvolution
from .policy import Decision, Permission, RetryPolicy
from .remedies import to_type


@dataclass(frozen=True)
class Stopped:
    """An evolution that does not run by itself now, and why."""

    planned: PlannedEvolution
    decision: Decision
    latest: Attempt


@dataclass(frozen=True)
class Agenda:
    """What may run next, what may not, and when to look again.

    ``held`` are the ids of the pending ones that do not run because of a stopped one, with the
    stopped ones themselves. ``wake_at`` is the earliest time of the database's clock (milliseconds)
    at which a stopped evolution may be tried again; None when nothing waits for a time. ``newer``
    are the latest attempts at what this plan does not know (also another content of what it does), begun and not done.
    """

    pending: tuple[PlannedEvolution, ...] = ()
    next: PlannedEvolution | None = None
    stopped: tuple[Stopped, ...] = ()
    wake_at: int | None = None
    newer: tuple[Attempt, ...] = ()
    held: frozenset[str] = frozenset()

    @classmethod
    def of(cls, plan: Plan, history: History, policy: RetryPolicy, now: int) -> Agenda:
        """:param now: the database's clock, in milliseconds."""
        pending = tuple(plan.pending(history))
        next_one: PlannedEvolution | None = None
        stopped: list[Stopped] = []
        held: set[str] = set()
        held_levels: set[Serving] = set()
        for planned in pending:
            if planned.serving in held_levels or any(id in held for id in plan.dependencies[planned.id]):
                held.add(planned.id)
                continue
            decision = policy.decide(planned, history)
            if decision.allows(now):
                next_one = planned
                break
            held.add(planned.id)
            held_levels.add(planned.serving)
            stopped.append(Stopped(planned, decision, history.under(planned.names)[-1]))
        times = [s.decision.after for s in stopped if s.decision.after is not None]
        return cls(
            pending=pending,
            next=next_one,
            stopped=tuple(stopped),
            wake_at=min(times, default=None),
            newer=(*(a for a in history.unsettled() if a.evolution_id not in plan), *history.rivals),
            held=frozenset(held),
        )

    @property
    def given_up(self) -> bool:
        """Is all that is left waiting for a person?"""
        return bool(self.stopped) and self.next is None and self.wake_at is None


def judge(
    plan: Plan,
    agenda: Agenda,
    history: History,
    *,
    lease_alive: bool,
    progress: Progress | None = None,
    paused: bool = False,
    open_on_failure: bool = False,
    refuse_unknown: bool = False,
) -> Verdict:
    """What may be served, and why.

    :param lease_alive: somebody holds the lease now, so a running attempt really runs.
    :param paused: a person asked that nothing begins.
    :param open_on_failure: serve in spite of an evolution that failed for good (``on_failure =
        open``); not while it is still tried again, or the gate would open and close at each try.
    :param refuse_unknown: do not serve when the history is ahead of the plan.
    """
    if history.down is not None:
        down = history.down
        return Verdict(
            Serving.NOTHING,
            Reason.DOWN,
            detail=f'closed by hand, by {down.host}:{down.pid}; to open it again: gearbox evolve up',
        )
    if refuse_unknown and (unknown := plan.unknown(history)):
        return Verdict(
            Serving.NOTHING,
            Reason.UNKNOWN_EVOLUTIONS,
            detail=f'the history has {", ".join(map(repr, unknown))}, which this release does not '
            f'know (tgext.evolve.unknown = refuse)',
        )
    ignored = open_on_failure and agenda.given_up
    own = Serving.EVERYTHING if ignored else Serving.strictest(p.serving for p in agenda.pending)
    begun = [a for a in agenda.newer if not (open_on_failure and a.state in _ENDED_BADLY)]
    newer = Serving.strictest(attempt.serving for attempt in begun)
    if newer.rank < own.rank:
        names = ', '.join(f'{a.evolution_id!r} ({a.state.value})' for a in begun)
        return Verdict(
            newer,
            Reason.NEWER_RELEASE,
            progress=progress,
            detail=f'another release of this application began {names}; this one waits until it is '
            f'done. If it never will be: {to_type("stamp", *(a.evolution_id for a in begun))}',
        )
    if ignored:
        return Verdict(Serving.EVERYTHING, Reason.FAILURE_IGNORED, detail=_failures(agenda.stopped))
    if not agenda.pending:
        return Verdict(Serving.EVERYTHING, Reason.COMPLETE)
    reason, detail = _why(agenda, own, lease_alive and _runs(plan, history))
    if paused and reason is Reason.PENDING:
        reason, detail = Reason.PAUSED, f'{detail}; nothing begins until: gearbox evolve resume'
    return Verdict(own, reason, progress=progress, detail=detail)


_ENDED_BADLY = (State.FAILED, State.CANCELLED)


def _runs(plan: Plan, history: History) -> bool:
    """Is there a running attempt at something of this plan, under whatever id?"""
    for attempt in history.unsettled():
        if attempt.state is State.RUNNING:
            planned = plan.find(attempt.evolution_id)
            if planned is not None and not plan.is_settled(planned, history):
                return True
    return False


def _why(agenda: Agenda, serving: Serving, running: bool) -> tuple[Reason, str]:
    waits = ', '.join(repr(planned.id) for planned in agenda.pending[:5])
    if len(agenda.pending) > 5:
        waits += f' and {len(agenda.pending) - 5} more'
    if running:
        return Reason.RUNNING, f'not done yet: {waits}'
    goes_on = agenda.next is not None and agenda.next.serving is serving
    if goes_on or not any(p.serving is serving and p.id in agenda.held for p in agenda.pending):
        return Reason.PENDING, f'not done yet: {waits}'
    # What keeps this level closed may be a stopped one of a laxer level, by a dependency.
    stopped = tuple(s for s in agenda.stopped if s.planned.serving is serving) or agenda.stopped
    if any(s.decision.permission is Permission.LATER for s in stopped):
        return Reason.RETRYING, _failures(agenda.stopped)
    cancelled = all(s.latest.state is State.CANCELLED for s in stopped)
    return Reason.CANCELLED if cancelled else Reason.FAILED, _failures(agenda.stopped)


def _failures(stopped: tuple[Stopped, ...]) -> str:
    return '; '.join(
        f'{s.planned.id!r} {s.latest.state.value}'
        + (
            f' ({s.decision.why})'
            if s.decision.permission is Permission.LATER
            else f', and does not run again by itself: {s.decision.why}{_remedy(s)}'
        )
        for s in stopped
    )


def _remedy(stopped: Stopped) -> str:
    id = stopped.planned.id
    mend = '' if stopped.latest.state is State.CANCELLED else 'Mend its code and start again, or '
    return (
        f'. {mend or "To go on, "}type: {to_type("retry", id)}; or, if its work is done already: {to_type("stamp", id)}'
    )
