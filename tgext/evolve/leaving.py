"""The end of a process: the holder lets go, and other handlers of the signal still get it."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
import weakref
from types import FrameType
from typing import Any, Protocol

#: How long the end of a process waits for its evolvers to give their leases back, in seconds.
PATIENCE = 5.0


class Leaving:
    """Set once the process is told to leave; a signal handler may set it while its own thread waits for it.

    That is what ``threading.Event`` cannot do: its lock is not reentrant.
    """

    def __init__(self) -> None:
        self._set = False
        self._changed = threading.Condition(threading.RLock())

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        with self._changed:
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """:param timeout: seconds. A signal in the very moment of going to sleep may cost all of them."""
        with self._changed:
            return self._changed.wait_for(self.is_set, timeout)


class Leaver(Protocol):
    def leave(self) -> None: ...

    def join(self, patience: float) -> bool: ...


_leavers: weakref.WeakSet[Any] = weakref.WeakSet()
_previous: Any = None
_installed = False
_registered = False


def leave_at_exit(leaver: Leaver) -> None:
    """Have ``leaver`` let go when the process exits or gets SIGTERM.

    The signal is chained where this is called from the main thread; servers that install their own
    handler later end by an ordinary exit, which is noticed as well.
    """
    global _installed, _previous, _registered
    _leavers.add(leaver)
    if not _registered:
        atexit.register(_let_go)
        _registered = True
    if not _installed and threading.current_thread() is threading.main_thread():
        _previous = signal.getsignal(signal.SIGTERM)
        # None: installed by C code, which cannot be chained. Ignored: then the process does not end by it.
        if _previous not in (None, signal.SIG_IGN):
            signal.signal(signal.SIGTERM, _on_sigterm)
            _installed = True


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    for leaver in list(_leavers):
        leaver.leave()
    if callable(_previous):
        _previous(number, frame)
    elif _previous == signal.SIG_DFL:
        # The default ends the process without any exit handler.
        _let_go()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


def _let_go() -> None:
    for leaver in list(_leavers):
        leaver.leave()
    until = time.monotonic() + PATIENCE
    for leaver in list(_leavers):
        leaver.join(max(0.0, until - time.monotonic()))
