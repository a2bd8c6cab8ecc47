"""Forks plain servers from a process that has imported everything: many real processes in little time.

Reads one JSON object a line from its standard input (``environ``, ``log``, ``directory``), and answers with
``forked PID`` and later ``exited PID STATUS``. It ends when its standard input does.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys

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


def main() -> None:
    # What TurboGears imports when it makes an application. This one has nothing to do with tgext.evolve.
    apps.configurator(apps.Model()).make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': 'sqlite://'})
    tg.milestones._reset_all()
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
    os.dup2(log, 2)
    os.close(nothing)
    os.close(log)
    os.environ.update(order['environ'])
    os.chdir(order['directory'])
    sys.path.insert(0, order['directory'])
    serve.main()


if __name__ == '__main__':
    main()
