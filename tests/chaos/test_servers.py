"""Servers that recycle, reload and kill their workers while evolutions run: each once, and nobody is served early."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.chaos.checker import check
from tests.chaos.figures import LONG, long_or_short, only_long
from tests.processes.harness import alive, until
from tests.processes.test_serving import KINDS, UWSGI, WAITRESS, Kind, all_serve, gearbox
from tests.processes.worker import ROWS

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300)]


#: What a user sees of a worker that is killed while it answers.
BROKEN = (OSError, http.client.HTTPException)

PLAN = [
    {'id': 'one', 'does': 'hold', 'transactional': True},
    {'id': 'two', 'does': 'linger', 'transactional': True},
    {'id': 'three', 'transactional': True},
]


def some(*short, also=()):
    """These servers, and with the long form more of them."""
    return pytest.mark.parametrize('name', [*short, *(also if LONG else ())])


@contextmanager
def users(server, number=3):
    """Ask for pages all the time, whatever the answer is; workers that are killed break connections."""
    gone = threading.Event()

    def browse():
        statuses = []
        while not gone.wait(0.02):
            try:
                answer = server.fetch()
            except BROKEN:
                continue
            if answer:
                statuses.append(answer[0])
        return statuses

    with ThreadPoolExecutor(number) as pool:
        browsing = [pool.submit(browse) for _ in range(number)]
        try:
            yield
        finally:
            gone.set()
    statuses = {status for each in browsing for status in each.result()}
    assert statuses <= {200, 503}, statuses
    assert {200, 503} <= statuses


def until_served(server, workers) -> None:
    def served():
        try:
            return all_serve(server, workers)
        except BROKEN:  # a worker that is just being replaced
            return False

    until(served, what='200 from all workers')


def check_once(site, figures) -> None:
    for each in site.evolutions:
        *before, last = site.states(each['id'])
        assert last == 'done'
        assert set(before) <= {'interrupted'}
    assert site.seen == [len(site.evolutions)] * ROWS
    check(site, figures)


@some('gunicorn', also=['gunicorn gthread', 'gunicorn --preload', 'uwsgi', 'uwsgi --lazy-apps'])
def test_a_reload_in_mid_run_hands_the_evolution_on(make_site, name, figures):
    """By SIGHUP, again and again, under traffic: a worker that leaves gives the lease back, and the next one begins."""
    kind = KINDS[name]
    plan = [{'id': 'one', 'does': 'tell', 'transactional': True}, *PLAN[1:]]
    site = make_site(evolutions=plan, lease=30)
    server = kind.start(site)
    with users(server):
        for number in range(long_or_short(long=4, short=1)):
            site.until_told('half', 'one', times=number + 1)
            if not kind.forks:
                # uwsgi gives a worker up that is stopped while it loads the application.
                site.until_told('made', times=kind.workers * (number + 1))
            if name.startswith('uwsgi'):
                # Until a worker serves, uwsgi may lose a signal to it: it is killed then, a minute later.
                pids = server.workers()[: kind.workers]
                until(lambda pids=pids: all(f'[pid: {pid}|' in server.log for pid in pids), what='all workers serve')
            old = set(server.workers())
            server.send(signal.SIGHUP)
            figures.count('restarts')
            until(lambda old=old: server.workers() and not old & set(server.workers()), what='the old workers are gone')
            assert server.status is None
        site.until_told('half', 'one', times=number + 2)
        site.go()
        until_served(server, kind.workers)
    # The lease of half a minute was given back each time.
    assert all(attempt.left_in_order for attempt in site.store.history().of('one')[:-1])
    check_once(site, figures)


@only_long
@some('gunicorn', also=['gunicorn --preload'])
def test_workers_that_hang_are_killed_by_their_server_in_mid_run(make_site, name, figures):
    """gunicorn's ``--timeout``: a sync worker that is stopped cannot say that it lives."""
    kind = Kind([*KINDS[name].command, '--timeout', '2'], 2, KINDS[name].forks)
    site = make_site(evolutions=PLAN, lease=1)
    server = kind.start(site)
    with users(server):
        [begin] = site.until_told('half', 'one')
        os.kill(begin.pid, signal.SIGSTOP)
        figures.count('pauses')
        until(lambda: not alive(begin.pid), what='the server has killed its worker')
        figures.count('kills')
        site.until_told('half', 'one', times=2)
        site.go()
        until_served(server, kind.workers)
    assert site.states('one')[0] == 'interrupted'
    assert begin.pid not in {line.pid for line in site.lines('end', 'one')}
    check_once(site, figures)


