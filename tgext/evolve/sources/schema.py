"""Schema versions in Dejavu's manner: a class with a number and a method for each step."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..errors import EvolveError, SourceError
from ..steps import Step, Versions, VersionTable
from .base import Place
from .numbered import Numbered

#: The longest ``guid``: it is a key, and stands in ids.
_GUID_LENGTH = 150


class SchemaError(EvolveError):
    """The deployed version of a schema is not what it must be, or its storage cannot be changed like that."""


@dataclass(frozen=True)
class DeployedVersion:
    """Which schema version the current deployment has reached."""

    ID: str
    Version: int


class Schema:
    """The versions of a model, and how one becomes the next.

    Make a subclass, and name it in the ``evolutions`` option. With each change of the model add a method
    ``upgrade_to_N`` and say ``latest = N``::

        class MySchema(Schema):
            guid = 'myapp'
            latest = 1
            models = [Base]

            def upgrade_to_1(self):
                self.arena.drop_property(Employee, 'zip_code')
                self.arena.add_property(Employee, 'start_date')

    Each step is the evolution ``schema:<guid>:<N>``. Where no version is recorded, ``schema:<guid>:install`` makes
    what is missing of the storage and records ``latest``: a new installation runs no step.

    It works by hand as well: ``MySchema(Arena(engine, Base)).upgrade()``.

    :param arena: the storage; None where the ``evolutions`` option names it.
    """

    #: Which schema this is; one database may have several.
    guid: str = ''

    #: The version that the code is at.
    latest: int = 0

    #: The version from which a step leads that is at work now; None: none is.
    stage: int | None = None

    #: Mapped classes, or declarative bases for all of theirs, where ``arena`` is not given.
    models: Sequence[Any] = ()

    #: Evolutions of the plan that must be done before a step: ``{2: ('2026-10-fill-slugs',)}``.
    depends_on: Mapping[int, Sequence[str]] = {}

    #: A step and its version are saved in one transaction. None: where the database can do that with DDL.
    transactional: bool | None = None

    #: What may be served until all steps are done: ``nothing``, ``reads`` or ``everything``.
    serving: str = 'nothing'

    #: The name of the table of versions.
    version_table: str = 'DeployedVersion'

    def __init__(self, arena: Any = None):
        self.stage = None
        self.arena = arena

    def __repr__(self) -> str:
        return f'<{type(self).__qualname__} {self.guid!r}>'

    def at(self, place: Place) -> PlacedSchema:
        """:raises SourceError: it cannot be used, or the application has no SQL session."""
        _arenas()
        importlib.import_module('.places', __package__).check(place, repr(self))
        return PlacedSchema(self, place)

    # -- the version

    def deployed_unit(self, default: int | None = None) -> DeployedVersion:
        """What is recorded.

        :param default: recorded where nothing is.
        :raises SchemaError: nothing is recorded, and there is no default.
        """
        with self.arena.transaction() as connection:
            version = self._recorded(connection)
            if version is None:
                if default is None:
                    raise SchemaError(
                        f'no version of the schema {self.guid!r} is recorded',
                        place=f'the table {self.version_table}',
                        remedy='Install the application, or set the version by hand: schema.deployed = N',
                    )
                self._record(connection, version := default)
        return DeployedVersion(self.guid, version)

    def versioned(self) -> bool:
        """Is any version recorded?"""
        with self.arena.transaction() as connection:
            return self._recorded(connection) is not None

    @property
    def deployed(self) -> int:
        """The version that the storage is at; where none is recorded, reading it records ``latest``.

        So a new installation skips all steps. If an application was deployed for a while without a
        Schema, say which version that is, *before* anything else: ``schema.deployed = 0``.
        """
        return self.deployed_unit(self.latest).Version

    @deployed.setter
    def deployed(self, version: int) -> None:
        with self.arena.transaction() as connection:
            self._record(connection, version)

    def _recorded(self, connection: Any) -> int | None:
        table = _version_table(self.version_table)
        if not self.arena.has_storage(table):
            return None
        version: int | None = connection.execute(_query(table, self.guid)).scalar()
        return version

    def _record(self, connection: Any, version: int | None) -> None:
        """:param version: None: nothing is recorded any more."""
        import sqlalchemy

        table = _version_table(self.version_table)
        if not self.arena.has_storage(table):
            self.arena.create_storage(table)
        own = table.c['ID'] == self.guid
        if version is None:
            connection.execute(sqlalchemy.delete(table).where(own))
        elif not connection.execute(sqlalchemy.update(table).where(own).values(Version=version)).rowcount:
            connection.execute(sqlalchemy.insert(table).values(ID=self.guid, Version=version))

    # -- the steps

    def upgrade(self, version: int | None = None) -> None:
        """Upgrade the deployment; what is done already is not done again.

        It takes no lease: where several processes may call it at once, let the plan do it.

        :param version: None: to the latest.
        :raises SchemaError: it is beyond that already.
        """
        target = self.latest if version is None else version
        deployed = self.deployed
        if deployed > target:
            raise SchemaError(
                f'the schema {self.guid!r} is deployed at version {deployed}, which is greater than {target}',
                place=f'the table {self.version_table}',
                remedy='Use the release that made that version, or a backup.',
            )
        for step in range(deployed, target):
            self._step(step)

    def _step(self, step: int) -> None:
        """From version ``step`` to the next; a step without a method is skipped and recorded."""
        self.stage = step
        try:
            with self.arena.transaction():
                procedure = getattr(self, f'upgrade_to_{step + 1}', None)
                if procedure is not None:
                    procedure()
                self.deployed = step + 1
        finally:
            self.stage = None

    def upgrade_to_0(self) -> None:
        """Nothing leads there."""

    # -- what is to be so

    def assert_storage(self) -> None:
        """Make the storage of each class that has none. Call it after :meth:`upgrade`."""
        with self.arena.transaction():
            for model in self.arena.classes:
                if not self.arena.has_storage(model):
                    self.arena.create_storage(model)

    def assert_version(self) -> None:
        """Refuse to go on where the version is missing or another one than the code's. It records nothing.

        :raises SchemaError: saying which.
        """
        with self.arena.transaction() as connection:
            deployed = self._recorded(connection)
        if deployed is None:
            what = 'is versioned now, but its installed version could not be determined'
            remedy = 'Install the application, or set the version by hand: schema.deployed = N'
        elif deployed > self.latest:
            what = f'is deployed at version {deployed}, which is greater than the latest version, {self.latest}'
            remedy = 'Use the release that made that version, or a backup.'
        elif deployed < self.latest:
            what = f'is deployed at version {deployed}, which is less than the latest version, {self.latest}'
            remedy = 'Upgrade before proceeding: gearbox evolve run, or schema.upgrade()'
        else:
            return
        raise SchemaError(f'the schema {self.guid!r} {what}', place=f'the table {self.version_table}', remedy=remedy)


class PlacedSchema:
    """The schema of one application."""

    def __init__(self, schema: Schema, place: Place):
        _check(schema)
        numbered = Numbered(f'schema:{schema.guid}', 'install', schema.latest, f'the table {schema.version_table}')
        table = SchemaTable(schema, place, numbered)
        self._steps = [SchemaStep(schema, number, place, table, numbered) for number in numbered]
        for before, step in pairwise(self._steps):
            also = schema.depends_on.get(step.number or 0, ())
            step.depends_on = (str(before.evolution_id), *((also,) if isinstance(also, str) else also))

    def evolutions(self) -> Iterable[SchemaStep]:
        return self._steps


class SchemaStep(Step):
    """One step of a schema.

    :param number: the version that it leads to; None: it installs the latest.
    """

    def __init__(self, schema: Schema, number: int | None, place: Place, table: SchemaTable, numbered: Numbered):
        self.number = number
        self.table = table
        self.evolution_id = numbered.id(number)
        self.serving = schema.serving
        self._schema = schema
        self._place = place
        self._method = None if number is None else getattr(schema, f'upgrade_to_{number}', None)
        places = importlib.import_module('.places', __package__)
        self.transactional = (
            places.has_transactional_ddl(place) if schema.transactional is None else schema.transactional
        )
        kind = type(schema)
        self.origin = f'{kind.__module__}.{kind.__qualname__}' + (f'.upgrade_to_{number}' if number else '')
        self.description = self._describe()

    def _describe(self) -> str:
        if self.number is None:
            return f'install the schema {self._schema.guid} at version {self._schema.latest}'
        if self._method is None:
            return f'there is no upgrade_to_{self.number}: it is recorded only'
        return next(iter((inspect.getdoc(self._method) or '').splitlines()), '') or f'upgrade_to_{self.number}'

    def code(self) -> str:
        if self._method is None:
            return ''
        try:
            return inspect.getsource(self._method)
        except (OSError, TypeError):
            return self.origin

    def evolve(self) -> None:
        connection = importlib.import_module('.places', __package__).connection(self._place, str(self.evolution_id))
        schema = placed(self._schema, connection)
        if self.number is not None:
            schema._step(self.number - 1)
            return
        schema.assert_storage()
        schema.deployed_unit(schema.latest)


class SchemaTable(VersionTable):
    """The table of deployed versions, and what it says about one schema."""

    def __init__(self, schema: Schema, place: Place, numbered: Numbered):
        self._schema = schema
        self._place = place
        self._numbered = numbered

    def look(self) -> Versions:
        found = self._place.rows(_query(_version_table(self._schema.version_table), self._schema.guid))
        return self._numbered.versions(found[0][0] if found else None)

    def stamp(self, ids: Collection[str]) -> None:
        with self._place.connect() as connection:
            schema = placed(self._schema, connection)
            recorded = schema._recorded(connection)
            schema._record(connection, self._numbered.stamped(recorded, self._numbered.among(ids)))

    def unstamp(self, ids: Collection[str]) -> None:
        with self._place.connect() as connection:
            schema = placed(self._schema, connection)
            recorded = schema._recorded(connection)
            schema._record(connection, self._numbered.unstamped(recorded, self._numbered.among(ids)))


def placed(schema: Schema, connection: Any) -> Schema:
    """The same schema, working on this connection, whose owner commits."""
    classes = schema.models if schema.arena is None else schema.arena.classes
    at_work = copy(schema)
    at_work.stage = None
    at_work.arena = _arenas().Arena(connection, *classes)
    return at_work


def _check(schema: Schema) -> None:
    kind = type(schema)

    def wrong(thing: str, remedy: str) -> SourceError:
        return SourceError(thing, place=f'{kind.__module__}.{kind.__qualname__}', remedy=remedy)

    if not isinstance(schema.guid, str) or not schema.guid or len(schema.guid) > _GUID_LENGTH:
        raise wrong(
            f'the schema has guid = {schema.guid!r}', f'Give it a name of its own, 1 to {_GUID_LENGTH} characters.'
        )
    latest = schema.latest
    if not isinstance(latest, int) or isinstance(latest, bool) or latest < 0:
        raise wrong(f'the schema has latest = {latest!r}', 'Use a whole number, 0 or more.')
    strange = [number for number in schema.depends_on if number not in range(1, latest + 1)]
    if strange:
        raise wrong(f'depends_on has {strange[0]!r}, and no step leads there', f'Use numbers from 1 to {latest}.')


def _query(table: Any, guid: str) -> Any:
    import sqlalchemy

    return sqlalchemy.select(table.c.Version).where(table.c['ID'] == guid)


def _version_table(name: str) -> Any:
    from sqlalchemy import Column, Integer, MetaData, Table, Unicode

    return Table(name, MetaData(), Column('ID', Unicode(_GUID_LENGTH), primary_key=True), Column('Version', Integer))


def _arenas() -> Any:
    """What needs SQLAlchemy and alembic, imported where it is used."""
    try:
        return importlib.import_module('.arena', __package__)
    except ImportError as error:
        raise SourceError(
            f'a Schema needs a library that is not installed: {error}',
            place='the evolutions option',
            remedy="Install it: pip install 'tgext.evolve[sqlalchemy,alembic]'",
        ) from None


def __getattr__(name: str) -> Any:
    """``Arena`` stands here too: who works by hand imports both from one place."""
    if name == 'Arena':
        return _arenas().Arena
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
