"""What must come first: somebody else acts at just the moment at which another order would do harm."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from tests.stores import open_store, take_over
from tests.stores.test_work import (
    Bench,
    both_kinds,
    both_sessions,
    evolution,
    its_session_may_be_ended,
    raw_insert,
)
from tests.unit.making import CODE, one
from tgext.evolve import Evolution
from tgext.evolve.errors import LeaseLost, StoreAway
from tgext.evolve.evolver import Evolver
from tgext.evolve.history import State
from tgext.evolve.lease import Lease
from tgext.evolve.options import Options
from tgext.evolve.plan import Plan, planned
from tgext.evolve.points import at_points
from tgext.evolve.stores.base import Owner, Report

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SQL = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb'], indirect=True)
#: On SQL it is the same code everywhere.
STORES = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mongodb'], indirect=True)
SERVERS = pytest.mark.parametrize('store_url', ['postgresql', 'mariadb'], indirect=True)


class Once(Evolution):
    evolution_id = 'once'

    def __init__(self):
        self.runs = 0

    def evolve(self):
        self.runs += 1


@pytest.fixture
def store(store_url):
    store = open_store(store_url)
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def rival(store, store_url):
    rival = open_store(store_url, like=store)
    yield rival
    rival.close()


@pytest.fixture
def at_point():
    """Do something once, when the code comes to a named point."""

    def at(name, action):
        def reach(point):
            if point == name:
                at_points(None)
                action()

        at_points(reach)

    yield at
    at_points(None)


def turn(store, step) -> Evolver:
    evolver = Evolver(Options(namespace='testing', watch=0.0, lease=60.0), Plan([planned(step)]), store)
    evolver._begin_process()
    evolver._turn()
    return evolver


@STORES
def test_what_was_recorded_until_it_was_marked_is_not_run_again(store, rival, at_point):
    """A deposed holder may still record what it did, until the very moment at which its attempt is marked."""
    dead = rival.acquire(Owner(), 60)
    attempt = rival.begin(dead, one('once'), 1, CODE)
    rival.release(dead)
    recorded = []
    at_point('before-marking', lambda: recorded.append(rival.finish(attempt, State.DONE)))
    step = Once()
    evolver = turn(store, step)
    assert recorded == [True]
    assert step.runs == 0
    assert evolver.gate.is_open


@STORES
def test_who_lost_the_lease_before_it_was_sure_of_it_runs_nothing(store, rival, at_point):
    """The attempt is on record, and its holder's process slept before it asked whether it still has the lease."""
    marked = []
    at_point('after-attempt', lambda: marked.extend(rival.interrupt_older(take_over(rival))))
    step = Once()
    evolver = turn(store, step)
    assert [attempt.evolution_id for attempt in marked] == ['once']
    assert step.runs == 0
    assert not evolver.gate.is_open


@STORES
@pytest.mark.parametrize('quicker', ['a rival', 'its holder'])
def test_a_lease_that_changed_since_it_was_looked_at_is_not_taken(store, rival, quicker, monkeypatch):
    """It had expired when it was looked at. Until it is to be taken it was renewed, or somebody else has it."""
    holder = rival.acquire(Owner(), 0.05)
    time.sleep(0.1)
    look = store._lease_row

    def look_and_sleep(*connection):
        row = look(*connection)
        monkeypatch.undo()
        if quicker == 'a rival':
            assert rival.acquire(Owner(), 60)
        else:
            rival.renew(holder, 60, Report())
        return row

    monkeypatch.setattr(store, '_lease_row', look_and_sleep)
    assert store.acquire(Owner(), 60) is None
    assert store.snapshot().lease.alive


@STORES
def test_who_is_deposed_hears_of_it_at_the_next_renewal(store, rival):
    lease = Lease.take(store, Owner(), 60)
    with lease:
        lease.renew()
        successor = take_over(rival)
        with pytest.raises(LeaseLost):
            lease.renew()
        assert lease.is_lost
        with pytest.raises(LeaseLost):
            lease.check()
    # It gives nothing back that is not its own.
    row = store.snapshot().lease
    assert (row.token, row.alive) == (successor.token, True)


