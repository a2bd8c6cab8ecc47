"""SIGSTOP for longer than the lease, SIGCONT: another one has done it, and the first records nothing any more."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
import uuid
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from tests.chaos.checker import check
from tests.chaos.figures import LONG
from tests.chaos.sites import (
    DEPOSED,
    IN_TIME,
    LEASE,
    POLL,
    STORES,
    ended,
    kinds,
    pause,
    pause_between_writes,
    until_expired,
    was_deposed,
)
from tests.processes.harness import until
from tests.processes.worker import ROWS
from tests.servers import NOBODY, Server, Unavailable, _session

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600 if LONG else 180)]

#: Where the holder is paused. While it holds nothing in the database, its successor takes over on SQLite too.
POINTS = ('after-take', 'after-marking', 'before-attempt', 'after-attempt', 'before-evolve', 'after-evolve')
OWN_POINTS = {False: ('before-record',), True: ('before-commit', 'after-commit')}


#: What the short form takes of them; MongoDB has one kind only.
SHORT = {
    False: {'after-take', 'after-attempt', 'after-evolve', 'before-record'},
    True: {'before-attempt', 'before-evolve', 'after-evolve', 'before-commit', 'after-commit'},
}


def places(store_url: str) -> list[tuple[str, bool]]:
    """Points, and the kinds of evolution to be paused there."""
    found = []
    for transactional in kinds(store_url):
        points = [*POINTS, *OWN_POINTS[transactional]]
        if not LONG:
            points = [point for point in points if point in SHORT[transactional]]
        found += [(point, transactional) for point in points]
    return found


def keeps_the_database(store_url: str, point: str, transactional: bool) -> bool:
    """Does a holder that is paused here lock all of SQLite?"""
    inside = point in ('before-evolve', 'after-evolve', 'before-commit')
    return store_url.startswith('sqlite') and transactional and inside


@STORES
def test_a_holder_paused_at_any_point_records_nothing_and_goes_on_as_a_waiter(make_site, store_url, new_url, figures):
    sites = {}
    for point, transactional in places(store_url):
        if keeps_the_database(store_url, point, transactional):
            continue  # see below: nobody can take over there
        evolutions = [{'id': 'one', 'transactional': transactional}, {'id': 'two', 'transactional': transactional}]
        site = make_site(new_url(), evolutions=evolutions, lease=LEASE, poll=POLL)
        sites[point, transactional] = site, site.fork(points={point: 'on'})
    for (point, _), (site, holder) in sites.items():
        site.until_told('point', point, holder.pid)
        pause_between_writes(site, holder, figures)
        site.go('on')
    successors = {key: site.fork(http=False) for key, (site, _) in sites.items()}
    for key, (site, holder) in sites.items():
        ended(successors[key], site)
        holder.send(signal.SIGCONT)
    for (point, transactional), (site, holder) in sites.items():
        holder.until_open()
        # It lets go of the lease, if it took it again, and has said what it has to say.
        until(lambda site=site: not site.lease.alive)
        states = site.states('one')
        assert states[-1] == site.states('two')[-1] == 'done', point
        # Code that is not transactional is run by both if it began in both: that is all that may be twice.
        check(site, figures)
        if was_deposed(successors[point, transactional]):
            continue
        recorded = point == 'after-commit'
        began = point not in ('after-take', 'after-marking', 'before-attempt') and not recorded
        assert states == ['interrupted'] * began + ['done'], point
        if not recorded:
            assert site.store.history().of('one')[-1].pid == successors[point, transactional].pid, point
        if began:
            assert any(words in holder.log for words in DEPOSED), (point, holder.log)
        if transactional:
            assert site.seen == [2] * ROWS, point


# -- in a transaction that locks what the successor needs

SERVERS = pytest.mark.parametrize('store_url', ['postgresql', 'mariadb'], indirect=True)


def locking(transactional: bool) -> list[dict]:
    return [{'id': 'one', 'does': 'lock', 'transactional': transactional}, {'id': 'two', 'transactional': True}]


@SERVERS
def test_row_locks_of_a_paused_holder_keep_its_successor_out_for_no_longer_than_the_lease(
    make_site,
    store_url,
    new_url,
    figures,
):
    """The database ends its session, also that of an evolution that commits by itself."""
    sites = []
    for transactional in (False, True):
        site = make_site(new_url(), evolutions=locking(transactional), lease=LEASE, poll=POLL)
        sites.append((site, site.fork(), transactional))
    waiters = []
    for site, holder, _ in sites:
        site.until_told('locked', 'one', holder.pid)
        waiters.append(site.fork())
    for waiter in waiters:
        assert waiter.first_answer()[0] == 503
    paused = []
    for site, holder, _ in sites:
        pause(holder, figures)
        paused.append(time.monotonic())
        site.go()
        site.go('go-on')
    for (site, _, _), waiter, when in zip(sites, waiters, paused, strict=True):
        [end] = site.until_told('end', 'one', waiter.pid)
        assert end.time - when <= IN_TIME
        figures.measure('recovery', end.time - when)
        assert 'ended the database session' in waiter.log
        waiter.until_open()
    for (site, holder, transactional), waiter in zip(sites, waiters, strict=True):
        holder.send(signal.SIGCONT)
        holder.until_open()
        assert site.states('one') == ['interrupted', 'done']
        assert site.store.history().of('one')[-1].pid == waiter.pid
        assert not site.lines('end', 'one', holder.pid)
        half = ROWS // 2
        assert site.seen == ([2] * ROWS if transactional else [3] * half + [2] * (ROWS - half))
        assert any(words in holder.log for words in DEPOSED), holder.log
        check(site, figures)


@SERVERS
def test_where_sessions_may_not_be_ended_the_log_says_whose_it_is(make_site, store_url, request, figures):
    """The older release connects as another user than the newer one, which may not end its sessions."""
    site = make_site(store_url, evolutions=locking(True), lease=LEASE, poll=POLL)
    url, session = less_privileged(store_url, request)
    holder = site.fork()
    site.until_told('locked')
    grant_everything(store_url, url)
    blocker = session()
    heir = site.fork(url=url)
    pause(holder, figures)
    site.go()
    until(lambda: str(blocker) in heir.log, IN_TIME, f'the log names the session {blocker}')
    until(lambda: f':{holder.pid} died or lost the lease' in heir.log)
    # It waits for the rows.
    assert heir.first_answer()[0] == 503
    assert not site.lines('end')
    holder.send(signal.SIGCONT)
    heir.until_open()
    holder.until_open()
    assert site.states('one') == ['interrupted', 'done']
    assert site.seen == [2] * ROWS
    check(site, figures)


def less_privileged(url: str, request):
    """The URL of another user's, and what finds the session that locks the rows."""
    user = f'evolve_{uuid.uuid4().hex[:8]}'
    if url.startswith('postgresql'):
        run(url, f"CREATE ROLE {user} LOGIN PASSWORD 'pw'", f'GRANT ALL ON SCHEMA public TO {user}')
        drop = f'DROP OWNED BY {user}', f'DROP ROLE {user}'
        find = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'tgext.evolve %'"
    else:
        database = make_url(url).database
        run(url, f"CREATE USER {user} IDENTIFIED BY 'pw'", f'GRANT ALL ON `{database}`.* TO {user}')
        drop = (f'DROP USER {user}',)
        find = (
            'SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p'
            f" ON p.ID = t.trx_mysql_thread_id WHERE p.DB = '{database}' AND t.trx_rows_locked > 0"
        )
    request.addfinalizer(lambda: run(url, *drop))
    return make_url(url).set(username=user, password='pw').render_as_string(hide_password=False), lambda: run(url, find)


