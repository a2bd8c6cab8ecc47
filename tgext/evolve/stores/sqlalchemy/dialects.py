"""All that differs from one SQL database to the next, in one place."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from contextlib import closing
from enum import Enum
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ... import failure
from ...errors import OptionError, StoreAway, StoreBusy, StoreError

log = logging.getLogger(__name__)

#: How long taking over waits for a lock before it says who holds it and tries again, in seconds.
LOCK_PATIENCE = 2

#: How long a request to cancel a statement may take, in seconds.
CANCEL_PATIENCE = 5

#: Under which key of a connection's ``info`` the owner is kept whose mark it carries.
MARK = 'tgext.evolve.mark'

#: The same for the time limit that the connection is under.
LIMIT = 'tgext.evolve.limit'


_NOT_ENDED = (
    'the holder that was deposed left the database session %s of the user %s, which this user may not end: '
    'what it has locked is waited for until it goes on or dies'
)


class Trouble(Enum):
    """What kind of error the database answered with."""

    AWAY = 'away'
    BUSY = 'busy'
    MISSING_TABLE = 'missing table'
    EXISTS = 'exists'
    OTHER = 'other'


class Dialect:
    """What all of them have in common; one subclass per database."""

    #: Driver arguments that keep a lost server from blocking us for minutes, by driver.
    connect_args: dict[str, dict[str, Any]] = {}
    #: Only one transaction of the whole database may write at a time.
    one_writer = False
    #: DDL in a transaction is rolled back with it.
    ddl_commits = False
    #: What our tables are made with. Written where the tables are, it would import the dialect for every database.
    table_options: dict[str, Any] = {}

    def trouble(self, error: BaseException) -> Trouble:
        """What ``error`` means, by the codes that this database uses."""
        if isinstance(error, PoolTimeout):
            return Trouble.BUSY
        if not isinstance(error, DBAPIError):
            return Trouble.OTHER
        if error.connection_invalidated or isinstance(error, InterfaceError):
            return Trouble.AWAY
        return self.trouble_of(error.orig, str(error.orig))

    def trouble_of(self, orig: Any, text: str) -> Trouble:
        return Trouble.OTHER

    def translate(self, error: SQLAlchemyError, place: str) -> StoreError:
        """The same trouble as an error of ours, that says what to do."""
        what = failure.brief(error.orig if isinstance(error, DBAPIError) and error.orig else error)
        trouble = self.trouble(error)
        if trouble is Trouble.AWAY:
            return StoreAway(
                f'the database cannot be reached: {what}',
                place=place,
                remedy='It is tried again until it answers.',
            )
        if trouble is Trouble.BUSY:
            return StoreBusy(f'the database is busy: {what}', place=place, remedy='It is tried again.')
        if trouble is Trouble.MISSING_TABLE:
            return StoreError(
                f'a table of tgext.evolve is missing: {what}',
                place=place,
                remedy='It is made again when this database user may create tables.',
            )
        return StoreError(
            f'the database refuses: {what}',
            place=place,
            remedy='The database user of the application must be able to create, read and write the '
            'tables tgext_evolve_lease, tgext_evolve_history and tgext_evolve_checkpoint.',
        )

    def begin(self, connection: Connection) -> None:
        """First statement of a transactional evolution."""

    def mark(self, connection: Connection, owner: str) -> None:
        """Mark this session's transaction as ``owner``'s, so that a successor can end just that."""

    def unmark(self, dbapi_connection: Any, owner: str) -> None:
        """Take the mark off a connection that goes back to its pool."""

    def cancel(self, dbapi_connection: Any, engine: Engine) -> None:
        """Have the statement fail that another thread executes on this connection of ``engine``'s; if one runs."""

    def end_sessions(self, connection: Connection, owners: Collection[str]) -> None:
        """End the sessions that are marked as one of ``owners``'s, which are dead or deposed."""

    def insert_if_missing(self, table: Any, values: dict[str, Any], key: Any) -> Any:
        """The statement that inserts a row unless there is one with this value of ``key``, a column."""
        raise NotImplementedError  # never asked of a database that is no store's

    def set_lock_patience(self, connection: Connection) -> None:
        """From here to the end of this transaction, do not wait for a lock for long."""

    def blockers(self, connection: Connection) -> str:
        """Who keeps us waiting, for people; empty when it cannot be told."""
        return ''


