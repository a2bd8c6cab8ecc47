"""When an evolution that was begun and is not done may run again: a policy, apart from the machinery."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .history import SETTLED, Attempt, History, State
from .plan import PlannedEvolution
from .stores.base import CLOCK_SLACK


class Permission(Enum):
    NOW = 'now'
    LATER = 'later'
    NEVER = 'never'


@dataclass(frozen=True)
class Decision:
    """May it run? LATER is from ``since`` to ``after``, times of the database's clock (milliseconds)."""

    permission: Permission
    after: int | None = None
    why: str = ''
    since: int = 0

    def allows(self, now: int) -> bool:
        """:param now: the database's clock; before the pause it has jumped back, and the pause means nothing."""
        if self.after is None:
            return self.permission is Permission.NOW
        return not self.since - CLOCK_SLACK <= now < self.after


NOW = Decision(Permission.NOW)

#: More would take longer than anybody waits, and in the end more than a float holds.
_MOST_DOUBLINGS = 40


def _moved(attempt: Attempt, before: Attempt | None) -> bool:
    """Did a batched evolution get on in this attempt?"""
    reached = before.reached if before is not None else None
    return (attempt.reached or 0) > (reached or 0)


@dataclass(frozen=True)
class RetryPolicy:
    """Raised: again by itself only where that is safe. Interrupted: again, but not for ever.

    :param max_attempts: how many attempts in all, per fingerprint of the evolution's code.
    :param retry_delay: seconds before the second attempt; doubled for each further one.
    """

    max_attempts: int = 5
    retry_delay: float = 5.0

    def decide(self, planned: PlannedEvolution, history: History) -> Decision:
        # What a person asked to retry has lost its fingerprint, and counts no more.
        counted = [a for a in history.under(planned.names) if a.fingerprint is not None]
        if not counted:
            return NOW
        if counted[-1].state is State.CANCELLED:
            # Whatever the code is now: a person decided, and only a person takes it back.
            return Decision(Permission.NEVER, why='a person cancelled it')
        # Only attempts of the very same code count: a mended evolution runs at once, and two
        # releases side by side, each with its own idea of the code, cannot provoke each other.
        attempts = [a for a in counted if a.fingerprint == planned.fingerprint]
        if not attempts:
            return NOW
        latest = attempts[-1]
        if latest.final:
            return Decision(Permission.NEVER, why='it ended its transaction by itself, so part of it may be saved')
        if latest.state is State.FAILED:
            return self._after_failure(planned, attempts, latest)
        if latest.state is State.INTERRUPTED:
            return self._after_interruption(planned, attempts)
        return NOW

    def _after_failure(self, planned: PlannedEvolution, attempts: list[Attempt], latest: Attempt) -> Decision:
        may = planned.rerunnable if planned.rerunnable is not None else planned.transactional
        if not may:
            return Decision(
                Permission.NEVER,
                why='it raised, and only transactional evolutions and those with rerunnable = True '
                'run again by themselves',
            )
        failures = 0
        for attempt, before in zip(attempts, [None, *attempts[:-1]], strict=True):
            if _moved(attempt, before) or attempt.state in SETTLED:
                failures = 0  # it got on, or was done once: what failed before has been overcome
            failures += attempt.state is State.FAILED
        if failures >= self.max_attempts:
            return Decision(Permission.NEVER, why=f'it raised {failures} times')
        delay = self.retry_delay * 2 ** min(failures - 1, _MOST_DOUBLINGS)
        ended = latest.finished or latest.started or 0
        return Decision(
            Permission.LATER,
            after=ended + round(delay * 1000),
            why=f'attempt {failures + 1} of {self.max_attempts} follows {delay:g} s after the last one',
            since=ended,
        )

    def _after_interruption(self, planned: PlannedEvolution, attempts: list[Attempt]) -> Decision:
        if planned.rerunnable is False:
            return Decision(Permission.NEVER, why='it was interrupted, and it says rerunnable = False')
        interruptions = 0
        for attempt, before in zip(reversed(attempts), [*reversed(attempts[:-1]), None], strict=True):
            if attempt.state is not State.INTERRUPTED or _moved(attempt, before):
                break
            interruptions += not attempt.left_in_order
        if interruptions >= self.max_attempts:
            return Decision(
                Permission.NEVER,
                why=f'the process that ran it died or was deposed {interruptions} times in a row',
            )
        return NOW
