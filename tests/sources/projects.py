"""Projects of stucco_evolution as their users wrote them, and what is in a database afterwards."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from textwrap import dedent

import tg
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.pool import NullPool

from tests import apps
from tgext.evolve.component import evolver_of

#: Two packages, one of which depends on the other, at several versions.
#: What each script is, by package and name; ``{seen}`` of a version stands in the text of later ones.
USERS = {
    'create': """
        from sqlalchemy import Column, Integer, MetaData, String, Table

        metadata = MetaData()
        Table('users', metadata, Column('id', Integer, primary_key=True), Column('name', String(50)),
              *([Column('email', String(80))] if {version} >= 1 else []),
              *([Column('active', Integer)] if {version} >= 3 else []))

        def create(connection):
            metadata.create_all(connection)
    """,
    'evolve1': """
        def evolve(connection):
            connection.execute("ALTER TABLE users ADD COLUMN email VARCHAR(80)")
    """,
    'evolve2': """
        from sqlalchemy import text

        def evolve(connection):
            for id, name in connection.execute("SELECT id, name FROM users ORDER BY id").fetchall():
                connection.execute(text("UPDATE users SET email = :email WHERE id = :id"),
                                   dict(email=name + '@example.com', id=id))
    """,
    'evolve3': """
        def evolve(connection):
            connection.execute("ALTER TABLE users ADD COLUMN active INTEGER")
            connection.execute("UPDATE users SET active = 1")
    """,
}
PAGES = {
    'create': """
        def create(connection):
            connection.execute("CREATE TABLE pages (id INTEGER PRIMARY KEY, title VARCHAR(80))")
            if {version} >= 1:
                connection.execute("ALTER TABLE pages ADD COLUMN author INTEGER")
            if {version} >= 2:
                connection.execute("ALTER TABLE pages ADD COLUMN signed VARCHAR(80)")
    """,
    'evolve1': """
        def evolve(connection):
            connection.execute("ALTER TABLE pages ADD COLUMN author INTEGER")
            connection.execute("UPDATE pages SET author = 1")
    """,
    'evolve2': """
        def evolve(connection):
            connection.execute("ALTER TABLE pages ADD COLUMN signed VARCHAR(80)")
            # the column of the package that this one depends on, at its newest version
            connection.execute(
                "UPDATE pages SET signed = (SELECT email FROM users WHERE users.id = pages.author AND active = 1)")
    """,
}


class Application:
    """One process of an application with these entries, as it starts."""

    def __init__(self, url, *entries, model=None, **options):
        apps.make(url, entries, model=model, options={'watch': 0, 'retry_delay': 0, **options})
        self.conf = tg.config._current_obj()
        self.evolver = evolver_of(self.conf)
        self.plan = self.evolver.plan

    def run(self):
        return self.evolver.run()

    def pending(self):
        return [planned.id for planned in self.plan.pending(self.evolver.ledger.history())]

    def latest(self, id):
        return self.evolver.store.history().latest(id)

    def error(self, id):
        return self.evolver.store.error_of(self.latest(id))


class Project:
    """Packages on disk that can be imported by no other name than theirs."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.names: set[str] = set()

    def package(self, name: str, version: int, depends=(), *, scripts=None, constants=None) -> Project:
        """Write a package as its release ``version`` has it; older files go."""
        folder = self.directory.joinpath(*name.split('.'))
        for each in [folder, *folder.parents]:
            if each == self.directory:
                break
            each.mkdir(exist_ok=True)
            (each / '__init__.py').touch()
        evolve = folder / 'evolve'
        evolve.mkdir(exist_ok=True)
        for old in evolve.glob('*.py'):
            old.unlink()
        constants = constants or {'NAME': name, 'VERSION': version, 'DEPENDS': list(depends)}
        (evolve / '__init__.py').write_text(''.join(f'{key} = {value!r}\n' for key, value in constants.items()))
        for script, source in (scripts or {}).items():
            if script == 'create' or int(script.removeprefix('evolve')) <= version:
                (evolve / f'{script}.py').write_text(dedent(source).replace('{version}', str(version)))
        self.names.add(name.partition('.')[0])
        self.forget()
        return self

    def release(self, users: int, pages: int) -> Project:
        self.package('st_users', users, ['stucco_evolution'], scripts=USERS)
        return self.package('st_pages', pages, ['st_users'], scripts=PAGES)

    def forget(self) -> None:
        """What was imported: another release is written."""
        for name in [name for name in sys.modules if name.partition('.')[0] in self.names]:
            del sys.modules[name]
        importlib.invalidate_caches()


def execute(url: str, *statements: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def contents(url: str) -> dict[str, object]:
    """Each table that is not ours: its columns with their types, and its rows."""
    found: dict[str, object] = {}
    with create_engine(url, poolclass=NullPool).connect() as connection:
        inspector = inspect(connection)
        for table in sorted(inspector.get_table_names()):
            if table.startswith('tgext_evolve'):
                continue
            columns = {column['name']: str(column['type']) for column in inspector.get_columns(table)}
            quote = connection.dialect.identifier_preparer.quote_identifier
            names = ', '.join(map(quote, sorted(columns)))
            rows = sorted(connection.exec_driver_sql(f'SELECT {names} FROM {quote(table)}').all(), key=repr)
            found[table] = columns, [tuple(row) for row in rows]
    return found
