"""Real processes for the tests: started, watched, killed, and always reaped."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.processes.worker import ROWS
from tests.servers import free_port
from tgext.evolve.databases import Databases
from tgext.evolve.options import Options

ROOT = Path(__file__).resolve().parents[2]

#: How long anything may take that is not under test here, in seconds: starting Python on a busy machine.
PATIENCE = 60.0

#: ``namespace`` of the applications: the name of their package.
NAMESPACE = 'testapp'


def until(condition, seconds: float = PATIENCE, what: str = ''):
    """Wait for *condition* to be true, and return what it returned.

    :param seconds: the deadline.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f'not within {seconds:g} s: {what or condition}'
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Does this process run? Dead but not yet waited for is no."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Line:
    """What a process told: see :func:`tests.processes.worker.note`."""

    event: str
    about: str
    pid: int
    time: float


@dataclass
class Process:
    """One process, or a server with its workers, in a session and process group of its own."""

    pid: int
    log_path: Path
    port: int | None = None
    popen: subprocess.Popen | None = None
    zygote: Zygote | None = None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors='replace') if self.log_path.exists() else ''

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.popen is not None:
            return self.popen.poll()
        assert self.zygote is not None
        return self.zygote.status(self.pid)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            # On two cores its threads may go on for a moment after the signal was sent.
            until(lambda: all(state == 'T' for state in self._thread_states()), what='every thread is stopped')

    def _thread_states(self) -> list[str]:
        tasks = Path(f'/proc/{self.pid}/task').glob('*/stat')
        return [task.read_text().rpartition(')')[2].split()[0] for task in tasks]

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def terminate(self) -> int:
        self.send(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = PATIENCE) -> int:
        until(lambda: self.status is not None, seconds, f'process {self.pid} has ended')
        status = self.status
        assert status is not None
        return status

    def reap(self) -> None:
        """End it and all that it started, whatever state it is in."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.popen is not None:
            self.popen.wait()
        else:
            self.wait()

    def fetch(self, path: str = '/', **headers: str) -> tuple[int, str] | None:
        """Status and body; None when nobody answers there."""
        request = urllib.request.Request(f'http://127.0.0.1:{self.port}{path}', headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError):
            assert self.status is None, f'the server has ended:\n{self.log}'
            return None

    def first_answer(self, path: str = '/') -> tuple[int, str]:
        """The answer to the first request of all that gets one."""
        return until(lambda: self.fetch(path), what='the server answers')

    def reason(self) -> str:
        """What ``ready`` says."""
        status, body = self.first_answer('/_evolve/ready')
        told = json.loads(body)
        assert (status == 200) is told['ready']
        return told['reason']

    def until_reason(self, reason: str, seconds: float = PATIENCE) -> None:
        until(lambda: self.reason() == reason, seconds, f'the reason is {reason}')

    def until_open(self, seconds: float = PATIENCE) -> None:
        until(lambda: self.first_answer()[0] == 200, seconds, '200')

    def workers(self) -> list[int]:
        """Its child processes."""
        children = Path(f'/proc/{self.pid}/task/{self.pid}/children')
        return [int(pid) for pid in children.read_text().split()]


class Zygote:
    """See :mod:`tests.processes.zygote`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'tests.processes.zygote'],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._statuses: dict[int, int] = {}
        self._forked: queue.Queue[int] = queue.Queue()
        self._ready = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()
        assert self._ready.wait(PATIENCE)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, *numbers = line.decode().split()
            if word == 'ready':
                self._ready.set()
            elif word == 'forked':
                self._forked.put(int(numbers[0]))
            else:
                self._statuses[int(numbers[0])] = int(numbers[1])

    def status(self, pid: int) -> int | None:
        return self._statuses.get(pid)

    def fork(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b'\n')
        self._process.stdin.flush()
        pid = self._forked.get(timeout=PATIENCE)
        self._statuses.pop(pid, None)
        return pid

    def start(
        self,
        *command: str,
        directory: Path,
        environ: Mapping[str, str],
        log: Path,
        errors: Path | None = None,
        port: int | None = None,
        ends: bool = False,
    ) -> Process:
        """A Python program, without the time that its imports take.

        :param command: the path of a script and its arguments, or ``-m``, a module and its arguments.
        :param errors: where its standard error goes; None: to the log too.
        :param ends: it is over soon, and ends without clearing its memory. A server ends as Python ends.
        """
        order = {'argv': command, 'environ': dict(environ), 'log': str(log), 'directory': str(directory)}
        pid = self.fork({**order, 'errors': errors and str(errors), 'ends': ends})
        return Process(pid, log, port, zygote=self)

    def run(
        self,
        *command: str,
        directory: Path,
        environ: Mapping[str, str],
        errors_apart: bool = True,
        timeout: float = PATIENCE,
    ) -> subprocess.CompletedProcess[str]:
        """The same to its end, like :func:`subprocess.run`.

        :raises subprocess.TimeoutExpired: and the program is dead.
        """
        with tempfile.TemporaryDirectory() as scratch:
            out, errors = Path(scratch, 'out'), Path(scratch, 'errors')
            process = self.start(
                *command,
                directory=directory,
                environ=environ,
                log=out,
                errors=errors if errors_apart else None,
                ends=True,
            )
            try:
                status = process.wait(timeout)
            except AssertionError:
                raise subprocess.TimeoutExpired(command, timeout, process.log) from None
            finally:
                process.reap()
            return subprocess.CompletedProcess(
                command, status, process.log, errors.read_text(errors='replace') if errors_apart else None
            )

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)


