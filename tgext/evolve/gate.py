"""What one application may serve now, and why. No I/O happens here."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from .pace import Pace


class Serving(str, Enum):
    """How much may be served, from the strictest to the laxest."""

    NOTHING = 'nothing'
    READS = 'reads'
    EVERYTHING = 'everything'

    #: 0 for the strictest.
    rank: int

    @classmethod
    def strictest(cls, levels: Iterable[str]) -> Serving:
        """The one that all of ``levels`` allow; everything when there are none.

        A level that only a newer release knows counts as the strictest.
        """
        found = cls.EVERYTHING
        for level in levels:
            try:
                found = min(found, cls(level), key=_rank_of)
            except ValueError:
                return cls.NOTHING
            if found is cls.NOTHING:
                break
        return found


for _rank, _serving in enumerate(Serving):
    _serving.rank = _rank  # a plain attribute: plans of thousands are sorted by it


def _rank_of(serving: Serving) -> int:
    return serving.rank


class Reason(str, Enum):
    """Why the gate is where it is: the only thing about it that the public gets to know."""

    STARTING = 'starting'
    DOWN = 'down'
    PENDING = 'pending'
    RUNNING = 'running'
    FAILED = 'failed'
    RETRYING = 'retrying'
    CANCELLED = 'cancelled'
    WAITING = 'waiting'
    PAUSED = 'paused'
    DATABASE_AWAY = 'database-away'
    DATABASE_BUSY = 'database-busy'
    DATABASE_REFUSES = 'database-refuses'
    PREDECESSOR = 'predecessor'
    OTHER_NAMESPACE = 'other-namespace'
    UNKNOWN_EVOLUTIONS = 'unknown-evolutions'
    NEWER_RELEASE = 'newer-release'
    COMPLETE = 'complete'
    FAILURE_IGNORED = 'failure-ignored'


@dataclass(frozen=True)
class Progress:
    """How far the evolution that runs is, and how long it has been running (seconds).

    What is no number (NaN, infinity) is dropped: neither JSON nor every database has it.
    """

    done: float
    total: float | None = None
    message: str | None = None
    elapsed: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.done):
            object.__setattr__(self, 'done', 0.0)
        for name in ('total', 'elapsed'):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                object.__setattr__(self, name, None)

    @property
    def fraction(self) -> float | None:
        if not self.total or self.total <= 0:
            return None
        return min(max(self.done / self.total, 0.0), 1.0)

    @property
    def remaining(self) -> float | None:
        """Seconds that are left at the pace so far; None when that cannot be told."""
        fraction = self.fraction
        if not fraction or not self.elapsed:
            return None
        remaining = self.elapsed * (1 - fraction) / fraction
        return remaining if math.isfinite(remaining) else None


@dataclass(frozen=True)
class Verdict:
    """What may be served and why, with what is known of the run that is waited for.

    ``detail`` is for logs and operators; it never reaches the public. ``message`` is what a person
    who closed the gate by hand wants the public to read.
    """

    serving: Serving
    reason: Reason
    progress: Progress | None = None
    detail: str = ''
    message: str = ''

    def lets_through(self, method: str) -> bool:
        """May a request with this HTTP method be served?"""
        if self.serving is Serving.READS:
            return method in ('GET', 'HEAD', 'OPTIONS')
        return self.serving is Serving.EVERYTHING


class Gate:
    """Closed until it is told otherwise.

    ``passing`` is the one attribute that a request pays for after the gate opened. It is True only
    when everything may be served *and* the process that asks has been armed, so that the first
    request of a freshly forked process takes the slow path once, where its evolver is started.
    """

    def __init__(self) -> None:
        self.passing = False
        self._verdict = Verdict(Serving.NOTHING, Reason.STARTING)
        #: How fast what runs moves, as far as it was seen here.
        self.pace = Pace()
        self._armed = False
        self._moved = threading.Condition()

    @property
    def verdict(self) -> Verdict:
        return self._verdict

    @property
    def is_open(self) -> bool:
        return self._verdict.serving is Serving.EVERYTHING

    def move(self, verdict: Verdict) -> Verdict:
        """Take a new verdict; returns the one before."""
        with self._moved:
            before, self._verdict = self._verdict, verdict
            self.pace.see(verdict.progress)
            self.passing = self._armed and self.is_open
            self._moved.notify_all()
        return before

    def show(self, progress: Progress | None) -> None:
        """This process runs an evolution, which has come so far; None: it has just begun."""
        with self._moved:
            # Closed by hand it stays, whatever goes on behind it.
            reason = self._verdict.reason if self._verdict.reason is Reason.DOWN else Reason.RUNNING
            self._verdict = replace(self._verdict, reason=reason, progress=progress)
            if progress is not None:
                self.pace.see(progress)
            self._moved.notify_all()

    def arm(self) -> None:
        with self._moved:
            self._armed = True
            self.passing = self.is_open

    def disarm(self) -> None:
        """After a fork: the child must take the slow path once."""
        self._moved = threading.Condition()
        self._armed = False
        self.passing = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything may be served, at most ``timeout`` seconds; was it reached?"""
        with self._moved:
            return self._moved.wait_for(lambda: self.is_open, timeout)
