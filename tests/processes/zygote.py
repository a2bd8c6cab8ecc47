"""Forks from a process that has imported everything: many real processes in little time.

Reads one JSON object a line from its standard input, and answers with ``forked PID`` and later ``exited PID STATUS``.
It ends when its standard input does. Each object has ``environ``, ``directory`` and ``log``, and for a program also
``argv``; without that it is a plain server. With ``ends`` it is over soon: see :func:`_end_after`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import os
import runpy
import select
import signal
import sys
import threading
import time
from importlib import import_module
from typing import Any, NoReturn

import ming.odm  # noqa: F401
import psycopg  # noqa: F401
import pymongo  # noqa: F401
import pymysql  # noqa: F401
import sqlalchemy.dialects.mysql
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite  # noqa: F401
import tg
import waitress.server  # noqa: F401

import tgext.evolve.component
import tgext.evolve.stores.ming
import tgext.evolve.stores.sqlalchemy  # noqa: F401
from tests import apps
from tests.processes import serve

#: What programs import, besides. None of pytest's plugins, whose assertions it rewrites as it imports them; not
#: gunicorn, which as it is imported remembers where it is; and nothing that starts a thread.
PROGRAMS = (
    'alembic.command',
    'backlash',
    'beaker.middleware',
    'gearbox.main',
    'gearbox.commands.serve',
    'kajiki',
    'kajiki.xml_template',
    'ming.odm.declarative',
    'pytest',
    'repoze.who.config',
    'rich.live',
    'rich.progress',
    'sqlglot',
    'tgext.evolve.commands',
    'webtest',
)


def main() -> None:
    # What TurboGears imports when it makes an application. This one has nothing to do with tgext.evolve.
    apps.configurator(apps.Model()).make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': 'sqlite://'})
    tg.milestones._reset_all()
    # What reads its own name as it is imported is gearbox.
    mine, sys.argv = sys.argv, ['gearbox']
    for name in PROGRAMS:
        import_module(name)
    sys.argv = mine
    gc.freeze()
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake)
    # Ctrl-C is for pytest, which ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print('ready', flush=True)
    buffer = b''
    while True:
        readable, _, _ = select.select([0, ended], [], [])
        if ended in readable:
            os.read(ended, 1024)
            _reap()
        if 0 in readable:
            received = os.read(0, 65536)
            if not received:
                return
            buffer += received
            while b'\n' in buffer:
                line, _, buffer = buffer.partition(b'\n')
                order = json.loads(line)
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    os.close(ended)
                    os.close(wake)
                    if order.get('ends'):
                        _end_after(_become, order)
                    _become(order)
                    return
                print(f'forked {pid}', flush=True)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        print(f'exited {pid} {os.waitstatus_to_exitcode(status)}', flush=True)


def _become(order) -> None:
    os.setsid()
    log = os.open(order['log'], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    if order.get('errors'):
        errors = os.open(order['errors'], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(errors, 2)
        os.close(errors)
    else:
        os.dup2(log, 2)
    os.close(nothing)
    os.close(log)
    if 'argv' in order:
        _run(order)
        return
    os.environ.update(order['environ'])
    os.chdir(order['directory'])
    sys.path.insert(0, order['directory'])
    serve.main()


def _end_after(work, *arguments) -> NoReturn:
    """End as a process does whose main module has ended, but for clearing the memory that it shares with its parent:
    that would take nine tenths of its time.
    """
    status: Any = 0
    try:
        work(*arguments)
    except SystemExit as leaving:
        status = leaving.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except Exception:
        sys.excepthook(*sys.exc_info())
        status = 1
    # Not after KeyboardInterrupt: Python ends by that very signal.
    threading._shutdown()
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            file.flush()
    os._exit(status & 0xFF)


def _run(order) -> None:
    """A script of Python's, or ``-m`` and a module, as if a new Python had been started for it."""
    os.environ.clear()
    os.environ.update(order['environ'])
    os.chdir(order['directory'])
    time.tzset()
    for name, number in (('stdout', 1), ('stderr', 2)):
        file = io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(number, 'w', closefd=False)), 'utf-8', 'backslashreplace', line_buffering=True
        )
        setattr(sys, name, file)
        setattr(sys, f'__{name}__', file)
    first, *rest = sys.argv = list(order['argv'])
    path = [entry for entry in os.environ.get('PYTHONPATH', '').split(os.pathsep) if entry]
    sys.path[:1] = [order['directory'] if first == '-m' else os.path.dirname(first), *path]
    sys.dont_write_bytecode = bool(os.environ.get('PYTHONDONTWRITEBYTECODE'))
    if first == '-m':
        sys.argv = rest
        runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
    else:
        runpy.run_path(first, run_name='__main__')


if __name__ == '__main__':
    main()
