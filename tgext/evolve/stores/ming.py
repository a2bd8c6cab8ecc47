"""Lease and history in MongoDB, and in Ming's in-memory one for development."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from operator import attrgetter
from typing import Any, TypeVar

from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)

from .. import failure
from ..errors import ItemFailed, LeaseLost, StoreAway, StoreBusy, StoreError
from ..history import CLAIM, Attempt, History, State
from ..plan import PlannedEvolution
from ..points import point
from .base import (
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
    integer,
    optional_integer,
    text,
    to_settle,
)
from .ming_transactions import CAN_BIND, Seat, Seats, has_transactions, is_busy, transaction

log = logging.getLogger(__name__)

_T = TypeVar('_T')

LEASE = 'tgext_evolve_lease'
HISTORY = 'tgext_evolve_history'
CHECKPOINT = 'tgext_evolve_checkpoint'
PREDECESSOR = 'tgext_evolve'

#: Patience with a server that is gone, in milliseconds, unless the URL says otherwise.
_PATIENCE = {'serverselectiontimeoutms': 5_000, 'connecttimeoutms': 5_000, 'sockettimeoutms': 15_000}

_NO_REPORT: dict[str, Any] = {
    'evolution_id': None,
    'since': None,
    'done': None,
    'total': None,
    'message': None,
}


def _number(condition: Any) -> dict[str, Any]:
    return {'$sum': {'$cond': [condition, 1, 0]}}


_MARK: dict[str, Any] = {
    '_id': None,
    'count': {'$sum': 1},
    **{f'last_{name}': {'$max': f'${name}'} for name in ('token', 'started', 'finished')},
    **{f'has_{name}': _number({'$gt': [f'${name}', None]}) for name in ('started', 'finished', 'fingerprint')},
    **{f'is_{state.value}': _number({'$eq': ['$state', state.value]}) for state in State},
}

_DUPLICATE_KEY = 11000


class MongoStore(Store):
    """Lease and history in a MongoDB server.

    Times are whole milliseconds of the server's clock (``$$NOW``): a stored *date* compared with
    ``$$NOW`` was found to be always equal on one server, which gave a lease to two owners.

    :param connect: makes a client; one is made when it is needed and closed by :meth:`close`, so
        that no connection is shared with a forked child.
    :param database: its name.
    :param application: pymongo's database of the application, where batches work in transactions of its
        client; None: it is not known, and no batch is in a transaction.
    """

    def __init__(
        self,
        namespace: str,
        name: str,
        connect: Callable[[], Any],
        database: str,
        application: Callable[[], Any] | None = None,
    ):
        self.namespace = namespace
        self.name = name
        self._connect = connect
        self._database_name = database
        self._client: Any = None
        self._client_pid: int | None = None
        self._connecting = threading.Lock()
        self._application = application
        self._seats = Seats()
        self._server_has_transactions: bool | None = None

    # -- the connection

    def close(self) -> None:
        client, self._client = self._client, None
        self._server_has_transactions = None
        if client is not None and self._client_pid == os.getpid():
            client.close()

    @property
    def _database(self) -> Any:
        with self._connecting:
            if self._client is None or self._client_pid != os.getpid():
                self._client = self._connect()
                self._client_pid = os.getpid()
            return self._client[self._database_name]

    def _collection(self, name: str) -> Any:
        # With the default write concern a killed server was measured to lose acknowledged writes.
        return self._database.get_collection(
            name,
            write_concern=WriteConcern('majority', j=True),
            read_preference=ReadPreference.PRIMARY,
        )

    def _run(self, operation: Callable[[], _T], *, tries: int = 5) -> _T:
        for left in reversed(range(tries)):
            try:
                return operation()
            except PyMongoError as error:
                trouble = self._translated(error)
                if not left or not isinstance(trouble, StoreBusy):
                    raise trouble from error
                time.sleep(0.02)
        raise AssertionError('unreachable')

    def _translated(self, error: PyMongoError) -> StoreError:
        what = failure.brief(error)
        if _is_away(error):
            return StoreAway(
                f'the database cannot be reached: {what}',
                place=self.name,
                remedy='It is tried again until it answers.',
            )
        if is_busy(error):
            return StoreBusy(f'the database is busy: {what}', place=self.name, remedy='It is tried again.')
        return StoreError(
            f'the database refuses: {what}',
            place=self.name,
            remedy=f'The database user of the application must be able to read and write the '
            f'collections {LEASE} and {HISTORY}.',
        )

    # -- the server

    @property
    def _has_transactions(self) -> bool:
        if self._server_has_transactions is None:
            self._server_has_transactions = has_transactions(self._run(lambda: self._database.command('hello')))
        return self._server_has_transactions

    def _now(self) -> int:
        """The database's clock, in milliseconds."""
        reply = self._run(lambda: self._database.command('hello'))
        moment = reply.get('localTime')
        return round(moment.timestamp() * 1000) if moment is not None else _client_now()

    def _set(self, collection: str, where: dict[str, Any], values: dict[str, Any]) -> Any:
        """Find one document and update it; a value ``_Now(n)`` becomes the clock plus n."""
        return self._collection(collection).find_one_and_update(
            where, [{'$set': {key: _expression(value) for key, value in values.items()}}]
        )

    # -- reading

    def history(self) -> History:
        return self._run(self._history)

    def _history(self) -> History:
        documents = self._collection(HISTORY).find({'namespace': self.namespace}, {'error': 0})
        return History([_attempt(document) for document in documents])

    def error_of(self, attempt: Attempt) -> str | None:
        row = self._row_of(attempt)
        document = self._run(lambda: self._collection(HISTORY).find_one(row, {'error': 1}))
        return None if document is None else document.get('error')

    def _row_of(self, attempt: Attempt) -> dict[str, Any]:
        return {
            'namespace': self.namespace,
            'evolution_id': attempt.evolution_id,
            'attempt': attempt.attempt,
            'token': attempt.token,
            'owner': attempt.owner,
        }

    def snapshot(self, known: Snapshot | None = None) -> Snapshot:
        mark = self._mark()
        # Read after its mark: what is recorded in between shows in the next mark.
        unchanged = known is not None and mark is not None and known.mark == mark
        history = known.history if known is not None and unchanged else self.history()
        row = self._lease_row()
        return Snapshot(history, row, row.now if row is not None else self._now(), mark)

    def _mark(self) -> Hashable:
        """What is another value as soon as an attempt begins, ends, is marked, forgiven or taken back."""
        pipeline = [{'$match': {'namespace': self.namespace}}, {'$group': _MARK}]
        found = self._run(lambda: list(self._collection(HISTORY).aggregate(pipeline)))
        return tuple(sorted(found[0].items(), key=str)) if found else ()

    def lease_row(self) -> LeaseRow | None:
        return self._lease_row()

    def _lease_row(self) -> LeaseRow | None:
        document = self._run(lambda: self._collection(LEASE).find_one({'_id': self.namespace}))
        if document is None:
            return None
        # Asked after the document: a renewal in between makes it look older than it is, which
        # the compare-and-set of a take-over finds out.
        now = self._now()
        try:
            return LeaseRow(
                token=integer(document['token']),
                owner=document['owner'],
                host=document['host'],
                pid=document['pid'],
                ttl=integer(document['ttl']),
                expires_at=integer(document['expires_at']),
                now=now,
                report=Report(*(document.get(key) for key in ('evolution_id', 'done', 'total', 'message', 'since'))),
                requests=_requests(document),
            )
        except UNREADABLE as error:
            raise edited(f'the lease of {self.namespace!r}', error, f'the collection {LEASE}') from None

    # -- the lease

    def prepare(self) -> None:
        # Collections make themselves; the index is for namespaces that share a database.
        self._run(lambda: self._collection(HISTORY).create_index([('namespace', 1)]))
        self._run(lambda: self._collection(HISTORY).create_index([('evolution_id', 1)]))
        self._run(lambda: self._collection(CHECKPOINT).create_index([('namespace', 1), ('evolution_id', 1)]))

    def acquire(self, owner: Owner, ttl: float) -> Grant | None:
        # The token is above every one that was ever recorded here, also when somebody dropped or
        # edited the lease's document, or restored it from a backup.
        highest = self._highest_token()
        row = self._lease_row()
        if row is None:
            self._run(lambda: self._insert_lease(owner, highest))
            row = self._lease_row()
        if row is None or (row.alive and row.owner != owner.id):
            return None
        milliseconds = round(ttl * 1000)
        token = max(row.token, highest) + 1
        # Compare and set with the document as it was seen: it has expired, and nobody renewed it.
        taken = self._run(
            lambda: self._set(
                LEASE,
                {
                    '_id': self.namespace,
                    'token': row.token,
                    'owner': row.owner,
                    'expires_at': row.expires_at,
                },
                {
                    'owner': owner.id,
                    'host': owner.host,
                    'pid': owner.pid,
                    'token': token,
                    'ttl': milliseconds,
                    'expires_at': _Now(milliseconds),
                    'wanted': None,
                    **_NO_REPORT,
                },
            )
        )
        return None if taken is None else Grant(owner, token)

    def requests(self) -> Requests:
        return _requests(self._run(lambda: self._collection(LEASE).find_one({'_id': self.namespace})) or {})

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
            values['paused'] = _Now(0) if paused else None
        if cancel is not None:
            values['cancel'] = cancel or None
        self._run(lambda: self._insert_lease(owner, self._highest_token()))
        self._run(lambda: self._set(LEASE, {'_id': self.namespace}, values))

    def shut(self, owner: Owner, message: str) -> None:
        document = {
            **self._document(Grant(owner, 0), CLAIM, 0, State.DOWN),
            'started': self._now(),
            'error': message,
        }
        self._run(lambda: self._collection(HISTORY).replace_one({'_id': document['_id']}, document, upsert=True))

    def reopen(self) -> bool:
        down = {'namespace': self.namespace, 'evolution_id': CLAIM, 'state': State.DOWN.value}
        return bool(self._run(lambda: self._collection(HISTORY).delete_many(down)).deleted_count)

    def _highest_token(self) -> int:
        return max((attempt.token for attempt in self.history().attempts), default=0)

    def _insert_lease(self, owner: Owner, token: int) -> None:
        with suppress(DuplicateKeyError):
            self._collection(LEASE).insert_one(
                {
                    '_id': self.namespace,
                    'owner': owner.id,
                    'token': token,
                    'host': owner.host,
                    'pid': owner.pid,
                    'ttl': 0,
                    'expires_at': 0,
                    **_NO_REPORT,
                }
            )

    def _mine(self, grant: Grant) -> dict[str, Any]:
        return {'_id': self.namespace, 'owner': grant.owner.id, 'token': grant.token}

    def renew(self, grant: Grant, ttl: float, report: Report) -> Renewal:
        milliseconds = round(ttl * 1000)
        renewed = self._run(
            lambda: self._set(
                LEASE,
                self._mine(grant),
                {
                    'ttl': milliseconds,
                    'expires_at': _Now(milliseconds),
                    'evolution_id': report.evolution_id,
                    'since': report.since,
                    'done': report.done,
                    'total': report.total,
                    'message': report.message,
                },
            )
        )
        return Renewal.LOST if renewed is None else Renewal.KEPT

    def release(self, grant: Grant) -> None:
        self._run(lambda: self._set(LEASE, self._mine(grant), {'expires_at': 0, **_NO_REPORT}))

    # -- the history

    def interrupt_older(self, grant: Grant) -> list[Attempt]:
        older = {
            'namespace': self.namespace,
            'state': State.RUNNING.value,
            'token': {'$lt': grant.token},
        }
        # Also those that we have marked, whose checkpoints could not be had then.
        begun = {**older, 'state': State.INTERRUPTED.value, 'marked_by': grant.token, 'reached': None}

        def mark() -> list[Attempt]:
            collection = self._collection(HISTORY)
            found = [_attempt(document) for document in collection.find({'$or': [older, begun]}, {'error': 0})]
            collection.update_many(
                older,
                {
                    '$set': {
                        'state': State.INTERRUPTED.value,
                        'marked_by': grant.token,
                        'error': f'interrupted: its process died or lost the lease; {grant.owner} took over',
                    }
                },
            )
            for attempt in found:
                of_this = self._checkpoints_of(attempt.evolution_id)
                self._seize({**of_this, 'token': {'$lt': grant.token}}, {'owner': ''})
                # After nobody can move them any more.
                reached = self._reached(attempt.evolution_id)
                collection.update_one(self._row_of(attempt), {'$set': {'reached': reached}})
            return found

        return self._run(mark)

    def begin(self, grant: Grant, planned: PlannedEvolution, number: int, fingerprint: str) -> Attempt:
        document = {
            **self._document(grant, planned.id, number, State.RUNNING),
            'serving': planned.serving.value,
            'fingerprint': fingerprint,
            'started': self._now(),
        }

        def insert() -> None:
            # The answer of an insert may have been lost, and the driver or we tried again.
            with suppress(DuplicateKeyError):
                self._collection(HISTORY).insert_one(document)

        self._run(insert)
        return _attempt(document)

    def _document(self, grant: Grant, id: str, number: int, state: State) -> dict[str, Any]:
        return {
            # Deterministic, so that nothing is recorded twice; the token keeps holders apart.
            '_id': f'{self.namespace}\n{id}\n{grant.token}\n{number}',
            'namespace': self.namespace,
            'evolution_id': id,
            'attempt': number,
            'token': grant.token,
            'owner': grant.owner.id,
            'state': state.value,
            'serving': 'nothing',
            'fingerprint': None,
            'host': grant.owner.host,
            'pid': grant.owner.pid,
            'started': None,
            'finished': None,
            'error': None,
        }

    def finish(self, attempt: Attempt, state: State, error: str | None = None, *, final: bool = False) -> bool:
        own_row = self._row_of(attempt)
        values: dict[str, Any] = {
            'state': state.value,
            'finished': _Now(0),
            'error': None if error is None else _Literal(error),
        }
        if state is not State.DONE:
            values |= {'reached': self._reached(attempt.evolution_id), 'final': final}
        recorded = self._run(lambda: self._set(HISTORY, {**own_row, 'state': State.RUNNING.value}, values))
        if recorded is not None:
            return True
        # Recorded already: the answer of an earlier try was lost.
        document = self._run(lambda: self._collection(HISTORY).find_one(own_row, {'state': 1}))
        return document is not None and document['state'] == state.value

    def withdraw(self, attempt: Attempt) -> None:
        row = {**self._row_of(attempt), 'state': State.RUNNING.value}
        self._run(lambda: self._collection(HISTORY).delete_one(row))

    def settle(
        self, grant: Grant, ids: Collection[str], state: State, contents: Mapping[str, str] = NO_CONTENTS
    ) -> None:
        now = self._now()
        documents = [
            {
                **self._document(grant, id, 0, state),
                'fingerprint': contents.get(id),
                'started': now,
                'finished': now,
            }
            for id in to_settle(self.history(), ids, contents)
        ]
        if documents:
            self._run(lambda: self._insert_missing(documents))

    def _insert_missing(self, documents: list[dict[str, Any]]) -> None:
        # In one command: a process that is killed in the middle of an import must not leave half of
        # it, which would look like the whole.
        try:
            self._collection(HISTORY).insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failed = error.details or {}
            others = [each for each in failed.get('writeErrors', ()) if each['code'] != _DUPLICATE_KEY]
            if others or failed.get('writeConcernErrors'):
                raise
            # The answer of an earlier try was lost.

    def unsettle(self, grant: Grant, ids: Collection[str]) -> None:
        self._run(
            lambda: self._collection(HISTORY).delete_many(
                {
                    'namespace': self.namespace,
                    'evolution_id': {'$in': list(ids)},
                    'state': {'$in': [State.STAMPED.value, State.IMPORTED.value]},
                }
            )
        )

    def forgive(self, ids: Collection[str]) -> int:
        unlucky = [s.value for s in (State.FAILED, State.CANCELLED, State.INTERRUPTED)]
        result = self._run(
            lambda: self._collection(HISTORY).update_many(
                {
                    'namespace': self.namespace,
                    'evolution_id': {'$in': list(ids)},
                    'state': {'$in': unlucky},
                    'fingerprint': {'$ne': None},
                },
                {'$set': {'fingerprint': None}},
            )
        )
        return int(result.matched_count)

    # -- batches

    def checkpoints(self, evolution_id: str, attempt: Attempt | None = None) -> list[Checkpoint]:
        documents = self._run(lambda: list(self._collection(CHECKPOINT).find(self._checkpoints_of(evolution_id))))
        made = max((document.get('made', 0) for document in documents), default=0)
        ours = [
            _checkpoint(document)
            for document in documents
            if document.get('made', 0) == made
            and (attempt is None or (document['token'], document['owner']) == (attempt.token, attempt.owner))
        ]
        return sorted(ours, key=attrgetter('partition'))

    def _checkpoints_of(self, evolution_id: str) -> dict[str, Any]:
        return {'namespace': self.namespace, 'evolution_id': evolution_id}

    def _reached(self, evolution_id: str) -> int:
        return sum(each.done for each in self.checkpoints(evolution_id))

    def take_checkpoints(self, attempt: Attempt, new: Sequence[Checkpoint] = ()) -> list[Checkpoint]:
        of_this = self._checkpoints_of(attempt.evolution_id)

        def take() -> None:
            collection = self._collection(CHECKPOINT)
            own = {'token': attempt.token, 'owner': attempt.owner}
            for each in new:
                # Each holder makes documents of its own: those of one that was deposed meanwhile may have other bounds.
                document = {
                    '_id': f'{self.namespace}\n{attempt.evolution_id}\n{attempt.token}\n{each.partition}',
                    'made': attempt.token,
                    **of_this,
                    **own,
                    **vars(each),
                }
                with suppress(DuplicateKeyError):
                    collection.insert_one(document)
                point('between-checkpoints')
            self._seize({**of_this, 'token': {'$lte': attempt.token}}, own)
            made = max((document['made'] for document in collection.find(of_this, {'made': 1})), default=0)
            collection.delete_many({**of_this, 'made': {'$lt': made}})
            # Asked last: who takes over marks this row first, and looks for checkpoints afterwards.
            running = {**self._row_of(attempt), 'state': State.RUNNING.value}
            if self._collection(HISTORY).find_one(running, {'_id': 1}) is None:
                raise LeaseLost('a later holder has marked this attempt')

        self._run(take)
        return self.checkpoints(attempt.evolution_id)

    def drop_checkpoints(self, attempt: Attempt) -> None:
        self._run(lambda: self._seize(self._own_checkpoint(attempt), {'owner': ''}))

    def _own_checkpoint(self, attempt: Attempt) -> dict[str, Any]:
        return {**self._checkpoints_of(attempt.evolution_id), 'token': attempt.token, 'owner': attempt.owner}

    def forget_checkpoints(self, ids: Collection[str]) -> None:
        where = {'namespace': self.namespace, 'evolution_id': {'$in': list(ids)}}
        self._run(lambda: self._collection(CHECKPOINT).delete_many(where))

    def _seize(self, where: dict[str, Any], values: dict[str, Any]) -> int:
        """Change checkpoints that an open batch may hold, whose session is ended first; how many there are.

        :raises StoreBusy: it could not be ended.
        """
        collection = self._collection(CHECKPOINT)
        change = {'$set': {'session': None, **values}}
        if not self._has_transactions:
            return int(collection.update_many(where, change).matched_count)
        noted = [document['session'] for document in collection.find({**where, 'session': {'$ne': None}})]
        refused = self._end_sessions(noted)
        # In a transaction, which is told at once that it must wait: without one it is the server that waits.
        with self._database.client.start_session() as session:
            try:
                with session.start_transaction():
                    return int(collection.update_many(where, change, session=session).matched_count)
            except OperationFailure as error:
                if not is_busy(error) or not noted:
                    raise
                raise StoreBusy(
                    f'a batch of {" or ".join(each["who"] for each in noted)} holds its checkpoint'
                    + (f', and its session could not be ended: {refused}' if refused else ''),
                    place=self.name,
                    remedy='It is tried again. The server ends a transaction after transactionLifetimeLimitSeconds, '
                    '60 as a rule; end that process to be quicker.',
                ) from error

    def _end_sessions(self, noted: Sequence[dict[str, Any]]) -> str | None:
        """End these sessions, and none else; why not, where the server refuses."""
        if not noted:
            return None
        try:
            self._database.client.admin.command('killSessions', [{'id': each['id']} for each in noted])
        except OperationFailure as error:
            return failure.brief(error)
        log.info('[%s] ended the sessions of batches: %s', self.namespace, ', '.join(each['who'] for each in noted))
        return None

    def without_transaction(self, evolution: Any) -> str | None:
        """Why the batches of this evolution are in no transaction; None when they are."""
        if not evolution.transactional_batches:
            return 'it says transactional_batches = False'
        if self._application is None:
            return 'its history is not kept in the database of the application, by Ming'
        if not CAN_BIND:
            return 'transactions need pymongo 4.17 or newer'
        mapped = getattr(evolution.items, 'query', None)
        if mapped is not None and mapped.session.db.client is not self._application().client:
            return "its items are read by another client than that of the application's datastore"
        if not self._has_transactions:
            return 'the server has no transactions: it is no replica set'
        return None

    def batch(
        self, attempt: Attempt, planned: PlannedEvolution, checkpoint: Checkpoint
    ) -> AbstractContextManager[Batch]:
        if self.without_transaction(planned.evolution) is None:
            return self._batch_in_transaction(attempt, checkpoint)
        return self._batch(attempt, checkpoint)

    @contextmanager
    def _batch(self, attempt: Attempt, checkpoint: Checkpoint) -> Iterator[Batch]:
        """At least once: the checkpoint follows the work of a batch."""
        batch = Batch(checkpoint)
        with self._sessions(f'a batch of {attempt.evolution_id!r}'):
            yield batch
        point('before-checkpoint')
        where = self._unmoved(attempt, checkpoint)
        change = {'$set': vars(batch.checkpoint)}
        if not self._run(lambda: self._collection(CHECKPOINT).update_one(where, change).matched_count):
            raise LeaseLost('the checkpoint belongs to another attempt')

    @contextmanager
    def _batch_in_transaction(self, attempt: Attempt, checkpoint: Checkpoint) -> Iterator[Batch]:
        """Exactly once: the checkpoint is part of the transaction, in which it is written first and last.

        First, so that who was deposed locks nothing else; whoever takes over ends the session that the
        checkpoint has a note of, and from then on no batch begins.
        """
        assert self._application is not None
        batch = Batch(checkpoint)
        what = f'a batch of {attempt.evolution_id!r}'
        collection = self._application().get_collection(CHECKPOINT)
        with self._seats.one(self._application().client) as seat:
            trial = not attempt.attempt  # which nobody commits
            if not trial:
                self._take_seat(seat, attempt, checkpoint)
            where = {**self._unmoved(attempt, checkpoint), 'session.id': seat.note['id']}

            def save(change: dict[str, Any]) -> None:
                if not trial and not collection.update_one(where, change).matched_count:
                    raise LeaseLost('the checkpoint belongs to another attempt')

            try:
                with transaction(seat.session):
                    # A change: the server takes one that changes nothing for a read.
                    save({'$inc': {'tries': 1}})
                    with self._sessions(what):
                        yield batch
                    point('before-checkpoint')
                    save({'$set': vars(batch.checkpoint)})
            except (PyMongoError, ItemFailed) as error:
                cause = error.__cause__ if isinstance(error, ItemFailed) else error
                if not isinstance(cause, PyMongoError):
                    raise
                if cause.has_error_label('UnknownTransactionCommitResult') or _is_away(cause):
                    raise self._lost_in(what) from error
                if is_busy(cause):
                    raise self._translated(cause) from error
                raise
            point('after-commit')

    def _take_seat(self, seat: Seat, attempt: Attempt, checkpoint: Checkpoint) -> None:
        noted_for = self._row_of(attempt), checkpoint.partition
        if seat.noted_for != noted_for:
            where = {**self._own_checkpoint(attempt), 'partition': checkpoint.partition}
            if not self._run(lambda: self._seize(where, {'session': seat.note})):
                raise LeaseLost('the checkpoint belongs to another attempt')
            seat.noted_for = noted_for

    def _unmoved(self, attempt: Attempt, checkpoint: Checkpoint) -> dict[str, Any]:
        # Each batch adds to one of the last two.
        from_here = {'partition': checkpoint.partition, 'done': checkpoint.done, 'passes': checkpoint.passes}
        return {**self._own_checkpoint(attempt), **from_here}

    def items(self, evolution: Any) -> Items:
        from .ming_items import items_of

        def database() -> Any:
            if self._application is not None and self.without_transaction(evolution) is None:
                return self._application()
            return self._database

        return items_of(evolution, database)

    # -- what was here before

    def predecessor(self) -> Predecessor | None:
        documents = {
            document.get('type'): document
            for document in self._run(lambda: list(self._collection(PREDECESSOR).find({})))
        }
        if not documents:
            return None
        locked_by = documents.get('lock', {}).get('process')
        return Predecessor(
            version=documents.get('version', {}).get('current'),
            locked_by=None if locked_by is None else str(locked_by),
        )

    def namespaces_with(self, ids: Collection[str]) -> list[str]:
        wanted = set(ids)

        def read() -> list[str]:
            documents = self._collection(HISTORY).find(
                {'namespace': {'$ne': self.namespace}}, {'namespace': 1, 'evolution_id': 1}
            )
            return sorted({d['namespace'] for d in documents if d['evolution_id'] in wanted})

        return self._run(read)

    # -- the work

    def work(self, attempt: Attempt, planned: PlannedEvolution) -> AbstractContextManager[None]:
        recorded = self._recorded(attempt, planned)
        return recorded if planned.batched else self._work(attempt, recorded)

    @contextmanager
    def _work(self, attempt: Attempt, recorded: AbstractContextManager[None]) -> Iterator[None]:
        """At least once: what the sessions hold is flushed, then the attempt is recorded."""
        with recorded, self._sessions(repr(attempt.evolution_id)):
            yield

    @contextmanager
    def _sessions(self, what: str) -> Iterator[None]:
        """Clean sessions before, what they hold is flushed, and no trace of them afterwards."""
        sessions = _odm_sessions()
        sessions.close_all()
        try:
            yield
            sessions.flush_all()
        except (PyMongoError, ItemFailed) as error:
            cause = error.__cause__ if isinstance(error, ItemFailed) else error
            if not isinstance(cause, PyMongoError) or not _is_away(cause):
                raise
            raise self._lost_in(what) from error
        finally:
            sessions.close_all()

    def _lost_in(self, what: str) -> StoreAway:
        return StoreAway(
            f'the connection was lost during {what}',
            place=self.name,
            remedy='What became of it is read from the history when the database is back.',
        )

    def refuses(self, planned: PlannedEvolution) -> str | None:
        return 'MongoDB has transactions for batches only'

    def keeps(self, planned: PlannedEvolution) -> str | None:
        return self.without_transaction(planned.evolution)


