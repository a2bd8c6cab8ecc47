"""Packages of stucco_evolution: ``evolve/create.py`` and numbered scripts, as they are."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

from ..errors import SourceError
from ..plan import ID_LENGTH
from ..steps import Step, Versions, VersionTable
from .base import Place
from .numbered import Numbered

log = logging.getLogger(__name__)

#: The table that says which package is at which version; and the package that it belongs to itself.
TABLE = 'stucco_evolution'

#: The version of the table itself: what the last stucco_evolution that there is records.
_TABLE_VERSION = 2

#: The length of its key; SQLite alone does not care.
_NAME_LENGTH = 30


class CircularDependencyError(SourceError):
    """Packages depend on each other.

    :param packagenames: the cycle, with its first name repeated at the end.
    """

    def __init__(self, packagenames: Sequence[str]):
        self.packagenames = list(packagenames)
        super().__init__(
            f'packages depend on each other: {" -> ".join(packagenames)}',
            place='DEPENDS in their evolve/__init__.py',
            remedy='Remove one of these names from DEPENDS.',
        )

    def __reduce__(self) -> Any:
        return CircularDependencyError, (self.packagenames,)


class StuccoPackages:
    """The packages of stucco_evolution, and all that they depend on, as evolutions.

    Each has the module ``evolve`` with ``NAME``, ``VERSION`` and ``DEPENDS``, and in it ``create.py`` and
    ``evolve1.py`` to ``evolveN.py``. Their ids are ``stucco:<package>:create`` and ``stucco:<package>:<N>``.

    :param packages: dotted names; what their ``DEPENDS`` name comes along.
    :param depends_on: evolutions of the plan that must be done before a step:
        ``{'mypackage:3': ('2026-10-fill-slugs',)}``.
    :param transactional: a script and its version are saved in one transaction. None: where the
        database can do that with DDL (PostgreSQL, SQLite). False is for applications whose sessions cannot.
    :param serving: what may be served until they are done: ``nothing``, ``reads`` or ``everything``.
    """

    def __init__(
        self,
        *packages: str,
        depends_on: Mapping[str, Sequence[str]] | None = None,
        transactional: bool | None = None,
        serving: str = 'nothing',
    ):
        if not packages or not all(isinstance(package, str) for package in packages):
            raise SourceError(
                f'StuccoPackages{packages!r} does not say which packages',
                place='the evolutions option',
                remedy="Give it their dotted names: StuccoPackages('mypackage').",
            )
        self.packages = packages
        self.depends_on = dict(depends_on or {})
        self.transactional = transactional
        self.serving = serving

    def __repr__(self) -> str:
        return f'StuccoPackages({", ".join(map(repr, self.packages))})'

    def at(self, place: Place) -> PlacedPackages:
        """:raises SourceError: a package is missing, wrong or in a cycle, or the application has no SQL session."""
        _places().check(place, repr(self))
        return PlacedPackages(self, place)


class PlacedPackages:
    """The packages of one application that no other source has brought yet."""

    def __init__(self, source: StuccoPackages, place: Place):
        modules = dependencies(*source.packages)
        for module in modules:
            _check_length(module, place.url.get_backend_name())
        #: The steps of each package, from whichever source: two may need the same one.
        known: dict[str, list[StuccoStep]] = place.shared.setdefault(StuccoPackages, {})
        new = [module for module in modules if module.NAME not in known]
        table = StuccoTable(place, new)
        for module in new:
            known[module.NAME] = [StuccoStep(module, n, source, place, table) for n in _numbered(module)]
        for module in new:
            _order(module, known)
        self._steps = [step for module in new for step in known[module.NAME]]
        _depend(source, [step for module in modules for step in known[module.NAME]])

    def evolutions(self) -> Iterable[StuccoStep]:
        return self._steps


def _order(module: ModuleType, known: Mapping[str, Sequence[StuccoStep]]) -> None:
    """Each step after the one before it, and after the packages that its own depends on.

    Each, not the first alone: it may be done long since, and what it waited for not.
    """
    needed = tuple(str(known[name][-1].evolution_id) for name in module.DEPENDS if name != TABLE)
    before: tuple[str, ...] = ()
    for step in known[module.NAME]:
        step.depends_on = (*needed, *before)
        before = (str(step.evolution_id),)


def _depend(source: StuccoPackages, steps: Iterable[StuccoStep]) -> None:
    by_id = {str(step.evolution_id): step for step in steps}
    for key, ids in source.depends_on.items():
        step = by_id.get(key) or by_id.get(f'stucco:{key}')
        if step is None:
            raise SourceError(
                f'depends_on has {key!r}, and there is no such step',
                place=repr(source),
                remedy=f'Use one of these: {", ".join(map(repr, by_id))}.',
            )
        step.depends_on = (*step.depends_on, *((ids,) if isinstance(ids, str) else ids))


class StuccoStep(Step):
    """One script of one package.

    :param number: of ``evolveN.py``; None: ``create.py``.
    """

    def __init__(
        self, module: ModuleType, number: int | None, source: StuccoPackages, place: Place, table: StuccoTable
    ):
        self.module = module
        self.number = number
        self.table = table
        wanted = source.transactional
        self.transactional = _places().has_transactional_ddl(place) if wanted is None else wanted
        self.serving = source.serving
        self.evolution_id = _numbered(module).id(number)
        self.description = f'{_script_name(number)}.py of {module.NAME}'
        self.origin = os.path.join(_directory(module), f'{_script_name(number)}.py')
        self._place = place

    def code(self) -> str:
        return _source(self.module, self.number)

    def evolve(self) -> None:
        connection = _places().connection(self._place, self.evolution_id)
        initialize(connection)
        manager = Manager(connection, self.module)
        version = manager.get_db_version()
        if self.number is None:
            # Rows that only now came from an older table may say that it was made long ago.
            if version is None:
                manager.create()
        elif version is None or version < self.number - 1:
            raise manager.missing(self.number)
        elif version < self.number:
            manager.evolve_to(self.number)


class StuccoTable(VersionTable):
    """The table ``stucco_evolution``, and what it says about these packages.

    Of a package that it does not have, everything is pending; once ``create`` ran, which makes the newest version,
    nothing is.
    """

    def __init__(self, place: Place, modules: Sequence[ModuleType]):
        self._place = place
        self._packages = [(module, _numbered(module)) for module in modules]

    def look(self) -> Versions:
        import sqlalchemy

        table = _table()
        found = dict(self._place.rows(sqlalchemy.select(table.c.package, table.c.version)) or ())
        looks = [numbered.versions(found.get(module.NAME)) for module, numbered in self._packages]
        return Versions(
            frozenset().union(*(look.applied for look in looks)), frozenset().union(*(look.unknown for look in looks))
        )

    def stamp(self, ids: Collection[str]) -> None:
        with self._place.connect() as connection:
            initialize(connection)
            for manager, numbered, chosen in self._chosen(connection, ids):
                manager.set_db_version(numbered.stamped(manager.get_db_version(), chosen))

    def unstamp(self, ids: Collection[str]) -> None:
        with self._place.connect() as connection:
            initialize(connection)
            for manager, numbered, chosen in self._chosen(connection, ids):
                version = numbered.unstamped(manager.get_db_version(), chosen)
                if version is None:
                    manager.forget()
                else:
                    manager.set_db_version(version)

    def _chosen(self, connection: Any, ids: Collection[str]) -> Iterable[tuple[Manager, Numbered, list[int | None]]]:
        for module, numbered in self._packages:
            chosen = numbered.among(ids)
            if chosen:
                yield Manager(connection, module), numbered, chosen


def _numbered(module: ModuleType) -> Numbered:
    return Numbered(f'stucco:{module.NAME}', 'create', module.VERSION, f'the table {TABLE}')


# What stucco_evolution itself offers, for programs that call it


def create_or_upgrade_packages(connection: Any, packagename: str) -> None:
    """Create or upgrade the schema of a package and of all that it depends on, and the version table itself.

    Takes no lease: two that call it at once are for the caller to keep apart. The caller commits, all at once.

    :param connection: of SQLAlchemy.
    :param packagename: the dotted name of the package that has the module ``evolve``.
    :raises SourceError: a package is missing, wrong or in a cycle.
    """
    initialize(connection)
    create_or_upgrade_many(managers(connection, dependencies(packagename)))


def create_or_upgrade_many(managers: Iterable[Manager]) -> None:
    """``create.py`` of those that are not tracked, the scripts that are missing of the others."""
    for manager in managers:
        if manager.get_db_version() is None:
            manager.create()
        else:
            manager.upgrade()


def create_many(managers: Iterable[Manager]) -> None:
    for manager in managers:
        manager.create()


def upgrade_many(managers: Iterable[Manager]) -> None:
    for manager in managers:
        manager.upgrade()


def is_initialized(connection: Any) -> bool:
    """Is the version table there?"""
    import sqlalchemy

    return sqlalchemy.inspect(connection).has_table(TABLE)


def initialize(connection: Any) -> None:
    """Make the version table, if it is not there."""
    import sqlalchemy

    _begin(connection)
    table = _table()
    if not is_initialized(connection):
        table.create(connection, checkfirst=True)
        connection.execute(sqlalchemy.insert(table).values(package=TABLE, version=_TABLE_VERSION))
        return
    own = connection.execute(sqlalchemy.select(table.c.version).where(table.c.package == TABLE)).scalar()
    if own is not None and own < _TABLE_VERSION:
        # Before that it had another name, and its rows were left there.
        old = sqlalchemy.table('ponzi_evolution', sqlalchemy.column('package'), sqlalchemy.column('version'))
        if sqlalchemy.inspect(connection).has_table(old.name):
            rows = sqlalchemy.select(old.c.package, old.c.version)
            connection.execute(sqlalchemy.insert(table).from_select(['package', 'version'], rows))
        connection.execute(sqlalchemy.update(table).where(table.c.package == TABLE).values(version=_TABLE_VERSION))


def dependencies(*packagenames: str) -> list[ModuleType]:
    """The modules ``evolve`` of these packages and of all that they depend on, what is depended on first.

    :raises CircularDependencyError: naming the cycle.
    :raises SourceError: a package is missing, or its module is not what it should be.
    """
    found: dict[str, ModuleType] = {}
    path: list[str] = []

    def visit(name: str) -> None:
        if name in path:
            raise CircularDependencyError([*path[path.index(name) :], name])
        if name in found or name == TABLE:  # the version table is our own affair
            return
        module = evolve_module(name, path[-1] if path else None)
        path.append(name)
        for each in module.DEPENDS:
            visit(each)
        path.pop()
        found[name] = module

    for name in packagenames:
        visit(name)
    return list(found.values())


def manager(connection: Any, package_or_name: str | ModuleType) -> Manager:
    """For one package, by its name or its module ``evolve``."""
    if isinstance(package_or_name, str):
        return Manager(connection, evolve_module(package_or_name, None))
    _check_module(package_or_name, package_or_name.__name__)
    return Manager(connection, package_or_name)


def managers(connection: Any, dependencies: Iterable[ModuleType]) -> list[Manager]:
    return [manager(connection, module) for module in dependencies]


class Manager:
    """Runs the scripts of one package and records its version, on a connection whose owner commits."""

    def __init__(self, connection: Any, module: ModuleType):
        from .strings import StringConnection

        self.module = module
        self.connection = StringConnection(connection)

    def __repr__(self) -> str:
        return f'<Manager {self.module.NAME!r}, {self.module.VERSION}>'

    def get_sw_version(self) -> int:
        """The version that the code is at."""
        version: int = self.module.VERSION
        return version

    def get_db_version(self) -> int | None:
        """The version that the database is at; None when the package is not tracked there."""
        import sqlalchemy

        table = _table()
        query = sqlalchemy.select(table.c.version).where(table.c.package == self.module.NAME)
        version: int | None = self.connection.execute(query).scalar()
        return version

    def set_db_version(self, version: int) -> None:
        import sqlalchemy

        _check_length(self.module, self.connection.dialect.name)
        table = _table()
        update = sqlalchemy.update(table).where(table.c.package == self.module.NAME).values(version=version)
        if not self.connection.execute(update).rowcount:
            self.connection.execute(sqlalchemy.insert(table).values(package=self.module.NAME, version=version))

    def forget(self) -> None:
        """The package is not tracked any more."""
        import sqlalchemy

        table = _table()
        self.connection.execute(sqlalchemy.delete(table).where(table.c.package == self.module.NAME))

    def create(self) -> None:
        """Run ``create.py``, which makes the newest version; a package that is tracked keeps its own."""
        _begin(self.connection)
        self._run(None)
        if self.get_db_version() is None:
            self.set_db_version(self.get_sw_version())

    def evolve_to(self, version: int) -> None:
        """Run one numbered script."""
        _begin(self.connection)
        self._run(version)
        self.set_db_version(version)

    def upgrade(self) -> None:
        """Run all numbered scripts that the database has not had.

        :raises SourceError: the package is not tracked.
        """
        version = self.get_db_version()
        if version is None:
            raise self.missing(1)
        for number in range(version + 1, self.get_sw_version() + 1):
            self.evolve_to(number)

    def missing(self, number: int) -> SourceError:
        """What is wrong when a script is to run out of its order."""
        version = self.get_db_version()
        at = 'not tracked' if version is None else f'at version {version}'
        return SourceError(
            f'evolve{number}.py of {self.module.NAME!r} cannot be the next one: the package is {at}',
            place=f'the table {TABLE}',
            remedy='Run what comes before it: create_or_upgrade_packages does all that is needed.',
        )

    def _run(self, number: int | None) -> None:
        name = _script_name(number)
        full = f'{self.module.__name__}.{name}'
        log.info('runs %s', full)
        try:
            script = importlib.import_module(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise
            version = self.get_db_version()
            where = 'does not have the package yet' if version is None else f'has the package at version {version}'
            raise SourceError(
                f'the package {self.module.NAME!r} has no {name}.py, and the database {where}',
                place=_directory(self.module),
                remedy=f'Add it, or correct VERSION = {self.get_sw_version()}.',
            ) from None
        function = getattr(script, 'create' if number is None else 'evolve', None)
        if not callable(function):
            raise SourceError(
                f'{full} has no function {"create" if number is None else "evolve"}(connection)',
                place=os.path.join(_directory(self.module), f'{name}.py'),
                remedy='Define it.',
            )
        function(self.connection)


# What a package has


def evolve_module(name: str, needed_by: str | None = None) -> ModuleType:
    """The module ``evolve`` of a package, checked.

    :raises SourceError: there is none, or its constants are wrong.
    """
    full = f'{name}.evolve'
    place = f'DEPENDS of {needed_by!r}' if needed_by else 'the packages that were named'
    try:
        module = importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name is None or not f'{full}.'.startswith(f'{error.name}.'):
            raise
        what = f'there is no package {name!r}' if error.name != full else f'the package {name!r} has no module evolve'
        raise SourceError(
            what, place=place, remedy='Install it, correct the name, or make it: evolve/__init__.py.'
        ) from None
    _check_module(module, full)
    return module


def _check_module(module: ModuleType, full: str) -> None:
    def wrong(thing: str, remedy: str) -> SourceError:
        return SourceError(thing, place=getattr(module, '__file__', None) or full, remedy=remedy)

    for constant in ('NAME', 'VERSION', 'DEPENDS'):
        if not hasattr(module, constant):
            raise wrong(f'{full} does not define {constant}', 'It must define NAME, VERSION and DEPENDS.')
    if module.__name__ != f'{module.NAME}.evolve':
        name = module.__name__.removesuffix('.evolve')
        raise wrong(
            f'{full} says NAME = {module.NAME!r}, and it is the module evolve of {name!r}', f'Say NAME = {name!r}.'
        )
    version = module.VERSION
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise wrong(f'{full} says VERSION = {version!r}', 'Use a whole number, 0 or more.')
    depends = module.DEPENDS
    if isinstance(depends, str) or not isinstance(depends, Iterable) or not all(isinstance(d, str) for d in depends):
        raise wrong(f'{full} says DEPENDS = {depends!r}', "Use a list of names: DEPENDS = ['otherpackage'].")
    if len(_numbered(module).id(version)) > ID_LENGTH:
        raise wrong(f'NAME = {module.NAME!r} is too long', 'Use a shorter name.')


def _check_length(module: ModuleType, backend: str) -> None:
    if len(module.NAME) > _NAME_LENGTH and backend != 'sqlite':
        raise SourceError(
            f'NAME = {module.NAME!r} has {len(module.NAME)} characters, and the table {TABLE} takes {_NAME_LENGTH}',
            place=getattr(module, '__file__', None) or module.__name__,
            remedy='Use a shorter name.',
        )


def _script_name(number: int | None) -> str:
    return 'create' if number is None else f'evolve{number}'


def _source(module: ModuleType, number: int | None) -> str:
    """The text of a script; empty when there is none: the step says so when it is run."""
    name = f'{module.__name__}.{_script_name(number)}'
    spec = importlib.util.find_spec(name)
    get_source = getattr(spec.loader, 'get_source', None) if spec is not None else None
    return (get_source(name) or '') if get_source is not None else ''


def _directory(module: ModuleType) -> str:
    return os.path.dirname(getattr(module, '__file__', None) or '') or module.__name__


# The database


def _places() -> Any:
    """What needs SQLAlchemy, imported where it is used."""
    try:
        return importlib.import_module('.places', __package__)
    except ImportError as error:
        raise SourceError(
            f'StuccoPackages needs a library that is not installed: {error}',
            place='the evolutions option',
            remedy="Install it: pip install 'tgext.evolve[sqlalchemy]'",
        ) from None


@lru_cache
def _table() -> Any:
    """The version table, as stucco_evolution makes it."""
    from sqlalchemy import Column, Integer, MetaData, String, Table

    return Table(
        TABLE, MetaData(), Column('package', String(_NAME_LENGTH), primary_key=True), Column('version', Integer)
    )


def _begin(connection: Any) -> None:
    """Have SQLite's driver begin before DDL too, which it would commit one by one."""
    from ..stores.sqlalchemy.dialects import dialect_of_session

    if connection.dialect.name == 'sqlite' and connection.connection.dbapi_connection.isolation_level is not None:
        dialect_of_session(connection.dialect.name).begin(connection)
