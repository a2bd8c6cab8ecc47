"""The net is cut, slow, or loses an answer, and the server is killed: what became of a work is never guessed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from itertools import pairwise

import pytest
from sqlalchemy import text

from tests.chaos import proxy as net
from tests.chaos.checker import check
from tests.chaos.figures import LONG, long_or_short
from tests.chaos.proxy import COMMIT, RECORD, Proxy
from tests.processes.harness import until
from tests.processes.worker import ROWS
from tests.servers import SERVERS

# Some start dozens of processes, and wait for the patience of drivers.
pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300)]

LEASE = 2.0
POLL = 0.1
#: A lost holder is replaced within lease + poll + 1 s; more for a machine that is busy with something else.
IN_TIME = LEASE + POLL + 1 + 3

#: How a server is made to work for long, and how it tells that it does, in a certain database.
SLEEP = {
    'postgresql': (
        'SELECT pg_sleep(100)',
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(100)' AND datname = current_database()",
    ),
    'mariadb': (
        'SELECT SLEEP(100)',
        "SELECT count(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(100)' AND db = database()",
    ),
}


def is_sleeping(site, server) -> bool:
    with site._database() as database:
        return database.execute(text(SLEEP[server.name][1])).scalar() > 0


def on(*short: str, long: Iterable[str] = ()):
    """Run a test on these servers, in the long form on more."""
    names = dict.fromkeys([*short, *(long if LONG else ())])
    marked = [pytest.param(name, marks=[pytest.mark.servers, getattr(pytest.mark, name)]) for name in names]
    return pytest.mark.parametrize('server', marked, indirect=True)


@pytest.fixture
def server(request):
    """A server that the test may kill and start."""
    server = request.getfixturevalue(f'{request.param}_server')
    yield server
    # Other tests use it as well.
    server.start()


@pytest.fixture
def figures(make_figures, server):
    return make_figures(server.name)


def new_database(server) -> str:
    url = server.new_database()
    # The driver's own patience is 30 s, in which an evolution of a MongoDB application waits for its server.
    return url + '?serverSelectionTimeoutMS=1000' if server.name == 'mongodb' else url


@pytest.fixture
def behind(make_site, server):
    """Makes sites with a proxy each, through which the process under test reaches the server."""
    proxies = []

    def make(evolutions, **options):
        options = {'lease': LEASE, 'poll': POLL, **options}
        site = make_site(new_database(server), evolutions=evolutions, **options)
        proxy = Proxy(site.url)
        proxies.append(proxy)
        return site, proxy

    yield make
    for proxy in proxies:
        proxy.close()


def kinds(server) -> list[bool]:
    """Whether an evolution is transactional: what this server can do, in sites side by side."""
    return [False] if server.name == 'mongodb' else [False, True]


def complains_little(log: str) -> None:
    """Each change of state was said once, and nothing was a surprise."""
    assert 'Traceback' not in log
    assert '] unexpected;' not in log
    states = re.findall(r'may serve (\w+: [\w-]+)', log)
    assert all(one != other for one, other in pairwise(states)), states
    assert log.count('the lease could not be renewed for') <= 1


@on('postgresql', 'mongodb', long=SERVERS)
def test_a_holder_that_is_cut_off_is_replaced_and_goes_on_as_a_waiter(behind, server, figures):
    """Cut off with all its connections, or only with those of the store, so that its session goes on working."""
    # A waiter must not give up while a busy machine starts the others.
    patient = {'http': False, 'patience': 300}
    cells = []
    for transactional in kinds(server):
        for which in (
            (net.every, net.store) if LONG or server.name == 'mongodb' else [net.every if transactional else net.store]
        ):
            evolutions = [{'id': id, 'transactional': transactional} for id in ('one', 'two')]
            site, proxy = behind([{**evolutions[0], 'does': 'hold'}, evolutions[1]])
            cells.append((site, proxy, which, transactional, site.fork(url=proxy.url)))
    for number, (site, *_, holder) in enumerate(cells):
        site.until_told('half', 'one', holder.pid)
        # Another one, directly connected.
        waiter = site.fork(**patient)
        cells[number] += (waiter,)
    for site, *_, waiter in cells:
        site.until_told('made', pid=waiter.pid)
    cut = time.monotonic()
    for _, proxy, which, *_ in cells:
        proxy.cut(which)
        figures.count('partitions')
    for site, _, _, _, holder, waiter in cells:
        [begin] = site.until_told('begin', 'one', waiter.pid)
        figures.measure('recovery', begin.time - cut)
        assert begin.time - cut <= IN_TIME
        site.go()
        assert waiter.wait() == 0
        assert site.states('one') == ['interrupted', 'done']
        # It does not know, and does not guess.
        assert holder.first_answer()[0] == 503
    for site, proxy, _, transactional, holder, waiter in cells:
        proxy.heal()
        holder.until_open(20)
        assert site.states('one') == ['interrupted', 'done']
        assert site.states('two') == ['done']
        assert [line.pid for line in site.lines('begin', 'two')] == [waiter.pid]
        if transactional:
            assert site.seen == [2] * ROWS
        complains_little(holder.log)
        complains_little(waiter.log)
        check(site, figures)


@on('mariadb', long=SERVERS)
def test_a_session_that_is_cut_off_for_a_while_keeps_its_lease(behind, server, figures):
    """The heartbeat has connections of its own: as long as they get through, nobody takes over."""
    cells = []
    for transactional in kinds(server) if LONG else kinds(server)[-1:]:
        site, proxy = behind([{'id': 'one', 'does': 'hold', 'transactional': transactional}], lease=3)
        holder = site.fork(url=proxy.url)
        site.until_told('half', 'one', holder.pid)
        waiter = site.fork(http=False, patience=300)
        cells.append((site, proxy, holder, waiter))
    for site, proxy, *_ in cells:
        proxy.cut(net.session)
        figures.count('partitions')
        site.go()
    for site, proxy, holder, waiter in cells:
        before = site.lease.expires_at
        until(lambda site=site, before=before: site.lease.expires_at > before + 3500)
        proxy.heal()
        holder.until_open()
        assert waiter.wait() == 0
        assert site.count('begin') == 1
        assert site.states('one') == ['done']
        assert site.lease.token == 1
        assert site.seen == [1] * ROWS
        complains_little(holder.log)
        check(site, figures)


@on('postgresql', long=('mariadb',))
def test_a_connection_that_is_reset_in_a_query_costs_one_attempt_and_not_the_time_of_the_query(behind, server, figures):
    """The server does not notice, works on, and keeps its locks: the session is ended by the next attempt."""
    cells = []
    for transactional in kinds(server):
        site, proxy = behind([{'id': 'one', 'does': 'query', 'transactional': transactional}])
        (site.directory / 'statement').write_text(SLEEP[server.name][0])
        cells.append((site, proxy, transactional, site.fork(url=proxy.url)))

    for site, *_ in cells:
        until(lambda site=site: is_sleeping(site, server), what='the server sleeps')
    reset = time.monotonic()
    for site, proxy, *_ in cells:
        (site.directory / 'statement').write_text('SELECT 1')
        proxy.reset()
        figures.count('partitions')
    for site, _, transactional, process in cells:
        _, again = site.until_told('begin', 'one', process.pid, times=2)
        figures.measure('recovery', again.time - reset)
        process.until_open(20)
        assert site.states('one') == ['interrupted', 'done']
        assert site.seen[ROWS - 1] == 1
        assert site.seen[0] == (1 if transactional else 2)
        complains_little(process.log)
        check(site, figures)


#: What is lost on the way of a commit, and of the record of a work that is not transactional.
LOSSES = {'answer': Proxy.lose_answer, 'request': Proxy.lose_request}


@on(*SERVERS)
def test_the_fate_of_a_commit_whose_answer_was_lost_is_read_and_not_guessed(behind, server, figures):
    """When it was committed, nothing runs again; when it was not, it does. Both look the same to the process."""
    cells = []
    for transactional in kinds(server):
        for lost in LOSSES:
            evolutions = [{'id': 'one', 'transactional': transactional}, {'id': 'two', 'transactional': transactional}]
            for _ in range(long_or_short(long=5, short=1)):
                site, proxy = behind(evolutions, lease=10)
                process = site.fork(url=proxy.url, points={'after-evolve': 'evolved'})
                cells.append((site, proxy, transactional, lost, process))
    # For once it may not run again, so it is not known to be done and a person is asked.
    site, proxy = behind([{'id': 'one', 'rerunnable': False}], lease=10)
    process = site.fork(url=proxy.url, points={'after-evolve': 'evolved'})
    cells.append((site, proxy, False, 'request', process))
    for site, proxy, transactional, lost, _ in cells:
        site.until_told('point', 'after-evolve')
        LOSSES[lost](proxy, (COMMIT if transactional else RECORD)[server.name])
        site.go('evolved')
    for site, proxy, transactional, lost, process in cells[:-1]:
        assert proxy.has_lost.wait(20), (transactional, lost)
        figures.count('partitions')
        process.until_open(20)
        assert site.states('two') == ['done']
        if lost == 'answer' or server.name == 'mongodb':
            # MongoDB's driver asks again by itself, by a number that the server knows.
            assert site.count('begin', 'one') == 1, (transactional, lost)
            assert site.states('one') == ['done']
        else:
            assert site.count('begin', 'one') == 2, (transactional, lost)
            assert site.states('one') == ['interrupted', 'done']
        assert site.seen == [1 + (1 if transactional else site.count('begin', 'one'))] * ROWS
        complains_little(process.log)
        check(site, figures)
    if server.name != 'mongodb':
        site, *_, process = cells[-1]
        process.until_reason('failed', 20)
        assert site.states('one') == ['interrupted']
        assert site.count('begin') == 1


@on('postgresql', long=SERVERS)
def test_processes_with_a_slow_net_run_each_evolution_once(behind, server, figures):
    site, proxy = behind([{'id': str(number)} for number in range(3)], lease=10)
    proxy.delay = 0.02
    processes = [site.fork(http=False, url=proxy.url) for _ in range(3)]
    for process in processes:
        assert process.wait() == 0
        complains_little(process.log)
    assert [site.count('begin', str(number)) for number in range(3)] == [1, 1, 1]
    assert site.lease.token == 1
    check(site, figures)


@on('mariadb', long=('postgresql',))
def test_a_holder_that_gets_no_new_connection_finishes_on_the_one_it_has(behind, server, figures):
    """The heartbeat is told that there is no server; within one lease that is no reason to give up."""
    site, proxy = behind([{'id': 'one', 'does': 'hold', 'transactional': True}], lease=30)
    holder = site.fork(url=proxy.url)
    site.until_told('half', 'one', holder.pid)
    proxy.refuse()
    proxy.reset(net.store)
    figures.count('partitions')
    site.go()
    until(lambda: site.states('one') == ['done'])
    holder.until_reason('database-away')
    proxy.heal()
    holder.until_open(20)
    assert site.count('begin') == 1
    assert site.seen == [1] * ROWS
    complains_little(holder.log)
    check(site, figures)


@on('postgresql', long=SERVERS)
def test_all_come_back_by_themselves_after_the_server_was_killed(make_site, server, figures):
    """Killed while one process is about to commit, another in a query, others wait, and one takes the lease."""
    cells = {}

    def cell(name: str, transactional: bool, does: str = 'count', **settings):
        evolutions = [{'id': 'one', 'does': does, 'transactional': transactional}, {'id': 'two'}]
        site = make_site(new_database(server), evolutions=evolutions, lease=LEASE, poll=POLL)
        holder = site.fork(**settings)
        cells[f'{name}, {transactional}'] = (site, holder)
        return site, holder

    for transactional in kinds(server):
        site, _ = cell('before the commit', transactional, points={'after-evolve': 'go'})
        site.until_told('point', 'after-evolve')
        site, holder = cell('holds, others wait', transactional, 'hold')
        site.until_told('half')
        site.fork().first_answer()
        site.fork().first_answer()
        if transactional:
            site, _ = cell('in a query', transactional, 'query')
            (site.directory / 'statement').write_text(SLEEP[server.name][0])
            until(lambda site=site: is_sleeping(site, server), what='the server sleeps')
            (site.directory / 'statement').write_text('SELECT 1')
    site, _ = cell('before it takes the lease', False, points={'before-take': 'go'})
    site.until_told('point', 'before-take')
    server.kill()
    figures.count('restarts')
    for site, holder in cells.values():
        site.go()
        assert holder.first_answer()[0] == 503
    for _, holder in cells.values():
        holder.until_reason('database-away')
    server.start()
    back = time.monotonic()
    for name, (site, _) in cells.items():
        for process in site.processes:
            process.until_open(30)
            complains_little(process.log)
        assert site.states('one')[-1] == 'done', name
        assert site.states('two') == ['done'], name
        check(site, figures)
    figures.measure('recovery', time.monotonic() - back)


@pytest.mark.skipif(not LONG, reason='only in the long form: script/chaos')
@on(*SERVERS)
def test_a_waiting_process_whose_connection_was_forgotten_asks_anew(behind, server, figures):
    """Nobody tells it that no answer will come: it must not wait for one for ever."""
    site, proxy = behind([{'id': 'one', 'does': 'hold'}])
    site.fork(http=False)
    site.until_told('half')
    waiter = site.fork(url=proxy.url)
    assert waiter.first_answer()[0] == 503
    proxy.cut()
    until(lambda: proxy.links, what='it asks, and is not answered')
    time.sleep(2 * POLL)
    try:
        proxy.vanish()
    except PermissionError:
        pytest.skip('only root may make a connection vanish')
    figures.count('partitions')
    proxy.heal()
    site.go()
    until(lambda: site.states('one') == ['done'])
    done = time.monotonic()
    waiter.until_open(40)
    figures.measure('recovery from a forgotten connection', time.monotonic() - done)
    complains_little(waiter.log)
    check(site, figures)
