"""Starts a plain server under a clock that the test sets: ``python -m tests.chaos.clocked PORT``, with libfaketime.

It is meant for :meth:`tests.processes.harness.Site.start`, with what :class:`tests.chaos.test_clocks.FalseClock` gives.
"""

from __future__ import annotations

import select
import sys
import time

from tests.processes import serve, worker


def sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


if __name__ == '__main__':
    # With this libfaketime clock_nanosleep refuses an absolute time of the monotonic clock, which Python 3.11 gives it.
    time.sleep = sleep
    serve.settings = lambda: {**worker.settings(), 'port': int(sys.argv[1])}
    serve.main()