class MimStore(MongoStore):
    """Ming's in-memory MongoDB: for development and tests, in one process, by the client's clock.

    mim knows no update pipelines and is not thread-safe: one lock around everything of ours.
    """

    _lock = threading.RLock()

    def close(self) -> None:
        """Closing would forget the data."""

    @property
    def _has_transactions(self) -> bool:
        return False

    @property
    def _database(self) -> Any:
        return self._connect()

    def _collection(self, name: str) -> Any:
        return self._database[name]

    def _mark(self) -> Hashable:
        return None  # mim aggregates nothing

    def _now(self) -> int:
        return _client_now()

    def _run(self, operation: Callable[[], _T], *, tries: int = 5) -> _T:
        with self._lock:
            return super()._run(operation, tries=tries)

    def _set(self, collection: str, where: dict[str, Any], values: dict[str, Any]) -> Any:
        plain = {
            key: _client_now() + value.plus
            if isinstance(value, _Now)
            else value.value
            if isinstance(value, _Literal)
            else value
            for key, value in values.items()
        }
        return self._collection(collection).find_one_and_update(where, {'$set': plain})

    def acquire(self, owner: Owner, ttl: float) -> Grant | None:
        with self._lock:
            return super().acquire(owner, ttl)


class _Now:
    """The database's clock plus some milliseconds, in a value to be set."""

    def __init__(self, plus: int):
        self.plus = plus


