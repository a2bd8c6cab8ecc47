"""The throwaway servers of the tests, with room for a crowd."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.servers import MariaDB, MongoDB, PostgreSQL, Unavailable

#: More than come at once: how a server turns people away is not measured here.
CONNECTIONS = 600


class RoomyPostgreSQL(PostgreSQL):
    def _command(self, directory: Path) -> list[str]:
        return [*super()._command(directory), '-c', f'max_connections={CONNECTIONS}']

    def counters(self) -> dict[str, int]:
        """What all databases of the server have seen: with autocommit each statement is a transaction."""
        # Of the databases alone: the server's own processes are sessions without one.
        found = _ask(
            self,
            'SELECT sum(xact_commit + xact_rollback), sum(sessions) FROM pg_stat_database WHERE datname IS NOT NULL',
        )
        return {'statements': int(found[0]), 'connections': int(found[1])}


class RoomyMariaDB(MariaDB):
    def _command(self, directory: Path) -> list[str]:
        return [*super()._command(directory), f'--max-connections={CONNECTIONS}']

    def counters(self) -> dict[str, int]:
        asked = (
            f"SELECT variable_value FROM information_schema.global_status WHERE variable_name = '{name}'"
            for name in ('QUERIES', 'CONNECTIONS')
        )
        statements, connections = (int(_ask(self, question)[0]) for question in asked)
        return {'statements': statements, 'connections': connections}


def _ask(server: Any, question: str) -> Any:
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    with create_engine(server.url, poolclass=NullPool).connect() as connection:
        return connection.execute(text(question)).one()


KINDS = {'postgresql': RoomyPostgreSQL, 'mariadb': RoomyMariaDB, 'mongodb': MongoDB}


@contextmanager
def running(*names: str) -> Iterator[dict[str, Any]]:
    """Those of the servers that can be had; what cannot is said, and missing on the page."""
    with ExitStack() as stack:
        found = {}
        for name in names:
            server = KINDS[name]()
            stack.callback(server.close)
            try:
                server.start()
            except Unavailable as error:
                print(f'without {name}: {error}', file=sys.stderr)
                continue
            found[name] = server
        yield found