def grant_everything(url: str, other: str) -> None:
    if url.startswith('postgresql'):
        run(url, f'GRANT ALL ON ALL TABLES IN SCHEMA public TO {make_url(other).username}')


def run(url: str, *statements: str):
    """The first value of the last one's result."""
    with create_engine(url, poolclass=NullPool, isolation_level='AUTOCOMMIT').connect() as connection:
        result = [connection.execute(text(statement)) for statement in statements][-1]
        return result.scalars().first() if result.returns_rows else None


# -- SQLite, where nobody can end a session


@pytest.mark.parametrize('then', ['goes on', 'dies'])
def test_on_sqlite_the_successor_waits_and_says_for_whom(make_site, figures, then):
    evolutions = [{'id': 'one', 'transactional': True}, {'id': 'two', 'transactional': True}]
    sites = []
    for point in ('before-evolve', 'after-evolve', 'before-commit'):
        site = make_site(evolutions=evolutions, lease=LEASE, poll=POLL)
        sites.append((site, site.fork(points={point: 'on'})))
    heirs = []
    for site, holder in sites:
        site.until_told('point', pid=holder.pid)
        heirs.append(site.fork())
        pause(holder, figures)
        site.go('on')
    for (site, holder), heir in zip(sites, heirs, strict=True):
        heir.until_reason('database-busy')
        assert f'the lease was last held by {site.lease.host}:{holder.pid}' in heir.log
        assert 'until it goes on or dies' in heir.log
        assert heir.first_answer()[0] == 503
        until_expired(site)
        # Nothing was taken from it.
        assert site.lease.pid == holder.pid
    for _, holder in sites:
        holder.send(signal.SIGCONT if then == 'goes on' else signal.SIGKILL)
        figures.count('kills', int(then == 'dies'))
    for (site, holder), heir in zip(sites, heirs, strict=True):
        heir.until_open(IN_TIME + 2)
        if then == 'goes on':
            holder.until_open()
        assert site.states('one')[-1] == 'done'
        assert set(site.states('one')[:-1]) <= {'interrupted'}
        assert site.seen == [2] * ROWS
        check(site, figures)


