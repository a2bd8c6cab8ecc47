"""Scratch databases: empty when they are made, gone when the test is over."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import OptionError


class Scratch:
    """Makes databases, and drops them again when it is closed.

    :param url: where: a server's URL makes one beside the database that it names, whose content is
        never touched; ``sqlite://`` in memory; ``mim:///name``; None: a file of SQLite.
    :param directory: for files.
    """

    def __init__(self, url: str | None, directory: Path):
        self._url = url
        self._directory = directory
        self._made = ExitStack()

    def __call__(self, url: str | None = None) -> str:
        """The URL of an empty database.

        :param url: another place, where a project has several kinds of databases.
        """
        wanted = url or self._url or 'sqlite'
        name = f'evolve_{uuid.uuid4().hex[:12]}'
        if wanted == 'sqlite':
            return f'sqlite:///{self._directory / name}.db'
        if wanted.startswith('mim:'):
            return f'mim:///{name}'
        if wanted.startswith(('mongodb:', 'mongodb+srv:')):
            return self._mongodb(wanted, name)
        return self._sql(wanted, name)

    def close(self) -> None:
        self._made.close()

    def _mongodb(self, url: str, name: str) -> str:
        from pymongo import MongoClient

        def drop() -> None:
            client: Any = MongoClient(made)
            with client:
                client.drop_database(name)

        parts = urlsplit(url)
        query = parts.query
        if '@' in parts.netloc and 'authsource=' not in query.lower():
            # Otherwise the user would be looked for in the new database.
            query = '&'.join(filter(None, [query, f'authSource={parts.path.strip("/") or "admin"}']))
        made = parts._replace(path=f'/{name}', query=query).geturl()
        self._made.callback(drop)
        return made

    def _sql(self, url: str, name: str) -> str:
        from sqlalchemy import create_engine, make_url
        from sqlalchemy.pool import NullPool

        from ..stores.sqlalchemy.engines import in_memory

        parsed = make_url(url)
        if in_memory(parsed):
            return url
        if parsed.get_backend_name() == 'sqlite':
            raise OptionError(
                f'the database for the checks of evolutions is the file {parsed.database!r}',
                place='evolve_database (in the ini of pytest), or --evolve-database',
                remedy='Say sqlite, or nothing: a file is made for each test, in a directory of pytest.',
            )

        def execute(statement: str) -> None:
            engine = create_engine(parsed, isolation_level='AUTOCOMMIT', poolclass=NullPool)
            with engine.connect() as connection:
                connection.exec_driver_sql(statement)

        execute(f'CREATE DATABASE {name}{_OPTIONS.get(parsed.get_backend_name(), "")}')
        force = _FORCE.get(parsed.get_backend_name(), '')
        drop: Callable[[], None] = lambda: execute(f'DROP DATABASE IF EXISTS {name}{force}')  # noqa: E731
        self._made.callback(drop)
        return parsed.set(database=name).render_as_string(hide_password=False)


_OPTIONS = {'mysql': ' CHARACTER SET utf8mb4', 'mariadb': ' CHARACTER SET utf8mb4'}

#: The pool of the application may still be connected.
_FORCE = {'postgresql': ' WITH (FORCE)'}