class SQLite(Dialect):
    one_writer = True
    connect_args = {'pysqlite': {'timeout': 2.0}}

    def trouble_of(self, orig: Any, text: str) -> Trouble:
        code = getattr(orig, 'sqlite_errorcode', None)  # Python 3.11 and later
        if code is not None and code & 0xFF in (5, 6):
            return Trouble.BUSY
        if 'database is locked' in text or 'table is locked' in text:
            return Trouble.BUSY
        if 'no such table' in text:
            return Trouble.MISSING_TABLE
        if 'already exists' in text:
            return Trouble.EXISTS
        return Trouble.OTHER

    def begin(self, connection: Connection) -> None:
        # The driver's own BEGIN is deferred, comes too late for DDL, and cannot be upgraded once
        # somebody else has written. An application that emits BEGIN by itself is left alone: the
        # runner's first write takes the lock then.
        if not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
            connection.exec_driver_sql('BEGIN IMMEDIATE')

    def cancel(self, dbapi_connection: Any, engine: Engine) -> None:
        dbapi_connection.interrupt()

    def insert_if_missing(self, table: Any, values: dict[str, Any], key: Any) -> Any:
        from sqlalchemy.dialects.sqlite import insert

        return insert(table).values(values).on_conflict_do_nothing()


class PostgreSQL(Dialect):
    _args = {
        'connect_timeout': 5,
        'tcp_user_timeout': 10_000,
        # libpq waits for an answer without a limit, and by default the system asks after two hours
        # whether the server is still there.
        'keepalives_idle': 5,
        'keepalives_interval': 2,
        'keepalives_count': 3,
    }
    connect_args = {'psycopg': _args, 'psycopg2': _args}

    def trouble_of(self, orig: Any, text: str) -> Trouble:
        state = getattr(orig, 'sqlstate', None) or getattr(orig, 'pgcode', None)
        if state is None:
            # libpq's own errors, all of them about the connection, have no SQLSTATE.
            # psycopg 3 has subclasses for some, as ConnectionTimeout.
            operational = any(kind.__name__ == 'OperationalError' for kind in type(orig).__mro__)
            return Trouble.AWAY if operational else Trouble.OTHER
        if state.startswith('08') or state in ('57P01', '57P02', '57P03', '53300', '25P03'):
            return Trouble.AWAY
        if state in ('40001', '40P01', '55P03', '57014'):
            return Trouble.BUSY
        if state in ('42P01', '3F000'):
            return Trouble.MISSING_TABLE
        if state in ('42P07', '42710', '23505'):
            return Trouble.EXISTS
        return Trouble.OTHER

    def mark(self, connection: Connection, owner: str) -> None:
        connection.exec_driver_sql(f"SET LOCAL application_name = 'tgext.evolve {owner}'")

    def cancel(self, dbapi_connection: Any, engine: Engine) -> None:
        # A cancel request of the protocol: it needs neither a session nor a right, and gets through a pooler.
        if hasattr(dbapi_connection, 'cancel_safe'):  # psycopg 3.2
            dbapi_connection.cancel_safe(timeout=CANCEL_PATIENCE)
        elif hasattr(dbapi_connection, 'cancel'):  # psycopg2
            dbapi_connection.cancel()

    def end_sessions(self, connection: Connection, owners: Collection[str]) -> None:
        for owner in owners:
            try:
                # Found and ended by one statement: before a second one a pooler could give the
                # session to somebody else.
                found = self._marked(connection, owner, 'pg_terminate_backend(pid)')
            except DBAPIError as error:
                if self.trouble(error) is Trouble.AWAY:
                    raise
                found = self._marked(connection, owner, 'false')
            for pid, user, ended in found:
                if ended:
                    log.warning('ended the database session %s of the holder that was deposed', pid)
                else:
                    log.warning(_NOT_ENDED, pid, user)

    def insert_if_missing(self, table: Any, values: dict[str, Any], key: Any) -> Any:
        # Here as in the others: a database that is not used is not imported, which takes as long as all of ours.
        from sqlalchemy.dialects.postgresql import insert

        return insert(table).values(values).on_conflict_do_nothing()

    def _marked(self, connection: Connection, owner: str, action: str) -> Sequence[Any]:
        """The sessions in a transaction of ``owner``'s; whose we may not see, we may not end either."""
        return connection.execute(
            text(
                f'SELECT pid, usename, CASE WHEN xact_start IS NOT NULL THEN {action} END'
                ' FROM pg_stat_activity WHERE application_name = :name AND pid <> pg_backend_pid()'
            ),
            {'name': f'tgext.evolve {owner}'},
        ).all()

    def set_lock_patience(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_PATIENCE}s'")

    def blockers(self, connection: Connection) -> str:
        rows = connection.execute(
            text(
                "SELECT a.pid, a.usename, coalesce(a.application_name, '')"
                ' FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid'
                " WHERE l.relation = to_regclass('tgext_evolve_history')"
                " AND l.mode = 'RowExclusiveLock' AND a.pid <> pg_backend_pid()"
            )
        ).all()
        return ', '.join(f'session {pid} of {user} ({name})' for pid, user, name in rows)


