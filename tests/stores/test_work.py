"""What surrounds one piece of work on SQL: saved means recorded, and nothing is silently lost."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing, contextmanager

import pytest
import sqlalchemy
import transaction
from sqlalchemy import select, text
from sqlalchemy.orm import scoped_session, sessionmaker

from tests.apps import Model
from tests.processes.harness import until
from tests.stores import open_store, take_over
from tgext.evolve import Evolution
from tgext.evolve.errors import StoreBusy
from tgext.evolve.evolver import Evolver
from tgext.evolve.gate import Reason
from tgext.evolve.history import State
from tgext.evolve.lease import Lease
from tgext.evolve.options import Options
from tgext.evolve.plan import Plan, planned
from tgext.evolve.stores.base import Owner
from tgext.evolve.stores.sqlalchemy import SQLAlchemyStore
from tgext.evolve.stores.sqlalchemy.dialects import dialect_of_session
from tgext.evolve.stores.sqlalchemy.engines import own_engine
from tgext.evolve.stores.sqlalchemy.work import _after_begin, watch

SQL = ('sqlite', 'postgresql', 'mariadb')
LEVELS = (None, 'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')


def on(*databases):
    return pytest.mark.parametrize('store_url', databases, indirect=True)


every_database = on(*SQL)


class Bench:
    """An application's model and engine with a store beside it, as the glue makes them."""

    def __init__(self, url, *, zope_session=True, level=None, **session_options):
        self.url = url
        self.model = Model(zope_session=zope_session, **session_options)
        options = {'isolation_level': level} if level else {}
        self.engine = sqlalchemy.create_engine(url, **options)
        self.model.metadata.create_all(self.engine)
        self.model.init_model(self.engine)
        self.session = self.model.DBSession
        self.store = self.new_store()

    def new_store(self):
        own = own_engine({'sqlalchemy.url': self.url}, 'sqlalchemy.')
        return SQLAlchemyStore('testing', own, self.session, self.engine)

    def evolver(self, *evolutions, **options):
        options = {'namespace': 'testing', 'watch': 0.0, 'retry_delay': 3600.0, **options}
        return Evolver(Options(**options), Plan(planned(e) for e in evolutions), self.store)

    def run(self, *evolutions, **options):
        evolver = self.evolver(*evolutions, **options)
        evolver._begin_process()
        evolver._run_here()
        return evolver

    def titles(self):
        with self.engine.connect() as connection:
            return sorted(connection.execute(select(self.model.Page.title)).scalars())

    def latest(self, id):
        return self.store.history().latest(id)

    def close(self):
        self.session.remove()
        self.engine.dispose()


@pytest.fixture
def bench(store_url):
    bench = Bench(store_url)
    yield bench
    bench.close()


def raw_insert(bench, title):
    bench.session.execute(text('INSERT INTO page (title, seen) VALUES (:title, 0)'), {'title': title})


def evolution(body, *, transactional, id='it', **attributes):
    kind = type(
        'Made',
        (Evolution,),
        {'evolution_id': id, 'transactional': transactional, 'evolve': lambda self: body(self), **attributes},
    )
    return kind()


both_kinds = pytest.mark.parametrize('transactional', [True, False], ids=['transactional', 'plain'])
both_sessions = pytest.mark.parametrize('zope_session', [True, False], ids=['zope', 'own-commits'])


@every_database
@both_kinds
@both_sessions
def test_raw_sql_through_the_session_is_saved(store_url, transactional, zope_session):
    bench = Bench(store_url, zope_session=zope_session)
    bench.run(evolution(lambda self: raw_insert(bench, 'raw'), transactional=transactional))
    assert bench.latest('it').state is State.DONE
    assert bench.titles() == ['raw']
    bench.close()


@every_database
@both_kinds
def test_orm_objects_are_saved_and_the_session_is_removed(bench, transactional):
    sessions = []

    def body(self):
        bench.session.add(bench.model.Page(title='orm'))
        sessions.append(bench.session())

    bench.run(evolution(body, transactional=transactional))
    assert bench.titles() == ['orm']
    assert not bench.session.registry.has()
    assert not sessions[0].in_transaction()


@every_database
def test_a_plain_one_that_commits_raw_sql_by_itself_loses_nothing(bench):
    def body(self):
        for number in range(3):
            raw_insert(bench, f'own {number}')
            transaction.commit()
            bench.session.remove()
        raw_insert(bench, 'left open')

    bench.run(evolution(body, transactional=False))
    assert bench.titles() == ['left open', 'own 0', 'own 1', 'own 2']


