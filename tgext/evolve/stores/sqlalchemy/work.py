"""What surrounds one evolution that works with the application's SQLAlchemy session."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError

from ...errors import BrokeTransaction, ItemFailed, LeaseLost, StoreAway, TimedOut
from ...history import Attempt
from ...plan import PlannedEvolution
from ...points import point
from .dialects import LIMIT, MARK, Dialect, Trouble, dialect_of_session
from .limit import TimeLimit

log = logging.getLogger(__name__)


#: The work that each thread does now. The listeners below stay for the life of the process:
#: adding and removing them around each run would change lists that other threads iterate over.
_WORK: dict[int, SessionWork] = {}
_WATCHED: weakref.WeakSet[Engine] = weakref.WeakSet()
#: ``event.contains`` is not asked: it goes by ``id()``, which a registry can inherit from a dead one.
_LISTENED: weakref.WeakSet[Any] = weakref.WeakSet()

#: Under which key of a connection's ``info`` it stands that an evolution works with it.
_USED = 'tgext.evolve.used'


def watch(registry: Any, engine: Engine, dialect: Dialect) -> None:
    """Let the work of a thread see the transactions of its session. Once per application."""
    if registry not in _LISTENED:
        _LISTENED.add(registry)
        event.listen(registry, 'after_begin', _after_begin)
    if engine not in _WATCHED:
        _WATCHED.add(engine)

        def after_checkin(dbapi_connection: Any, record: Any) -> None:
            limit = record.info.pop(LIMIT, None)
            if limit is not None:
                limit.let_go(dbapi_connection)
            used = record.info.pop(_USED, False)
            owner = record.info.pop(MARK, None)
            if dbapi_connection is None:
                return
            try:
                if used:
                    # SQLAlchemy takes a commit that failed for the end of the transaction; SQLite does not.
                    dbapi_connection.rollback()
                if owner:
                    dialect.unmark(dbapi_connection, owner)
            except Exception:  # a driver's own error: the connection is broken
                record.invalidate()

        event.listen(engine, 'checkin', after_checkin)


def _after_begin(session: Any, transaction: Any, connection: Connection) -> None:
    work = _WORK.get(threading.get_ident())
    if work is not None:
        work.begun(session, connection)


class SessionWork:
    """Runs one evolution's work in the calling thread's session, and nobody else's.

    :param registry: the application's scoped session; None: there is none, and nothing to do.
    :param place: the database, for people.
    :param name: what runs, for messages.
    :param owner: what the session's transactions are marked with, so that a successor can end
        them; None: they are not.
    :param limit: of its time; None: it may take as long as it wants.
    """

    def __init__(
        self,
        registry: Any,
        dialect: Dialect,
        place: str,
        name: str,
        owner: str | None,
        limit: TimeLimit | None = None,
    ):
        self._registry = registry
        self._dialect = dialect
        self._place = place
        self._name = name
        self._owner = owner
        self._limit = limit

    @contextmanager
    def plain(self, record: Callable[[], bool]) -> Iterator[None]:
        """The evolution commits its own work; what it left open is committed before the record."""
        with self._session_for_work():
            with self._in_time():
                yield
            self._commit()
        point('before-record')
        if not record():
            raise LeaseLost('a later holder has marked this attempt')

    @contextmanager
    def transactional(
        self, attempt: Attempt, planned: PlannedEvolution, record: Callable[[Connection], bool]
    ) -> Iterator[None]:
        """Data and record in one transaction, which the engine commits."""

        def broke(what: str) -> BrokeTransaction:
            return BrokeTransaction(
                f'evolution {planned.id!r} is transactional, but {what}; its data may be saved in '
                f'part, and it is not recorded as done',
                place=planned.origin,
                remedy='Leave commit and rollback to tgext.evolve, or say transactional = False.',
            )

        with self._session_for_work():
            session = self._registry()
            connection = session.connection()
            if _commits_at_once(connection):
                raise broke('its connection is in AUTOCOMMIT mode: there is no transaction')
            try:
                self._dialect.begin(connection)
            except SQLAlchemyError as error:
                raise self._dialect.translate(error, self._place) from error
            root = session.get_transaction()
            # A savepoint that can no longer be released was ended by somebody's COMMIT or
            # ROLLBACK, which may be implicit: MariaDB commits before DDL.
            savepoint = f'tgext_evolve_{attempt.token}_{attempt.attempt}'
            connection.exec_driver_sql(f'SAVEPOINT {savepoint}')
            ended = 'it committed or rolled back its session, or removed it'
            try:
                with self._in_time():
                    yield
            except Exception as error:
                if self._registry() is not session or session.get_transaction() is not root:
                    raise broke(f'{ended}, and then raised {type(error).__name__}') from error
                raise
            if self._registry() is not session or session.get_transaction() is not root:
                raise broke(ended)
            session.flush()
            try:
                connection.exec_driver_sql(f'RELEASE SAVEPOINT {savepoint}')
            except SQLAlchemyError as error:
                if self._dialect.trouble(error) is Trouble.AWAY:
                    raise
                also = ' or ran DDL, which this database commits' if self._dialect.ddl_commits else ''
                raise broke(f'it committed or rolled back{also}') from error
            if not record(connection):
                raise LeaseLost('a later holder has marked this attempt')
            point('before-commit')
            self._commit()
            point('after-commit')

    # -- the session

    @contextmanager
    def _session_for_work(self) -> Iterator[None]:
        """A clean session before, and no trace of it afterwards, whatever happens between."""
        if self._registry is None:
            yield
            return
        self._rollback()
        thread = threading.get_ident()
        _WORK[thread] = self
        try:
            yield
        except BaseException as error:
            self._rollback()
            if self._is_away(error.__cause__ if isinstance(error, ItemFailed) else error):
                # Nobody knows whether a commit got through: the history will tell.
                raise StoreAway(
                    f'the connection was lost during {self._name!r}',
                    place=self._place,
                    remedy='What became of it is read from the history when the database is back.',
                ) from error
            raise
        finally:
            del _WORK[thread]
            self._remove()

    def _is_away(self, error: BaseException | None) -> bool:
        return isinstance(error, SQLAlchemyError) and self._dialect.trouble(error) is Trouble.AWAY

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """:raises TimedOut: whatever became of it, if statements were cancelled because its time was out."""
        if self._limit is None or self._registry is None:
            yield
            return
        try:
            with self._limit:
                yield
        except Exception as error:
            if self._limit.is_out and not isinstance(error, TimedOut) and not self._is_away(error):
                raise self._limit.error() from error
            raise
        if self._limit.is_out:
            raise self._limit.error()

    def begun(self, session: Any, connection: Connection) -> None:
        """For each transaction of this thread's session, also those after a commit of its own."""
        events = _zope_events(session)
        if events is not None:
            # Under zope.sqlalchemy raw SQL leaves the session unchanged in the eyes of its data
            # manager, and the commit becomes a silent rollback.
            with suppress(AssertionError):
                events.mark_changed(session)
        if connection.engine not in _WATCHED:
            return
        connection.info[_USED] = True
        if self._limit is not None:
            self._limit.hold(connection)
        if self._owner is not None:
            self._dialect.mark(connection, self._owner)

    def _commit(self) -> None:
        if self._registry is None:
            return
        session = self._registry()
        events = _zope_events(session)
        if events is None:
            session.commit()
        else:
            if session.in_transaction():
                events.mark_changed(session)
            events.transaction_manager.commit()

    def _rollback(self) -> None:
        if self._registry is not None:
            abandon(self._registry)

    def _remove(self) -> None:
        _remove(self._registry)


