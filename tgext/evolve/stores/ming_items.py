"""The items of a batched evolution in MongoDB: a class mapped by Ming, or the name of a collection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import PlanError
from ..evolution import BatchedEvolution


def items_of(evolution: BatchedEvolution, database: Callable[[], Any]) -> MongoItems:
    """:param database: pymongo's, for a collection that no class is mapped to.

    :raises PlanError: when ``items`` is neither a mapped class nor a name.
    """
    given = evolution.items
    if isinstance(given, str):
        return CollectionItems(database, given, evolution.where)
    if hasattr(given, 'query') and hasattr(given, '__mongometa__'):
        return MappedItems(given, evolution.where)
    kind = type(evolution)
    raise PlanError(
        f'the items of {evolution.evolution_id!r} are {given!r}, which is neither a mapped class nor the name of a '
        f'collection',
        place=f'{kind.__module__}.{kind.__qualname__}',
        remedy='Use a class mapped by Ming, the name of a collection, or fetch() and key().',
    )


class MongoItems:
    """In the order of ``_id``."""

    def __init__(self, where: dict[str, Any] | None):
        self._where = where or {}

    def where(self) -> Any:
        return self._collection().database

    def _find(self, where: dict[str, Any]) -> Any:
        raise NotImplementedError

    def _collection(self) -> Any:
        raise NotImplementedError

    def key(self, item: Any) -> Any:
        raise NotImplementedError

    def fetch(self, after: Any, until: Any, limit: int) -> list[Any]:
        bounds = {sign: end for sign, end in (('$gt', after), ('$lte', until)) if end is not None}
        where = _both(self._where, bounds)
        return list(self._find(where).sort('_id').limit(limit))

    def count(self) -> int | None:
        return int(self._collection().count_documents(self._where))

    def cuts(self, partitions: int) -> list[Any]:
        """By counting along the index of ``_id``."""
        collection = self._collection()
        total = collection.count_documents(self._where)
        offsets = sorted({total * number // partitions - 1 for number in range(1, partitions)} - {-1})
        found = [list(collection.find(self._where, {'_id': 1}).sort('_id').skip(at).limit(1)) for at in offsets]
        return [documents[0]['_id'] for documents in found if documents]


def _both(where: dict[str, Any], bounds: dict[str, Any]) -> dict[str, Any]:
    """A filter and bounds of ``_id``, as one filter; without ``$and`` where that can be, which mim does not know."""
    if not bounds:
        return where
    own = where.get('_id', {})
    if isinstance(own, dict) and all(sign.startswith('$') and sign not in bounds for sign in own):
        return {**where, '_id': {**own, **bounds}}
    return {'$and': [where, {'_id': bounds}]}


class MappedItems(MongoItems):
    """Instances of a mapped class, which Ming's session saves when the batch ends."""

    def __init__(self, model: Any, where: dict[str, Any] | None):
        super().__init__(where)
        self._model = model

    def _find(self, where: dict[str, Any]) -> Any:
        return self._model.query.find(where)

    def _collection(self) -> Any:
        session = self._model.query.session
        return session.db[self._model.__mongometa__.name]

    def key(self, item: Any) -> Any:
        return item._id


class CollectionItems(MongoItems):
    """Plain documents; whoever processes them writes by himself."""

    def __init__(self, database: Callable[[], Any], name: str, where: dict[str, Any] | None):
        super().__init__(where)
        self._database = database
        self._name = name

    def where(self) -> Any:
        return self._database()

    def _collection(self) -> Any:
        return self._database()[self._name]

    def _find(self, where: dict[str, Any]) -> Any:
        return self._collection().find(where)

    def key(self, item: Any) -> Any:
        return item['_id']
