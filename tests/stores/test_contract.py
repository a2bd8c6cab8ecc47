"""The one contract that every store keeps, on every database."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing

import pymongo
import pytest
from sqlalchemy import NullPool, create_engine, text

from tests.processes.harness import until
from tests.stores import open_store
from tgext.evolve import Evolution
from tgext.evolve.errors import StoreAway, StoreBusy, StoreError
from tgext.evolve.history import CLAIM, State
from tgext.evolve.plan import planned
from tgext.evolve.stores.base import Owner, Renewal, Report, Requests


class Some(Evolution):
    evolution_id = 'some-evolution'
    serving = 'reads'


class Dollar(Evolution):
    evolution_id = '$set.me {}'


@pytest.fixture
def store(store_url):
    store = open_store(store_url)
    yield store
    store.close()


@pytest.fixture
def ready(store):
    store.prepare()
    return store


def begin(store, grant, evolution=None, number=1):
    return store.begin(grant, planned(evolution or Some()), number, 'f' * 64)


def test_an_empty_database_has_an_empty_history_and_no_lease(store):
    assert not store.history()
    snapshot = store.snapshot()
    assert not snapshot.history
    assert snapshot.lease is None
    assert abs(snapshot.now / 1000 - time.time()) < 60


def test_looking_makes_nothing(store):
    store.history()
    store.snapshot()
    assert store.predecessor() is None
    assert store.namespaces_with(['a']) == []
    assert store.snapshot().lease is None


class Changes:
    """All that can be recorded, one after the other."""

    def __init__(self, store):
        self.store = store
        self.owner = Owner()
        self.grant = store.acquire(self.owner, 10)
        self.attempt = None

    def begin(self):
        self.attempt = begin(self.store, self.grant)

    def begin_another(self):
        self.attempt = begin(self.store, self.grant, Dollar())

    def withdraw(self):
        self.store.withdraw(self.attempt)

    def fail(self):
        assert self.store.finish(self.attempt, State.FAILED, 'error')

    def forgive(self):
        assert self.store.forgive(['some-evolution']) == 1

    def finish(self):
        assert self.store.finish(self.attempt, State.DONE)

    def take_over(self):
        self.store.release(self.grant)
        self.grant = self.store.acquire(Owner(), 10)
        assert self.store.interrupt_older(self.grant)

    def stamp(self):
        self.store.settle(self.grant, ['stamped'], State.STAMPED)

    def unstamp(self):
        self.store.unsettle(self.grant, ['stamped'])

    def stamp_another(self):
        self.store.settle(self.grant, ['stamped-later'], State.STAMPED)

    def shut(self):
        self.store.shut(self.owner, 'back soon')

    def reopen(self):
        assert self.store.reopen()


def test_a_look_that_knows_an_earlier_one_sees_all_that_was_recorded_since(ready):
    changes = Changes(ready)
    known = ready.snapshot()
    order = 'begin withdraw begin fail forgive begin_another take_over begin finish stamp unstamp stamp_another'
    for name in [*order.split(), 'shut', 'reopen']:
        getattr(changes, name)()
        seen, whole = ready.snapshot(known), ready.snapshot()
        assert seen.history is not known.history, f'{name} was not seen'
        assert seen.history.attempts == whole.history.attempts, name
        assert (seen.history.down is None) is (whole.history.down is None), name
        known = seen


def test_what_is_recorded_while_a_look_reads_shows_in_the_next_one(ready, monkeypatch):
    changes = Changes(ready)
    read = ready._history

    def read_and_then(*args):
        history = read(*args)
        monkeypatch.undo()
        changes.begin()
        return history

    monkeypatch.setattr(ready, '_history', read_and_then)
    known = ready.snapshot()
    assert not known.history
    assert ready.snapshot(known).history.of('some-evolution')


def test_a_look_that_knows_an_earlier_one_reads_no_history_twice_and_always_the_lease_and_the_clock(ready, store_url):
    changes = Changes(ready)
    changes.stamp()
    known = ready.snapshot()
    ready.renew(changes.grant, 10, Report(message='half of it'))
    again = ready.snapshot(known)
    assert again.lease.report.message == 'half of it'
    assert again.now >= known.now
    if not store_url.startswith('mim'):
        assert again.history is known.history


def test_preparing_twice_is_harmless(store):
    store.prepare()
    store.prepare()
    assert not store.history()


def test_only_one_owner_gets_the_lease(ready):
    first, second = Owner(), Owner()
    assert ready.acquire(first, 10).token == 1
    assert ready.acquire(second, 10) is None
    row = ready.snapshot().lease
    assert (row.owner, row.token, row.alive, row.pid) == (first.id, 1, True, first.pid)
    assert 5_000 < row.expires_at - row.now <= 10_000


def test_the_lease_is_free_after_it_was_given_back(ready):
    first, second = Owner(), Owner()
    ready.release(ready.acquire(first, 10))
    assert not ready.snapshot().lease.alive
    assert ready.acquire(second, 10).token == 2


def test_the_lease_is_free_after_it_expired(ready):
    first, second = Owner(), Owner()
    began = time.monotonic()
    grant = ready.acquire(first, 0.3)
    taken = until(lambda: ready.acquire(second, 10))
    assert time.monotonic() - began > 0.29
    assert taken.token == 2
    assert ready.renew(grant, 10, Report()) is Renewal.LOST
    ready.release(grant)
    assert ready.snapshot().lease.owner == second.id
    assert ready.snapshot().lease.alive


def test_an_expired_lease_that_nobody_took_can_be_renewed(ready):
    grant = ready.acquire(Owner(), 0.05)
    time.sleep(0.1)
    assert not ready.snapshot().lease.alive
    assert ready.renew(grant, 10, Report()) is Renewal.KEPT
    assert ready.snapshot().lease.alive


def test_its_own_lease_is_taken_anew_with_a_larger_token(ready):
    owner = Owner()
    first = ready.acquire(owner, 10)
    second = ready.acquire(owner, 10)
    assert second.token == first.token + 1
    assert ready.renew(first, 10, Report()) is Renewal.LOST
    assert ready.renew(second, 10, Report()) is Renewal.KEPT


def test_a_renewal_tells_how_far_it_is(ready):
    grant = ready.acquire(Owner(), 10)
    report = Report('$some {id}', 3.5, 10.0, '$half of it', 1234567890123)
    assert ready.renew(grant, 10, report) is Renewal.KEPT
    assert ready.snapshot().lease.report == report
    ready.release(grant)
    assert ready.snapshot().lease.report == Report()


def test_tokens_go_on_growing_when_the_lease_is_lost_from_the_database(ready, store_url):
    grant = ready.acquire(Owner(), 10)
    grant = ready.acquire(grant.owner, 10)
    begin(ready, grant)
    drop_lease(store_url)
    ready.prepare()
    assert ready.acquire(Owner(), 10).token > grant.token


def test_an_attempt_is_recorded_as_it_goes(ready):
    owner = Owner()
    grant = ready.acquire(owner, 10)
    attempt = begin(ready, grant)
    (row,) = ready.history().of('some-evolution')
    assert row == attempt
    assert row.state is State.RUNNING
    assert (row.owner, row.token, row.attempt, row.serving) == (owner.id, 1, 1, 'reads')
    assert (row.host, row.pid, row.fingerprint, row.finished) == (owner.host, owner.pid, 'f' * 64, None)
    assert ready.finish(attempt, State.FAILED, 'Traceback: $boom')
    (row,) = ready.history().of('some-evolution')
    assert row.state is State.FAILED
    assert row.finished >= row.started
    assert ready.error_of(attempt) == 'Traceback: $boom'


def test_an_outcome_is_recorded_once(ready):
    grant = ready.acquire(Owner(), 10)
    attempt = begin(ready, grant, Dollar())
    assert ready.finish(attempt, State.DONE)
    assert not ready.finish(attempt, State.FAILED, 'too late')
    assert ready.history().latest('$set.me {}').state is State.DONE


def test_an_attempt_that_never_began_is_withdrawn(ready):
    grant = ready.acquire(Owner(), 10)
    ready.withdraw(begin(ready, grant))
    assert not ready.history()
    attempt = begin(ready, grant)
    ready.finish(attempt, State.FAILED, 'x')
    ready.withdraw(attempt)
    assert ready.history().latest('some-evolution').state is State.FAILED


def test_a_deposed_holder_can_record_nothing(ready):
    grant = ready.acquire(Owner(), 0.05)
    attempt = begin(ready, grant)
    time.sleep(0.1)
    successor = ready.acquire(Owner(), 10)
    assert [a.evolution_id for a in ready.interrupt_older(successor)] == ['some-evolution']
    assert not ready.finish(attempt, State.DONE)
    latest = ready.history().latest('some-evolution')
    assert latest.state is State.INTERRUPTED
    assert not latest.left_in_order


def test_marking_leaves_the_own_and_the_finished_attempts_alone(ready):
    grant = ready.acquire(Owner(), 10)
    ready.finish(begin(ready, grant), State.DONE)
    begin(ready, grant, Dollar())
    assert ready.interrupt_older(grant) == []
    assert ready.history().latest('some-evolution').state is State.DONE
    assert ready.history().latest('$set.me {}').state is State.RUNNING


def test_a_late_row_of_a_deposed_holder_does_not_hide_its_successors(ready):
    old = ready.acquire(Owner(), 0.05)
    time.sleep(0.1)
    new = ready.acquire(Owner(), 10)
    ready.finish(begin(ready, new), State.DONE)
    begin(ready, old)
    history = ready.history()
    assert 'some-evolution' in history.settled
    assert history.latest('some-evolution').token == new.token


def test_stamped_and_imported_ones_are_settled_once(ready):
    grant = ready.acquire(Owner(), 10)
    ready.settle(grant, ['a', 'b'], State.STAMPED)
    ready.settle(grant, ['b', 'c'], State.IMPORTED)
    history = ready.history()
    assert history.settled == {'a', 'b', 'c'}
    assert [a.state for a in history.of('b')] == [State.STAMPED]
    ready.unsettle(grant, ['a', 'c'])
    assert ready.history().settled == {'b'}


def test_what_is_settled_with_a_content_is_recorded_with_it(ready):
    grants = [ready.acquire(Owner(), 10)]
    ready.settle(grants[0], ['views', 'data'], State.STAMPED, {'views': 'A'})
    for content, rows in (('A', 1), ('B', 2), ('B', 2), ('A', 3)):
        ready.release(grants[-1])
        grants.append(ready.acquire(Owner(), 10))
        ready.settle(grants[-1], ['views', 'data'], State.STAMPED, {'views': content})
        assert [attempt.fingerprint for attempt in ready.history().of('views')][-1] == content
        assert len(ready.history().of('views')) == rows
    assert [attempt.fingerprint for attempt in ready.history().of('data')] == [None]


def test_what_really_ran_is_not_unsettled(ready):
    grant = ready.acquire(Owner(), 10)
    ready.finish(begin(ready, grant), State.DONE)
    ready.unsettle(grant, ['some-evolution'])
    assert ready.history().settled == {'some-evolution'}


def test_forgiven_attempts_no_longer_count(ready):
    grant = ready.acquire(Owner(), 10)
    for number, state in enumerate((State.FAILED, State.INTERRUPTED, State.CANCELLED), 1):
        ready.finish(begin(ready, grant, number=number), state, 'x')
    assert ready.forgive(['some-evolution', 'other']) == 3
    assert ready.forgive(['some-evolution']) == 0
    assert {a.fingerprint for a in ready.history().of('some-evolution')} == {None}


def test_namespaces_do_not_see_each_other(ready, store_url):
    other = open_store(store_url, namespace='other')
    grant = ready.acquire(Owner(), 10)
    begin(ready, grant)
    assert other.snapshot().lease is None
    assert not other.history()
    assert other.acquire(Owner(), 10).token == 1
    assert other.namespaces_with(['some-evolution', 'x']) == ['testing']
    assert other.namespaces_with(['x']) == []
    assert ready.namespaces_with(['some-evolution']) == []
    other.close()


@pytest.mark.parametrize('id', ['Add-Slug', 'add-slug', 'add-slug.', 'ädd-slüg', '\N{SNOWMAN}', 'x' * 200])
def test_ids_are_compared_byte_for_byte(ready, id):
    grant = ready.acquire(Owner(), 10)
    ready.settle(grant, ['add-slug', id], State.STAMPED)
    assert ready.history().settled == {'add-slug', id}


def test_a_large_error_with_odd_characters_is_kept(ready):
    grant = ready.acquire(Owner(), 10)
    attempt = begin(ready, grant)
    error = '\N{SNOWMAN}' * 32_000
    assert ready.finish(attempt, State.FAILED, error)
    assert ready.error_of(attempt) == error


def test_rivals_never_hold_the_lease_together(ready, store_url):
    """An unsynchronised counter, incremented under the lease only, loses nothing."""
    rounds, rivals = 12, 4
    counter = {'value': 0}
    tokens: list[int] = []
    errors: list[BaseException] = []

    def rival():
        store = open_store(store_url, like=ready)
        owner = Owner()
        try:
            done = 0
            while done < rounds:
                grant = store.acquire(owner, 10)
                if grant is None:
                    time.sleep(0.001)
                    continue
                value = counter['value']
                time.sleep(0.002)
                counter['value'] = value + 1
                tokens.append(grant.token)
                store.release(grant)
                done += 1
        except BaseException as error:
            errors.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=rival) for _ in range(rivals)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert counter['value'] == rounds * rivals
    assert tokens == sorted(set(tokens))


def test_many_may_prepare_an_empty_database_at_once(store, store_url):
    errors: list[BaseException] = []
    barrier = threading.Barrier(8)

    def prepare():
        mine = open_store(store_url, like=store)
        barrier.wait()
        try:
            mine.prepare()
            mine.acquire(Owner(), 10)
        except BaseException as error:
            errors.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=prepare) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.snapshot().lease.token == 1


def drop_lease(url):
    if url.startswith('mim'):
        from ming import create_datastore

        create_datastore(url).db.tgext_evolve_lease.drop()
    elif url.startswith('mongodb'):
        import pymongo

        with pymongo.MongoClient(url) as client:
            client.get_default_database().tgext_evolve_lease.drop()
    else:
        import sqlalchemy

        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql('DROP TABLE tgext_evolve_lease')


def test_what_people_ask_reaches_the_holder_and_outlives_it(ready):
    assert ready.requests() == Requests()
    grant = ready.acquire(Owner(), 10)
    ready.ask(Owner(), paused=True)
    ready.ask(Owner(), cancel='$one {id}')
    asked = ready.requests()
    assert asked.cancel == '$one {id}'
    assert abs(asked.paused - ready.snapshot().now) < 60_000
    assert ready.snapshot().lease.requests == asked
    assert ready.renew(grant, 10, Report()) is Renewal.KEPT
    ready.release(grant)
    assert ready.acquire(Owner(), 10) is not None
    assert ready.requests() == asked
    ready.ask(Owner(), paused=False)
    assert ready.requests() == Requests(None, '$one {id}')
    ready.ask(Owner(), cancel='')
    assert ready.requests() == Requests()


def test_a_request_to_a_lease_that_was_never_taken_gives_it_to_nobody(ready):
    ready.ask(Owner(), paused=True)
    assert ready.requests().paused
    assert not ready.snapshot().lease.alive
    assert ready.acquire(Owner(), 10).token == 1


def test_a_person_closes_the_gate_and_opens_it_again(ready):
    assert ready.history().down is None
    first, second = Owner(), Owner()
    ready.shut(first, 'Back at $noon')
    ready.shut(second, 'Back at one')
    history = ready.history()
    assert (history.down.owner, history.down.host, history.down.pid) == (second.id, second.host, second.pid)
    assert ready.error_of(history.down) == 'Back at one'
    # It says nothing about evolutions.
    assert not history
    assert not history.attempts
    grant = ready.acquire(Owner(), 10)
    assert grant.token == 1
    assert ready.interrupt_older(grant) == []
    ready.settle(grant, [CLAIM], State.STAMPED)
    assert ready.history().is_claimed
    assert ready.reopen() is True
    assert ready.reopen() is False
    assert ready.history().down is None
    assert ready.history().is_claimed


def edit(url, table, name, value):
    """By hand, as somebody did."""
    if url.startswith('mongodb'):
        with pymongo.MongoClient(url) as client:
            client.get_default_database()[table].update_one({}, {'$set': {name: value}})
    else:
        with closing(sqlite3.connect(url.partition('///')[2])) as connection, connection:
            connection.execute(f'UPDATE {table} SET {name} = ?', [value])


@pytest.mark.parametrize('store_url', ['sqlite', 'mongodb'], indirect=True)
def test_a_lease_that_somebody_edited_is_named(ready, store_url):
    assert ready.acquire(Owner(), 60)
    edit(store_url, 'tgext_evolve_lease', 'expires_at', 'tomorrow')
    with pytest.raises(StoreError, match=r"the lease of 'testing' cannot be read: .*'tomorrow'") as raised:
        ready.snapshot()
    assert raised.value.place.endswith(' tgext_evolve_lease')
    assert raised.value.remedy == 'Somebody edited it. Mend or delete it.'


@pytest.mark.parametrize('store_url', ['sqlite', 'mongodb'], indirect=True)
def test_a_record_that_somebody_edited_is_named(ready, store_url):
    begin(ready, ready.acquire(Owner(), 60))
    edit(store_url, 'tgext_evolve_history', 'state', 'finished')
    with pytest.raises(StoreError, match=r"the record .*some-evolution.*' cannot be read: .*'finished'") as raised:
        ready.history()
    assert raised.value.place.endswith(' tgext_evolve_history')
    assert raised.value.remedy == 'Somebody edited it. Mend or delete it.'


@pytest.mark.parametrize('store_url', ['mongodb'], indirect=True)
def test_what_the_server_refuses_is_told_with_what_this_user_must_be_able_to_do(store_url):
    store = open_store(store_url.replace('://', '://somebody:hunter2@'))
    with pytest.raises(StoreError, match='the database refuses: ') as raised:
        store.history()
    store.close()
    assert type(raised.value) is StoreError
    assert raised.value.place == store.name
    assert 'must be able to read and write the collections tgext_evolve_lease' in raised.value.remedy
    assert 'hunter2' not in str(raised.value)


@pytest.mark.parametrize('store_url', ['mongodb'], indirect=True)
def test_a_connection_that_is_lost_meanwhile_is_told(ready):
    attempt = begin(ready, ready.acquire(Owner(), 60))
    with (
        pytest.raises(StoreAway, match="the connection was lost during 'some-evolution'") as raised,
        ready.work(attempt, planned(Some())),
    ):
        raise pymongo.errors.AutoReconnect('connection closed')
    assert raised.value.place == ready.name
    assert raised.value.remedy == 'What became of it is read from the history when the database is back.'
    assert ready.history().latest('some-evolution').state is State.RUNNING


@pytest.mark.parametrize('store_url', ['postgresql', 'mariadb'], indirect=True)
def test_a_record_that_a_transaction_holds_is_told_with_whose_it_is(ready, store_url):
    grant = ready.acquire(Owner(host='elsewhere', pid=4711), 60)
    begin(ready, grant)
    ready.release(grant)
    grant = ready.acquire(Owner(), 60)
    with create_engine(store_url, poolclass=NullPool).begin() as connection:
        connection.execute(text('SELECT * FROM tgext_evolve_history FOR UPDATE'))
        with pytest.raises(StoreBusy, match=r"keeps the record of 'some-evolution' locked .*elsewhere:4711") as raised:
            ready.interrupt_older(grant)
    assert raised.value.place == ready.name
    assert raised.value.remedy.startswith('It is tried again.')
    [attempt] = ready.interrupt_older(grant)
    assert attempt.evolution_id == 'some-evolution'
