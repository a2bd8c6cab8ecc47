"""The items of a batched evolution in a SQL database: a mapped class or a statement, by keyset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Integer, Select, and_, func, inspect, or_, select, tuple_
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper

from ...errors import PlanError
from ...evolution import BatchedEvolution

#: Where a comparison of row values uses the index of a composite key.
_ROW_VALUES = ('postgresql', 'sqlite')


def items_of(evolution: BatchedEvolution, registry: Any) -> SQLItems:
    """:raises PlanError: when ``items`` is neither a mapped class nor a statement with a key."""

    def wrong(what: str, remedy: str) -> PlanError:
        kind = type(evolution)
        return PlanError(
            f'the items of {evolution.evolution_id!r} {what}',
            place=f'{kind.__module__}.{kind.__qualname__}',
            remedy=remedy,
        )

    if registry is None:
        raise wrong('are read through a session, and the application has none', 'Define fetch() and key() instead.')
    given = evolution.items
    if isinstance(given, Select):
        statement, entity = given, _entity(given)
    else:
        try:
            mapper = inspect(given)
        except NoInspectionAvailable:
            mapper = None
        if not isinstance(mapper, Mapper):
            raise wrong(
                f'are {given!r}, which is neither a mapped class nor a select()',
                'Use a mapped class of SQLAlchemy, a select(), or fetch() and key().',
            )
        statement, entity = select(given), mapper
    if evolution.where is not None:
        statement = statement.where(evolution.where)
    columns = list(evolution.key_columns or ())
    if not columns and entity is not None:
        columns = [entity.all_orm_descriptors[entity.get_property_by_column(c).key] for c in entity.primary_key]
    if not columns:
        columns = _primary_key(statement)
    if not columns:
        raise wrong('have no primary key', 'Say key_columns = (column, ...): not null, unique together, with an index.')
    lock = evolution.lock if evolution.lock is not None else evolution.serving != 'nothing'
    return SQLItems(statement, columns, registry, entity is not None, lock)


def _entity(statement: Select[Any]) -> Mapper[Any] | None:
    """The mapped class whose instances the statement yields, if it is just one."""
    found = statement.column_descriptions
    if len(found) != 1 or found[0].get('entity') is None or found[0]['expr'] is not found[0]['entity']:
        return None
    mapper = inspect(found[0]['entity'])
    return mapper if isinstance(mapper, Mapper) else None


def _primary_key(statement: Select[Any]) -> list[Any]:
    froms = statement.get_final_froms()
    columns = list(getattr(froms[0], 'primary_key', ())) if len(froms) == 1 else []
    selected = set(statement.selected_columns)
    return columns if all(column in selected for column in columns) else []


class SQLItems:
    """Reads through the application's session, so that what is fetched can be changed and saved with it.

    :param columns: what identifies an item and orders the batches; never null.
    :param entities: the statement yields instances of one mapped class, else rows.
    :param lock: rows are locked while their batch is processed.
    """

    def __init__(self, statement: Select[Any], columns: Sequence[Any], registry: Any, entities: bool, lock: bool):
        self._statement = statement
        self._columns = list(columns)
        self._registry = registry
        self._entities = entities
        self._lock = lock
        self._key_of = self._reader()

    def _reader(self) -> Callable[[Any], Any]:
        if self._entities:
            names = [column.key for column in self._columns]
        else:
            keys = list(self._statement.selected_columns)
            names = [keys.index(column) for column in self._columns]

        def part(item: Any, name: Any) -> Any:
            return getattr(item, name) if self._entities else item[name]

        if len(names) == 1:
            [only] = names
            return lambda item: part(item, only)
        return lambda item: tuple(part(item, name) for name in names)

    def where(self) -> Any:
        return self._registry()

    def key(self, item: Any) -> Any:
        return self._key_of(item)

    def fetch(self, after: Any, until: Any, limit: int) -> list[Any]:
        session = self._registry()
        dialect = session.connection().dialect.name
        statement = self._statement
        if after is not None:
            statement = statement.where(self._beyond(after, dialect))
        if until is not None:
            statement = statement.where(self._up_to(until, dialect))
        statement = statement.order_by(None).order_by(*self._columns).limit(limit)
        if self._lock:
            statement = statement.with_for_update()  # which SQLite has no word and no need for
        result = session.execute(statement)
        return list(result.scalars() if self._entities else result)

    def _parts(self, key: Any) -> tuple[Any, ...]:
        return key if isinstance(key, tuple) and len(self._columns) > 1 else (key,)

    def _beyond(self, key: Any, dialect: str) -> Any:
        """Greater than ``key``, in the order of all its columns."""
        values = self._parts(key)
        if len(values) == 1:
            return self._columns[0] > values[0]
        if dialect in _ROW_VALUES:
            return tuple_(*self._columns) > tuple_(*values)
        # The first comparison, which follows from the others, is for the index.
        return and_(self._columns[0] >= values[0], self._stepwise(values, strictly=True))

    def _up_to(self, key: Any, dialect: str) -> Any:
        values = self._parts(key)
        if len(values) == 1:
            return self._columns[0] <= values[0]
        if dialect in _ROW_VALUES:
            return tuple_(*self._columns) <= tuple_(*values)
        return and_(self._columns[0] <= values[0], self._stepwise(values, strictly=False))

    def _stepwise(self, values: Sequence[Any], *, strictly: bool) -> Any:
        column, value = self._columns[len(values) - 1], values[-1]
        condition = column > value if strictly else column <= value
        for column, value in reversed(list(zip(self._columns, values[:-1], strict=False))):
            step = column > value if strictly else column < value
            condition = or_(step, and_(column == value, condition))
        return condition

    def count(self) -> int | None:
        inner = self._statement.order_by(None).subquery()
        return int(self._alone(lambda session: session.execute(select(func.count()).select_from(inner)).scalar_one()))

    def cuts(self, partitions: int) -> list[Any]:
        """By the range of a single whole number, else by counting along the index."""
        [first, *others] = self._columns
        if not others and isinstance(first.type, Integer):
            ends = self._statement.order_by(None).with_only_columns(func.min(first), func.max(first))
            low, high = self._alone(lambda session: session.execute(ends).one())
            if low is None:
                return []
            step = (high - low + 1) / partitions
            return [low + round(step * number) - 1 for number in range(1, partitions) if round(step * number) > 0]
        total = self.count() or 0
        ordered = self._statement.with_only_columns(*self._columns).order_by(None).order_by(*self._columns)
        offsets = sorted({total * number // partitions - 1 for number in range(1, partitions)} - {-1})
        rows = [self._alone(lambda s, at=at: s.execute(ordered.offset(at).limit(1)).first()) for at in offsets]
        return [row[0] if len(row) == 1 else tuple(row) for row in rows if row is not None]

    def _alone(self, read: Callable[..., Any]) -> Any:
        """Read in a transaction that ends at once: long ones keep a database from tidying up."""
        try:
            return read(self._registry())
        finally:
            self._registry.remove()