@every_database
@both_sessions
def test_a_transactional_one_that_fails_leaves_nothing_behind(store_url, zope_session):
    bench = Bench(store_url, zope_session=zope_session)

    def body(self):
        raw_insert(bench, 'half')
        bench.session.add(bench.model.Page(title='other half'))
        bench.session.flush()
        raise ValueError('no luck')

    evolver = bench.run(evolution(body, transactional=True), max_attempts=1)
    assert bench.titles() == []
    assert evolver.gate.verdict.reason is Reason.FAILED
    failed = bench.latest('it')
    assert failed.state is State.FAILED
    error = bench.store.error_of(failed)
    assert 'ValueError: no luck' in error
    assert 'in body' in error
    bench.close()


@every_database
def test_ddl_of_a_transactional_one_goes_back_with_it(bench, store_url):
    def body(self):
        bench.session.execute(text('ALTER TABLE page ADD COLUMN extra INTEGER'))
        raise ValueError('no luck')

    bench.run(evolution(body, transactional=True), max_attempts=1)
    columns = {column['name'] for column in sqlalchemy.inspect(bench.engine).get_columns('page')}
    # MariaDB commits DDL at once; nobody can take it back there.
    assert ('extra' in columns) == store_url.startswith('mariadb')


def commit_by_transaction_manager(bench):
    transaction.commit()


def commit_by_sql(bench):
    bench.session.connection().exec_driver_sql('COMMIT')


def roll_back(bench):
    transaction.abort()


def remove_session(bench):
    bench.session.remove()


@every_database
@pytest.mark.parametrize('how', [commit_by_transaction_manager, commit_by_sql, roll_back, remove_session])
def test_a_transactional_one_that_ends_its_transaction_is_found_out(bench, how):
    def body(self):
        raw_insert(bench, 'early')
        how(bench)
        raw_insert(bench, 'late')

    evolver = bench.run(evolution(body, transactional=True), max_attempts=1)
    assert evolver.gate.verdict.reason is Reason.FAILED
    error = bench.store.error_of(bench.latest('it'))
    assert 'BrokeTransaction' in error
    assert 'transactional = False' in error
    assert 'late' not in bench.titles()


@on('sqlite', 'postgresql')
@pytest.mark.parametrize('then_raises', [False, True])
def test_what_ended_its_transaction_does_not_run_again_by_itself(bench, then_raises):
    """Or what it has saved would be saved again with each attempt."""

    def body(self):
        raw_insert(bench, 'early')
        transaction.commit()
        if then_raises:
            raise ValueError('after that')

    evolver = bench.run(evolution(body, transactional=True), max_attempts=5, retry_delay=0.0)
    assert evolver.gate.verdict.reason is Reason.FAILED
    assert 'part of it may be saved' in evolver.gate.verdict.detail
    assert bench.titles() == ['early']
    assert 'BrokeTransaction' in bench.store.error_of(bench.latest('it'))
    assert ('after that' in bench.store.error_of(bench.latest('it'))) is then_raises


@on('mariadb')
def test_ddl_that_commits_implicitly_is_found_out(bench):
    def body(self):
        raw_insert(bench, 'early')
        bench.session.execute(text('ALTER TABLE page ADD COLUMN extra INTEGER'))

    evolver = bench.run(evolution(body, transactional=True), max_attempts=1)
    assert evolver.gate.verdict.reason is Reason.FAILED
    assert 'DDL' in bench.store.error_of(bench.latest('it'))


@every_database
def test_savepoints_of_the_evolution_are_its_own_business(bench):
    def body(self):
        raw_insert(bench, 'kept')
        nested = bench.session.begin_nested()
        raw_insert(bench, 'dropped')
        nested.rollback()

    bench.run(evolution(body, transactional=True))
    assert bench.latest('it').state is State.DONE
    assert bench.titles() == ['kept']


@both_kinds
@pytest.mark.parametrize(
    ('store_url', 'level'),
    [('sqlite', None), *((server, level) for server in ('postgresql', 'mariadb') for level in LEVELS)],
    indirect=['store_url'],
)
def test_a_run_of_many_renewals_is_recorded_at_every_isolation_level(store_url, level, transactional):
    bench = Bench(store_url, level=level)
    renewed = threading.Event()
    renew = bench.store.renew
    count = []

    def counted(*arguments):
        try:
            return renew(*arguments)
        finally:
            count.append(1)
            if len(count) >= 3:
                renewed.set()

    bench.store.renew = counted

    def body(self):
        raw_insert(bench, 'first')
        bench.session.execute(select(bench.model.Page)).all()
        assert renewed.wait(30)
        raw_insert(bench, 'second')

    bench.run(evolution(body, transactional=transactional), lease=1.0)
    assert bench.latest('it').state is State.DONE
    assert bench.titles() == ['first', 'second']
    assert len(bench.store.history().attempts) == 1
    bench.close()


