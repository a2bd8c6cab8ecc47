"""What happens, told to whoever listens: hooks, displays, error reports. A listener cannot break a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from .gate import Progress, Verdict

log = logging.getLogger(__name__)


class What(str, Enum):
    """What happened. To an evolution in this process, or to the gate of this process."""

    STARTED = 'started'
    PROGRESS = 'progress'
    FINISHED = 'finished'
    FAILED = 'failed'
    CANCELLED = 'cancelled'
    INTERRUPTED = 'interrupted'
    OPENED = 'opened'
    CLOSED = 'closed'


@dataclass(frozen=True)
class Event:
    """Something that happened, with what is known of it.

    :param evolution_id: None when it is about the gate.
    :param seconds: how long the evolution has been running.
    :param error: what it raised, for ``failed``.
    :param verdict: where the gate stands, for ``opened`` and ``closed``.
    """

    what: What
    namespace: str
    evolution_id: str | None = None
    attempt: int | None = None
    token: int | None = None
    seconds: float | None = None
    progress: Progress | None = None
    error: BaseException | None = None
    verdict: Verdict | None = None

    @property
    def extra(self) -> dict[str, object]:
        """For ``logging``: what collectors of logs index."""
        return {
            'evolution_event': self.what.value,
            'evolution_id': self.evolution_id,
            'evolution_attempt': self.attempt,
            'evolution_token': self.token,
            'evolution_duration': self.seconds,
        }


Listener = Callable[[Event], object]


class Listeners:
    """Everybody who wants to hear of events, called in the thread in which they happen."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def __call__(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception('[%s] a listener to %r raised; the run goes on', event.namespace, event.what.value)
