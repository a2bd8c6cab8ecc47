"""Lease and history in a SQL database."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, bindparam, case, delete, func, insert, inspect, literal, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from ... import failure
from ...errors import ItemFailed, LeaseLost, StoreBusy, StoreError
from ...history import CLAIM, Attempt, History, State
from ...plan import PlannedEvolution
from ..base import (
    NO_CONTENTS,
    UNREADABLE,
    Batch,
    Checkpoint,
    Grant,
    Items,
    LeaseRow,
    Owner,
    Predecessor,
    Renewal,
    Report,
    Requests,
    Snapshot,
    Store,
    edited,
    grant_of,
    integer,
    optional_integer,
    text,
    to_settle,
)
from .dialects import Trouble, dialect_for, dialect_of_session
from .engines import in_memory, same_database
from .limit import TimeLimit
from .tables import checkpoint, database_now, history, lease, metadata, predecessor
from .work import SessionWork, watch

log = logging.getLogger(__name__)

_T = TypeVar('_T')

_LOOK = [
    history.c.evolution_id,
    history.c.attempt,
    history.c.token,
    history.c.owner,
    history.c.state,
    history.c.serving,
    history.c.fingerprint,
    history.c.host,
    history.c.pid,
    history.c.started,
    history.c.finished,
    history.c.reached,
    history.c.final,
]

#: What is another value as soon as an attempt begins, ends, is marked, forgiven or taken back.
_MARK = [
    func.count(),
    func.max(history.c.token),
    func.max(history.c.started),
    func.max(history.c.finished),
    func.count(history.c.started),
    func.count(history.c.finished),
    func.count(history.c.fingerprint),
    *(func.count(case((history.c.state == state.value, 1))) for state in State),
]

_LEASE = [
    database_now().label('now'),
    lease.c.token,
    lease.c.owner,
    lease.c.host,
    lease.c.pid,
    lease.c.ttl,
    lease.c.expires_at,
    lease.c.evolution_id,
    lease.c.done,
    lease.c.total,
    lease.c.message,
    lease.c.since,
    lease.c.paused,
    lease.c.cancel,
    lease.c.wanted,
]

#: Statements of every look are made once.
_OF_NAMESPACE: Any = bindparam('of_namespace')
_HISTORY = select(*_LOOK).where(history.c.namespace == _OF_NAMESPACE)


def _lease_beside(one: Any) -> Any:
    """:param one: a subquery that always has one row, whether or not there is a lease."""
    return one.outerjoin(lease, lease.c.namespace == _OF_NAMESPACE)


_LEASE_ROW = select(*_LEASE).select_from(_lease_beside(select(literal(1).label('one')).subquery('one')))
_marked = (
    select(*(part.label(f'mark{number}') for number, part in enumerate(_MARK)))
    .where(history.c.namespace == _OF_NAMESPACE)
    .subquery('marked')
)
_LEASE_AND_MARK = select(*_LEASE, *_marked.c).select_from(_lease_beside(_marked))

_CHECKPOINT = [
    checkpoint.c.partition,
    checkpoint.c.after_key,
    checkpoint.c.until_key,
    checkpoint.c.position,
    checkpoint.c.passes,
    checkpoint.c.found,
    checkpoint.c.last_found,
    checkpoint.c.done,
    checkpoint.c.total,
    checkpoint.c.seconds,
    checkpoint.c.finished,
]

#: How often a statement is tried again when it lost against another one (deadlock, SQLITE_BUSY).
_TRIES = 5

#: How many ids one statement names.
_CHUNK = 500


class SQLAlchemyStore(Store):
    """Lease and history beside the application's own tables.

    :param namespace: what they are kept under.
    :param engine: the store's own engine, see :func:`.engines.own_engine`; or the application's
        one for SQLite in memory.
    :param session: the application's scoped session, which evolutions work with; None when it has
        none in this process.
    :param session_engine: the engine behind that session.
    :param threads: False when another thread would see another database.
    """

    def __init__(
        self,
        namespace: str,
        engine: Engine,
        session: Any = None,
        session_engine: Engine | None = None,
        *,
        threads: bool = True,
    ):
        self.namespace = namespace
        self.name = engine.url.render_as_string(hide_password=True)
        self.threads = threads
        self._engine = engine
        self._session = session
        self._session_engine = session_engine
        self._dialect = dialect_for(engine.dialect.name, self.name)
        # The session may be another database's, of another kind.
        self._session_dialect = self._dialect
        if session is not None and session_engine is not None:
            self._session_dialect = dialect_of_session(session_engine.dialect.name)
            watch(session, session_engine, self._session_dialect)

    # -- reading

    def history(self) -> History:
        try:
            return self._run(self._history)
        except StoreError as error:
            if self._is_missing_table(error):
                return History()
            raise

    def error_of(self, attempt: Attempt) -> str | None:
        def read(connection: Connection) -> str | None:
            return connection.execute(select(history.c.error).where(*self._row_of(attempt))).scalar()

        return self._run(read)

    def _row_of(self, attempt: Attempt) -> list[Any]:
        return [
            history.c.namespace == self.namespace,
            history.c.evolution_id == attempt.evolution_id,
            history.c.attempt == attempt.attempt,
            history.c.token == attempt.token,
            history.c.owner == attempt.owner,
        ]

    def snapshot(self, known: Snapshot | None = None) -> Snapshot:
        def look(connection: Connection) -> Snapshot:
            now, row, mark = self._lease_and_mark(connection)
            if known is not None and known.mark == mark:
                return replace(known, lease=row, now=now)
            # Read after its mark: what is recorded in between shows in the next mark.
            return Snapshot(self._history(connection), row, now, mark)

        def look_closely(connection: Connection) -> Snapshot:
            """Some of the tables are not there yet."""
            if self._has(connection, lease):
                now, row = self._lease_row(connection)
            else:
                now, row = connection.execute(select(database_now())).scalar_one(), None
            return Snapshot(self._history(connection) if self._has(connection, history) else History(), row, now)

        try:
            return self._run(look)
        except StoreError as error:
            if self._is_missing_table(error):
                return self._run(look_closely)
            raise

    def _is_missing_table(self, error: StoreError) -> bool:
        cause = error.__cause__
        return cause is not None and self._dialect.trouble(cause) is Trouble.MISSING_TABLE

    def _history(self, connection: Connection) -> History:
        rows = connection.execute(_HISTORY, {_OF_NAMESPACE.key: self.namespace})
        return History(_attempt(*row) for row in rows)

    def _lease_row(self, connection: Connection) -> tuple[int, LeaseRow | None]:
        """The database's clock, and the lease if it was ever taken."""
        row = connection.execute(_LEASE_ROW, {_OF_NAMESPACE.key: self.namespace}).one()
        return row.now, self._lease_of(row)

    def _lease_and_mark(self, connection: Connection) -> tuple[int, LeaseRow | None, Hashable]:
        """The same and the mark of the history, by one statement."""
        row = connection.execute(_LEASE_AND_MARK, {_OF_NAMESPACE.key: self.namespace}).one()
        return row.now, self._lease_of(row), tuple(row[len(_LEASE) :])

    def _lease_of(self, row: Any) -> LeaseRow | None:
        if row.token is None:
            return None
        try:
            return LeaseRow(
                token=integer(row.token),
                owner=row.owner,
                host=row.host,
                pid=row.pid,
                ttl=integer(row.ttl),
                expires_at=integer(row.expires_at),
                now=row.now,
                report=Report(row.evolution_id, row.done, row.total, row.message, row.since),
                requests=Requests(row.paused, row.cancel, row.wanted),
            )
        except UNREADABLE as error:
            raise edited(f'the lease of {self.namespace!r}', error, f'the table {lease.name}') from None

    # -- the lease

    def prepare(self) -> None:
        def make(connection: Connection) -> None:
            for table in metadata.sorted_tables:
                if not self._has(connection, table):
                    table.dialect_kwargs.update(self._dialect.table_options)
                    self._make(connection, CreateTable(table))
                    for index in table.indexes:
                        self._make(connection, CreateIndex(index))

        self._run(make)

    def _has(self, connection: Connection, table: Any) -> bool:
        return inspect(connection).has_table(table.name)

    def _make(self, connection: Connection, statement: Any) -> None:
        try:
            connection.execute(statement)
        except SQLAlchemyError as error:
            # Another process was quicker; PostgreSQL says so in three ways.
            if self._dialect.trouble(error) is not Trouble.EXISTS:
                raise

    def acquire(self, owner: Owner, ttl: float) -> Grant | None:
        def take(connection: Connection) -> Grant | None:
            # The token is above every one that was ever recorded here, also when somebody dropped or
            # edited the lease's row, or restored it from a backup.
            highest = self._highest_token(connection)
            _, row = self._lease_row(connection)
            if row is None:
                self._insert_lease(connection, owner, highest)
                _, row = self._lease_row(connection)
            if row is None or (row.alive and row.owner != owner.id):
                return None
            # Compare and set with the row as it was seen: a statement that waited for a renewal
            # must not judge the renewed row by the clock of when it began to wait.
            milliseconds = round(ttl * 1000)
            token = max(row.token, highest) + 1
            result = connection.execute(
                update(lease)
                .where(
                    lease.c.namespace == self.namespace,
                    lease.c.token == row.token,
                    lease.c.owner == row.owner,
                    lease.c.expires_at == row.expires_at,
                )
                .values(
                    owner=owner.id,
                    host=owner.host,
                    pid=owner.pid,
                    token=token,
                    ttl=milliseconds,
                    expires_at=database_now() + milliseconds,
                    wanted=None,
                    **_NO_REPORT,
                )
            )
            return Grant(owner, token) if result.rowcount == 1 else None

        return self._run(take)

    def lease_row(self) -> LeaseRow | None:
        return self._run(lambda connection: self._lease_row(connection)[1])

    def requests(self) -> Requests:
        def read(connection: Connection) -> Requests:
            asked = select(lease.c.paused, lease.c.cancel, lease.c.wanted)
            row = connection.execute(asked.where(lease.c.namespace == self.namespace)).one_or_none()
            return Requests() if row is None else Requests(*row)

        return self._run(read)

    def ask(
        self,
        owner: Owner,
        *,
        paused: bool | None = None,
        cancel: str | None = None,
        wanted: str | None = None,
    ) -> None:
        values: dict[str, Any] = {} if wanted is None else {'wanted': wanted}
        if paused is not None:
            values['paused'] = database_now() if paused else None
        if cancel is not None:
            values['cancel'] = cancel or None

        def record(connection: Connection) -> None:
            statement = update(lease).where(lease.c.namespace == self.namespace).values(**values)
            if not connection.execute(statement).rowcount:
                self._insert_lease(connection, owner, self._highest_token(connection))
                connection.execute(statement)

        self._run(record)

    def shut(self, owner: Owner, message: str) -> None:
        row = self._row(Grant(owner, 0), CLAIM, 0, State.DOWN)

        def record(connection: Connection) -> None:
            with _transaction(connection):
                connection.execute(delete(history).where(*self._down()))
                connection.execute(
                    insert(history).values(**row, serving='nothing', started=database_now(), error=message)
                )

        self._run(record, transaction=True)

    def reopen(self) -> bool:
        return self._run(lambda connection: connection.execute(delete(history).where(*self._down())).rowcount > 0)

    def _down(self) -> list[Any]:
        return [
            history.c.namespace == self.namespace,
            history.c.evolution_id == CLAIM,
            history.c.state == State.DOWN.value,
        ]

    def _highest_token(self, connection: Connection) -> int:
        highest = select(func.coalesce(func.max(history.c.token), 0)).where(history.c.namespace == self.namespace)
        return connection.execute(highest).scalar_one()

    def _insert_lease(self, connection: Connection, owner: Owner, token: int) -> None:
        values = {
            'namespace': self.namespace,
            'owner': owner.id,
            'token': token,
            'host': owner.host,
            'pid': owner.pid,
            'ttl': 0,
            'expires_at': 0,
        }
        connection.execute(self._dialect.insert_if_missing(lease, values, lease.c.namespace))

    def renew(self, grant: Grant, ttl: float, report: Report) -> Renewal:
        milliseconds = round(ttl * 1000)

        def push(connection: Connection) -> Renewal:
            result = connection.execute(
                update(lease)
                .where(*self._mine(grant))
                .values(
                    ttl=milliseconds,
                    expires_at=database_now() + milliseconds,
                    evolution_id=report.evolution_id,
                    since=report.since,
                    done=report.done,
                    total=report.total,
                    message=report.message[:255] if report.message else None,
                )
            )
            return Renewal.KEPT if result.rowcount == 1 else Renewal.LOST

        try:
            return self._run(push)
        except StoreBusy:
            if self._dialect.one_writer:
                return Renewal.BUSY
            raise

    def release(self, grant: Grant) -> None:
        def give_back(connection: Connection) -> None:
            connection.execute(update(lease).where(*self._mine(grant)).values(expires_at=0, **_NO_REPORT))

        self._run(give_back)

    def _mine(self, grant: Grant) -> list[Any]:
        return [
            lease.c.namespace == self.namespace,
            lease.c.owner == grant.owner.id,
            lease.c.token == grant.token,
        ]

    # -- the history

    def interrupt_older(self, grant: Grant) -> list[Attempt]:
        older = [
            history.c.namespace == self.namespace,
            history.c.state == State.RUNNING.value,
            history.c.token < grant.token,
        ]

        def find(connection: Connection) -> list[Attempt]:
            rows = connection.execute(select(*_LOOK).where(*older)).all()
            if rows:
                partitions = connection.execute(
                    select(checkpoint.c.evolution_id, checkpoint.c.partition).where(
                        checkpoint.c.namespace == self.namespace,
                        checkpoint.c.evolution_id.in_([row.evolution_id for row in rows]),
                    )
                ).all()
                owners = {row.owner for row in rows}
                owners |= {_worker(owner, number) for owner in owners for number in {p.partition for p in partitions}}
                try:
                    self._dialect.end_sessions(connection, owners)
                except DBAPIError as error:
                    # No right to, or it has ended by itself; a lock that stays is waited for.
                    log.warning('the session of a deposed holder could not be ended: %s', failure.brief(error))
            return [_attempt(*row) for row in rows]

        def mark(connection: Connection) -> None:
            with _transaction(connection):
                self._dialect.set_lock_patience(connection)
                connection.execute(
                    update(history)
                    .where(*older)
                    .values(
                        state=State.INTERRUPTED.value,
                        error=f'interrupted: its process died or lost the lease; {grant.owner} took over',
                        reached=_reached(),
                    )
                )
                connection.execute(
                    update(checkpoint)
                    .where(
                        checkpoint.c.namespace == self.namespace,
                        checkpoint.c.evolution_id.in_([attempt.evolution_id for attempt in found]),
                        checkpoint.c.token < grant.token,
                    )
                    .values(owner='')
                )

        found = self._run(find)
        if not found:
            return []
        try:
            self._run(mark, tries=1, transaction=True)
        except StoreBusy as busy:
            raise StoreBusy(
                f'{busy.thing}; a transaction that is still open keeps the record of '
                f'{found[0].evolution_id!r} locked (its holder was {found[0].host}:{found[0].pid})',
                place=self.name,
                remedy=f'It is tried again. {self._blockers()}',
            ) from busy
        return found

    def _blockers(self) -> str:
        try:
            who = self._run(self._dialect.blockers)
        except Exception:  # the right to look at other sessions may be missing
            return ''
        return f'Open transactions: {who}.' if who else ''

    def begin(self, grant: Grant, planned: PlannedEvolution, number: int, fingerprint: str) -> Attempt:
        def start(connection: Connection) -> Attempt:
            connection.execute(
                insert(history).values(
                    **self._row(grant, planned.id, number, State.RUNNING),
                    serving=planned.serving.value,
                    fingerprint=fingerprint,
                    started=database_now(),
                )
            )
            row = connection.execute(
                select(*_LOOK).where(
                    history.c.namespace == self.namespace,
                    history.c.evolution_id == planned.id,
                    history.c.token == grant.token,
                    history.c.attempt == number,
                )
            ).one()
            return _attempt(*row)

        return self._run(start)

    def _row(self, grant: Grant, id: str, number: int, state: State) -> dict[str, Any]:
        return {
            'namespace': self.namespace,
            'evolution_id': id,
            'token': grant.token,
            'attempt': number,
            'owner': grant.owner.id,
            'state': state.value,
            'host': grant.owner.host,
            'pid': grant.owner.pid,
        }

    def _outcome(self, attempt: Attempt, state: State, error: str | None, final: bool = False) -> Any:
        """The fence: one conditional write on the attempt's own row."""
        return (
            update(history)
            .where(*self._row_of(attempt), history.c.state == State.RUNNING.value)
            .values(
                state=state.value,
                finished=database_now(),
                error=error,
                **({} if state is State.DONE else {'reached': _reached(), 'final': final}),
            )
        )

    def finish(self, attempt: Attempt, state: State, error: str | None = None, *, final: bool = False) -> bool:
        def record(connection: Connection) -> bool:
            return connection.execute(self._outcome(attempt, state, error, final)).rowcount == 1

        return self._run(record)

    def withdraw(self, attempt: Attempt) -> None:
        def take_back(connection: Connection) -> None:
            still_running = history.c.state == State.RUNNING.value
            connection.execute(delete(history).where(*self._row_of(attempt), still_running))

        self._run(take_back)

    def settle(
        self, grant: Grant, ids: Collection[str], state: State, contents: Mapping[str, str] = NO_CONTENTS
    ) -> None:
        def record(connection: Connection) -> None:
            rows = self._settling(connection, grant, ids, state, contents)
            if rows:
                with _transaction(connection):
                    connection.execute(insert(history), rows)

        self._run(record, transaction=True)

    def _settling(
        self,
        connection: Connection,
        grant: Grant,
        ids: Collection[str],
        state: State,
        contents: Mapping[str, str] = NO_CONTENTS,
    ) -> list[dict[str, Any]]:
        """The rows that settle those of ``ids`` that are not settled yet."""
        missing = to_settle(self._history(connection), ids, contents)
        if not missing:
            return []
        now = connection.execute(select(database_now())).scalar_one()
        return [
            {
                **self._row(grant, id, 0, state),
                'serving': 'nothing',
                'fingerprint': contents.get(id),
                'started': now,
                'finished': now,
            }
            for id in missing
        ]

    def unsettle(self, grant: Grant, ids: Collection[str]) -> None:
        def take_back(connection: Connection) -> None:
            connection.execute(
                delete(history).where(
                    history.c.namespace == self.namespace,
                    history.c.evolution_id.in_(list(ids)),
                    history.c.state.in_([State.STAMPED.value, State.IMPORTED.value]),
                )
            )

        self._run(take_back)

    def forgive(self, ids: Collection[str]) -> int:
        def forget(connection: Connection) -> int:
            return connection.execute(
                update(history)
                .where(
                    history.c.namespace == self.namespace,
                    history.c.evolution_id.in_(list(ids)),
                    history.c.state.in_([s.value for s in (State.FAILED, State.CANCELLED, State.INTERRUPTED)]),
                    history.c.fingerprint.is_not(None),
                )
                .values(fingerprint=None)
            ).rowcount

        return self._run(forget)

    # -- batches

    def checkpoints(self, evolution_id: str, attempt: Attempt | None = None) -> list[Checkpoint]:
        which = self._checkpoints_of([evolution_id]) if attempt is None else self._own_checkpoint(attempt)
        try:
            return self._run(lambda connection: self._checkpoints(connection, which))
        except StoreError as error:
            if self._is_missing_table(error):
                return []
            raise

    def _checkpoints(self, connection: Connection, which: list[Any]) -> list[Checkpoint]:
        rows = connection.execute(select(*_CHECKPOINT).where(*which).order_by(checkpoint.c.partition))
        return [Checkpoint(*row) for row in rows]

    def _checkpoints_of(self, ids: Collection[str]) -> list[Any]:
        return [checkpoint.c.namespace == self.namespace, checkpoint.c.evolution_id.in_(list(ids))]

    def take_checkpoints(self, attempt: Attempt, new: Sequence[Checkpoint] = ()) -> list[Checkpoint]:
        of_this = self._checkpoints_of([attempt.evolution_id])
        rows = [
            {
                'namespace': self.namespace,
                'evolution_id': attempt.evolution_id,
                'partition': each.partition,
                'token': attempt.token,
                'owner': attempt.owner,
                **_columns(each),
            }
            for each in new
        ]

        def take(connection: Connection) -> list[Checkpoint]:
            with _transaction(connection):
                self._dialect.set_lock_patience(connection)
                # The fence: who takes over marks this row first, and looks for checkpoints afterwards.
                running = [*self._row_of(attempt), history.c.state == State.RUNNING.value]
                if connection.execute(update(history).where(*running).values(state=State.RUNNING.value)).rowcount != 1:
                    raise LeaseLost('a later holder has marked this attempt')
                taken = connection.execute(
                    update(checkpoint)
                    .where(*of_this, checkpoint.c.token <= attempt.token)
                    .values(token=attempt.token, owner=attempt.owner)
                ).rowcount
                if not taken and rows:
                    connection.execute(insert(checkpoint), rows)
                return self._checkpoints(connection, of_this)

        return self._run(take, transaction=True)

    def drop_checkpoints(self, attempt: Attempt) -> None:
        def drop(connection: Connection) -> None:
            connection.execute(update(checkpoint).where(*self._own_checkpoint(attempt)).values(owner=''))

        self._run(drop)

    def _own_checkpoint(self, attempt: Attempt) -> list[Any]:
        return [
            *self._checkpoints_of([attempt.evolution_id]),
            checkpoint.c.token == attempt.token,
            checkpoint.c.owner == attempt.owner,
        ]

    def forget_checkpoints(self, ids: Collection[str]) -> None:
        self._run(lambda connection: connection.execute(delete(checkpoint).where(*self._checkpoints_of(ids))))

    @contextmanager
    def batch(self, attempt: Attempt, planned: PlannedEvolution, checkpoint: Checkpoint) -> Iterator[Batch]:
        batch = Batch(checkpoint)

        def save(connection: Connection) -> bool:
            return self._moved(connection, attempt, checkpoint, batch.checkpoint)

        owner = _worker(attempt.owner, checkpoint.partition)
        work = SessionWork(self._session, self._session_dialect, self.name, planned.id, owner)
        if self.refuses(planned) is None:
            around = work.transactional(attempt, planned, save)
        else:
            around = work.plain(lambda: self._run(save))
        try:
            with around:
                yield batch
        except Exception as error:
            cause = error.__cause__ if isinstance(error, ItemFailed) else error
            if isinstance(cause, SQLAlchemyError) and self._session_dialect.trouble(cause) is Trouble.BUSY:
                raise self._translated(cause) from error
            raise

    def _moved(self, connection: Connection, attempt: Attempt, before: Checkpoint, to: Checkpoint) -> bool:
        """The fence of a batch: one conditional write on the checkpoint of its partition."""
        result = connection.execute(
            update(checkpoint)
            .where(
                *self._own_checkpoint(attempt),
                checkpoint.c.partition == before.partition,
                # Each batch adds to one of them.
                checkpoint.c.done == before.done,
                checkpoint.c.passes == before.passes,
            )
            .values(**_columns(to))
        )
        return result.rowcount == 1

    def items(self, evolution: Any) -> Items:
        from .items import items_of

        return items_of(evolution, self._session)

    # -- what was here before

    def predecessor(self) -> Predecessor | None:
        def read(connection: Connection) -> Predecessor | None:
            if not self._has(connection, predecessor):
                return None
            rows = connection.execute(select(predecessor.c.type, predecessor.c.value))
            values = {row.type: row.value for row in rows}
            return Predecessor(version=values.get('version'), locked_by=values.get('lock'))

        return self._run(read)

    def namespaces_with(self, ids: Collection[str]) -> list[str]:
        def read(connection: Connection) -> list[str]:
            found: set[str] = set()
            wanted = list(ids)
            for start in range(0, len(wanted), _CHUNK):
                found.update(
                    connection.execute(
                        select(history.c.namespace)
                        .distinct()
                        .where(
                            history.c.evolution_id.in_(wanted[start : start + _CHUNK]),
                            history.c.namespace != self.namespace,
                        )
                    ).scalars()
                )
            return sorted(found)

        try:
            return self._run(read)
        except StoreError as error:
            if self._is_missing_table(error):
                return []
            raise

    # -- the work

    def work(self, attempt: Attempt, planned: PlannedEvolution) -> AbstractContextManager[None]:
        if planned.batched:
            return self._recorded(attempt, planned)
        dialect = self._session_dialect
        limit = None if planned.timeout is None else TimeLimit(dialect, planned, planned.timeout)
        work = SessionWork(self._session, dialect, self.name, planned.id, attempt.owner, limit)
        if planned.transactional:
            return work.transactional(attempt, planned, lambda connection: self._done(connection, attempt, planned))
        return work.plain(lambda: self.record_done(attempt, planned))

    def _done(self, connection: Connection, attempt: Attempt, planned: PlannedEvolution) -> bool:
        if connection.execute(self._outcome(attempt, State.DONE, None)).rowcount != 1:
            return False
        if planned.replaces:
            rows = self._settling(connection, grant_of(attempt), planned.replaces, State.STAMPED)
            if rows:
                connection.execute(insert(history), rows)
        return True

    def refuses(self, planned: PlannedEvolution) -> str | None:
        if self._session is None or self._session_engine is None:
            return 'the application has no SQLAlchemy session'
        if not same_database(self._engine.url, self._session_engine.url):
            return f"tgext.evolve.store is {self.name}, which is not the database of the application's session"
        settings = getattr(getattr(self._session, 'session_factory', None), 'kw', {})
        if settings.get('twophase'):
            return (
                'its session is two-phase: a kill between prepare and commit leaves a prepared '
                'transaction that keeps its locks'
            )
        level = self._session_engine.get_execution_options().get('isolation_level') or getattr(
            self._session_engine.dialect, '_on_connect_isolation_level', None
        )
        if str(level).upper() == 'AUTOCOMMIT':
            return 'its engine is in AUTOCOMMIT mode, where there are no transactions'
        return None

    def close(self) -> None:
        # There is no pool, so there is nothing that a fork could share.
        return None

    def retire(self) -> None:
        if self._session_engine is not None and not in_memory(self._session_engine.url):
            self._session_engine.dispose()

    # -- connections

    @contextmanager
    def _connect(self, *, transaction: bool = False) -> Iterator[Connection]:
        engine = self._engine
        if transaction and self.threads and engine.dialect.name != 'sqlite':
            engine = engine.execution_options(isolation_level='READ COMMITTED')
        dialect = engine.dialect
        try:
            with engine.connect() as connection:
                yield connection
                if not self.threads or transaction:
                    connection.commit()
        except dialect.loaded_dbapi.Error as error:
            # SQLAlchemy hands on the driver's own error when the connection is lost while its
            # isolation level is set, or set back.
            raise DBAPIError.instance(
                'SET TRANSACTION ISOLATION LEVEL',
                None,
                error,
                dialect.loaded_dbapi.Error,
                connection_invalidated=dialect.is_disconnect(error, None, None),
                dialect=dialect,
            ) from error

    def _run(
        self,
        operation: Callable[[Connection], _T],
        *,
        tries: int = _TRIES,
        transaction: bool = False,
    ) -> _T:
        """Do ``operation`` on a connection of its own; again when it lost against another one."""
        for left in reversed(range(tries)):
            try:
                with self._connect(transaction=transaction) as connection:
                    return operation(connection)
            except SQLAlchemyError as error:
                if not left or self._dialect.trouble(error) is not Trouble.BUSY:
                    raise self._translated(error) from error
                if self._dialect.one_writer:
                    # The driver has waited already; an evolution may hold the lock for long.
                    raise self._translated(error) from error
                time.sleep(random.uniform(0.01, 0.05))
        raise AssertionError('unreachable')

    def _translated(self, error: SQLAlchemyError) -> Exception:
        return self._dialect.translate(error, self.name)


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """What SQLAlchemy raises in here says what is the matter with the database.

    :raises StoreError: in place of it.
    """
    name = engine.url.render_as_string(hide_password=True)
    try:
        yield
    except SQLAlchemyError as error:
        raise dialect_for(engine.dialect.name, name).translate(error, name) from error


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """One transaction for what follows, also on an AUTOCOMMIT connection of SQLite."""
    driver_commits = connection.dialect.name == 'sqlite' and not getattr(
        connection.connection.dbapi_connection, 'in_transaction', False
    )
    if driver_commits:
        connection.exec_driver_sql('BEGIN IMMEDIATE')
    try:
        yield
    except BaseException:
        if driver_commits:
            connection.exec_driver_sql('ROLLBACK')
        raise
    if driver_commits:
        connection.exec_driver_sql('COMMIT')


