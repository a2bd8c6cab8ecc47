"""Processes that leave: the holder lets go at once where that is safe, and never while user code may write."""

from __future__ import annotations

import signal
import time

import pytest

from tests.processes.harness import Process, Site, until
from tests.processes.worker import ROWS

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

#: So long that nobody waits for it: who takes over sooner was given it.
LONG = 60

STORES = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb', 'mongodb'], indirect=True)
SQL = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb'], indirect=True)


def holder_and_waiter(site: Site, event: str = 'half', **settings) -> tuple[Process, Process]:
    holder = site.fork(**settings)
    site.until_told(event, pid=holder.pid)
    waiter = site.fork()
    assert waiter.first_answer()[0] == 503
    return holder, waiter


@STORES
def test_sigterm_at_progress_lets_go_at_once(make_site, store_url):
    transactional = not store_url.startswith('mongodb')
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'tell', 'transactional': transactional}], lease=LONG)
    holder, waiter = holder_and_waiter(site)
    told = time.monotonic()
    assert holder.terminate() == -signal.SIGTERM
    [begin] = site.until_told('begin', pid=waiter.pid)
    assert begin.time - told < 5
    site.go()
    waiter.until_open()
    first, second = site.store.history().of('one')
    assert first.left_in_order
    assert second.state.value == 'done'
    assert second.token > first.token
    if transactional:
        assert site.seen == [1] * ROWS
    assert 'Traceback' not in holder.log + waiter.log


def test_the_lease_is_free_right_after_the_end(make_site):
    site = make_site(evolutions=[{'id': 'one', 'does': 'tell'}], lease=LONG)
    holder = site.fork()
    site.until_told('half')
    assert site.lease.pid == holder.pid
    assert site.lease.alive
    assert holder.terminate() == -signal.SIGTERM
    assert site.lease.expires_at == 0


def test_sigterm_between_evolutions_lets_go_at_once(make_site):
    """While an evolution that keeps users out is announced to processes of an older release."""
    site = make_site(evolutions=[{'id': 'one'}], lease=LONG)
    site.fork(http=False).wait()
    site.evolutions.append({'id': 'two'})
    holder = site.fork(options={'watch': 60})
    until(lambda: 'announced for 60 seconds' in holder.log)
    told = time.monotonic()
    assert holder.terminate() == -signal.SIGTERM
    assert time.monotonic() - told < 3
    assert site.lease.expires_at == 0
    assert site.count('begin', 'two') == 0
    # What never began is no attempt.
    assert site.states('two') == []
    site.fork(http=False).wait()
    assert site.seen == [2] * ROWS


@pytest.mark.parametrize('store_url', ['postgresql', 'mongodb'], indirect=True)
def test_the_lease_is_kept_while_code_that_does_not_listen_still_writes(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'tick'}], lease=2)
    holder, waiter = holder_and_waiter(site)
    holder.send(signal.SIGTERM)
    while holder.status is None:
        lease = site.lease
        assert lease.pid == holder.pid
        assert lease.expires_at != 0
    ended = time.monotonic()
    assert holder.status == -signal.SIGTERM
    assert site.lease.expires_at != 0
    site.go()
    [begin] = site.until_told('begin', pid=waiter.pid)
    last_tick = site.lines('tick', pid=holder.pid)[-1]
    assert last_tick.time < begin.time
    assert begin.time - ended < 2 + 0.1 + 2
    waiter.until_open()
    assert site.states('one') == ['interrupted', 'done']


def test_code_that_ends_in_time_is_saved_and_the_lease_given_back(make_site):
    site = make_site(
        evolutions=[{'id': 'one', 'does': 'hold', 'transactional': True}, {'id': 'two', 'does': 'hold', 'go': 'two'}],
        lease=LONG,
    )
    holder = site.fork()
    site.until_told('half')
    holder.send(signal.SIGTERM)
    site.go()
    assert holder.wait() == -signal.SIGTERM
    assert site.states('one') == ['done']
    assert site.count('begin', 'two') == 0
    assert site.lease.expires_at == 0


@pytest.mark.parametrize('handler', ['before', 'after'])
def test_the_applications_own_handler_of_sigterm_still_runs(make_site, handler):
    site = make_site(evolutions=[{'id': 'one', 'does': 'tell'}], lease=LONG)
    holder = site.fork(handler=handler, http=False)
    site.until_told('half')
    assert holder.terminate() == 7
    assert site.count('handler') == 1
    assert site.lease.expires_at == 0