class MySQL(Dialect):
    ddl_commits = True
    table_options = {
        f'{name}_{option}': value
        for name in ('mysql', 'mariadb')
        for option, value in {'engine': 'InnoDB', 'charset': 'utf8mb4'}.items()
    }
    connect_args = {
        'pymysql': {'connect_timeout': 5, 'read_timeout': 15, 'write_timeout': 15},
        'mysqldb': {'connect_timeout': 5, 'read_timeout': 15, 'write_timeout': 15},
    }

    def trouble_of(self, orig: Any, text: str) -> Trouble:
        args = getattr(orig, 'args', ())
        code = args[0] if args and isinstance(args[0], int) else None
        if code in (1040, 1053, 1927, 2002, 2003, 2006, 2013, 2014, 2055, 4031):
            return Trouble.AWAY
        if code in (1020, 1205, 1213):
            return Trouble.BUSY
        if code == 1146:
            return Trouble.MISSING_TABLE
        if code in (1050, 1061):
            return Trouble.EXISTS
        return Trouble.OTHER

    def insert_if_missing(self, table: Any, values: dict[str, Any], key: Any) -> Any:
        from sqlalchemy.dialects.mysql import insert

        # INSERT IGNORE would hide other errors.
        return insert(table).values(values).on_duplicate_key_update({key.name: key})

    @staticmethod
    def _lock(owner: str) -> str:
        return f'tgext.evolve.{owner}'

    def mark(self, connection: Connection, owner: str) -> None:
        # Several GET_LOCKs of one session count up: once per connection is enough.
        if connection.info.get(MARK) != owner:
            connection.exec_driver_sql('SELECT GET_LOCK(%s, 0)', (self._lock(owner),))
            connection.info[MARK] = owner

    def unmark(self, dbapi_connection: Any, owner: str) -> None:
        cursor = dbapi_connection.cursor()
        try:
            cursor.execute('SELECT RELEASE_LOCK(%s)', (self._lock(owner),))
            cursor.fetchall()
        finally:
            cursor.close()

    def cancel(self, dbapi_connection: Any, engine: Engine) -> None:
        if hasattr(dbapi_connection, 'thread_id'):  # PyMySQL, mysqlclient
            # A pool of one connection has none left for this.
            pool = engine.pool.recreate()
            try:
                with closing(pool.connect()) as other:
                    other.cursor().execute(f'KILL QUERY {int(dbapi_connection.thread_id())}')
            finally:
                pool.dispose()

    def end_sessions(self, connection: Connection, owners: Collection[str]) -> None:
        for owner in owners:
            session = connection.execute(text('SELECT IS_USED_LOCK(:name)'), {'name': self._lock(owner)}).scalar()
            if session is None:
                continue
            try:
                connection.exec_driver_sql(f'KILL {int(session)}')
            except DBAPIError as error:
                if self.trouble(error) is Trouble.AWAY:
                    raise
                log.warning(_NOT_ENDED, session, f'another one ({failure.brief(error)})')
            else:
                log.warning('ended the database session %s of the holder that was deposed', session)

    def set_lock_patience(self, connection: Connection) -> None:
        # For the session; the connection is closed right after.
        connection.exec_driver_sql(f'SET SESSION innodb_lock_wait_timeout = {LOCK_PATIENCE}')

    def blockers(self, connection: Connection) -> str:
        rows = connection.execute(
            text(
                'SELECT t.trx_mysql_thread_id, p.USER, p.HOST FROM information_schema.INNODB_TRX t'
                ' LEFT JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id'
                ' WHERE t.trx_mysql_thread_id <> CONNECTION_ID()'
            )
        ).all()
        return ', '.join(f'session {id} of {user}@{host}' for id, user, host in rows)


_DIALECTS: dict[str, type[Dialect]] = {
    'sqlite': SQLite,
    'postgresql': PostgreSQL,
    'mysql': MySQL,
    'mariadb': MySQL,
}


def dialect_for(backend: str, place: str) -> Dialect:
    """:raises OptionError: for a database that was never tried."""
    try:
        return _DIALECTS[backend]()
    except KeyError:
        raise OptionError(
            f'tgext.evolve.store means a database of the kind {backend!r}, where lease and history cannot be kept',
            place=place,
            remedy='Name a SQLite, PostgreSQL, MariaDB or MySQL database in tgext.evolve.store.',
        ) from None


def dialect_of_session(backend: str) -> Dialect:
    """The application's own database may be any; what is not known of it is not used."""
    return _DIALECTS.get(backend, Dialect)()