_NO_REPORT: dict[str, Any] = {
    'evolution_id': None,
    'since': None,
    'done': None,
    'total': None,
    'message': None,
}


def _worker(owner: str, partition: int) -> str:
    """What the transactions of one partition are marked with."""
    return f'{owner}.{partition}'


def _columns(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        'after_key': checkpoint.after,
        'until_key': checkpoint.until,
        'position': checkpoint.position,
        'passes': checkpoint.passes,
        'found': checkpoint.found,
        'last_found': checkpoint.last_found,
        'done': checkpoint.done,
        'total': checkpoint.total,
        'seconds': checkpoint.seconds,
        'finished': checkpoint.finished,
    }


def _reached() -> Any:
    """How many items were processed in all by the evolution of the row that is updated."""
    return (
        select(func.coalesce(func.sum(checkpoint.c.done), 0))
        .where(checkpoint.c.namespace == history.c.namespace, checkpoint.c.evolution_id == history.c.evolution_id)
        .scalar_subquery()
    )


def _attempt(
    evolution_id: str,
    attempt: int,
    token: int,
    owner: str,
    state: str,
    serving: str,
    fingerprint: str | None,
    host: str | None,
    pid: int | None,
    started: int | None,
    finished: int | None,
    reached: int | None,
    final: bool | None,
) -> Attempt:
    try:
        return Attempt(
            text(evolution_id),
            integer(attempt),
            integer(token),
            owner,
            State(state),
            serving,
            fingerprint,
            host,
            pid,
            optional_integer(started),
            optional_integer(finished),
            reached=optional_integer(reached),
            final=bool(final),
        )
    except UNREADABLE as error:
        raise edited(f'the record of {evolution_id!r}', error, f'the table {history.name}') from None
