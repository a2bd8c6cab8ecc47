"""Processes whose clocks are a day ahead, a day behind, or jump: the database's clock alone counts.

On SQLite and mim that is the process's own clock. There nothing may stick because of it; more is not promised.
"""

from __future__ import annotations

import glob
import os
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.chaos.checker import check
from tests.chaos.figures import LONG, long_or_short
from tests.processes.harness import Process, Site, until
from tests.servers import missing
from tgext.evolve.databases import Databases
from tgext.evolve.options import Options
from tgext.evolve.stores import ming
from tgext.evolve.stores.base import Owner, Renewal, Report

# Some start dozens of processes, and wait for the patience of drivers.
pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300)]

#: Nobody may lose it because a busy machine has no time for a heartbeat.
LEASE = 3.0
POLL = 0.1
#: A dead holder is replaced within lease + poll + 1 s; more for a machine that is busy with something else.
IN_TIME = LEASE + POLL + 1 + 3

DAY = 24 * 3600

LIBRARIES = ['/usr/lib/*/faketime/libfaketimeMT.so.1', '/usr/lib*/faketime/libfaketimeMT.so.1']


class FalseClock:
    """The clock of one process, as libfaketime reads it from a file. Its monotonic clock is right."""

    def __init__(self, library: str, path: Path):
        self._path = path
        self.environ = {
            'LD_PRELOAD': library,
            'FAKETIME_TIMESTAMP_FILE': str(path),
            'FAKETIME_NO_CACHE': '1',
            'FAKETIME_DONT_FAKE_MONOTONIC': '1',
        }

    def set(self, days: float) -> FalseClock:
        """So many days ahead, from now on."""
        beside = self._path.with_suffix('.new')
        beside.write_text(f'{days * DAY:+.0f}\n')
        beside.rename(self._path)
        return self

    def start(self, site: Site, **settings) -> Process:
        return site.start(sys.executable, '-m', 'tests.chaos.clocked', 'PORT', environ=self.environ, **settings)


@pytest.fixture
def make_clock(tmp_path):
    """Makes clocks; without libfaketime there are none."""
    found = [path for pattern in LIBRARIES for path in glob.glob(pattern)]
    if not found:
        missing('no libfaketime: install it (Debian: apt-get install faketime)')
    paths = (tmp_path / f'clock{number}' for number in range(100))
    return lambda days: FalseClock(found[0], next(paths)).set(days)


