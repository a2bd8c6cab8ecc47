"""What happens, told to whoever listens: hooks, displays, error reports. A listener cannot break a run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from .gate import Progress, Verdict

log = logging.getLogger(__name__)


class What(str, Enum):
    """What happened. To an evolution in this process, or to the gate of this process."""

    #: An attempt is recorded as running, and begins.
    STARTED = 'started'
    #: It reported progress: at most twice a second, the latest report, and never the same one twice.
    PROGRESS = 'progress'
    #: Its data and its record are saved.
    FINISHED = 'finished'
    #: It raised, and that is recorded.
    FAILED = 'failed'
    #: A person ended it, and that is recorded.
    CANCELLED = 'cancelled'
    #: Its process left in good order, or died or lost the lease: told by whoever finds out.
    INTERRUPTED = 'interrupted'
    #: The gate of this process is open: told when it begins to serve, and each time that it opens.
    OPENED = 'opened'
    #: The gate of this process is closed: told when it begins to serve, and each time that it closes.
    CLOSED = 'closed'


@dataclass(frozen=True)
class Event:
    """Something that happened, with what is known of it.

    It is told after it was recorded, at most once, and by one process: a holder that lost the lease
    tells nothing, its successor tells ``interrupted``. When the answer to a commit was lost nobody
    tells anything: the history is what counts.

    :param evolution_id: None when it is about the gate.
    :param token: of the lease under which the attempt ran.
    :param seconds: how long the evolution has been running.
    :param progress: the last one that it reported.
    :param error: what it raised, for ``failed``.
    :param verdict: where the gate stands, for ``opened`` and ``closed``.
    :param repeated: the same code failed before, and nobody asked for another attempt since.
    :param final: it does not run again by itself; None where that is not known.
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
    repeated: bool = False
    final: bool | None = None

    @property
    def extra(self) -> dict[str, object]:
        """For ``logging``: what collectors of logs index."""
        return fields(
            self.namespace,
            event=self.what.value,
            id=self.evolution_id,
            attempt=self.attempt,
            token=self.token,
            duration=self.seconds,
            reason=None if self.verdict is None else self.verdict.reason.value,
        )


def fields(
    namespace: str | None = None,
    *,
    event: str | None = None,
    id: str | None = None,
    attempt: int | None = None,
    token: int | None = None,
    duration: float | None = None,
    reason: str | None = None,
) -> dict[str, object]:
    """The ``extra`` of every log record about a run or the gate; what does not apply is None.

    :param duration: seconds.
    """
    return {
        'evolution_event': event,
        'evolution_namespace': namespace,
        'evolution_id': id,
        'evolution_attempt': attempt,
        'evolution_token': token,
        'evolution_duration': None if duration is None else round(duration, 3),
        'evolution_reason': reason,
    }


Listener = Callable[[Event], object]


class Listeners:
    """Everybody who wants to hear of events, called in the thread in which they happen."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        self._listeners.remove(listener)

    def __call__(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except KeyboardInterrupt:
                if threading.current_thread() is threading.main_thread():
                    raise  # a person's Ctrl-C is no mistake of the listener
                self._complain(event)
            except BaseException:  # also SystemExit: nobody who only listens may end a run or a thread
                self._complain(event)

    def _complain(self, event: Event) -> None:
        log.exception(
            '[%s] a listener to %r raised; nothing else is affected',
            event.namespace,
            event.what.value,
            extra=event.extra,
        )
