"""The ``timeout`` of an evolution, where it waits for the database and cannot look at the clock itself."""

from __future__ import annotations

import logging
import threading
from typing import Any

from sqlalchemy import Connection, Engine

from ... import failure
from ...errors import TimedOut
from ...plan import PlannedEvolution
from .dialects import LIMIT, Dialect

log = logging.getLogger(__name__)

#: After the time is out, each further statement may run for so many seconds.
_AGAIN = 1.0


class TimeLimit:
    """Cancels what runs on the connections of one evolution's session when its time is out, and whatever follows.

    Only while it is entered, and only connections that the session holds just then: a connection that goes back to
    its pool is forgotten first, so that nobody else's statement is hit.
    """

    def __init__(self, dialect: Dialect, planned: PlannedEvolution, seconds: float):
        #: Was anything cancelled? Then the evolution may not have done all of its work.
        self.is_out = False
        self._dialect = dialect
        self._planned = planned
        self._seconds = seconds
        self._held: dict[int, tuple[Any, Engine]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name='tgext.evolve timeout', daemon=True)

    def error(self) -> TimedOut:
        return TimedOut.of(self._planned.id, self._seconds, self._planned.origin)

    def __enter__(self) -> TimeLimit:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        # What is being cancelled now must not be the record that follows.
        self._thread.join()

    # -- the session's connections

    def hold(self, connection: Connection) -> None:
        """The session's transaction has begun on this connection."""
        dbapi_connection = connection.connection.dbapi_connection
        with self._lock:
            self._held[id(dbapi_connection)] = (dbapi_connection, connection.engine)
        connection.info[LIMIT] = self

    def let_go(self, dbapi_connection: Any) -> None:
        """It goes back to its pool."""
        with self._lock:
            self._held.pop(id(dbapi_connection), None)

    def _watch(self) -> None:
        pause = self._seconds
        while not self._over.wait(pause):
            pause = _AGAIN
            with self._lock:
                for dbapi_connection, engine in self._held.values():
                    self._cancel(dbapi_connection, engine)

    def _cancel(self, dbapi_connection: Any, engine: Engine) -> None:
        if self._over.is_set():
            return
        if not self.is_out:
            log.warning('%r has run for %g seconds: what it executes is cancelled', self._planned.id, self._seconds)
        self.is_out = True
        try:
            self._dialect.cancel(dbapi_connection, engine)
        except Exception as error:  # each driver has its own
            log.warning('a statement of %r could not be cancelled: %s', self._planned.id, failure.brief(error))
