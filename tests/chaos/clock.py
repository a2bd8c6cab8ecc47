"""The clock of a SQLite database, in the hand of a test."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event


class Clock:
    """Milliseconds since 1970, far from what the process's own clock says: who asks that one is found out."""

    def __init__(self) -> None:
        self.now = 1_000_000_000_000

    def milliseconds(self) -> int:
        return self.now

    def julian_day(self, when: str) -> float:
        assert when == 'now'
        # The middle of the millisecond: a floating-point day is exact to a twentieth of one.
        return (self.now + 0.5) / 86_400_000 + 2_440_587.5


def on_this_clock(store: Any, clock: Clock) -> None:
    """Have *store*, a SQLite one, see this clock as its database's."""

    def connected(dbapi_connection: Any, record: Any) -> None:
        dbapi_connection.create_function('julianday', 1, clock.julian_day)
        # Nothing here is about a power cut.
        dbapi_connection.execute('PRAGMA synchronous = OFF')

    event.listen(store._engine, 'connect', connected)
