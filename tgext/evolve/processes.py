"""Which process is this: one that serves, one that will fork servers, or none of both.

Evolutions must not run because a shell, a cron job or a test suite created the application. A
server is recognised by what it leaves in the interpreter: its frames on the stack of the call that
creates the application, or a module that only it provides.
"""

from __future__ import annotations

import logging
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from types import FrameType
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Forgetful(Protocol):
    """What holds threads, locks or connections that a forked child must not use."""

    def _forget_parent(self) -> None: ...


class Role(Enum):
    """What the process does that creates the application."""

    #: It answers requests: evolutions may run here.
    SERVER = 'server'
    #: It forks the processes that answer requests.
    MASTER = 'master'
    #: A shell, a script, a test suite, or a server that is not known: the first request tells.
    OTHER = 'other'


#: Module and function of a frame that is only there when the process is about to serve.
_SERVING_FRAMES = frozenset(
    {
        ('gearbox.commands.serve', 'take_action'),
        ('gunicorn.arbiter', 'spawn_worker'),
        ('waitress.runner', 'run'),
    }
)


def role() -> Role:
    """The role of the process, asked while it creates the application."""
    if (uwsgi := _uwsgi()) is not None:
        return Role.SERVER if uwsgi.worker_id() > 0 else Role.MASTER
    frames = set(_frames(sys._getframe(1)))
    if frames & _SERVING_FRAMES or 'mod_wsgi' in sys.modules:
        return Role.SERVER
    if any(module == 'gunicorn.arbiter' for module, _ in frames):
        return Role.MASTER
    return Role.OTHER


def threads_run() -> bool:
    """False where a background thread would never get the interpreter: uwsgi without threads."""
    uwsgi = _uwsgi()
    if uwsgi is None:
        return True
    options = {_str(key): value for key, value in getattr(uwsgi, 'opt', {}).items()}
    return bool(options.get('enable-threads') or options.get('threads'))


def after_fork(started: Callable[[], None]) -> None:
    """Have ``started`` called in each worker that a recognised server forks from this process."""
    uwsgi = _uwsgi()
    if uwsgi is not None:
        # os.register_at_fork never fires under uwsgi, which forks in C.
        before = getattr(uwsgi, 'post_fork_hook', None)

        def hook() -> None:
            if before is not None:
                before()
            started()

        uwsgi.post_fork_hook = hook
        return

    def in_child() -> None:
        if set(_frames(sys._getframe(1))) & _SERVING_FRAMES:
            started()

    if hasattr(os, 'register_at_fork'):
        os.register_at_fork(after_in_child=in_child)


def forget_after_fork(thing: Forgetful) -> None:
    """Have ``thing`` forget its parent in every child, also one that nobody recognises."""
    reference = weakref.ref(thing)

    def in_child() -> None:
        child = reference()
        if child is not None:
            child._forget_parent()

    if hasattr(os, 'register_at_fork'):
        os.register_at_fork(after_in_child=in_child)


@contextmanager
def ends_in_a_fork() -> Iterator[None]:
    """A child that was forked inside of this ends where it would leave it, by whatever way.

    It shares its parent's database connections and knows its parent's lease: a rollback, a commit
    or a record of its own would be the parent's. Exit handlers do not run for the same reason.
    """
    here = os.getpid()
    status = 0
    try:
        yield
    except BaseException as error:
        if os.getpid() == here:
            raise
        status = _exit_status(error)
    if os.getpid() != here:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # closed, or none at all
                stream.flush()
        os._exit(status)


def _exit_status(error: BaseException) -> int:
    """As Python itself would end; a traceback goes to the log, because nobody else prints it."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return (error.code or 0) & 0xFF
    log.error('a process that an evolution forked ended by an exception', exc_info=error)
    return 1


def _frames(frame: FrameType | None) -> list[tuple[str, str]]:
    found = []
    while frame is not None:
        found.append((frame.f_globals.get('__name__', ''), frame.f_code.co_name))
        frame = frame.f_back
    return found


def _uwsgi() -> Any:
    """The module that exists inside of uwsgi only."""
    module = sys.modules.get('uwsgi')
    if module is None:
        try:
            import uwsgi as module  # type: ignore[no-redef]
        except ImportError:
            return None
    return module if hasattr(module, 'worker_id') else None


def _str(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
