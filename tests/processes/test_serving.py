"""The servers that people use: the evolution runs once, in a process that serves, while all answer 503."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes.harness import ROOT, alive, free_port, program, until
from tests.processes.worker import ROWS
from tests.servers import missing

pytestmark = pytest.mark.slow

INI = """
[server:main]
use = {server}
host = 127.0.0.1
port = {port}

[app:main]
use = call:tests.processes.worker:make_app

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = INFO
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic

[formatter_generic]
format = %(process)d %(levelname)s %(name)s: %(message)s
"""

GUNICORN = [program('gunicorn'), '--no-control-socket', '-b', '127.0.0.1:PORT', 'tests.processes.wsgi']
UWSGI = [program('uwsgi'), '--http-socket', '127.0.0.1:PORT', '--module', 'tests.processes.wsgi', '--master']
UWSGI += ['--die-on-term', '--need-app', '--processes', '2', '--pythonpath', str(ROOT)]
THREADS = ['--enable-threads']
WAITRESS = [program('waitress-serve'), '--listen', '127.0.0.1:PORT', 'tests.processes.wsgi:application']


def gearbox(server: str) -> Callable:
    def command(site, port) -> list[str]:
        (site.directory / 'serve.ini').write_text(INI.format(server=server, port=port))
        return [program('gearbox'), 'serve', '-c', 'serve.ini']

    return command


@dataclass(frozen=True)
class Kind:
    """A way to serve.

    :param command: or a function of site and port.
    :param workers: how many processes answer.
    :param forks: is the application created by another process than those that answer?
    """

    command: list[str] | Callable
    workers: int = 1
    forks: bool = False

    def start(self, site, **settings):
        port = free_port()
        command = self.command if isinstance(self.command, list) else self.command(site, port)
        if command[0] == program('uwsgi') and not os.path.exists(command[0]):
            missing("no uwsgi: install 'tgext.evolve[uwsgi]' (it needs a C compiler and Python's headers)")
        return site.start(*command, port=port, **settings)


KINDS = {
    'gunicorn': Kind([*GUNICORN, '-w', '2'], 2),
    'gunicorn gthread': Kind([*GUNICORN, '-w', '2', '-k', 'gthread', '--threads', '2'], 2),
    'gunicorn --preload': Kind([*GUNICORN, '-w', '2', '--preload'], 2, forks=True),
    'uwsgi': Kind([*UWSGI, *THREADS], 2, forks=True),
    'uwsgi --threads': Kind([*UWSGI, '--threads', '2'], 2, forks=True),
    'uwsgi --lazy-apps': Kind([*UWSGI, *THREADS, '--lazy-apps'], 2),
    'waitress-serve': Kind(WAITRESS),
    'gearbox serve': Kind(gearbox('egg:gearbox#wsgiref')),
    'gearbox serve waitress': Kind(gearbox('egg:waitress#main')),
}


def all_serve(process, workers: int) -> bool:
    """Do so many processes answer 200, and none anything else?"""
    with ThreadPoolExecutor(3 * workers) as users:
        answers = list(users.map(lambda _: process.first_answer('/work'), range(6 * workers)))
    return {status for status, _ in answers} == {200} and len(set(answers)) == workers


@pytest.mark.parametrize('name', KINDS)
def test_evolutions_run_once_without_a_request_and_then_all_workers_open(make_site, name):
    kind = KINDS[name]
    site = make_site(evolutions=[{'id': 'one', 'does': 'hold', 'transactional': True}, {'id': 'two'}])
    server = kind.start(site)
    # Nobody has sent a request.
    [begin] = site.until_told('half', 'one')
    makers = {line.pid for line in site.lines('make')}
    if kind.workers > 1:
        assert begin.pid != server.pid
    if kind.forks:
        assert makers == {server.pid}
    for _ in range(4 * kind.workers):
        assert server.first_answer()[0] == 503
    server.until_reason('running')
    site.go()
    until(lambda: all_serve(server, kind.workers), what='200 from all workers')

    assert site.count('begin') == 2
    assert site.seen == [2] * ROWS
    assert site.states('one') == site.states('two') == ['done']
    assert 'Traceback' not in server.log
    assert server.terminate() in (0, -signal.SIGTERM)

    # With nothing pending the very first answer is a 200, and nothing is written.
    token = site.lease.token
    server = kind.start(site)
    assert server.first_answer()[0] == 200
    until(lambda: all_serve(server, kind.workers), what='200 from all workers')
    assert site.count('begin') == 2
    assert site.lease.token == token
    assert server.terminate() in (0, -signal.SIGTERM)


@pytest.mark.parametrize('name', ['gunicorn', 'gunicorn --preload', 'uwsgi', 'uwsgi --lazy-apps'])
def test_a_killed_worker_is_replaced_by_its_server_or_by_a_sibling(make_site, name):
    kind = KINDS[name]
    site = make_site(evolutions=[{'id': 'one', 'does': 'hold', 'transactional': True}], lease=1)
    server = kind.start(site)
    [begin] = site.until_told('half', 'one')
    assert begin.pid in server.workers()
    os.kill(begin.pid, signal.SIGKILL)
    site.go()
    until(lambda: all_serve(server, kind.workers), what='200 from all workers')
    assert site.states('one') == ['interrupted', 'done']
    assert site.seen == [1] * ROWS


def all_wait_for_requests(server, workers):
    """gunicorn loses a signal that it sends to a worker between its fork and its first line of Python."""
    at = [Path(f'/proc/{pid}/wchan').read_text() for pid in server.workers()]
    return len(at) == workers and all('poll' in each or 'select' in each for each in at)


@pytest.mark.parametrize('name', ['gunicorn', 'gunicorn --preload', 'uwsgi', 'uwsgi --lazy-apps', 'gearbox serve'])
def test_a_server_that_is_stopped_gives_its_lease_back(make_site, name):
    kind = KINDS[name]
    site = make_site(evolutions=[{'id': 'one', 'does': 'tell', 'transactional': True}], lease=30)
    server = kind.start(site)
    site.until_told('half', 'one')
    # uwsgi counts a worker that is stopped while it loads the application as one that cannot.
    site.until_told('made', times=1 if kind.forks else kind.workers)
    if name.startswith('gunicorn'):
        until(lambda: all_wait_for_requests(server, kind.workers))
    assert site.lease.alive
    assert server.terminate() in (0, -signal.SIGTERM)
    assert site.lease.expires_at == 0
    # A sibling may have begun in between, before it was stopped as well.
    assert set(site.states('one')) == {'interrupted'}
    assert all(attempt.left_in_order for attempt in site.store.history().of('one'))
    assert site.seen == [0] * ROWS


@pytest.mark.parametrize('name', ['gunicorn', 'gunicorn --preload', 'uwsgi', 'uwsgi --lazy-apps'])
def test_workers_that_are_asked_to_end_do_and_are_replaced(make_site, name):
    """Also one by one, and all of them by SIGHUP to their server: an open process is as any other."""
    kind = KINDS[name]
    site = make_site(evolutions=[{'id': 'one'}], watch=0.5)
    server = kind.start(site)
    until(lambda: all_serve(server, kind.workers), what='200 from all workers')
    # One that has just answered: a server may have other children.
    worker = int(server.first_answer()[1].split()[1])
    os.kill(worker, signal.SIGTERM)
    until(lambda: not alive(worker), 10, 'the worker has ended')
    until(lambda: all_serve(server, kind.workers), what='200 from all workers')
    old = set(server.workers())
    server.send(signal.SIGHUP)
    until(lambda: server.workers() and not old & set(server.workers()), what='the old workers are gone')
    until(lambda: all_serve(server, kind.workers), what='200 from all workers')
    assert site.count('begin') == 1


def test_gearbox_serve_reload_runs_in_the_process_that_serves(make_site):
    kind = Kind(lambda site, port: [*gearbox('egg:waitress#main')(site, port), '--reload'])
    site = make_site(evolutions=['reloaded'])
    source = site.directory / 'reloaded.py'
    text = 'from tests.processes.worker import Step\nevolutions = [Step({!r})]\n'
    source.write_text(text.format('one'))
    server = kind.start(site)
    until(lambda: server.fetch() and server.fetch()[0] == 200)
    [begin] = site.lines('begin', 'one')
    assert begin.pid != server.pid

    def noticed():
        # Again and again: the reloader's first look at the file may come after the first of these.
        source.write_text(text.format('two'))
        return 'reloaded.py changed' in server.log

    until(noticed)
    site.until_told('begin', 'two')
    until(lambda: (answer := server.fetch()) and answer[0] == 200 and site.states('two') == ['done'])
    assert site.count('begin') == 2


def test_uwsgi_without_threads_stays_closed_and_says_so_until_somebody_else_ran_them(make_site):
    kind = Kind(UWSGI, 2, forks=True)
    site = make_site(evolutions=[{'id': 'one'}])
    server = kind.start(site)
    assert server.first_answer()[0] == 503
    until(lambda: server.log.count('this uwsgi runs no threads') == 2)
    assert '--enable-threads' in server.log
    assert site.count('begin') == 0
    assert not {table for table in site.tables if table.startswith('tgext')}
    other = site.fork(http=False)
    assert other.wait() == 0
    until(lambda: all_serve(server, 2), what='200 from all workers')
    assert site.lines('begin')[0].pid == other.pid


@pytest.mark.parametrize('lazy', [False, True])
def test_uwsgi_without_threads_runs_them_when_blocking(make_site, lazy):
    kind = Kind([*UWSGI, *(['--lazy-apps'] if lazy else [])], 2)
    site = make_site(evolutions=[{'id': 'one'}], mode='blocking')
    server = kind.start(site)
    assert server.first_answer()[0] == 200
    until(lambda: all_serve(server, 2), what='200 from all workers')
    assert site.count('begin') == 1
    assert site.seen == [1] * ROWS


@pytest.mark.parametrize('name', ['gunicorn', 'gunicorn --preload', 'gearbox serve'])
def test_a_blocking_server_answers_nothing_before_all_is_done(make_site, name):
    site = make_site(evolutions=[{'id': 'one', 'does': 'hold'}], mode='blocking')
    server = KINDS[name].start(site)
    site.until_told('half', 'one')
    site.go()
    until(lambda: (answer := server.fetch()) and answer[0] == 200)
    assert site.count('begin') == 1


def test_a_server_that_nobody_recognises_begins_at_its_first_request(make_site):
    site = make_site(evolutions=[{'id': 'one'}])
    server = site.fork(start=False)
    site.until_told('serving')
    assert site.count('begin') == 0
    assert not {table for table in site.tables if table.startswith('tgext')}
    assert server.first_answer()[0] == 503
    server.until_open()
    assert site.count('begin') == 1
