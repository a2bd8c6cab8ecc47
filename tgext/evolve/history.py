"""The durable record of every attempt at every evolution, as values."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter


class State(str, Enum):
    """What became of an attempt."""

    RUNNING = 'running'
    DONE = 'done'
    FAILED = 'failed'
    INTERRUPTED = 'interrupted'
    CANCELLED = 'cancelled'
    STAMPED = 'stamped'
    IMPORTED = 'imported'
    #: Of no evolution: a person closed the gate of the whole namespace.
    DOWN = 'down'


#: Recorded in place of an id when a person claims a namespace or closes it; no evolution can have it.
CLAIM = ''

#: The states that say: this evolution need not run any more. The commonest comes first: histories are long.
SETTLED = (State.DONE, State.STAMPED, State.IMPORTED)


@dataclass(frozen=True)
class Attempt:
    """One attempt at one evolution, the row that its outcome is fenced by.

    ``started`` and ``finished`` are milliseconds since 1970 by the database's clock. An
    interrupted attempt without ``finished`` belongs to a process that was killed or deposed; one
    with it, to a process that left in good order. ``reached`` is how many items the evolution had
    processed in all when an attempt that was not its last one ended. After a ``final`` one it does not
    run again by itself: part of what it did may be saved.
    """

    evolution_id: str
    attempt: int
    token: int
    owner: str
    state: State
    serving: str = 'nothing'
    fingerprint: str | None = None
    host: str | None = None
    pid: int | None = None
    started: int | None = None
    finished: int | None = None
    error: str | None = None
    reached: int | None = None
    final: bool = False

    @property
    def order(self) -> tuple[int, int]:
        """Later attempts sort after earlier ones: tokens grow at each take-over."""
        return self.token, self.attempt

    @property
    def left_in_order(self) -> bool:
        return self.state is State.INTERRUPTED and self.finished is not None


@dataclass(frozen=True)
class Applied:
    """What the version tables of other systems say, at one look.

    :param decides: the evolutions of the plan that such a table decides about, whatever the history has.
    :param ids: those of them that are applied.
    :param unknown: what the tables have and the plan does not.
    """

    decides: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


NOTHING_APPLIED = Applied()


@dataclass(frozen=True)
class Repeatable:
    """What runs again whenever its content has changed, as one process knows it.

    :param names: all ids under which it may be recorded.
    :param fingerprint: of the content that this process has.
    :param since: the order of the latest attempt at it when this process first looked. What another release does
        later with a content of its own does not count here: two releases side by side would run theirs in turns.
    """

    names: tuple[str, ...]
    fingerprint: str
    since: tuple[int, int]

    def is_settled_by(self, attempt: Attempt) -> bool:
        return attempt.state in SETTLED and attempt.fingerprint == self.fingerprint and attempt.order >= self.since


class History:
    """All attempts of one namespace, by evolution, oldest first; and what version tables of other systems add."""

    def __init__(self, attempts: Iterable[Attempt] = (), applied: Applied = NOTHING_APPLIED):
        found = sorted(attempts, key=attrgetter('token', 'attempt'))  # Attempt.order
        self.attempts = [attempt for attempt in found if attempt.evolution_id != CLAIM]
        #: Did a person say that this is the right place, though nothing ran here?
        self.is_claimed = any(a.evolution_id == CLAIM and a.state in SETTLED for a in found)
        #: The record of a person having closed the gate, with who and when; None when it is not.
        self.down = next((a for a in found if a.evolution_id == CLAIM and a.state is State.DOWN), None)
        self._by_id: dict[str, list[Attempt]] = {}
        for attempt in self.attempts:
            self._by_id.setdefault(attempt.evolution_id, []).append(attempt)
        #: Latest attempts at other contents of what is settled here, begun and not done: of another release.
        self.rivals: tuple[Attempt, ...] = ()
        #: What need not run any more, as the attempts tell it.
        self.recorded = frozenset(a.evolution_id for a in self.attempts if a.state in SETTLED)
        self._see(applied)

    def _see(self, applied: Applied) -> None:
        self.applied = applied
        #: What need not run any more.
        self.settled = self.recorded
        if applied.decides:
            self.settled = self.recorded - applied.decides | applied.ids & applied.decides

    def __bool__(self) -> bool:
        return bool(self.attempts) or self.is_claimed

    def of(self, evolution_id: str) -> list[Attempt]:
        return self._by_id.get(evolution_id, [])

    def under(self, names: Iterable[str]) -> list[Attempt]:
        """The attempts at one evolution under all its ids, oldest first."""
        found = [attempt for name in names for attempt in self.of(name)]
        return sorted(found, key=attrgetter('token', 'attempt'))

    def latest(self, evolution_id: str) -> Attempt | None:
        attempts = self.of(evolution_id)
        return attempts[-1] if attempts else None

    def unsettled(self) -> list[Attempt]:
        """The latest attempt of each evolution that was begun and is not done."""
        latest = (attempts[-1] for id, attempts in self._by_id.items() if id not in self.settled)
        # What was done and then taken back in its version table was not begun again.
        return [attempt for attempt in latest if attempt.state not in SETTLED]

    def with_applied(self, applied: Applied) -> History:
        """The same attempts, seen with what the version tables say."""
        seen = copy(self)
        seen._see(applied)
        return seen

    def with_repeatables(self, repeatables: Iterable[Repeatable]) -> History:
        """The same attempts, where these are settled only if the content that this process has was done."""
        seen = copy(self)
        settled = set(self.settled)
        rivals = []
        for repeatable in repeatables:
            attempts = self.under(repeatable.names)
            settled.difference_update(repeatable.names)
            if any(map(repeatable.is_settled_by, attempts)):
                settled.update(repeatable.names)
                latest = attempts[-1]
                if latest.state not in SETTLED and latest.fingerprint != repeatable.fingerprint:
                    rivals.append(latest)
        seen.settled = frozenset(settled)
        seen.rivals = tuple(rivals)
        return seen

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(self._by_id)
