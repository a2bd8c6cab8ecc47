"""Whoever holds the lease is known by a random id: not by a pid, not by a host, not by being the only one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.chaos.alike import HOST
from tests.chaos.checker import check
from tests.chaos.figures import LONG, long_or_short
from tests.processes.harness import PATIENCE, Process, Site, alive, until
from tests.processes.worker import ROWS

# Some start dozens of processes, and wait for the patience of drivers.
pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300)]

LEASE = 2.0
POLL = 0.1
#: A dead holder is replaced within lease + poll + 1 s; more for a machine that is busy with something else.
IN_TIME = LEASE + POLL + 1 + 3


def stores(*short: str):
    """These in the short form, all in the long one."""
    return pytest.mark.parametrize(
        'store_url', ['sqlite', 'postgresql', 'mariadb', 'mongodb'] if LONG else short, indirect=True
    )


@pytest.fixture(scope='session')
def container() -> list[str]:
    """What a command begins with that is to be process 1 of the host; nothing where that is not allowed."""
    if os.geteuid() or not shutil.which('unshare'):
        return []
    command = ['unshare', '--pid', '--uts', '--fork', '--kill-child', 'sh', '-c', f'hostname {HOST} && exec "$0" "$@"']
    tried = subprocess.run([*command, 'true'], capture_output=True)
    return [] if tried.returncode else command


def start(site: Site, container: list[str], **settings) -> Process:
    return site.start(*container, sys.executable, '-m', 'tests.chaos.alike', 'PORT', **settings)


def inside(process: Process, container: list[str]) -> Process:
    """The server itself, by its pid out here."""
    if not container:
        return process
    [pid] = process.workers()
    return Process(pid, process.log_path, process.port, popen=process.popen)


@stores('postgresql')
def test_processes_with_one_pid_and_one_host_name_are_told_apart(make_site, store_url, container, figures, request):
    """One is paused and deposed by its double; one is killed, and its container started again."""
    evolutions = [{'id': 'one', 'does': 'hold'}, {'id': 'two'}]
    paused = make_site(store_url, evolutions=evolutions, lease=LEASE, poll=POLL)
    name = request.node.callspec.params['store_url']
    server = None if name == 'sqlite' else request.getfixturevalue(f'{name}_server')
    killed = make_site(server and server.new_database(), evolutions=evolutions, lease=LEASE, poll=POLL)
    first, dead = start(paused, container), start(killed, container)
    for site in (paused, killed):
        site.until_told('half', 'one')
        assert (site.lease.host, site.lease.pid) == (HOST, 1)

    inside(dead, container).send(signal.SIGKILL)
    dead.wait()
    figures.count('kills')
    died = time.monotonic()
    expires = killed.lease.expires_at
    # Its container is started again at once, and is not taken for the one that holds the lease.
    again, second = start(killed, container), start(paused, container)
    second.first_answer()
    before = paused.lease.expires_at
    until(lambda: paused.lease.expires_at > before + LEASE * 500)
    assert paused.count('begin') == 1
    assert paused.lease.token == 1
    inside(first, container).send(signal.SIGSTOP)
    figures.count('pauses')
    stopped = time.monotonic()
    _, begin = killed.until_told('begin', 'one', times=2)
    # It may be longer until Python has started.
    assert begin.time - max(died, killed.lines('made')[-1].time) <= IN_TIME
    _, begin = paused.until_told('begin', 'one', times=2)
    assert begin.time - stopped <= IN_TIME
    figures.measure('recovery', begin.time - stopped)
    assert killed.store.history().of('one')[1].started >= expires
    for site in (killed, paused):
        site.go()
        until(lambda site=site: site.states('two') == ['done'])
        assert site.states('one') == ['interrupted', 'done']
        before, after = site.store.history().of('one')
        assert (before.pid, before.host) == (after.pid, after.host) == (1, HOST)
        assert before.owner != after.owner
        assert before.token < after.token
    inside(first, container).send(signal.SIGCONT)
    # It comes to the end of its evolution, and cannot record it.
    paused.until_told('end', 'one', times=2)
    for process in (first, second, again):
        process.until_open()
        assert 'Traceback' not in process.log
    assert paused.states('one') == ['interrupted', 'done']
    for site in (paused, killed):
        assert site.count('begin', 'two') == 1
        check(site, figures)


@stores('postgresql')
def test_a_process_that_was_forked_in_mid_run_replaces_its_killed_parent(make_site, store_url, figures):
    """It has its parent's memory, also of the lease, and a name of its own."""
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'hold'}, {'id': 'two'}], lease=LEASE, poll=POLL)
    parent = site.start(sys.executable, '-m', 'tests.chaos.forked')
    site.until_told('half', 'one', parent.pid)
    site.go('fork')
    [child] = site.until_told('child')
    before = site.lease.expires_at
    until(lambda: site.lease.expires_at > before + 1200 * LEASE)
    assert site.count('begin') == 1
    figures.count('forks')
    killed = time.monotonic()
    parent.kill()
    figures.count('kills')
    [begin] = site.until_told('begin', 'one', child.pid)
    figures.measure('recovery', begin.time - killed)
    assert begin.time - killed <= IN_TIME
    site.go()
    site.until_told('open', pid=child.pid)
    until(lambda: not alive(child.pid), what='the child has ended')
    first, second = site.store.history().of('one')
    assert (first.pid, second.pid) == (parent.pid, child.pid)
    assert first.owner != second.owner
    assert 'Traceback' not in parent.log
    check(site, figures)


@pytest.mark.parametrize('store_url', ['postgresql', 'mariadb'] if LONG else ['postgresql'], indirect=True)
def test_fifty_processes_that_wait_for_one_lease_all_open(make_site, store_url, figures, request):
    """And one of them replaces the holder that dies."""
    server = request.getfixturevalue(f'{request.node.callspec.params["store_url"]}_server')
    for number in range(long_or_short(long=3, short=1)):
        # A lease that nobody loses because a busy machine has no time for its heartbeat.
        site = make_site(
            server.new_database() if number else store_url,
            evolutions=[{'id': 'one', 'does': 'hold'}, {'id': 'two'}],
            lease=4,
            poll=0.5,
        )
        holder = site.fork(http=False)
        site.until_told('half', 'one', holder.pid)
        waiters = [site.fork(http=False, patience=300) for _ in range(50)]
        site.until_told('made', times=51)
        killed = time.monotonic()
        holder.kill()
        figures.count('kills')
        _, begin = site.until_told('begin', 'one', times=2)
        figures.measure('recovery among 50', begin.time - killed)
        assert begin.time - killed <= 4 + 0.5 + 1 + 15  # 50 processes have their shares of two cores
        site.go()
        for process in waiters:
            assert process.wait(2 * PATIENCE) == 0
        assert site.count('open') == 50
        opening = max(line.time for line in site.lines('open')) - max(line.time for line in site.lines('end'))
        figures.measure('opening of 50', opening)
        assert opening < 20
        assert site.states('one') == ['interrupted', 'done']
        assert site.states('two') == ['done']
        assert site.seen == [3] * (ROWS // 2) + [2] * (ROWS - ROWS // 2)
        for process in waiters:
            assert not re.search('Traceback|ERROR|CRITICAL|StoreError|deadlock', process.log), process.log
            site.processes.remove(process)
        check(site, figures)