# -- behind a pooler


class PgBouncer(Server):
    """PgBouncer before a PostgreSQL server: each transaction is given a session that others use as well."""

    name = 'pgbouncer'
    variable = 'none: it needs a server of PostgreSQL behind it'
    remedy = 'install PgBouncer (Debian: apt-get install pgbouncer)'
    _refuses_root = True

    def __init__(self, postgresql: Server):
        super().__init__()
        self._behind = make_url(postgresql.url)

    @property
    def url(self) -> str:
        return self.before(str(self._behind.database))

    def before(self, database: str) -> str:
        return f'postgresql+psycopg://{self._behind.username}@127.0.0.1:{self._port}/{database}'

    def _prepare(self, directory: Path) -> None:
        path = os.pathsep.join([os.environ.get('PATH', os.defpath), '/usr/sbin', '/usr/local/sbin'])
        found = shutil.which('pgbouncer', path=path)
        if found is None:
            raise Unavailable(f'no pgbouncer: {self.remedy}')
        self._program = found
        (directory / 'pgbouncer.ini').touch()
        if os.geteuid() == 0:
            for made in (directory, directory / 'pgbouncer.ini'):
                os.chown(made, NOBODY, NOBODY)

    def _command(self, directory: Path) -> list[str]:
        behind = self._behind
        password = f' password={behind.password}' if behind.password else ''
        (directory / 'pgbouncer.ini').write_text(
            f'[databases]\n* = host={behind.host} port={behind.port or 5432} user={behind.username}{password}\n'
            f'[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self._port}\nunix_socket_dir =\n'
            f'auth_type = any\npool_mode = transaction\ndefault_pool_size = 20\n'
        )
        return [self._program, str(directory / 'pgbouncer.ini')]

    def _ping(self) -> None:
        with self.session(self.url) as session:
            session.execute('SELECT 1')

    @staticmethod
    @contextlib.contextmanager
    def session(url: str):
        """A client that prepares nothing: this PgBouncer would hand the statement's session to another one."""
        import psycopg

        place = make_url(url).set(drivername='postgresql').render_as_string(hide_password=False)
        with psycopg.connect(place, prepare_threshold=None) as session:
            yield session


