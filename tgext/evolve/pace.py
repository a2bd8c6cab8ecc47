"""How fast the evolution that runs moves, and when it will be done: only what was really seen. No I/O happens here."""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .gate import Progress

#: Seconds that a run must have been watched before anything is said of its end.
_LEAST = 5.0

#: Steps forward that must have been seen before anything is said of its end.
_STEPS = 3

#: Seconds between two samples that are kept, at least.
_BETWEEN = 0.25

#: So many samples are kept; with more, every second one is dropped.
_MOST = 240

#: Seconds of silence that surprise nobody, besides what a step usually takes.
_PATIENCE = 10.0


class Pace:
    """Watches the reports of one process's gate, one run after the other.

    The end is told from the second half of what was seen, so that it follows a run which gets slower and does not
    jump with every report. How long the run has been going is not asked: one that was resumed did not
    do all of its work in that time.
    """

    def __init__(self) -> None:
        self._last: Progress | None = None
        self._samples: list[tuple[float, float]] = []
        self._steps = 0
        self._step = 0.0

    def see(self, progress: Progress | None, now: float | None = None) -> None:
        """Take a report, or the same one again.

        :param now: seconds of a monotonic clock.
        """
        now = time.monotonic() if now is None else now
        last, self._last = self._last, progress
        if progress is None or progress.fraction is None:
            self._forget()
            return
        if last is None or _is_another(last, progress):
            self._forget()
            self._samples = [(now, progress.done)]
        elif progress.done > last.done:
            self._steps += 1
            self._step = progress.done - last.done
            samples = self._samples
            if len(samples) > 1 and now - samples[-2][0] < _BETWEEN:
                samples = samples[:-1]
            elif len(samples) >= _MOST:
                samples = samples[::2]
            # A list of its own: another thread may be reading the old one.
            self._samples = [*samples, (now, progress.done)]

    def _forget(self) -> None:
        self._samples = []
        self._steps = 0
        self._step = 0.0

    def remaining(self, now: float | None = None) -> float | None:
        """Seconds until it is done; None when that cannot be told (yet, or any more)."""
        now = time.monotonic() if now is None else now
        told = self._told()
        if told is None:
            return None
        left, of_step, since = told
        silence = now - since
        if silence > 2 * of_step + _PATIENCE:
            return None
        # However long the step under way takes: those after it are still to come.
        return max(left - silence, left - of_step, 0.0)

    def is_late(self, now: float | None = None) -> bool:
        """Has it been silent for much longer than could be expected?"""
        return self._told() is not None and self.remaining(now) is None

    def _told(self) -> tuple[float, float, float] | None:
        """Seconds left after the latest step, seconds that such a step takes, and when it was."""
        samples, progress = self._samples, self._last
        if progress is None or progress.total is None or len(samples) < _STEPS or self._steps < _STEPS:
            return None
        (began, _), (since, done) = samples[0], samples[-1]
        if since - began < _LEAST or done >= progress.total:
            return None
        middle = since - max(_LEAST, (since - began) / 2)
        at = max(0, bisect_right(samples, (middle, float('inf'))) - 1)
        then, before = samples[at]
        seconds_each = (since - then) / (done - before)
        return (progress.total - done) * seconds_each, self._step * seconds_each, since


def _is_another(last: Progress, now: Progress) -> bool:
    """Is this a report of another run?"""
    if now.done < last.done or now.total != last.total:
        return True
    return last.elapsed is not None and now.elapsed is not None and now.elapsed < last.elapsed - 1
