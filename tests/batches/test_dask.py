"""Partitions on a Dask cluster of real processes: workers, their nannies, the holder and the scheduler are killed."""

from __future__ import annotations

import os
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from distributed import LocalCluster

from tests.batches import spread
from tests.batches.cluster import Cluster
from tests.batches.site import SpreadSite, environment
from tests.chaos.figures import LONG, long_or_short
from tests.processes.harness import alive, until
from tests.servers import _children as children_of
from tgext.evolve import executors
from tgext.evolve.evolver import Ended

ROWS = long_or_short(20_000, 400)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 if LONG else 180)]


@pytest.fixture(scope='module')
def clusters():
    clusters = []
    yield clusters
    for cluster in clusters:
        cluster.close()


@pytest.fixture
def cluster(clusters, tmp_path_factory):
    """One for all tests, but for those that killed its scheduler."""
    if not clusters or clusters[-1].scheduler.poll() is not None:
        clusters.append(Cluster(tmp_path_factory.mktemp('dask')))
    return clusters[-1]


@pytest.fixture
def make_site(tmp_path, store_url, cluster):
    sites = []

    def make(rows=ROWS, **options):
        sites.append(SpreadSite(tmp_path, store_url, rows, workers=cluster.address, **options))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


def on(*databases):
    return pytest.mark.parametrize('store_url', databases, indirect=True)


def connections_to(port):
    """Sockets of this process that are connected to a port of this host."""
    own = {os.readlink(link) for link in Path('/proc/self/fd').iterdir() if link.is_symlink()}
    found = 0
    for line in Path('/proc/net/tcp').read_text().splitlines()[1:]:
        _, _, remote, state, *_, inode = line.split()[:10]
        if state == '01' and int(remote.rpartition(':')[2], 16) == port and f'socket:[{inode}]' in own:
            found += 1
    return found


@on('postgresql', 'mongodb')
def test_a_cluster_whose_worker_is_killed_does_each_row_once(make_site, cluster):
    site = make_site(stop=ROWS // 2 + 7)
    holder = site.hold()
    victim = site.met()
    os.kill(victim, signal.SIGKILL)
    site.go()
    site.until_open(seconds=150)
    assert site.once(killed=1)
    assert site.states == ['done']
    assert not alive(victim)
    holder.kill()


@on('postgresql')
def test_workers_of_a_holder_that_is_killed_save_nothing_more(make_site, cluster, monkeypatch):
    """They go on while the client that gave them their work is gone, and another process takes the lease over."""
    site = make_site(lease=2, stop=ROWS // 2 + 7)
    holder = site.hold()
    pid = site.met()
    holder.kill()
    holder.wait()
    # Whoever comes next works in this process, so that what the old worker does cannot be mistaken for its own.
    monkeypatch.setitem(spread.EXECUTORS, cluster.address, lambda: ThreadPoolExecutor(2))
    assert site.evolver().run(patience=60) is Ended.DONE
    assert alive(pid)
    assert site.once()
    site.go()
    # Its session was ended by who took over, so it tells that the database is away; or it is refused.
    gave_up = re.compile(rf"{pid} INFO .*of 'count' of .*:{holder.pid}: (lost|away)")
    until(lambda: gave_up.search(cluster.log()), what='the old worker gave up')
    assert site.once()
    assert site.states == ['interrupted', 'done']


@on('postgresql')
def test_the_next_holder_uses_the_same_cluster(make_site, cluster):
    """While one of its workers is still in the hands of the one before."""
    site = make_site(lease=2, stop=ROWS // 2 + 7, partitions=4)
    holder = site.hold()
    site.met()
    holder.kill()
    holder.wait()
    before = connections_to(cluster.port)
    pool = ThreadPoolExecutor(1)
    running = pool.submit(site.evolver().run, patience=60)
    until(lambda: connections_to(cluster.port) > before, what='the next one has a client')
    # Only now: what Dask has given to the old worker meanwhile waits for it.
    site.go()
    assert running.result(100) is Ended.DONE
    pool.shutdown()
    assert site.once()
    assert connections_to(cluster.port) == before, 'the client is closed'


@on('postgresql')
def test_a_killed_nanny_takes_its_worker_with_it(make_site, cluster):
    site = make_site(stop=ROWS // 2 + 7)
    holder = site.hold()
    pid = site.met()
    nanny = next(each for each in cluster.nannies if pid in children_of(each.pid))
    nanny.kill()
    nanny.wait()
    site.go()
    site.until_open(seconds=150)
    assert site.once()
    holder.kill()
    cluster.nannies.remove(nanny)
    cluster.nannies.append(cluster.nanny())


@on('postgresql')
def test_a_scheduler_that_goes_away_ends_the_attempt_clearly(make_site, cluster):
    site = make_site(stop=ROWS // 2 + 7, pause=0.05)
    holder = site.hold()
    site.met()
    os.killpg(cluster.scheduler.pid, signal.SIGKILL)
    cluster.scheduler.wait()
    site.go()
    until(lambda: site.states == ['failed'], 120, 'it has failed')
    assert cluster.address in site.error
    assert 'Timed out' in site.error or 'connect' in site.error
    assert site.seen[1] == site.done
    holder.kill()


@on('postgresql')
def test_a_local_cluster_outlives_a_worker_and_the_client_of_the_holder(tmp_path, store_url, monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    quiet = {'dashboard_address': None, 'silence_logs': False, 'local_directory': str(tmp_path / 'scratch')}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, memory_limit=0, **quiet) as local:
        site = SpreadSite(tmp_path, store_url, ROWS, lease=2, workers=local.scheduler_address, stop=ROWS // 2 + 7)
        try:
            first = site.hold()
            victim = site.met()
            site.part()
            os.kill(victim, signal.SIGKILL)
            # Another one stands at the same row: what the killed one had done of its batch was not saved.
            assert site.met() != victim
            first.kill()
            first.wait()
            second = site.hold()
            until(lambda: site.states == ['interrupted', 'running'], what='the second one has taken over')
            site.go()
            site.until_open(1, seconds=150)
            assert site.once()
            assert site.states == ['interrupted', 'done']
            second.kill()
        finally:
            site.close()


def test_no_client_is_left_where_there_is_no_scheduler():
    with socket.socket() as nobody:
        nobody.bind(('127.0.0.1', 0))
        with pytest.raises(OSError, match='connect'):
            executors.dask(f'tcp://127.0.0.1:{nobody.getsockname()[1]}', timeout=0.5)