@pytest.fixture
def pgbouncer(postgresql_server):
    yield from _session(lambda: PgBouncer(postgresql_server))


#: What a driver needs to be told where sessions change hands after each transaction.
POOLED = {'sqlalchemy.connect_args': {'prepare_threshold': None}}


def marked(site) -> int | None:
    return run(
        site.url,
        'SELECT pid FROM pg_stat_activity WHERE datname = current_database()'
        " AND application_name LIKE 'tgext.evolve %'",
    )


def backend(session) -> int:
    return session.execute('SELECT pg_backend_pid()').fetchone()[0]


def test_behind_a_pooler_exactly_the_session_of_the_paused_transaction_is_ended(
    make_site, postgresql_server, pgbouncer, figures
):
    url = postgresql_server.new_database()
    site = make_site(url, evolutions=locking(True), lease=LEASE, poll=POLL)
    run(url, 'CREATE TABLE bystander (name VARCHAR(20))')
    pooled = pgbouncer.before(str(make_url(url).database))
    with contextlib.ExitStack() as stack:
        bystanders = [stack.enter_context(pgbouncer.session(pooled)) for _ in range(4)]
        used = set()
        for bystander in bystanders:
            # They have had every session that is there so far, and give them back.
            used.add(backend(bystander))
        for bystander in bystanders:
            bystander.commit()
        holder = site.fork(url=pooled, ini=POOLED)
        site.until_told('locked')
        ours = marked(site)
        assert ours in used, 'the holder works in a session that a bystander used before'
        for number, bystander in enumerate(bystanders):
            bystander.execute('INSERT INTO bystander VALUES (%s)', [f'bystander {number}'])
            assert backend(bystander) != ours
        waiter = site.fork(url=pooled, ini=POOLED)
        assert waiter.first_answer()[0] == 503
        pause(holder, figures)
        when = time.monotonic()
        site.go()
        [end] = site.until_told('end', 'one', waiter.pid)
        assert end.time - when <= IN_TIME
        waiter.until_open()
        assert f'ended the database session {ours} ' in waiter.log
        assert waiter.log.count('ended the database session') == 1
        for bystander in bystanders:
            bystander.commit()
    holder.send(signal.SIGCONT)
    holder.until_open()
    assert run(url, 'SELECT count(*) FROM bystander') == 4
    assert site.states('one') == ['interrupted', 'done']
    assert site.seen == [2] * ROWS
    check(site, figures)


def test_behind_a_pooler_a_session_that_the_paused_holder_has_left_is_spared(
    make_site, postgresql_server, pgbouncer, figures
):
    """It is paused between two transactions, and a bystander was given its session meanwhile."""
    url = postgresql_server.new_database()
    site = make_site(url, evolutions=locking(False), lease=LEASE, poll=POLL)
    run(url, 'CREATE TABLE bystander (name VARCHAR(20))')
    pooled = pgbouncer.before(str(make_url(url).database))
    holder = site.fork(url=pooled, ini=POOLED)
    site.until_told('locked')
    left = marked(site)
    assert left
    site.go()
    site.until_told('unlocked')
    pause(holder, figures)
    site.go('go-on')
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            bystander = stack.enter_context(pgbouncer.session(pooled))
            bystander.execute("INSERT INTO bystander VALUES ('innocent')")
            if backend(bystander) == left:
                break
        else:
            pytest.fail('nobody was given the session that the holder has left')
        assert marked(site) is None
        heir = site.fork(url=pooled, ini=POOLED, http=False)
        ended(heir, site)
        assert 'ended the database session' not in heir.log
        bystander.commit()
    assert run(url, 'SELECT count(*) FROM bystander') >= 1
    holder.send(signal.SIGCONT)
    holder.until_open()
    assert site.states('one') == ['interrupted', 'done']
    check(site, figures)
