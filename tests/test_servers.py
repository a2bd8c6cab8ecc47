"""The servers that the other tests stand on: they start, keep databases apart, and come back after a crash."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.servers import SERVERS, PostgreSQL, Server, Unavailable

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    # Not the session's server: these tests stop and kill it.
    kind = SERVERS[request.param]
    running: Server = request.getfixturevalue(f'{kind.name}_server')
    return running


def write(url: str, value: str) -> None:
    """Save one value in the database at *url*, durably."""
    if url.startswith('mongodb'):
        with mongo(url) as client:
            from pymongo import WriteConcern

            database = client.get_default_database(write_concern=WriteConcern('majority', j=True))
            database.values.insert_one({'value': value})
        return
    with sql(url) as connection:
        connection.exec_driver_sql('CREATE TABLE IF NOT EXISTS kept (value VARCHAR(20))')
        connection.exec_driver_sql(f"INSERT INTO kept VALUES ('{value}')")


def read(url: str) -> list[str]:
    """All the values that `write` saved in the database at *url*."""
    if url.startswith('mongodb'):
        with mongo(url) as client:
            return [document['value'] for document in client.get_default_database().values.find()]
    with sql(url) as connection:
        from sqlalchemy import inspect

        if not inspect(connection).has_table('kept'):
            return []
        return [row[0] for row in connection.exec_driver_sql('SELECT value FROM kept')]


def mongo(url: str) -> Any:
    from pymongo import MongoClient

    return MongoClient(url)


def sql(url: str) -> Any:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    return create_engine(url, poolclass=NullPool).begin()


def test_each_database_is_fresh_and_its_own(server: Server) -> None:
    first, second = server.new_database(), server.new_database()
    write(first, 'first')
    assert first != second
    assert read(second) == []


def test_a_killed_server_comes_back_with_what_was_saved(server: Server) -> None:
    url = server.new_database()
    write(url, 'before')
    server.kill()
    port = int(url.rpartition(':')[2].partition('/')[0])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(('127.0.0.1', port), timeout=1)
    server.start()
    write(url, 'after')
    assert read(url) == ['before', 'after']


def test_a_stopped_server_comes_back_with_another_pid(server: Server) -> None:
    if server.theirs:
        pytest.skip(f"{server.variable} points at a server that is not this session's to stop")
    url = server.new_database()
    write(url, 'before')
    pid = server.pid
    server.stop()
    server.start()
    assert server.pid != pid
    assert read(url) == ['before']


def test_store_url_is_an_empty_database_of_each_kind(store_url: str) -> None:
    if store_url.startswith('mim'):
        return
    assert read(store_url) == []
    write(store_url, 'here')
    assert read(store_url) == ['here']


@pytest.mark.servers
@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_session_that_is_cut_short_leaves_no_server_behind(
    sign: signal.Signals, tmp_path: Path, mongodb_server: Server
) -> None:
    if mongodb_server.theirs:
        pytest.skip('the server is not started by the session')
    told = tmp_path / 'told'
    (tmp_path / 'test_inner.py').write_text(
        textwrap.dedent(
            f"""
            import time
            from tests.servers import *

            def test_hangs(mongodb_server):
                with open({str(told)!r} + '~', 'w') as file:
                    print(mongodb_server.pid, mongodb_server._directory, file=file)
                __import__('os').rename({str(told)!r} + '~', {str(told)!r})
                time.sleep(60)
            """
        )
    )
    session = subprocess.Popen(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(told.exists)
        pid, directory = told.read_text().split()
        session.send_signal(sign)
        session.wait(30)
    finally:
        session.kill()
        session.wait()
    wait_until(lambda: not alive(int(pid)))
    wait_until(lambda: not Path(directory).exists())


def test_a_server_that_cannot_be_had_is_a_skip_here_and_a_failure_under_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing(PostgreSQL):
        def _prepare(self, directory: Path) -> None:
            raise Unavailable('install something')

    monkeypatch.delenv(Missing.variable, raising=False)
    monkeypatch.delenv('CI', raising=False)
    with pytest.raises(pytest.skip.Exception, match='install something'):
        next(servers._session(Missing))
    monkeypatch.setenv('CI', 'true')
    with pytest.raises(pytest.fail.Exception, match='install something'):
        next(servers._session(Missing))


def test_a_server_of_somebody_elses_gets_databases_and_is_not_killed(
    postgresql_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('POSTGRESQL_URL', postgresql_server.url.replace('+psycopg', ''))
    theirs = PostgreSQL()
    theirs.start()
    url = theirs.new_database()
    write(url, 'here')
    with pytest.raises(pytest.skip.Exception):
        theirs.kill()
    theirs.close()
    with pytest.raises(Exception, match='does not exist'):
        read(url)
    postgresql_server.new_database()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # Dead but not yet waited for, which in a container may never happen.
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path('/proc/self/stat').exists()


def wait_until(true: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, 'still not so'
        time.sleep(0.05)