def abandon(registry: Any) -> None:
    """Roll back what the calling thread has open in its session, and forget the session."""
    with suppress(Exception):  # the connection may be gone; removing the session ends it
        events = _zope_events(registry())
        if events is not None:
            events.transaction_manager.abort()
        registry().rollback()
    _remove(registry)


def _remove(registry: Any) -> None:
    try:
        registry.remove()
    except Exception:
        log.debug('removing the session failed', exc_info=True)
        registry.registry.clear()


@contextmanager
def session_beside(registry: Any, engine: Engine) -> Iterator[None]:
    """Around an evolution whose record is kept in another database: see ``SessionWork.plain``."""
    dialect = dialect_of_session(engine.dialect.name)
    watch(registry, engine, dialect)
    work = SessionWork(registry, dialect, str(engine.url), 'the evolution', None)
    with work.plain(lambda: True):
        yield


def _commits_at_once(connection: Connection) -> bool:
    """Is it in AUTOCOMMIT mode? Asked of the driver where it knows: the server would be asked for each batch."""
    driver: Any = connection.connection.dbapi_connection
    mode = driver.get_autocommit() if hasattr(driver, 'get_autocommit') else getattr(driver, 'autocommit', None)
    if isinstance(mode, bool):
        return mode
    return connection.get_isolation_level() == 'AUTOCOMMIT'


def _zope_events(session: Any) -> Any:
    """zope.sqlalchemy's listener on this session, with its transaction manager, if there is one."""
    for listener in session.dispatch.before_commit:
        owner = getattr(listener, '__self__', None)
        if hasattr(owner, 'transaction_manager') and hasattr(owner, 'mark_changed'):
            return owner
    return None
