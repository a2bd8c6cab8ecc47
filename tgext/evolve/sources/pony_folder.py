"""The folder of a PonyORM model's versions, and the table that says which of them the database has had."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

from pony import orm
from pony.orm import dbapiprovider

from .. import failure
from ..errors import PlanError, SourceError, StoreAway, StoreError
from ..steps import Step, Versions, VersionTable
from .pony import PonyMigrations


class MappedDatabase(orm.Database):
    """A database that has pony_up's ``Version`` beside its own entities."""

    def generate_mapping(self, *args: Any, **kwargs: Any) -> None:
        if 'Version' in self.entities:
            raise SourceError(
                'the model has an entity Version, which is the name of the table of versions',
                place='register_database(db)',
                remedy='Call that entity something else.',
            )
        # Of what pony_up says, NOW(), SQLite knows nothing; which database it is, is known only now.
        now = 'CURRENT_TIMESTAMP' if self.provider.dialect == 'SQLite' else 'NOW()'

        class Version(self.Entity):  # type: ignore[name-defined]
            version = orm.PrimaryKey(int, auto=False)
            upgraded = orm.Required(datetime, sql_default=now)
            meta = orm.Optional(orm.Json, lazy=True)

        super().generate_mapping(*args, **kwargs)


class UnmappedDatabase(orm.Database):
    """Is bound by the user's function, and opens no session of PonyORM: it may be looked at inside of one."""

    def generate_mapping(self, *args: Any, **kwargs: Any) -> None:
        pass


@dataclass(frozen=True)
class Migrator:
    """What ``do_update`` is called with, as pony_up has it."""

    old_db: Any
    new_db: Any
    bind_database_function: Any
    old_version: int
    has_new_schema: bool = True


def _raised_by(provider: Any, *names: str) -> tuple[type[Exception], ...]:
    """These exceptions, of PonyORM and of the driver itself; of whose cursors PonyORM translates nothing."""
    modules = (dbapiprovider, *([provider.dbapi_module] if provider is not None else []))
    return tuple(getattr(module, name) for module in modules for name in names)