@STORES
def test_a_heartbeat_that_lost_the_lease_stops_the_evolution(store, rival):
    reports = threading.Event()

    class Reporting(Once):
        def evolve(self):
            self.runs += 1
            take_over(rival)
            reports.set()
            until = time.monotonic() + 20
            while time.monotonic() < until:
                self.progress(1)
                time.sleep(0.01)

    step = Reporting()
    evolver = Evolver(Options(namespace='testing', watch=0.0, lease=0.9), Plan([planned(step)]), store)
    evolver._begin_process()
    started = time.monotonic()
    evolver._turn()
    assert reports.is_set()
    assert time.monotonic() - started < 10
    assert store.history().latest('once').state is State.RUNNING
    assert not evolver.gate.is_open


@pytest.mark.parametrize('store_url', ['sqlite'], indirect=True)
def test_who_cannot_renew_for_one_lease_gives_up_by_its_own_clock(store, monkeypatch):
    def cut_off(*arguments):
        raise StoreAway('no answer', place='the test', remedy='None.')

    lease = Lease.take(store, Owner(), 0.4)
    with lease:
        monkeypatch.setattr(store, 'renew', cut_off)
        monkeypatch.setattr(store, 'release', cut_off)
        lease.check()
        until = time.monotonic() + 10
        while not lease.is_lost and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(LeaseLost):
            lease.check()


@STORES
def test_a_lease_is_renewed_while_it_is_held(store):
    lease = Lease.take(store, Owner(), 0.9)
    before = store.snapshot().lease
    with lease:
        until = time.monotonic() + 20
        while (row := store.snapshot().lease).expires_at < before.expires_at + 900 and time.monotonic() < until:
            assert (row.token, row.owner) == (before.token, before.owner)
            time.sleep(0.02)
        assert row.expires_at >= before.expires_at + 900
        assert not lease.is_lost
    assert not store.snapshot().lease.alive


# -- data and record


@SQL
@both_sessions
def test_data_and_record_are_one_transaction(store_url, zope_session):
    """At the moment of the commit the transaction has both, and nobody else sees either."""
    bench = Bench(store_url, zope_session=zope_session)
    found = []

    def state(connection):
        statement = "SELECT state FROM tgext_evolve_history WHERE evolution_id = 'it'"
        return connection.exec_driver_sql(statement).scalar()

    def commit(connection):
        pages = connection.exec_driver_sql('SELECT count(*) FROM page').scalar()
        with bench.store._engine.connect() as other:
            elsewhere = other.exec_driver_sql('SELECT count(*) FROM page').scalar()
            found.append([state(connection), pages, state(other), elsewhere])

    def body(self):
        raw_insert(bench, 'half')
        # What prepared this test has committed as well.
        event.listen(bench.engine, 'commit', commit)

    evolver = bench.run(evolution(body, transactional=True))
    assert found == [['done', 1, 'running', 0]]
    assert bench.titles() == ['half']
    assert evolver.gate.is_open
    bench.close()


@pytest.mark.parametrize('store_url', ['sqlite', 'postgresql'], indirect=True)
@both_sessions
@both_kinds
def test_a_commit_that_fails_leaves_neither_data_nor_a_transaction(store_url, zope_session, transactional):
    """COMMIT looks at a deferred constraint. On SQLite the transaction goes on after that, and keeps all others out."""
    bench = Bench(store_url, zope_session=zope_session)
    with bench.engine.begin() as connection:
        connection.exec_driver_sql('CREATE TABLE parent (id INTEGER PRIMARY KEY)')
        connection.exec_driver_sql(
            'CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)'
        )

    def body(self):
        raw_insert(bench, 'half')
        bench.session.execute(text('INSERT INTO child VALUES (1)'))

    if store_url.startswith('sqlite'):
        event.listen(bench.engine, 'connect', lambda raw, record: raw.execute('PRAGMA foreign_keys = ON'))
        bench.engine.dispose()
    started = time.monotonic()
    evolver = bench.run(evolution(body, transactional=transactional), max_attempts=1)
    assert time.monotonic() - started < 10
    assert bench.titles() == []
    assert bench.latest('it').state is State.FAILED
    assert not evolver.gate.is_open
    bench.close()