class _Literal:
    """Text that must not be taken for an expression (it may begin with a dollar sign)."""

    def __init__(self, value: str):
        self.value = value


def _expression(value: Any) -> Any:
    if isinstance(value, _Now):
        return {'$add': [{'$toLong': '$$NOW'}, value.plus]}
    if isinstance(value, _Literal):
        return {'$literal': value.value}
    return {'$literal': value} if isinstance(value, str) else value


def _client_now() -> int:
    return round(time.time() * 1000)


def _is_away(error: PyMongoError) -> bool:
    # A write concern that timed out is about the fate of a write too: it is read anew.
    return isinstance(error, ConnectionFailure | WTimeoutError) or (
        isinstance(error, OperationFailure) and error.code in (91, 189, 10107, 13435, 11600, 11602)
    )


def _attempt(document: dict[str, Any]) -> Attempt:
    try:
        return Attempt(
            evolution_id=text(document['evolution_id']),
            attempt=integer(document['attempt']),
            token=integer(document['token']),
            owner=document['owner'],
            state=State(document['state']),
            serving=document['serving'],
            fingerprint=document['fingerprint'],
            host=document['host'],
            pid=document['pid'],
            started=optional_integer(document['started']),
            finished=optional_integer(document['finished']),
            reached=optional_integer(document.get('reached')),
            final=bool(document.get('final')),
        )
    except UNREADABLE as error:
        raise edited(f'the record with the _id {document.get("_id")!r}', error, f'the collection {HISTORY}') from None


