"""Finds the connections, transactions and unsaved changes that an evolution leaves behind."""

from __future__ import annotations

import gc
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..points import at_points

#: Where an evolution has done its work, and nobody has saved or cleaned up for it yet.
_OVER = frozenset({'after-evolve', 'before-batch-commit'})

_OURS = Path(__file__).parents[1]


class Leaks:
    """What is open that was not open before, in words.

    :param session: the application's scoped session, whose own connection is allowed: what it
        leaves uncommitted, tgext.evolve commits. None: there is none.
    """

    def __init__(self, session: Any):
        self.found: dict[str, None] = {}
        self._session = session
        self._open: dict[Any, tuple[Any, str]] = {}
        self._thread = threading.get_ident()
        self._mongo_before = set(_in_mongo())

    @contextmanager
    def watching(self) -> Iterator[None]:
        before = at_points(self._reach)
        try:
            with ExitStack() as stack:
                stack.enter_context(self._connections())
                yield
        finally:
            at_points(before)
        self._look(None)
        self.found.update(dict.fromkeys(text for id, text in _in_mongo() if (id, text) not in self._mongo_before))

    def _reach(self, name: str) -> None:
        if name in _OVER and threading.get_ident() == self._thread:
            # Looked for before the record is written: a lock that is left behind would be waited for.
            self._look(self._of_session())

    def _of_session(self) -> Any:
        session = None if self._session is None else self._session()
        if session is None or not session.in_transaction():
            return None
        return session.connection().connection.dbapi_connection

    def _look(self, allowed: Any) -> None:
        for record, (connection, where) in list(self._open.items()):
            if connection is allowed:
                continue
            self.found[f'a connection is open that was taken {where}'] = None
            del self._open[record]
            with suppress(Exception):  # a driver's own error: what is broken holds no lock either
                connection.rollback()

    @contextmanager
    def _connections(self) -> Iterator[None]:
        """Note each connection of SQLAlchemy that this thread has taken and not given back, on any engine."""
        try:
            from sqlalchemy import event
            from sqlalchemy.pool import Pool
        except ImportError:
            yield
            return

        def checkout(connection: Any, record: Any, proxy: Any) -> None:
            if threading.get_ident() == self._thread:
                self._open[record] = connection, _where()

        def returned(connection: Any, record: Any, *error: Any) -> None:
            self._open.pop(record, None)

        heard = {'checkout': checkout, 'checkin': returned, 'invalidate': returned}
        for name, listener in heard.items():
            event.listen(Pool, name, listener)
        try:
            yield
        finally:
            for name, listener in heard.items():
                event.remove(Pool, name, listener)


def _where() -> str:
    """The line of the application's own code that asks for a connection."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if _OURS not in path.parents and 'sqlalchemy' not in path.parts and path.name != 'contextlib.py':
            return f'at {frame.filename}:{frame.lineno}, in {frame.name}()'
    return 'somewhere'


def _in_mongo() -> Iterator[tuple[int, str]]:
    """Transactions of pymongo that are open, and sessions of Ming with changes that nobody flushed."""
    kinds: list[Any] = []
    try:
        from pymongo.client_session import ClientSession

        kinds.append(ClientSession)
        from ming.odm import ODMSession

        kinds.append(ODMSession)
    except ImportError:
        pass
    for thing in gc.get_objects() if kinds else ():
        if type(thing) not in kinds:
            continue
        if isinstance(thing, kinds[0]):
            if not thing.has_ended and thing.in_transaction:
                yield id(thing), 'a transaction of pymongo is open: a client session was neither committed nor ended'
            continue
        unsaved = [*thing.uow.new, *thing.uow.dirty, *thing.uow.deleted]
        if unsaved:
            names = ', '.join(sorted({type(each).__name__ for each in unsaved}))
            yield id(thing), f'a session of Ming has changes that were never flushed ({names})'
