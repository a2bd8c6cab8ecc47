"""The storage of SQLAlchemy models, changed one property at a time by alembic's operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Connection, Engine, ForeignKey, MetaData, Table, inspect, text, update
from sqlalchemy.orm import ColumnProperty

from ..stores.sqlalchemy.dialects import dialect_of_session
from .schema import SchemaError


class Arena:
    """What ``upgrade_to_N`` of a :class:`~tgext.evolve.sources.schema.Schema` works with, as ``self.arena``.

    Classes are mapped ones; where one has gone from the code, its :class:`~sqlalchemy.Table` or the name of its table
    will do. Properties go by their name in the class, or, where the class no longer has them, by that of the column.

    :param bind: an engine, on which each step is a transaction; a connection or a session, whose owner commits.
    :param classes: mapped classes, or declarative bases for all of theirs.
    """

    def __init__(self, bind: Any, *classes: Any):
        self._bind = bind
        self._current: Connection | None = None
        self._classes: dict[Any, None] = {}
        for each in classes:
            if hasattr(each, 'registry') and not hasattr(each, '__table__'):
                for mapper in sorted(each.registry.mappers, key=lambda mapper: mapper.class_.__name__):
                    self.register(mapper.class_)
            else:
                self.register(each)

    @property
    def classes(self) -> list[Any]:
        """What is registered, so that references between tables find what they refer to."""
        tables = {model: _table(model) for model in self._classes}
        metadata = {table.metadata: None for table in tables.values() if table is not None}
        order = [table for each in metadata for table in each.sorted_tables]
        return sorted(tables, key=lambda model: order.index(tables[model]))  # type: ignore[arg-type]

    def register(self, model: Any) -> None:
        """Have ``assert_storage`` know this class."""
        if _table(model) is None:
            raise SchemaError(
                f'{model!r} is not mapped to a table', place='the classes of the arena', remedy='Use a mapped class.'
            )
        self._classes[model] = None

    # -- the database

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction for all that is done inside, on an engine; else that of the connection or session."""
        if self._current is not None:
            yield self._current
        elif isinstance(self._bind, Engine):
            with self._bind.begin() as connection:
                # The driver of SQLite would commit each DDL by itself.
                dialect_of_session(connection.dialect.name).begin(connection)
                self._current = connection
                try:
                    yield connection
                finally:
                    self._current = None
        else:
            yield self._bind if isinstance(self._bind, Connection) else self._bind.connection()

    @property
    def connection(self) -> Connection:
        """The connection of the step that is at work, for data.

        :raises SchemaError: the arena has an engine, and no step is at work.
        """
        if self._current is None and isinstance(self._bind, Engine):
            raise SchemaError(
                'there is no connection outside of a step',
                place='arena.connection',
                remedy='Use it in upgrade_to_N, or inside of: with arena.transaction() as connection',
            )
        with self.transaction() as connection:
            return connection

    @contextmanager
    def _operations(self) -> Iterator[tuple[Operations, Connection]]:
        with self.transaction() as connection:
            yield Operations(MigrationContext.configure(connection)), connection

    # -- storage of a class

    def has_storage(self, model: Any) -> bool:
        """Is its table there?"""
        name, schema = _name(model)
        with self.transaction() as connection:
            return inspect(connection).has_table(name, schema=schema)

    def create_storage(self, model: Any) -> None:
        """Make its table, as the class is now."""
        table = _table(model)
        if table is None:
            raise SchemaError(
                f'{model!r} does not say which columns it has',
                place='create_storage',
                remedy='Use a mapped class, or a Table.',
            )
        with self.transaction() as connection:
            table.create(connection, checkfirst=False)

    def drop_storage(self, model: Any) -> None:
        """Drop its table, with all that is in it."""
        name, schema = _name(model)
        with self._operations() as (operations, _):
            operations.drop_table(name, schema=schema)

    # -- properties of a class

    def add_property(self, model: Any, name: str, column: Column[Any] | None = None) -> None:
        """Add a property to the storage. What is there already gets the server's default, else the property's.

        :param column: as it was then, where the class no longer has it or has another one.
        """
        table, schema = _name(model)
        if column is None:
            column = _column(model, name)
        if column is None:
            raise SchemaError(
                f'{_said(model)} has no property {name!r} any more',
                place='add_property',
                remedy=f'Say what it was: add_property({_said(model)}, {name!r}, Column({name!r}, Integer))',
            )
        new = _copy(column, name, table)
        default = getattr(new.default, 'arg', None) if getattr(new.default, 'is_scalar', False) else None
        filled = not new.nullable and new.server_default is None and default is not None
        if filled:
            new.nullable = True
        with self._operations() as (operations, connection):
            if (filled or new.foreign_keys) and _would_lose_rows(connection, table):
                raise SchemaError(
                    f'{name!r} is required or refers to another table: SQLite makes {table!r} anew for that, and '
                    f'deletes what refers to its rows, because foreign keys are enforced',
                    place='add_property',
                    remedy='Leave PRAGMA foreign_keys off on these connections while it runs.',
                )
            with operations.batch_alter_table(table, schema=schema) as batch:
                batch.add_column(new)
            if filled:
                values = Table(table, MetaData(), Column(new.name, new.type), schema=schema)
                connection.execute(update(values).values({new.name: default}))
                self._alter(operations, connection, table, schema, new.name, nullable=False)

    def drop_property(self, model: Any, name: str) -> None:
        """Drop a property from the storage, with all that is in it."""
        table, schema = _name(model)
        column = _column_name(model, name)
        with self._operations() as (operations, connection):
            if _would_lose_rows(connection, table):
                quote = connection.dialect.identifier_preparer.quote
                connection.exec_driver_sql(f'ALTER TABLE {quote(table)} DROP COLUMN {quote(column)}')
                return
            with operations.batch_alter_table(table, schema=schema) as batch:
                batch.drop_column(column)

    def rename_property(self, model: Any, old: str, new: str) -> None:
        """Rename a property in the storage; its type stays what it is there."""
        table, schema = _name(model)
        column = _column_name(model, new)
        with self._operations() as (operations, connection):
            if _would_lose_rows(connection, table):
                quote = connection.dialect.identifier_preparer.quote
                connection.exec_driver_sql(f'ALTER TABLE {quote(table)} RENAME COLUMN {quote(old)} TO {quote(column)}')
                return
            self._alter(operations, connection, table, schema, old, new_column_name=column)

    def _alter(
        self,
        operations: Operations,
        connection: Connection,
        table: str,
        schema: str | None,
        column: str,
        **changes: Any,
    ) -> None:
        """MySQL and MariaDB must be told all of what a column is when any of it changes."""
        found = {each['name']: each for each in inspect(connection).get_columns(table, schema=schema)}
        if column not in found:
            raise SchemaError(
                f'the table {table!r} has no column {column!r}',
                place=connection.engine.url.render_as_string(hide_password=True),
                remedy=f'It has these: {", ".join(found)}.',
            )
        now = found[column]
        if connection.dialect.name in ('mysql', 'mariadb'):
            changes = {
                'existing_type': now['type'],
                'existing_nullable': now['nullable'],
                'existing_autoincrement': now.get('autoincrement') is True,
                'existing_comment': now.get('comment'),
                **changes,
            }
            default = now.get('default')
            if default is not None:
                changes['existing_server_default'] = text(default)
        with operations.batch_alter_table(table, schema=schema) as batch:
            batch.alter_column(column, **changes)