class Folder:
    """The versions of one model, and the database that ``bind_func`` binds."""

    def __init__(self, source: PonyMigrations):
        self.source = source
        self._found = _modules(source)
        self.newest = max(self._found)
        #: The database of the step that this process ran last, with the version that it led to.
        self._last: tuple[int, Any] = (-1, None)
        _, migrate = self.parts(self.newest)
        #: Those that lead to a next version, which the table then names.
        self.numbers = sorted(number for number in self._found if number < self.newest or migrate is not None)
        strange = [number for number in source.depends_on if number not in self._found]
        if strange:
            raise SourceError(
                f'depends_on has {strange[0]!r}, and there is no such step',
                place=repr(source),
                remedy=f'Use one of these: {", ".join(map(str, sorted(self._found)))}.',
            )

    def id(self, number: int | None) -> str:
        """:param number: None: of what makes the table of versions."""
        return f'pony:{self.source.name}:{"start" if number is None else f"v{number}"}'

    def path(self, number: int) -> Path:
        return self._found[number]

    def evolutions(self) -> list[PonyStep]:
        table = PonyTable(self)
        steps = [PonyStep(self, table, number) for number in (None, *self.numbers)]
        if self.newest not in self.numbers:
            # Its tables have to be made too; the version is the same before and after, so the history decides.
            steps.append(PonyStep(self, None, self.newest))
        for before, step in pairwise(steps):
            also = self.source.depends_on.get(step.number or 0, ())
            step.depends_on = (str(before.evolution_id), *((also,) if isinstance(also, str) else also))
        return steps

    # -- the code of one version

    def parts(self, number: int) -> tuple[Any, Any]:
        """``model`` and ``migrate`` of a version; None for what it does not have.

        :raises SourceError: it has neither.
        """
        name = f'{self.source.python_import}.v{number}'
        module = importlib.import_module(name)
        model, migrate = (_part(module, part) for part in ('model', 'migrate'))
        if model is None and migrate is None:
            raise SourceError(
                f'{name} has neither model nor migrate',
                place=str(self.path(number)),
                remedy='It needs a model with register_database(db), or a migrate with do_update(migrator).',
            )
        return model, migrate

    # -- the database

    def bound(self, number: int | None) -> Any:
        """A database with the model of this version, or with the table of versions alone; it is there afterwards."""
        db = MappedDatabase()
        if number is not None:
            db.pony_up__version = number
            self.parts(number)[0].register_database(db)
        self.source.bind_func(db)
        return db

    def newest_database(self) -> Any:
        """The newest model there is, bound."""
        return self.bound(self._model_at(self.newest))

    def _model_at(self, number: int) -> int:
        """The version whose model a version has: its own, or the last one before it that has any."""
        for each in sorted((n for n in self._found if n <= number), reverse=True):
            if self.parts(each)[0] is not None:
                return each
        raise SourceError(
            f'v{number} has no model, and no version before it has one',
            place=str(self.path(number)),
            remedy='Add a model with register_database(db).',
        )

    @contextmanager
    def _connection(self) -> Iterator[tuple[Any, Any]]:
        """A connection of the driver, with its provider, and nothing of it afterwards."""
        db = UnmappedDatabase()
        try:
            self.source.bind_func(db)
            connection, _ = db.provider.connect()
            yield connection, db.provider
        except _raised_by(db.provider, 'OperationalError', 'InterfaceError') as error:
            raise StoreAway(
                f'the database of {self.source!r} cannot be reached: {failure.brief(error)}',
                place=repr(self.source),
                remedy='It is tried again until it answers.',
            ) from error
        except (*_raised_by(db.provider, 'Error'), dbapiprovider.DBException, OSError) as error:
            raise StoreError(
                f'the database of {self.source!r} refuses: {failure.brief(error)}',
                place=repr(self.source),
                remedy='Correct bind_func, or the rights of its user.',
            ) from error
        finally:
            if db.provider is not None:
                db.provider.disconnect()

    def current(self) -> int | None:
        """The version that the database is at, by one read query; None: it has none. Nothing is made."""
        with self._connection() as (connection, provider):
            table = provider.normalize_name('Version')
            cursor = connection.cursor()
            try:
                cursor.execute(f'SELECT max({provider.quote_name("version")}) FROM {provider.quote_name(table)}')
                version: int | None = cursor.fetchone()[0]
            except Exception:
                connection.rollback()
                if provider.table_exists(connection, table):
                    raise
                return None
            return version

    def url(self) -> str:
        """The database of ``bind_func`` as SQLAlchemy names it.

        :raises SourceError: it cannot be told.
        """
        with self._connection() as (_, provider):
            found = _url(provider)
        if found is None:
            raise SourceError(
                f'it cannot be told which database bind_func of {self.source.python_import!r} binds',
                place='migrate()',
                remedy="Say where the lease is to be kept: migrate(..., store='postgresql://...')",
            )
        return found

    # -- one step

    def start(self) -> None:
        """Make the table of versions, and say in it that it begins."""
        db = self.bound(None)
        try:
            with orm.db_session:
                if orm.select(v for v in db.Version).first() is None:
                    db.Version(version=0, meta={'message': 'initial creation'})
        finally:
            db.disconnect()

    def step(self, number: int) -> None:
        """From version ``number`` to the next, if the database is there; of the last one, its tables."""
        current = self.current()
        if current is None or current < number:
            raise SourceError(
                f'{self.id(number)} starts from version {number}, and the database is at {current}: one is missing',
                place=str(self.path(number).parent),
                remedy=f'Add v{current or 0}, or correct what do_update before it returns.',
            )
        if current > number:
            return
        if number not in self.numbers:
            self.newest_database().disconnect()
            return
        model, migrate = self.parts(number)
        came_to, old = self._last
        if came_to != number:
            old = None  # as pony_up has it where it starts in the middle
        if model is None and old is None:
            old = self.bound(self._model_at(number))
        home = old if model is None else self.bound(number)
        new_version = number + 1
        try:
            with orm.db_session:
                # The version is saved with what do_update left unsaved in the same database.
                meta: Any = {'message': 'automated update (only schema provided)'}
                if migrate is not None:
                    migrator = Migrator(old, None if model is None else home, self.source.bind_func, number)
                    new_version, meta = self._outcome(number, migrate.do_update(migrator))
                home.Version(version=new_version, meta=meta)
            self._last = (new_version, home)
        finally:
            for db in (old, home):
                if db is not None:
                    db.disconnect()

    def _outcome(self, number: int, result: Any) -> tuple[int, Any]:
        """What ``do_update`` says it came to; nothing is the next version.

        pony_up stored no version for nothing returned by the last one, and did its work again at every start.
        """
        if not result:
            return number + 1, {'message': 'automated update (do_update returned nothing)'}
        if isinstance(result, tuple | list) and len(result) == 2:
            version, meta = result
            if isinstance(version, int) and not isinstance(version, bool) and version > number:
                return version, meta
        raise SourceError(
            f'do_update of {self.id(number)} returned {result!r}; nothing of it that it left to be saved is saved',
            place=str(self.path(number)),
            remedy=f"Return the version that it led to and a dict: return {number + 1}, {{'message': '...'}}",
        )


class PonyStep(Step):
    """From one version to the next.

    :param table: None: it leads no further, and makes the tables of the newest model.
    :param number: the version from which it leads; None: it makes the table of versions.
    """

    def __init__(self, folder: Folder, table: PonyTable | None, number: int | None):
        self.number = number
        self.table = table
        self.evolution_id = folder.id(number)
        self.serving = folder.source.serving
        self.description = f'from version {number} to the next'
        if number is None:
            self.description = 'begin the table Version'
        elif table is None:
            self.description = f'the tables of version {number}'
        self.origin = repr(folder.source) if number is None else str(folder.path(number))
        self._folder = folder

    def code(self) -> str:
        if self.number is None:
            return ''
        path = self._folder.path(self.number)
        files = [path] if path.is_file() else sorted(path.rglob('*.py'))
        return '\0'.join(f'{file.name}\0{file.read_text("utf-8", "replace")}' for file in files)

    def evolve(self) -> None:
        if self.number is None:
            self._folder.start()
        else:
            self._folder.step(self.number)


