"""What a person asks for reaches whoever runs, in whatever process, and survives its death."""

from __future__ import annotations

import json
import signal
import time
from types import SimpleNamespace

import pytest

from tests.processes.harness import NAMESPACE, program, until
from tests.processes.worker import ROWS
from tgext.evolve.errors import NothingRuns
from tgext.evolve.options import Options
from tgext.evolve.plan import Plan
from tgext.evolve.records import Records

pytestmark = pytest.mark.slow

STORES = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb', 'mongodb'], indirect=True)

#: Long enough for a database that is busy with something else: where nobody dies, none is to be lost.
CALM = {'lease': 10}

#: A request reaches a holder that reports with its next renewal: a second, and one for a busy machine.
SOON = 3.0


def desk(site) -> Records:
    """Where a person asks: outside of every process that serves."""
    evolutions = [
        SimpleNamespace(evolution_id=each['id'], evolve=lambda: None, serving=each.get('serving', 'nothing'))
        for each in site.evolutions
    ]
    options = Options(namespace=NAMESPACE, store=site.url, lease=2, poll=0.1)
    return Records(options, Plan(entries(evolutions)), site.store)


def entries(evolutions):
    from tgext.evolve.plan import planned

    return [planned(each, listed=True) for each in evolutions]


def reports(site) -> bool:
    """Has the progress of what runs come to the database?"""
    lease = site.lease
    return lease is not None and lease.report.done is not None


def assert_interrupted_and_then(site, state: str) -> None:
    """A lease short enough to wait for is now and then lost where the disk is slow: then it says so once more."""
    *before, last = site.states('one')
    assert last == state
    assert set(before) == {'interrupted'}


# -- pause


@STORES
def test_a_pause_lets_what_runs_end_and_nothing_begin_until_another_process_resumes(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'hold'}, {'id': 'two'}], **CALM)
    first = site.fork()
    site.until_told('half', 'one')
    desk(site).pause()
    second = site.fork()
    site.go()
    first.until_reason('paused')
    second.until_reason('paused')
    assert site.states('one') == ['done']
    assert site.states('two') == []
    first.kill()
    desk(site).resume()
    second.until_open()
    assert site.states('two') == ['done']
    assert site.seen == [2] * ROWS
    assert site.lines('begin', 'two')[0].pid == second.pid


@STORES
def test_a_pause_survives_the_death_of_the_holder_and_restarts(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'hold'}, {'id': 'two'}], lease=2)
    holder = site.fork()
    site.until_told('half', 'one')
    desk(site).pause()
    held = site.lease
    holder.kill()
    site.go()
    for _ in range(2):
        again = site.fork()
        again.until_reason('paused')
        until(lambda: not site.lease.alive, what='the lease of the dead one is over')
        # Long enough for a process that would take it.
        until(lambda: site.lease.now > held.expires_at + 500)
        assert again.reason() == 'paused'
        again.terminate()
    assert site.states('one') == ['running']
    assert site.count('begin') == 1
    last = site.fork()
    last.until_reason('paused')
    desk(site).resume()
    last.until_open()
    assert_interrupted_and_then(site, 'done')


def test_a_pause_before_anything_was_ever_recorded_holds(make_site, postgresql_server):
    site = make_site(postgresql_server.new_database(), evolutions=[{'id': 'one'}], **CALM)
    desk(site).pause()
    process = site.fork()
    process.until_reason('paused')
    assert site.count('begin') == 0
    desk(site).resume()
    process.until_open()


# -- cancel


@STORES
def test_cancel_reaches_a_holder_that_reports_within_seconds_and_stays_over_restarts(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'tell'}, {'id': 'two'}], **CALM)
    holder, waiter = site.fork(), site.fork()
    until(lambda: reports(site))
    asked = time.monotonic()
    assert desk(site).cancel() == 'one'
    until(lambda: site.states('one') == ['cancelled'], SOON)
    print(f'cancelled after {time.monotonic() - asked:.2f} s')
    for process in (holder, waiter):
        process.until_reason('cancelled')
    again = site.fork()
    again.until_reason('cancelled')
    assert again.first_answer()[0] == 503
    assert site.states('one') == ['cancelled']
    assert site.count('begin') == 1
    site.go()
    assert desk(site).retry(['one']) == 1
    for process in (holder, waiter, again):
        process.until_open()
    assert site.states('one') == ['cancelled', 'done']