def _table(model: Any) -> Table | None:
    if isinstance(model, Table):
        return model
    table = getattr(inspect(model, raiseerr=False), 'local_table', None)
    return table if isinstance(table, Table) else None


def _name(model: Any) -> tuple[str, str | None]:
    """The name of its table, and the database's schema that it is in."""
    if isinstance(model, str):
        return model, None
    table = _table(model)
    if table is None:
        raise SchemaError(
            f'{model!r} is not mapped to a table', place='the arena', remedy='Use a mapped class, or a name.'
        )
    return table.name, table.schema


def _column(model: Any, name: str) -> Column[Any] | None:
    """What the class says of a property now; None: it has none of that name."""
    mapper = None if isinstance(model, str | Table) else inspect(model, raiseerr=False)
    attribute = mapper.attrs.get(name) if mapper is not None else None
    if isinstance(attribute, ColumnProperty) and isinstance(attribute.columns[0], Column):
        return attribute.columns[0]
    table = _table(model)
    return None if table is None else table.c.get(name)


def _copy(column: Column[Any], name: str, table: str) -> Column[Any]:
    """The same column for the table in the database, with what it refers to."""
    new = column._copy()
    new.name = new.name or name
    named = f'{table}_{new.name}_fkey'  # as PostgreSQL does; batch mode cannot go without
    for key in column.foreign_keys:
        constraint = key.constraint
        if constraint is not None and len(constraint.columns) == 1:
            new.append_foreign_key(
                ForeignKey(
                    key.target_fullname,
                    name=key.name or named,
                    onupdate=key.onupdate,
                    ondelete=key.ondelete,
                    deferrable=key.deferrable,
                    initially=key.initially,
                )
            )
    for key in new.foreign_keys:
        key.name = key.name or named
    return new


def _column_name(model: Any, name: str) -> str:
    column = _column(model, name)
    return name if column is None else column.name


def _said(model: Any) -> str:
    return repr(model) if isinstance(model, str) else getattr(model, '__name__', None) or str(model)


def _would_lose_rows(connection: Connection, table: str) -> bool:
    """Would batch mode delete what refers to this table?

    On SQLite it makes the table anew and drops the old one, which deletes its rows first where foreign keys are
    enforced: with them go rows of other tables, by their ON DELETE. That cannot be turned off inside of a transaction.
    """
    if connection.dialect.name != 'sqlite' or not connection.exec_driver_sql('PRAGMA foreign_keys').scalar():
        return False
    inspector = inspect(connection)
    return any(
        key['referred_table'] == table
        for other in inspector.get_table_names()
        for key in inspector.get_foreign_keys(other)
    )