@dataclass
class Site:
    """One database with its evolutions, and the processes that serve it."""

    directory: Path
    url: str
    zygote: Zygote
    evolutions: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)
    counter: int = 0
    #: Of the page table, or documents of the page collection.
    rows: int = ROWS

    def __post_init__(self) -> None:
        self._barriers: list[int] = []
        self.witness = self.directory / 'witness'
        self.store = Databases({}, Options(store=self.url, namespace=NAMESPACE)).store()
        self._make_rows()

    # -- the database

    def _make_rows(self) -> None:
        with self._database() as database:
            if self.is_sql:
                from sqlalchemy import text

                database.execute(
                    text(
                        'CREATE TABLE page (id INTEGER PRIMARY KEY, title VARCHAR(100) NOT NULL,'
                        ' slug VARCHAR(100), seen INTEGER NOT NULL DEFAULT 0, flag BOOLEAN)'
                    )
                )
                for first in range(1, self.rows + 1, 1000):
                    values = ', '.join(f"({row}, 'page')" for row in range(first, min(first + 1000, self.rows + 1)))
                    database.execute(text(f'INSERT INTO page (id, title) VALUES {values}'))
            else:
                rows = range(1, self.rows + 1)
                database.page.insert_many({'_id': row, 'number': row, 'seen': 0} for row in rows)
                database.page.create_index('number')

    @property
    def is_sql(self) -> bool:
        return not self.url.startswith('mongodb')

    @property
    def seen(self) -> list[int]:
        """How often each row was changed."""
        with self._database() as database:
            if self.is_sql:
                from sqlalchemy import text

                return list(database.execute(text('SELECT seen FROM page ORDER BY id')).scalars())
            return [page['seen'] for page in database.page.find().sort('_id')]

    @property
    def tables(self) -> set[str]:
        """The names of all tables or collections."""
        with self._database() as database:
            if self.is_sql:
                from sqlalchemy import inspect

                return set(inspect(database).get_table_names())
            return set(database.list_collection_names())

    @contextlib.contextmanager
    def _database(self):
        if self.is_sql:
            from sqlalchemy import create_engine
            from sqlalchemy.pool import NullPool

            with create_engine(self.url, poolclass=NullPool).begin() as connection:
                yield connection
        else:
            from pymongo import MongoClient

            with MongoClient(self.url, serverSelectionTimeoutMS=5000) as client:
                yield client.get_default_database()

    @property
    def lease(self):
        return self.store.snapshot().lease

    def states(self, id: str) -> list[str]:
        """What became of each attempt, oldest first."""
        return [attempt.state.value for attempt in self.store.history().of(id)]

    # -- what processes told

    def lines(self, event: str | None = None, about: str | None = None, pid: int | None = None) -> list[Line]:
        if not self.witness.exists():
            return []
        lines = []
        for text in self.witness.read_text().splitlines():
            told, subject, number, when = text.split()
            line = Line(told, subject, int(number), float(when))
            if event in (None, line.event) and about in (None, line.about) and pid in (None, line.pid):
                lines.append(line)
        return lines

    def count(self, event: str, about: str | None = None) -> int:
        return len(self.lines(event, about))

    def until_told(self, event: str, about: str | None = None, pid: int | None = None, times: int = 1) -> list[Line]:
        def told():
            lines = self.lines(event, about, pid)
            return lines if len(lines) >= times else None

        return until(told, what=f'{event} {about or ""} {pid or ""} {times} times')

    def go(self, name: str = 'go') -> None:
        """Let evolutions that are held by this name go on."""
        (self.directory / name).touch()

    def hold(self, name: str = 'go') -> None:
        (self.directory / name).unlink(missing_ok=True)

    # -- processes

    def fork_together(self, number: int, **settings: Any) -> list[Process]:
        """Processes that have all come to the barrier that *settings* name, and go on at the very same moment."""
        fifo = self.directory / f'fifo-{self.counter}'
        os.mkfifo(fifo)
        met = self.count('met')
        processes = [self.fork(http=False, fifo=str(fifo), **settings) for _ in range(number)]
        # Each of many has its share of two cores.
        until(lambda: self.count('met') >= met + number, PATIENCE + number, 'all are at the barrier')
        # Whoever is not at the barrier yet finds it open; it is closed with this process, or by close().
        self._barriers.append(os.open(fifo, os.O_WRONLY))
        return processes

    def configure(self, **settings: Any) -> dict[str, str]:
        """Write what a process is to do; returns its environment."""
        self.counter += 1
        path = self.directory / f'settings-{self.counter}.json'
        options = {**self.options, **settings.pop('options', {})}
        path.write_text(
            json.dumps(
                {
                    'directory': str(self.directory),
                    'witness': str(self.witness),
                    'url': self.url,
                    'evolutions': self.evolutions,
                    'options': options,
                    **settings,
                }
            )
        )
        return {'EVOLVE_SETTINGS': str(path), 'PYTHONPATH': f'{ROOT}{os.pathsep}{self.directory}'}

    def fork(self, *, http: bool = True, **settings: Any) -> Process:
        """A plain server, or without *http* a process that waits until it may serve, forked from a warm parent."""
        port = free_port() if http else None
        if port is not None:
            settings['port'] = port
        environ = self.configure(**settings)
        log = self.directory / f'log-{self.counter}'
        order = {'environ': environ, 'log': str(log), 'directory': str(self.directory)}
        pid = self.zygote.fork({**order, 'ends': True})
        process = Process(pid, log, port, zygote=self.zygote)
        self.processes.append(process)
        return process

    def start(self, *command: str, port: int | None = None, environ: dict[str, str] | None = None, **settings: Any):
        """Any command; ``PORT`` in it is replaced with a free one.

        A script of Python's, as an absolute path, begins where its imports are done: see :class:`Zygote`.
        """
        port = port or free_port()
        environ = {**os.environ, **self.configure(**settings), **(environ or {}), 'PYTHONUNBUFFERED': '1'}
        log = self.directory / f'log-{self.counter}'
        command = [part.replace('PORT', str(port)) for part in command]
        if is_script(command[0]):
            process = self.zygote.start(*command, directory=self.directory, environ=environ, log=log, port=port)
            self.processes.append(process)
            return process
        with open(log, 'ab') as output:
            popen = subprocess.Popen(
                command,
                cwd=self.directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = Process(popen.pid, log, port, popen=popen)
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.reap()
            # For who reads why a test failed.
            print(f'-- {process.log_path.name} (process {process.pid}, {process.status})\n{process.log[-8000:]}')
        # Closed again it must not touch what was given their numbers meanwhile.
        self.processes.clear()
        while self._barriers:
            os.close(self._barriers.pop())
        if self.witness.exists():
            print(f'-- witness\n{self.witness.read_text()[-4000:]}')
        self.store.close()


@contextlib.contextmanager
def making_sites(zygote: Zygote, directory: Path) -> Iterator[Callable[..., Site]]:
    """What makes sites below *directory*; all their processes are ended afterwards."""
    sites: list[Site] = []

    def make(url: str | None = None, *, evolutions=(), rows: int = ROWS, **options) -> Site:
        below = directory / f'site{len(sites)}'
        below.mkdir()
        defaults = {'lease': 2, 'poll': 0.1, 'watch': 0}
        url = url or f'sqlite:///{below / "evolve.db"}'
        site = Site(below, url, zygote, list(evolutions), {**defaults, **options}, rows=rows)
        sites.append(site)
        return site

    try:
        yield make
    finally:
        for site in sites:
            site.close()


def is_script(path: str) -> bool:
    """Is it a program in Python?"""
    if not os.path.isabs(path) or not os.path.exists(path):
        return False
    with open(path, 'rb') as file:
        start = file.readline(200)
    return start.startswith(b'#!') and b'python' in start


def program(name: str) -> str:
    """A script of the environment that runs the tests."""
    return str(Path(sys.executable).parent / name)
