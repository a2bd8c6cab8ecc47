"""What the tests about kills, pauses and isolation share: many fresh databases, and what they wait for."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.figures import Figures
from tests.processes.harness import Process, Site, until

LEASE = 1.5
POLL = 0.1
#: A dead holder is replaced within lease + poll + 1 s; the rest is for a machine that is busy with something else.
IN_TIME = LEASE + POLL + 1 + 4

#: What the log of a deposed process says, whichever way it notices.
DEPOSED = ('goes on as a waiter', 'was lost', 'held by another process')

STORES = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb', 'mongodb'], indirect=True)


def kinds(url: str) -> list[bool]:
    """Whether an evolution is transactional: what this database can do."""
    return [False] if url.startswith('mongodb') else [False, True]


@pytest.fixture
def new_url(request: pytest.FixtureRequest, store_url: str, tmp_path: Path) -> Callable[[], str]:
    """Makes as many fresh databases as are asked for, on the server of ``store_url``."""
    kind = request.node.callspec.params['store_url']
    if kind != 'sqlite':
        return request.getfixturevalue(f'{kind}_server').new_database
    numbers = iter(range(1000))
    return lambda: f'sqlite:///{tmp_path / f"{next(numbers)}.db"}'


def pause(process: Process, figures: Figures) -> None:
    process.send(signal.SIGSTOP)
    figures.count('pauses')


def pause_between_writes(site: Site, process: Process, figures: Figures) -> None:
    """On SQLite a process that is paused in the middle of a renewal keeps everybody out; that is another test."""

    def paused() -> bool:
        process.send(signal.SIGSTOP)
        if not site.url.startswith('sqlite') or may_write(site):
            return True
        process.send(signal.SIGCONT)
        return False

    until(paused, what=f'process {process.pid} is paused and writes nothing')
    figures.count('pauses')


def may_write(site: Site) -> bool:
    database = sqlite3.connect(site.url.removeprefix('sqlite:///'), timeout=0, isolation_level=None)
    with contextlib.closing(database):
        try:
            database.execute('BEGIN IMMEDIATE')
        except sqlite3.OperationalError:
            return False
        return True


def was_deposed(process: Process) -> bool:
    """On a machine that gave it no time for a whole lease: it said so, and took the lease again."""
    return 'could not be renewed' in process.log


def ended(process: Process, site: Site) -> None:
    """A process that only waits until it may serve has come to that."""
    assert process.wait() == 0, process.log
    assert site.lines('open', pid=process.pid), process.log


def until_expired(site: Site) -> None:
    until(lambda: not site.lease.alive, what='the lease has expired')