@only_long
@some('gunicorn', also=['uwsgi', 'gunicorn gthread', 'gunicorn --preload', 'uwsgi --lazy-apps'])
def test_recycled_workers_come_to_an_end_with_their_evolutions(make_site, name, figures):
    """503s count as requests: the worker that evolves is recycled as well, under traffic all the time.

    Its evolution either goes on to its end (a server waits for its worker) or is done by another one.
    """
    many = ['--max-requests', '40'] if name.startswith('uwsgi') else ['--max-requests', '40', '--graceful-timeout', '5']
    kind = Kind([*KINDS[name].command, *many], KINDS[name].workers, KINDS[name].forks)
    site = make_site(evolutions=PLAN, lease=1)
    server = kind.start(site)
    with users(server, 2):
        site.until_told('half', 'one')
        if kind.forks:
            old = set(server.workers())
            until(lambda: not old <= set(server.workers()), what='a worker is recycled')
        else:
            site.until_told('make', times=4)
        figures.count('restarts')
        site.go()
        until(lambda: site.states('three') == ['done'], what='all are done')
        until(lambda: site.count('served') >= 10, what='pages are served')
    assert len(site.states('one')) <= 5
    check_once(site, figures)


def test_uwsgi_without_threads_stays_closed_even_after_a_holder_died_elsewhere(make_site, figures):
    """Nothing runs in it, it says what is needed, and it opens when another process has done the work."""
    kind = Kind([*UWSGI, '--lazy-apps'], 2)
    site = make_site(evolutions=PLAN, lease=1)
    elsewhere = site.fork(http=False)
    site.until_told('half', 'one', elsewhere.pid)
    elsewhere.kill()
    figures.count('kills')
    server = kind.start(site)
    for _ in range(20):
        assert server.first_answer()[0] == 503
    until(lambda: server.log.count('this uwsgi runs no threads') == 2, what='both workers say so')
    assert '--enable-threads' in server.log
    assert 'tgext.evolve.mode = blocking' in server.log
    threading.Event().wait(1.5)  # longer than a lease
    assert server.first_answer()[0] == 503
    assert site.states('one') == ['running']
    site.go()
    assert site.fork(http=False).wait() == 0
    until_served(server, 2)
    assert server.pid not in {line.pid for line in site.lines('begin')}
    check_once(site, figures)


@only_long
def test_waitress_that_is_killed_and_started_again_with_several_threads(make_site, figures):
    """A process manager starts it anew, with users at its door all the time."""
    kind = Kind([*WAITRESS[:1], '--threads', '8', *WAITRESS[1:]])
    site = make_site(evolutions=PLAN, lease=1)
    for number in range(long_or_short(long=4, short=2)):
        server = kind.start(site)
        site.until_told('half', 'one', times=number + 1)
        with ThreadPoolExecutor(8) as pool:
            statuses = set(pool.map(lambda _, server=server: server.first_answer()[0], range(24)))
        assert statuses == {503}
        server.kill()
        figures.count('kills')
    server = kind.start(site)
    with users(server):
        site.until_told('half', 'one', times=number + 2)
        site.go()
        until_served(server, 1)
    check_once(site, figures)


@only_long
def test_gearbox_serve_reload_in_mid_run(make_site, figures):
    """A file changes while an evolution runs: the child is replaced, and the next one does the work once."""
    kind = Kind(lambda site, port: [*gearbox('egg:waitress#main')(site, port), '--reload'])
    site = make_site(lease=1)
    site.evolutions = ['reloaded']
    source = site.directory / 'reloaded.py'
    text = f'from tests.processes.worker import Step\nevolutions = [Step(**each) for each in {PLAN!r}]\n'
    source.write_text(text)
    server = kind.start(site)
    [begin] = site.until_told('half', 'one')

    def replaced():
        # Again and again: the reloader's first look at the file may come after the first of these.
        source.write_text(text + '# changed\n')
        return not alive(begin.pid)

    until(replaced)
    figures.count('restarts')
    source.write_text(text)
    site.go()
    until(lambda: (answer := server.fetch()) and answer[0] == 200 and site.states('three')[-1:] == ['done'])
    site.evolutions = PLAN
    check_once(site, figures)
    assert begin.pid not in {line.pid for line in site.lines('end', 'one')}


@only_long
@pytest.mark.parametrize('name', ['gunicorn', 'gunicorn gthread', 'gunicorn --preload', 'uwsgi', 'uwsgi --lazy-apps'])
def test_workers_killed_one_after_the_other(make_site, name, figures):
    """Whoever evolves is killed, four times: the fifth interruption would stop it."""
    kind = KINDS[name]
    site = make_site(evolutions=PLAN, lease=1)
    server = kind.start(site)
    with users(server):
        for number in range(4):
            begin = site.until_told('half', 'one', times=number + 1)[-1]
            os.kill(begin.pid, signal.SIGKILL)
            figures.count('kills')
        site.until_told('half', 'one', times=5)
        site.go()
        until_served(server, kind.workers)
    check_once(site, figures)
