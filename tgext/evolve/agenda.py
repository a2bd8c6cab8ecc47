"""What is to be done now: the pending part of a plan, seen against the history. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from .gate import Progress, Reason, Serving, Verdict
from .history import Attempt, History, State
from .plan import Plan, PlannedEvolution
from .retry import Decision, Permission, RetryPolicy


@dataclass(frozen=True)
class Stopped:
    """An evolution that does not run by itself now, and why."""

    planned: PlannedEvolution
    decision: Decision
    latest: Attempt


@dataclass(frozen=True)
class Agenda:
    """What may run next, what may not, and when to look again.

    ``wake_at`` is the earliest time of the database's clock (milliseconds) at which a stopped
    evolution may be tried again; None when nothing waits for a time.
    """

    pending: tuple[PlannedEvolution, ...] = ()
    next: PlannedEvolution | None = None
    stopped: tuple[Stopped, ...] = ()
    wake_at: int | None = None
    newer: tuple[Attempt, ...] = field(default=())

    @classmethod
    def of(cls, plan: Plan, history: History, policy: RetryPolicy, now: int) -> Agenda:
        """:param now: the database's clock, in milliseconds."""
        pending = tuple(plan.pending(history))
        next_one: PlannedEvolution | None = None
        stopped: list[Stopped] = []
        held: set[str] = set()
        held_levels: set[Serving] = set()
        for planned in pending:
            if planned.serving in held_levels or any(
                id in held for id in plan.dependencies[planned.id]
            ):
                held.add(planned.id)
                continue
            decision = policy.decide(planned, history)
            if decision.permission is Permission.NOW or (
                decision.permission is Permission.LATER
                and decision.after is not None
                and now >= decision.after
            ):
                next_one = planned
                break
            held.add(planned.id)
            held_levels.add(planned.serving)
            latest = max(
                (a for name in planned.names for a in history.of(name)), key=lambda a: a.order
            )
            stopped.append(Stopped(planned, decision, latest))
        times = [s.decision.after for s in stopped if s.decision.after is not None]
        return cls(
            pending=pending,
            next=next_one,
            stopped=tuple(stopped),
            wake_at=min(times, default=None),
            newer=tuple(a for a in history.unsettled() if a.evolution_id not in plan),
        )


def judge(
    plan: Plan,
    agenda: Agenda,
    history: History,
    *,
    lease_alive: bool,
    progress: Progress | None = None,
    open_on_failure: bool = False,
    refuse_unknown: bool = False,
) -> Verdict:
    """What may be served, and why.

    :param lease_alive: somebody holds the lease now, so a running attempt really runs.
    :param open_on_failure: serve in spite of a failed evolution (``on_failure = open``).
    :param refuse_unknown: do not serve when the history is ahead of the plan.
    """
    if refuse_unknown and (unknown := plan.unknown(history)):
        return Verdict(
            Serving.NOTHING,
            Reason.UNKNOWN_EVOLUTIONS,
            detail=f'the history has {", ".join(map(repr, unknown))}, which this release does not '
            f'know (tgext.evolve.unknown = refuse)',
        )
    if open_on_failure and agenda.stopped and agenda.next is None:
        return Verdict(Serving.EVERYTHING, Reason.FAILURE_IGNORED, detail=_failures(agenda))
    own = Serving.strictest(planned.serving for planned in agenda.pending)
    newer = Serving.strictest(attempt.serving for attempt in agenda.newer)
    if newer.rank < own.rank:
        names = ', '.join(f'{a.evolution_id!r} ({a.state.value})' for a in agenda.newer)
        return Verdict(
            newer,
            Reason.NEWER_RELEASE,
            progress=progress,
            detail=f'another release of this application began {names}; this one waits until it is '
            f'done. If it never will be: tgext.evolve.stamp(conf, [ids])',
        )
    if not agenda.pending:
        return Verdict(Serving.EVERYTHING, Reason.COMPLETE)
    reason, detail = _why(agenda, history, own, lease_alive)
    return Verdict(own, reason, progress=progress, detail=detail)


def _why(
    agenda: Agenda, history: History, serving: Serving, lease_alive: bool
) -> tuple[Reason, str]:
    waits = ', '.join(repr(planned.id) for planned in agenda.pending[:5])
    if len(agenda.pending) > 5:
        waits += f' and {len(agenda.pending) - 5} more'
    if lease_alive and any(
        attempt.state is State.RUNNING
        for planned in agenda.pending
        for attempt in history.of(planned.id)[-1:]
    ):
        return Reason.RUNNING, f'not done yet: {waits}'
    stopped = [s for s in agenda.stopped if s.planned.serving is serving]
    if stopped:
        if any(s.decision.permission is Permission.LATER for s in stopped):
            return Reason.RETRYING, _failures(agenda)
        cancelled = all(s.latest.state is State.CANCELLED for s in stopped)
        return Reason.CANCELLED if cancelled else Reason.FAILED, _failures(agenda)
    return Reason.PENDING, f'not done yet: {waits}'


def _failures(agenda: Agenda) -> str:
    return '; '.join(
        f'{s.planned.id!r} {s.latest.state.value}'
        + (f', and does not run again by itself: {s.decision.why}' if s.decision.why else '')
        + _remedy(s)
        for s in agenda.stopped
    )


def _remedy(stopped: Stopped) -> str:
    if stopped.decision.permission is Permission.LATER:
        return ' (it is tried again soon)'
    id = stopped.planned.id
    return (
        f'. Mend its code and start again, or type tgext.evolve.retry(conf, [{id!r}]), or, if its '
        f'work is done already, tgext.evolve.stamp(conf, [{id!r}])'
    )