def _checkpoint(document: dict[str, Any]) -> Checkpoint:
    try:
        return Checkpoint(**{each.name: document[each.name] for each in dataclasses.fields(Checkpoint)})
    except KeyError as error:
        raise StoreError(
            f'the checkpoint with the _id {document.get("_id")!r} has no {error}',
            place=f'the collection {CHECKPOINT}',
            remedy='Somebody edited it. Mend it, or delete the checkpoints of this evolution to begin it anew.',
        ) from None


def _requests(document: dict[str, Any]) -> Requests:
    return Requests(optional_integer(document.get('paused')), document.get('cancel'), document.get('wanted'))


def _odm_sessions() -> Any:
    """Ming's thread-local sessions, or nothing where Ming is not used."""
    try:
        from ming.odm import ThreadLocalODMSession
    except ImportError:
        return _NoSessions
    return ThreadLocalODMSession


class _NoSessions:
    @staticmethod
    def flush_all() -> None: ...

    @staticmethod
    def close_all() -> None: ...


def client_of_url(url: str, **options: Any) -> Callable[[], Any]:
    """Makes clients that do not wait for a lost server for half a minute."""
    lower = url.lower()
    patience = {key: value for key, value in _PATIENCE.items() if key not in lower}
    given = {key.lower() for key in options}
    patience = {key: value for key, value in patience.items() if key not in given}
    return lambda: MongoClient(url, **{**patience, **options})