@STORES
def test_one_that_reports_nothing_is_done_though_it_was_cancelled(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'hold'}, {'id': 'two'}], **CALM)
    holder = site.fork()
    site.until_told('half', 'one')
    desk(site).cancel()
    # The holder has heard of it, and there is nothing that it could do.
    token = site.lease.expires_at
    until(lambda: site.lease.expires_at > token)
    site.go()
    holder.until_open()
    assert site.states('one') == ['done']
    assert site.states('two') == ['done']


@STORES
def test_a_holder_killed_before_it_heard_leaves_the_cancelling_to_the_next(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'tell'}], lease=2)
    holder = site.fork()
    until(lambda: reports(site))
    holder.send(signal.SIGSTOP)
    desk(site).cancel()
    holder.kill()
    successor = site.fork()
    successor.until_reason('cancelled')
    assert_interrupted_and_then(site, 'cancelled')
    # At its first report, before it has done the second half.
    assert site.count('end') == 0


def test_cancel_where_nothing_runs_says_so(make_site, postgresql_server):
    site = make_site(postgresql_server.new_database(), evolutions=[{'id': 'one'}], **CALM)
    with pytest.raises(NothingRuns, match='pause'):
        desk(site).cancel()
    site.fork().until_open()
    with pytest.raises(NothingRuns):
        desk(site).cancel()


def test_an_evolution_that_ended_is_not_cancelled_the_next_time_either(make_site, postgresql_server):
    """The request was for that run; unstamping or a failure later must not find it."""
    site = make_site(postgresql_server.new_database(), evolutions=[{'id': 'one', 'does': 'hold'}], **CALM)
    holder = site.fork()
    site.until_told('half', 'one')
    desk(site).cancel()
    site.go()
    holder.until_open()
    until(lambda: site.store.requests().cancel is None)


# -- down


@STORES
def test_down_closes_every_process_within_watch_and_up_opens_them(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one'}], watch=0.5, **CALM)
    processes = [site.fork(), site.fork()]
    for process in processes:
        process.until_open()
    desk(site).down('Back at 12')
    for process in processes:
        process.until_reason('down', SOON)
        assert process.first_answer()[0] == 503
    restarted = site.fork()
    restarted.until_reason('down')
    assert desk(site).up()
    for process in (*processes, restarted):
        process.until_open(SOON)
    assert not desk(site).up()


@STORES
def test_evolutions_run_while_it_is_down_and_the_gate_stays_closed(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one'}], **CALM)
    desk(site).down()
    process = site.fork()
    until(lambda: site.states('one') == ['done'])
    assert process.reason() == 'down'
    assert process.first_answer()[0] == 503
    process.kill()
    again = site.fork()
    again.until_reason('down')
    desk(site).up()
    again.until_open()


@STORES
def test_a_blocking_application_starts_while_it_is_down_and_opens_after_up(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one'}], mode='blocking', **CALM)
    desk(site).down()
    process = site.start(program('gunicorn'), '--no-control-socket', '-b', '127.0.0.1:PORT', 'tests.processes.wsgi')
    until(lambda: process.fetch('/_evolve/ready'))
    assert process.reason() == 'down'
    assert process.first_answer()[0] == 503
    assert site.states('one') == ['done']
    desk(site).up()
    process.until_open()


# -- an access log


ACCESS = """
import logging
from tgext.evolve.logs import NoMaintenance

accesslog = 'access.log'
logging.getLogger('gunicorn.access').addFilter(NoMaintenance())
"""


def test_gunicorns_access_log_is_without_the_503s_that_are_meant(make_site):
    site = make_site(evolutions=[{'id': 'one', 'does': 'hold'}])
    (site.directory / 'conf.py').write_text(ACCESS)
    process = site.start(
        *(program('gunicorn'), '--no-control-socket', '-c', 'conf.py', '-b', '127.0.0.1:PORT', 'tests.processes.wsgi')
    )
    assert process.first_answer()[0] == 503
    status = json.loads(process.first_answer('/_evolve/status')[1])
    assert status['serving'] == 'nothing'
    site.go()
    process.until_open()
    log = site.directory / 'access.log'
    # A line is written after its answer was sent.
    until(lambda: '"GET / HTTP/1.1" 200' in log.read_text())
    lines = log.read_text().splitlines()
    assert [line.split('"')[2].split()[0] for line in lines] == ['200'] * len(lines)
    assert any('GET /_evolve/status' in line for line in lines)