@on('postgresql', 'mariadb')
@both_kinds
@pytest.mark.parametrize('level', LEVELS)
def test_a_deposed_holder_saves_nothing_at_any_isolation_level(store_url, level, transactional):
    """The rival takes over in the middle of a transaction that holds row locks."""
    bench = Bench(store_url, level=level)
    with bench.engine.begin() as connection:
        connection.execute(text("INSERT INTO page (title, seen) VALUES ('row', 0)"))
    rival = bench.new_store()
    taken = []

    def body(self):
        bench.session.execute(text('UPDATE page SET seen = seen + 1'))
        if taken:
            return
        grant = take_over(rival)
        taken.append(grant)
        assert [a.evolution_id for a in rival.interrupt_older(grant)] == ['it']
        # The rival's own work is not kept out by the row locks of who was deposed.
        with bench.new_store()._engine.connect() as connection:
            connection.execute(text("UPDATE page SET title = 'changed'"))

    evolver = bench.evolver(evolution(body, transactional=transactional), lease=60.0)
    evolver._begin_process()
    with its_session_may_be_ended():
        evolver._turn()
    assert taken
    assert bench.latest('it').state is State.INTERRUPTED
    with bench.engine.connect() as connection:
        assert connection.execute(text('SELECT title, seen FROM page')).all() == [('changed', 0)]
    bench.close()


@contextmanager
def its_session_may_be_ended():
    from tgext.evolve.errors import StoreAway

    try:
        yield
    except StoreAway:
        pass  # its session was ended, which it cannot tell from a lost server


@on('sqlite')
def test_on_sqlite_a_rival_waits_for_the_one_writer_and_says_for_whom(bench):
    rival = bench.new_store()
    seen = []

    def body(self):
        raw_insert(bench, 'written')
        # The lease has expired, but the write lock that keeps it from being renewed keeps rivals out too.
        deadline = time.monotonic() + 20
        while bench.store.snapshot().lease.alive and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            rival.acquire(Owner(), 10)
        except Exception as error:
            seen.append(error)

    bench.run(evolution(body, transactional=True), lease=1.0)
    assert [type(error).__name__ for error in seen] == ['StoreBusy']
    assert bench.latest('it').state is State.DONE
    assert bench.titles() == ['written']


@on('sqlite')
def test_on_sqlite_a_transaction_that_cannot_begin_says_so(store_url):
    bench = Bench(f'{store_url}?timeout=0.05')
    bench.store.prepare()
    it = planned(evolution(lambda self: pytest.fail('it began'), transactional=True))
    attempt = bench.store.begin(bench.store.acquire(Owner(), 60), it, 1, 'f' * 64)
    with closing(sqlite3.connect(store_url.partition('///')[2])) as writer:
        writer.execute('BEGIN IMMEDIATE')
        with pytest.raises(StoreBusy, match=r'the database is busy: .*locked') as raised, bench.store.work(attempt, it):
            it.evolution.evolve()
    assert raised.value.place == bench.store.name
    bench.close()


@on('sqlite')
def test_on_sqlite_who_cannot_take_the_lease_names_its_last_holder(store_url):
    bench = Bench(f'{store_url}?timeout=0.05')
    bench.store.prepare()
    bench.store.release(bench.store.acquire(Owner(host='elsewhere', pid=4711), 60))
    evolver = bench.evolver(evolution(lambda self: None, transactional=True))
    evolver._begin_process()
    with closing(sqlite3.connect(store_url.partition('///')[2])) as writer:
        writer.execute('BEGIN IMMEDIATE')
        with pytest.raises(StoreBusy, match=r'the lease was last held by .*elsewhere:4711') as raised:
            evolver._turn()
    assert raised.value.place == bench.store.name
    assert raised.value.remedy == 'That process is waited for until it goes on or dies.'
    bench.close()


