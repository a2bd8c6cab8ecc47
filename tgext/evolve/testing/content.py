"""What is in the tables and collections of an application, and in what two looks at them differ."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..databases import Databases

#: Tables and collections of our own begin like this.
_OURS = 'tgext_evolve'

#: So many differences are told of each table, and so much of each value.
_MOST = 3
_LONGEST = 80

Row = dict[str, Any]

_MISSING = object()


@dataclass(frozen=True)
class Table:
    """The rows of a table, or the documents of a collection, and the columns that identify one."""

    rows: list[Row]
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Content:
    """All tables and collections of an application at one time, without tgext.evolve's own.

    ``content['page']`` is a list of rows, each a dictionary; a table that is not there is empty.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)

    def __getitem__(self, name: str) -> list[Row]:
        table = self.tables.get(name)
        return [] if table is None else table.rows

    def differences(self, other: Content, ignore: Collection[str] = ()) -> list[str]:
        """In what ``other`` is another content, one line for each difference; the first few of each table.

        :param ignore: tables (``'log'``) and columns (``'page.updated'``, ``'*.updated'``) that do not count.
        """
        return [
            line
            for name in sorted({*self.tables, *other.tables} - set(ignore))
            for line in _cut(list(_differences(name, self.tables.get(name), other.tables.get(name), ignore)))
        ]

    def made_anew(self, other: Content) -> set[str]:
        """Columns whose values are others in each database that is made: random keys, salts, times.

        :param other: what was made in the same way in another database.
        """
        return {
            f'{name}.{column}'
            for name in {*self.tables} & {*other.tables}
            for column in {column for row in (*self[name], *other[name]) for column in row}
            if _values(self[name], column) != _values(other[name], column)
        }


def content_of(databases: Databases) -> Content:
    """What is in the application's databases now, as another connection sees it."""
    tables: dict[str, Table] = {}
    if databases.engine is not None:
        tables.update(_sql_tables(databases.engine))
    if databases.datastore is not None:
        for name, table in _collections(databases.datastore.db):
            tables[f'{name} (MongoDB)' if name in tables else name] = table
    return Content(tables)


def insert(databases: Databases, name: str, rows: Collection[Row]) -> None:
    """Put rows into a table, or documents into a collection."""
    if databases.engine is None:
        databases.datastore.db[name].insert_many([dict(row) for row in rows])
        return
    from sqlalchemy import MetaData
    from sqlalchemy import Table as SQLTable

    with databases.engine.begin() as connection:
        table = SQLTable(name, MetaData(), autoload_with=connection)
        connection.execute(table.insert(), [dict(row) for row in rows])


def _sql_tables(engine: Any) -> Iterator[tuple[str, Table]]:
    from sqlalchemy import MetaData, inspect, select
    from sqlalchemy import Table as SQLTable

    with engine.connect() as connection:
        for name in inspect(connection).get_table_names():
            if name.startswith(_OURS):
                continue
            # Reflected, and not as it is mapped: an evolution may just have changed it.
            table = SQLTable(name, MetaData(), autoload_with=connection, resolve_fks=False)
            rows = [dict(row) for row in connection.execute(select(table)).mappings()]
            key = tuple(column.name for column in table.primary_key)
            yield name, Table(sorted(rows, key=lambda row: _sortable(row, key)), key)


def _collections(database: Any) -> Iterator[tuple[str, Table]]:
    for name in database.list_collection_names():
        if not name.startswith((_OURS, 'system.')):
            # Copied: what is kept in memory hands out the documents themselves.
            yield name, Table(copy.deepcopy(list(database[name].find().sort('_id'))), ('_id',))


def _sortable(row: Row, key: tuple[str, ...]) -> list[tuple[bool, str, Any]]:
    return [(row[name] is None, type(row[name]).__name__, row[name]) for name in key]


def _values(rows: list[Row], column: str) -> Counter[str]:
    return Counter(repr(row.get(column, _MISSING)) for row in rows)


def _differences(name: str, one: Table | None, other: Table | None, ignore: Collection[str]) -> Iterator[str]:
    if one is None or other is None:
        rows = (one or other or Table([])).rows
        if rows or one is None:
            yield f'{name}: the table is {"new" if one is None else "gone"}'
        return

    def counted(table: Table) -> Counter[tuple[tuple[str, str], ...]]:
        return Counter(
            tuple(
                (column, repr(value))
                for column, value in sorted(row.items())
                if not {f'{name}.{column}', f'*.{column}'} & set(ignore)
            )
            for row in table.rows
        )

    before, after = counted(one), counted(other)
    gone = [dict(row) for row in (before - after).elements()]
    new = [dict(row) for row in (after - before).elements()]
    key = [column for column in one.key if all(column in row for row in gone + new)]
    for row in list(gone) if key else []:
        same = [each for each in new if all(each[column] == row[column] for column in key)]
        if len(same) != 1:
            continue
        gone.remove(row)
        new.remove(same[0])
        yield f'{name} ({_named(row, key)}): {_changed(row, same[0])}'
    for row in gone:
        yield f'{name}: lacks {_named(row, list(row))}'
    for row in new:
        yield f'{name}: has {_named(row, list(row))}'


def _named(row: dict[str, str], columns: list[str]) -> str:
    return ', '.join(f'{column} = {_short(row[column])}' for column in columns)


def _changed(row: dict[str, str], other: dict[str, str]) -> str:
    nothing = 'nothing'
    return ', '.join(
        f'{column} is {_short(other.get(column, nothing))} instead of {_short(row.get(column, nothing))}'
        for column in {**row, **other}
        if row.get(column) != other.get(column)
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + '...'


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _MOST else [*lines[:_MOST], f'... and {len(lines) - _MOST} more']
