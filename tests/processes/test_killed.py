"""A holder that is killed is replaced, and what it did half is done again or was never saved."""

from __future__ import annotations

import time

import pytest

from tests.processes.harness import until
from tests.processes.worker import ROWS

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

LEASE = 2.0
POLL = 0.1
#: A dead holder is replaced within lease + poll + 1 s; one more for a machine that is busy with something else.
IN_TIME = LEASE + POLL + 1 + 1

STORES = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb', 'mongodb'], indirect=True)


def kinds(url: str) -> list[bool]:
    """Whether an evolution is transactional: what this database can do, in tests side by side."""
    return [False] if url.startswith('mongodb') else [False, True]


@pytest.fixture
def urls(request, store_url, tmp_path):
    """As many fresh databases as are asked for."""

    def new(number: int) -> list[str]:
        kind = request.node.callspec.params['store_url']
        if kind == 'sqlite':
            return [f'sqlite:///{tmp_path / f"{index}.db"}' for index in range(number)]
        server = request.getfixturevalue(f'{kind}_server')
        return [server.new_database() for _ in range(number)]

    return new


@pytest.fixture
def held(make_site, store_url, urls):
    """Sites whose first evolution is in its middle, and is then killed with its process."""
    sites = []
    for transactional, url in zip(kinds(store_url), urls(2), strict=False):
        evolutions = [{'id': 'one', 'does': 'hold', 'transactional': transactional}, {'id': 'two'}]
        site = make_site(url, evolutions=evolutions, lease=LEASE, poll=POLL)
        holder = site.fork()
        site.until_told('half', 'one', holder.pid)
        sites.append((site, holder, transactional))
    return sites


def seen(transactional: bool) -> list[int]:
    """The rows after two evolutions, the first of which was killed in its middle and done later."""
    half = ROWS // 2
    return [2] * ROWS if transactional else [3] * half + [2] * (ROWS - half)


def kill(site, holder) -> float:
    """When it was killed; whoever runs the evolution again is not held any more."""
    killed = time.monotonic()
    holder.kill()
    site.go()
    return killed


def check_replaced(site, holder, successor, transactional: bool, killed: float) -> None:
    [begin] = site.until_told('begin', 'one', successor.pid)
    assert begin.time - killed <= IN_TIME
    successor.until_open()
    assert site.states('one') == ['interrupted', 'done']
    assert site.states('two') == ['done']
    first, second = site.store.history().of('one')
    assert (first.pid, second.pid) == (holder.pid, successor.pid)
    assert first.token < second.token
    assert site.count('end', 'one') == 1
    assert site.seen == seen(transactional)
    assert 'Traceback' not in successor.log


@STORES
def test_a_waiting_process_replaces_a_killed_holder_within_one_lease(held):
    waiters = [site.fork() for site, _, _ in held]
    for waiter in waiters:
        assert waiter.first_answer()[0] == 503
    killed = [kill(site, holder) for site, holder, _ in held]
    for (site, holder, transactional), waiter, when in zip(held, waiters, killed, strict=True):
        check_replaced(site, holder, waiter, transactional, when)


@STORES
def test_the_killed_process_started_again_does_the_rest(held):
    killed = [kill(site, holder) for site, holder, _ in held]
    again = [site.fork() for site, _, _ in held]
    for process in again:
        assert process.first_answer()[0] == 503
    for (site, holder, transactional), process, when in zip(held, again, killed, strict=True):
        check_replaced(site, holder, process, transactional, when)


#: Where the process is killed, and how often the evolution then begins in all.
POINTS = {
    'before-take': 1,
    'after-take': 1,
    'before-attempt': 1,
    'after-attempt': 1,
    'before-evolve': 1,
    'after-evolve': 2,
    'after-record': 1,
    'before-release': 1,
}


@STORES
def test_a_kill_at_any_point_loses_nothing_and_records_nothing_twice(make_site, store_url, urls):
    transactional = True in kinds(store_url)
    evolutions = [{'id': 'one', 'transactional': transactional}]
    sites = {
        point: make_site(url, evolutions=evolutions, lease=1)
        for point, url in zip(POINTS, urls(len(POINTS)), strict=True)
    }
    victims = {point: site.fork(points={point: 'kill'}) for point, site in sites.items()}
    for point, site in sites.items():
        site.until_told('point', point, victims[point].pid)
        assert victims[point].wait() == -9
    successors = {point: site.fork(http=False) for point, site in sites.items()}
    for point, site in sites.items():
        assert successors[point].wait() == 0
        assert site.lines('open', pid=successors[point].pid)
        begins = POINTS[point]
        assert site.count('begin', 'one') == begins, point
        assert site.states('one')[-1] == 'done', point
        assert set(site.states('one')[:-1]) <= {'interrupted'}, point
        assert site.seen == [1 if transactional else begins] * ROWS, point


def test_an_evolution_that_kills_its_process_stops_after_five_attempts(make_site, postgresql_server):
    """Or it would kill the whole fleet, one process after the other."""
    site = make_site(
        postgresql_server.new_database(), evolutions=[{'id': 'one', 'does': 'die'}, {'id': 'two'}], lease=1
    )
    for _ in range(5):
        assert site.fork(http=False).wait() == -9
    spared = site.fork()
    spared.until_reason('failed')
    assert spared.first_answer()[0] == 503
    until(lambda: 'died or was deposed 5 times in a row' in spared.log)
    assert 'gearbox evolve retry one' in spared.log
    assert site.states('one') == ['interrupted'] * 5
    assert site.count('begin', 'one') == 5
    assert site.count('begin', 'two') == 0


def test_an_evolution_that_exits_its_process_is_an_interrupted_one(make_site):
    site = make_site(evolutions=[{'id': 'one', 'does': 'exit', 'transactional': True}], lease=1)
    assert site.fork(http=False).wait() == 3
    assert site.states('one') == ['running']
    assert site.fork(http=False).wait() == 3
    assert site.states('one') == ['interrupted', 'running']
    assert site.seen == [0] * ROWS