@on('sqlite')
def test_on_sqlite_a_holder_that_cannot_renew_for_a_whole_lease_says_so(store_url):
    path = store_url.partition('///')[2]
    # Milliseconds of patience with each try.
    store = open_store(f'sqlite:///{path}?timeout=0.02')
    store.prepare()
    lease = Lease.take(store, Owner(), 0.1)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute('BEGIN IMMEDIATE')
        with pytest.raises(StoreBusy, match='could not be renewed: somebody else is writing all the time') as raised:
            lease.renew()
    assert path in raised.value.place
    assert raised.value.remedy == 'It is tried again.'
    store.close()


@on('postgresql', 'mariadb')
@both_kinds
def test_no_mark_stays_on_the_connections_of_the_application(bench, store_url, transactional):
    marked = []

    def marks():
        with bench.engine.connect() as connection:
            if store_url.startswith('postgresql'):
                question = (
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tgext.evolve%' "
                    'AND datname = current_database()'
                )
                return connection.execute(text(question)).scalar()
            owner = bench.store.snapshot().lease.owner
            return int(connection.execute(text(f"SELECT IS_USED_LOCK('tgext.evolve.{owner}')")).scalar() is not None)

    def body(self):
        raw_insert(bench, 'marked')
        marked.append(marks())

    bench.run(evolution(body, transactional=transactional))
    assert marked == [1]
    # What was closed a moment ago may still be on its way out of the server.
    until(lambda: marks() == 0)


@on('sqlite')
def test_the_wal_and_the_rollback_journal_of_sqlite_serve_equally(store_url, tmp_path):
    for mode in ('wal', 'delete', 'truncate'):
        bench = Bench(f'sqlite:///{tmp_path}/{mode}.db')
        with bench.engine.connect() as connection:
            assert connection.exec_driver_sql(f'PRAGMA journal_mode = {mode}').scalar() == mode
        bench.run(evolution(lambda self, bench=bench: raw_insert(bench, 'raw'), transactional=True))
        assert bench.titles() == ['raw']
        bench.close()


@every_database
def test_what_cannot_be_honoured_is_refused(store_url, tmp_path):
    step = planned(evolution(lambda self: None, transactional=True))
    assert Bench(store_url).store.refuses(step) is None
    assert 'two-phase' in Bench(store_url, twophase=True).store.refuses(step)
    assert 'AUTOCOMMIT' in Bench(store_url, level='AUTOCOMMIT').store.refuses(step)
    bench = Bench(store_url)
    elsewhere = own_engine({'sqlalchemy.url': f'sqlite:///{tmp_path}/elsewhere.db'}, 'sqlalchemy.')
    assert 'not the database' in SQLAlchemyStore('n', elsewhere, bench.session, bench.engine).refuses(step)
    assert 'no SQLAlchemy session' in SQLAlchemyStore('n', elsewhere).refuses(step)


@on('sqlite')
def test_an_application_that_emits_begin_by_itself_is_left_alone(store_url):
    """SQLAlchemy's documented recipe for SQLite's transactional DDL."""
    bench = Bench(store_url)

    @sqlalchemy.event.listens_for(bench.engine, 'connect')
    def no_driver_begin(dbapi_connection, record):
        dbapi_connection.isolation_level = None

    @sqlalchemy.event.listens_for(bench.engine, 'begin')
    def begin(connection):
        connection.exec_driver_sql('BEGIN')

    bench.engine.dispose()
    bench.run(evolution(lambda self: raw_insert(bench, 'raw'), transactional=True))
    assert bench.titles() == ['raw']
    bench.close()


@on('postgresql', 'mariadb')  # on SQLite the transaction is begun by a statement of ours
def test_a_transactional_one_does_not_begin_in_a_session_that_commits_at_once(bench, caplog):
    bench.session.configure(bind=bench.engine.execution_options(isolation_level='AUTOCOMMIT'))
    bench.run(evolution(lambda self: raw_insert(bench, 'raw'), transactional=True))
    assert bench.latest('it').state is State.FAILED
    assert 'its connection is in AUTOCOMMIT mode' in caplog.text
    assert bench.titles() == []


def test_a_session_is_watched_although_a_dead_one_had_its_id():
    # SQLAlchemy's event.contains goes by id(): it says yes for a registry that was made where another one was.
    engine = sqlalchemy.create_engine('sqlite://')
    dialect = dialect_of_session('sqlite')
    ids, heard = set(), 0
    for _ in range(100):
        registry = scoped_session(sessionmaker(bind=engine))
        heard += id(registry) in ids
        ids.add(id(registry))
        watch(registry, engine, dialect)
        assert _after_begin in list(registry().dispatch.after_begin)
        del registry
    assert heard, 'no id was given out again: nothing is tested'
