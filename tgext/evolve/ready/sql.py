"""Batched evolutions that are one statement per batch, executed in the database: no row comes to Python but its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table, and_, delete, exists, insert, inspect, not_, select, tuple_, update

from ..evolution import BatchedEvolution


def _table(thing: Any) -> Table:
    """The table of a mapped class, or a table itself."""
    table: Table = thing if isinstance(thing, Table) else inspect(thing).local_table
    return table


class _Keys(BatchedEvolution):
    """Fetches the keys of rows; a batch is written by one statement about these.

    :param id: the ``evolution_id``.
    :param attributes: any other of an evolution: ``depends_on``, ``serving``, ``batch_size``, ``pause``...
    """

    def __init__(self, id: str, table: Any, where: Any, **attributes: Any):
        self.evolution_id = id
        self.table = _table(table)
        self.where = where
        self.key_columns = tuple(self.table.primary_key)
        self.items = select(*self.key_columns)
        for name, value in attributes.items():
            if not hasattr(type(self), name):
                raise TypeError(f'{type(self).__name__}() got an unexpected keyword argument {name!r}')
            setattr(self, name, value)

    def _these(self, rows: Sequence[Any]) -> Any:
        """The rows of a batch, by the range of their keys where that is one column."""
        columns = list(self.key_columns or ())
        if len(columns) == 1:
            among = columns[0].between(rows[0][0], rows[-1][0])
        else:
            among = tuple_(*columns).in_([tuple(row) for row in rows])
        return among if self.where is None else and_(among, self.where)


class FillColumn(_Keys):
    """Give a column a value in all rows that have none.

    For example ``FillColumn('2026-11-slugs', Page.slug, func.lower(Page.title))``.

    :param column: the column, of a mapped class or a table.
    :param value: an expression of SQLAlchemy, or a plain value. Rows for which it is NULL are found again.
    :param where: which rows; None: where the column is NULL.
    """

    def __init__(self, id: str, column: Any, value: Any, where: Any = None, **attributes: Any):
        self.column = inspect(column).property.columns[0] if hasattr(column, 'property') else column
        self.value = value
        super().__init__(id, self.column.table, self.column.is_(None) if where is None else where, **attributes)

    def process_batch(self, rows: Sequence[Any]) -> None:
        self.session.execute(
            update(self.table).where(self._these(rows)).values({self.column.name: self.value}),
            execution_options={'synchronize_session': False},
        )


class DeleteRows(_Keys):
    """Delete rows by a filter.

    :param table: a mapped class or a table.
    :param where: which rows. There is no way to say all of them: that is TRUNCATE.
    """

    def __init__(self, id: str, table: Any, where: Any, **attributes: Any):
        if where is None:
            raise TypeError('DeleteRows needs a filter: where')
        super().__init__(id, table, where, **attributes)

    def process_batch(self, rows: Sequence[Any]) -> None:
        self.session.execute(
            delete(self.table).where(self._these(rows)), execution_options={'synchronize_session': False}
        )


class CopyTable(_Keys):
    """Copy rows from one table to another, those that are not there yet.

    :param source: a mapped class or a table.
    :param target: the same; what it has under the primary key of a source row counts as copied.
    :param columns: expressions by the names of the target's columns; None: those of equal names.
    :param where: which rows of the source; None: all.
    """

    def __init__(
        self,
        id: str,
        source: Any,
        target: Any,
        columns: Mapping[str, Any] | None = None,
        where: Any = None,
        **attributes: Any,
    ):
        table, self.target = _table(source), _table(target)
        self.columns = dict(columns or {c.name: table.c[c.name] for c in self.target.c if c.name in table.c})
        missing = [c.name for c in self.target.primary_key if c.name not in self.columns]
        if missing:
            raise TypeError(f'CopyTable does not know where {", ".join(missing)} of {self.target.name} comes from')
        same = [c == self.columns[c.name] for c in self.target.primary_key]
        lacking = not_(exists().where(*same).correlate(table))
        super().__init__(id, table, lacking if where is None else and_(where, lacking), **attributes)

    def process_batch(self, rows: Sequence[Any]) -> None:
        names, expressions = zip(*self.columns.items(), strict=True)
        self.session.execute(insert(self.target).from_select(names, select(*expressions).where(self._these(rows))))