@pytest.mark.parametrize('store_url', ['sqlite'], indirect=True)
@both_sessions
def test_on_sqlite_nobody_writes_between_what_an_evolution_reads_and_what_it_writes(store_url, zope_session):
    """Or its own first write would fail, because what it has read is old."""
    bench = Bench(store_url, zope_session=zope_session)
    refused = []

    def body(self):
        read = bench.session.execute(text('SELECT count(*) FROM page')).scalar()
        with bench.engine.connect() as user:
            user.exec_driver_sql('PRAGMA busy_timeout = 50')
            try:
                user.exec_driver_sql("INSERT INTO page (title, seen) VALUES ('user', 0)")
                user.commit()
            except OperationalError as error:
                refused.append(str(error.orig))
        raw_insert(bench, f'read {read}')

    bench.run(evolution(body, transactional=True))
    assert refused == ['database is locked']
    assert bench.titles() == ['read 0']
    bench.close()


@SERVERS
@both_sessions
def test_what_was_marked_meanwhile_is_rolled_back(store_url, zope_session):
    """By a successor that may not end its session: the fence alone keeps it from being saved."""
    bench = Bench(store_url, zope_session=zope_session)
    rival = bench.new_store()
    rival._dialect.end_sessions = lambda connection, owners: None

    def body(self):
        raw_insert(bench, 'late')
        assert rival.interrupt_older(take_over(rival))

    evolver = bench.evolver(evolution(body, transactional=True), lease=60.0)
    evolver._begin_process()
    evolver._turn()
    assert bench.titles() == []
    assert bench.latest('it').state is State.INTERRUPTED
    assert not evolver.gate.is_open
    bench.close()


# -- whose session is ended


@SERVERS
def test_only_the_session_of_the_deposed_holder_is_ended(store_url):
    """Others have transactions open too: users' requests, and evolutions of other applications."""
    bench = Bench(store_url)
    rival = bench.new_store()
    other = bench.new_store()
    other.namespace = 'other'
    survived = []

    def body(self):
        bench.session.execute(text('UPDATE page SET seen = seen + 1'))
        with bench.engine.connect() as bystander, other._engine.connect() as marked:
            bystander.exec_driver_sql('SELECT count(*) FROM page')
            with marked.execution_options(isolation_level='READ COMMITTED').begin():
                other._dialect.mark(marked, 'somebody-else')
                marked.exec_driver_sql('SELECT count(*) FROM page')
                rival.interrupt_older(take_over(rival))
                for connection in (bystander, marked):
                    survived.append(connection.exec_driver_sql('SELECT 1').scalar())

    evolver = bench.evolver(evolution(body, transactional=True), lease=60.0)
    evolver._begin_process()
    with its_session_may_be_ended():
        evolver._turn()
    assert survived == [1, 1]
    assert bench.latest('it').state is State.INTERRUPTED
    bench.close()


# -- whom it is announced to


@pytest.mark.parametrize('store_url', ['sqlite', 'mim'], indirect=True)
def test_what_keeps_users_out_stands_on_record_for_one_watch_before_it_begins(store, rival):
    """So that every process of an older release, which looks once in that time, has closed."""
    grant = rival.acquire(Owner(), 60)
    rival.settle(grant, ['older'], State.STAMPED)
    rival.release(grant)
    began = []

    class Timed(Once):
        def evolve(self):
            [attempt] = rival.history().of('once')
            assert attempt.state is State.RUNNING
            began.append(rival.snapshot().now - attempt.started)

    evolver = Evolver(Options(namespace='testing', watch=0.4, lease=60.0), Plan([planned(Timed())]), store)
    evolver._begin_process()
    evolver._turn()
    assert evolver.gate.is_open
    assert began[0] >= 400