def test_a_process_that_ignores_sigterm_goes_on(make_site):
    site = make_site(evolutions=[{'id': 'one', 'does': 'tell'}], lease=LONG)
    holder = site.fork(handler='ignore')
    site.until_told('half')
    holder.send(signal.SIGTERM)
    holder.first_answer()
    site.go()
    holder.until_open()
    assert site.states('one') == ['done']


def test_a_process_that_only_waits_ends_at_once(make_site):
    site = make_site(evolutions=[{'id': 'one', 'does': 'tell'}], lease=LONG)
    _, waiter = holder_and_waiter(site)
    told = time.monotonic()
    assert waiter.terminate() == -signal.SIGTERM
    assert time.monotonic() - told < 2
    assert site.lease.alive
    assert site.states('one') == ['running']


def test_an_open_process_ends_by_sigterm_as_ever(make_site):
    site = make_site(evolutions=[{'id': 'one'}], watch=1)
    process = site.fork()
    process.until_open()
    told = time.monotonic()
    assert process.terminate() == -signal.SIGTERM
    assert time.monotonic() - told < 2


@pytest.mark.parametrize('http', [True, False])
def test_ctrl_c_lets_go(make_site, http):
    site = make_site(evolutions=[{'id': 'one', 'does': 'tell'}], lease=LONG)
    holder = site.fork(http=http)
    site.until_told('half')
    holder.send(signal.SIGINT)
    holder.wait()
    assert site.lease.expires_at == 0
    [attempt] = site.store.history().of('one')
    assert attempt.left_in_order


def test_an_ordinary_exit_lets_go(make_site):
    site = make_site(evolutions=[{'id': 'one', 'does': 'tell'}], lease=LONG)
    holder = site.fork(http=False, patience=0.5)
    assert holder.wait() == 0
    assert site.count('closed') == 1
    assert site.lease.expires_at == 0
    [attempt] = site.store.history().of('one')
    assert attempt.left_in_order


@STORES
def test_a_holder_that_was_paused_for_too_long_records_nothing_and_goes_on_as_a_waiter(make_site, store_url):
    """Code that is not transactional overlaps with its successor, which nobody can prevent: it records nothing."""
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'hold'}, {'id': 'two', 'does': 'hold', 'go': 'two'}])
    holder, waiter = holder_and_waiter(site)
    holder.send(signal.SIGSTOP)
    site.go()
    site.until_told('begin', 'two', waiter.pid)
    holder.send(signal.SIGCONT)
    site.until_told('end', 'one', holder.pid)
    until(lambda: 'goes on as a waiter' in holder.log)
    assert holder.first_answer()[0] == 503
    assert site.states('one') == ['interrupted', 'done']
    assert site.states('two') == ['running']
    site.go('two')
    waiter.until_open()
    holder.until_open()
    assert site.states('one') == ['interrupted', 'done']
    assert site.states('two') == ['done']
    assert not site.lines('begin', 'two', holder.pid)


@pytest.mark.parametrize('store_url', ['postgresql', 'mariadb'], indirect=True)
def test_a_holder_that_was_paused_in_a_transaction_cannot_commit_it(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'hold', 'transactional': True}])
    holder, waiter = holder_and_waiter(site)
    holder.send(signal.SIGSTOP)
    site.go()
    # It holds locks that its successor needs; the database ends its session.
    waiter.until_open(2 + 0.1 + 2)
    assert site.states('one') == ['interrupted', 'done']
    holder.send(signal.SIGCONT)
    holder.until_open()
    assert site.seen == [1] * ROWS
    assert site.states('one') == ['interrupted', 'done']


def test_a_holder_that_was_paused_in_a_transaction_of_sqlite_keeps_the_database_and_ends_its_work(make_site):
    site = make_site(evolutions=[{'id': 'one', 'does': 'hold', 'transactional': True}], lease=1)
    holder, waiter = holder_and_waiter(site)
    holder.send(signal.SIGSTOP)
    site.go()
    until(lambda: not site.lease.alive)
    assert waiter.first_answer()[0] == 503
    holder.send(signal.SIGCONT)
    waiter.until_open()
    holder.until_open()
    assert site.seen == [1] * ROWS
    assert site.states('one')[-1] == 'done'


@SQL
def test_a_holder_that_was_paused_for_less_than_its_lease_goes_on(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'hold', 'transactional': True}], lease=4)
    holder, waiter = holder_and_waiter(site)
    token = site.lease.token
    holder.send(signal.SIGSTOP)
    before = site.lease.expires_at
    until(lambda: before - site.lease.now < 2500, what='a good part of the lease is over')
    holder.send(signal.SIGCONT)
    site.go()
    holder.until_open()
    waiter.until_open()
    assert site.states('one') == ['done']
    assert site.lease.token == token
    assert site.seen == [1] * ROWS