class PonyTable(VersionTable):
    """pony_up's table ``Version``: the greatest number in it is the version that the database is at."""

    def __init__(self, folder: Folder):
        self._folder = folder

    def look(self) -> Versions:
        folder = self._folder
        current = folder.current()
        if current is None:
            return Versions()
        applied = [folder.id(None), *(folder.id(number) for number in folder.numbers if number < current)]
        unknown = range(folder.newest + 1, current)
        return Versions(frozenset(applied), frozenset(folder.id(number) for number in unknown))

    def stamp(self, ids: Collection[str]) -> None:
        folder, current = self._folder, self._folder.current()
        chosen = [number for number in folder.numbers if folder.id(number) in ids]
        target = max(chosen, default=-1) + 1
        pending = [number for number in folder.numbers if (current or 0) <= number < target]
        self._check(set(pending) - set(chosen), 'applied')
        folder.start()
        if target > (current or 0):
            self._write(lambda db: db.Version(version=target, meta={'message': 'stamped'}))

    def unstamp(self, ids: Collection[str]) -> None:
        folder, current = self._folder, self._folder.current()
        chosen = [number for number in folder.numbers if folder.id(number) in ids]
        if current is None:
            return
        lowest = -1 if folder.id(None) in ids else min(chosen, default=current)
        applied = [number for number in folder.numbers if lowest <= number < current]
        self._check(set(applied) - set(chosen), 'not applied')

        def take_back(db: Any) -> None:
            orm.delete(v for v in db.Version if v.version > lowest)
            # Versions may have been skipped.
            if lowest >= 0 and db.Version.get(version=lowest) is None:
                db.Version(version=lowest, meta={'message': 'unstamped'})

        self._write(take_back)

    def _write(self, write: Any) -> None:
        db = self._folder.bound(None)
        try:
            with orm.db_session:
                write(db)
        finally:
            db.disconnect()

    def _check(self, missing: Collection[int], what: str) -> None:
        if missing:
            raise PlanError(
                f'the table Version has one newest version: it cannot say that only those are {what}',
                place=repr(self._folder.source),
                remedy=f'Name these too: {", ".join(self._folder.id(number) for number in sorted(missing))}.',
            )


def _modules(source: PonyMigrations) -> dict[int, Path]:
    """The versions that the folder has, each as a folder or a file."""
    folder = Path(source.folder_path)
    if not folder.is_absolute():
        package = importlib.import_module(source.python_import)
        folder = Path(next(iter(package.__path__)))
    if not folder.is_dir():
        raise SourceError(
            f'there is no folder {str(folder)!r}', place=repr(source), remedy='Correct folder_path, or make it.'
        )
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        is_version = path.suffix == '.py' if path.is_file() else (path / '__init__.py').exists()
        match = re.fullmatch(r'v(\d+)', path.name.removesuffix('.py'))
        if match is None or not is_version:
            continue
        number = int(match[1])
        if number in found:
            raise SourceError(
                f'version {number} is there twice', place=f'{found[number]} and {path}', remedy='Remove one of them.'
            )
        found[number] = path
    if not found:
        raise SourceError(
            f'there is no version in {str(folder)!r}', place=repr(source), remedy='Begin with v0/ or v0.py.'
        )
    return found


def _part(module: ModuleType, name: str) -> Any:
    """An attribute of the module, or a module in it; None: it has none of that name."""
    found = getattr(module, name, None)
    if found is not None or not hasattr(module, '__path__'):
        return found
    full = f'{module.__name__}.{name}'
    return importlib.import_module(full) if importlib.util.find_spec(full) is not None else None


def _url(provider: Any) -> str | None:
    pool, dialect = provider.pool, provider.dialect
    if dialect == 'SQLite':
        return None if pool.filename == ':memory:' or pool.is_shared_memory_db else f'sqlite:///{pool.filename}'
    given = dict(pool.kwargs)
    if pool.args:
        return None
    names = {
        'PostgreSQL': ('postgresql+psycopg2', ('dbname', 'database', 'db')),
        'MySQL': (f'mysql+{provider.dbapi_module.__name__.lower()}', ('db', 'database')),
    }
    if dialect not in names:
        return None
    driver, database_names = names[dialect]
    database = next((given[name] for name in database_names if given.get(name)), None)
    password = given.get('password') or given.get('passwd') or ''
    user, host, port = given.get('user'), given.get('host'), given.get('port')
    if not database or not host:
        return None  # a socket, a service, an environment: the driver knows, and does not say
    who = f'{quote(str(user), safe="")}{":" + quote(str(password), safe="") if password else ""}@' if user else ''
    return f'{driver}://{who}{host}{f":{port}" if port else ""}/{quote(str(database), safe="")}'
