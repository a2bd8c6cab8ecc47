"""Transactions of MongoDB for code that passes no session along, as Ming does not."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import ReadPreference, WriteConcern
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from ..points import point

#: pymongo 4.17 and newer make what a thread does with a client part of a session that was not passed along.
CAN_BIND = hasattr(ClientSession, 'bind')

#: WriteConflict, LockTimeout, LockBusy, MaxTimeMSExpired: the server asks to try again.
_BUSY_CODES = frozenset({112, 24, 46, 50})

_OPTIONS: dict[str, Any] = {
    'read_concern': ReadConcern('snapshot'),
    'write_concern': WriteConcern('majority', j=True),
    'read_preference': ReadPreference.PRIMARY,
}


def has_transactions(hello: dict[str, Any]) -> bool:
    """Members of a replica set and routers have them, a server that stands alone has not."""
    return bool(hello.get('setName')) or hello.get('msg') == 'isdbgrid'


def is_busy(error: PyMongoError) -> bool:
    """Did it lose against another transaction, or was its session ended?"""
    return isinstance(error, OperationFailure) and (
        error.code in _BUSY_CODES or error.has_error_label('TransientTransactionError')
    )


@contextmanager
def transaction(session: Any) -> Iterator[None]:
    """All that this thread does with the client of ``session`` is committed at a good end, else rolled back."""
    session.start_transaction(**_OPTIONS)
    try:
        with session.bind(end_session=False):
            yield
        point('before-commit')
        session.commit_transaction()
    finally:
        if session.in_transaction:
            session.abort_transaction()


class Seat:
    """A session in which batches work, and whose id the checkpoint knows before the first of them."""

    def __init__(self, session: Any):
        self.session = session
        #: The attempt and the partition whose checkpoint has it.
        self.noted_for: object = None

    @property
    def note(self) -> dict[str, Any]:
        return {'id': self.session.session_id['id'], 'who': f'{platform.node()}:{os.getpid()}'}


class Seats:
    """The sessions of one client in one process.

    They are kept for its life: given back, they would serve ordinary requests, which whoever takes
    over from a holder must not hit when he ends that holder's sessions.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._free: list[Seat] = []

    @contextmanager
    def one(self, client: Any) -> Iterator[Seat]:
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._free = os.getpid(), []
            seat = self._free.pop() if self._free else None
        if seat is None:
            seat = Seat(client.start_session(causal_consistency=False))
        try:
            yield seat
        except BaseException:
            seat.noted_for = None
            raise
        finally:
            with self._lock:
                self._free.append(seat)