def test_a_false_clock_is_false_for_python_and_sqlite_and_leaves_the_monotonic_one_alone(make_clock):
    """Or the tests below would prove nothing."""
    import subprocess

    clock = make_clock(1)
    code = (
        'import sqlite3, sys, time\n'
        'def tell():\n'
        '    day, = sqlite3.connect(":memory:").execute("SELECT julianday(\'now\')").fetchone()\n'
        '    print(time.time(), (day - 2440587.5) * 86400, time.monotonic(), flush=True)\n'
        '    sys.stdin.readline()\n'
        'tell()\n'
        'tell()\n'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code],
        env={**os.environ, **clock.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        for days in (1, -1):
            clock.set(days)
            if days < 0:
                process.stdin.write('\n')
                process.stdin.flush()
            told, sqlite, monotonic = map(float, process.stdout.readline().split())
            assert abs(told - time.time() - days * DAY) < 30
            assert abs(sqlite - told) < 30
            assert abs(monotonic - time.monotonic()) < 30
        process.stdin.close()


@pytest.mark.parametrize('store_url', ['postgresql', 'mariadb', 'mongodb'] if LONG else ['mariadb'], indirect=True)
def test_clocks_a_day_apart_do_not_matter_where_the_database_has_one(make_site, store_url, make_clock, figures):
    evolutions = [{'id': 'one', 'does': 'hold'}, {'id': 'two', 'does': 'hold', 'go': 'go-on'}, {'id': 'three'}]
    site = make_site(store_url, evolutions=evolutions, lease=LEASE, poll=POLL)
    ahead, behind = make_clock(1), make_clock(-1)
    processes = [ahead.start(site), behind.start(site)]
    figures.count('clock changes', 2)
    site.until_told('half', 'one')
    processes.append(site.fork())
    for process in processes:
        process.first_answer()
    for days in (-1, 1) * long_or_short(long=5, short=1):
        # Whoever holds it, and whoever waits: their clocks jump, and nothing comes of it.
        ahead.set(days)
        behind.set(-days)
        figures.count('clock changes', 2)
        before = site.lease.expires_at
        until(lambda before=before: site.lease.expires_at > before)
    assert site.count('begin') == 1
    assert site.lease.token == 1

    kills = long_or_short(long=2, short=1)
    for id in ('one', 'two')[:kills]:
        # The holder dies, in whichever time it lives.
        holder = next(process for process in processes if process.pid == site.lease.pid)
        killed = time.monotonic()
        holder.kill()
        figures.count('kills')
        again = until(lambda id=id, pid=holder.pid: [line for line in site.lines('begin', id) if line.pid != pid])
        figures.measure('recovery', again[0].time - killed)
        assert again[0].time - killed <= IN_TIME
        processes.remove(holder)
        if id == 'one':
            site.until_told('half', 'one', again[0].pid)
            site.go()
            site.until_told('half', 'two')
    site.go('go-on')
    for process in processes:
        process.until_open()
    assert site.states('one') == ['interrupted', 'done']
    assert site.states('two') == ['interrupted', 'done'][2 - kills :]
    assert site.states('three') == ['done']
    now = time.time() * 1000
    for attempt in site.store.history().attempts:
        # Nobody's own clock is in the record.
        assert attempt.started is not None
        assert abs(attempt.started - now) < DAY * 1000 / 2
    assert site.lease.token == 1 + kills
    for process in site.processes:
        assert 'Traceback' not in process.log
    check(site, figures)


def test_on_sqlite_a_lease_from_a_clock_a_day_ahead_does_not_freeze(make_site, make_clock, make_figures):
    """Nor one from a clock a day behind, nor the pause after a failure that such a clock began."""
    figures = make_figures('sqlite')
    ahead, behind = make_clock(1), make_clock(-1)
    holders = {}
    for name, clock in (('ahead', ahead), ('behind', behind)):
        site = make_site(evolutions=[{'id': 'one', 'does': 'hold'}, {'id': 'two'}], lease=LEASE, poll=POLL)
        holders[name] = (site, clock.start(site))
    # One that raised in a time to come is tried again after a pause of seconds: its statement is not there yet.
    evolutions = [{'id': 'one', 'does': 'query', 'transactional': True}]
    site = make_site(evolutions=evolutions, lease=LEASE, poll=POLL, retry_delay=3)
    failed = ahead.start(site)
    figures.count('clock changes', 3)
    until(lambda: site.states('one')[:1] == ['failed'])
    failed.kill()  # before it tries again
    (site.directory / 'statement').write_text('SELECT 1')
    for each, holder in holders.values():
        each.until_told('half', 'one', holder.pid)
        holder.kill()
        figures.count('kills')
        each.go()
    for name, (each, _) in holders.items():
        killed = time.monotonic()
        successor = each.fork()
        successor.until_open()
        [begin] = each.lines('begin', 'one', successor.pid)
        figures.measure('recovery', begin.time - killed)
        # It is free at once: no clock that is right has to wait for that time.
        assert begin.time - killed <= IN_TIME, name
        assert each.states('one') == ['interrupted', 'done']
        assert 'Traceback' not in successor.log
        check(each, figures)
    again = site.fork()
    again.until_open(20)
    assert site.states('one') == ['failed', 'done']
    check(site, figures)


def test_on_sqlite_a_clock_that_jumps_in_mid_run_stops_nobody(make_site, make_clock, make_figures):
    figures = make_figures('sqlite')
    site = make_site(evolutions=[{'id': 'one', 'does': 'hold'}, {'id': 'two'}], lease=LEASE, poll=POLL)
    clock = make_clock(1)
    holder = clock.start(site)
    site.until_told('half', 'one', holder.pid)
    for days in (-1, 1) * long_or_short(long=5, short=1):
        clock.set(days)
        figures.count('clock changes')
        expected = time.time() + days * DAY
        # It goes on renewing, by its new time.
        until(lambda expected=expected: abs(site.lease.expires_at / 1000 - expected) < DAY / 2)
    site.go()
    holder.until_open()
    assert site.states('one') == site.states('two') == ['done']
    assert site.lease.token == 1
    assert 'Traceback' not in holder.log
    check(site, figures)


def test_on_mim_a_lease_from_a_clock_a_day_away_does_not_freeze(monkeypatch, make_figures):
    figures = make_figures('mim')
    url = f'mim:///evolve_{uuid.uuid4().hex[:12]}'
    store = Databases({}, Options(store=url, namespace='testapp')).store()
    right = time.time
    for days in (1, -1):
        monkeypatch.setattr(ming.time, 'time', lambda days=days: right() + days * DAY)
        first = store.acquire(Owner(), LEASE)
        assert first is not None
        assert store.acquire(Owner(), LEASE) is None
        monkeypatch.setattr(ming.time, 'time', right)
        figures.count('clock changes', 2)
        # Who still lives renews it by the new time, and who is dead is replaced.
        assert store.renew(first, LEASE, Report()) is Renewal.KEPT
        assert store.acquire(Owner(), LEASE) is None
        monkeypatch.setattr(ming.time, 'time', lambda days=days: right() + days * DAY)
        second = store.acquire(Owner(), LEASE)
        assert second is not None
        assert second.token == first.token + 1
        assert store.renew(first, LEASE, Report()) is Renewal.LOST
        store.release(second)
        monkeypatch.setattr(ming.time, 'time', right)
