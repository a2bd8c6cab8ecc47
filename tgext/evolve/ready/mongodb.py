"""Batched evolutions of MongoDB documents. Each bears to run twice over the same documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..evolution import BatchedEvolution


class _Documents(BatchedEvolution):
    """:param id: the ``evolution_id``.

    :param collection: its name, or a class mapped to it.
    :param where: a query; what has been processed must not match it any more.
    :param attributes: any other of an evolution: ``depends_on``, ``serving``, ``batch_size``, ``pause``...
    """

    def __init__(self, id: str, collection: Any, where: dict[str, Any], **attributes: Any):
        self.evolution_id = id
        self.items = collection if isinstance(collection, str) else collection.__mongometa__.name
        self.where = where
        for name, value in attributes.items():
            if not hasattr(type(self), name):
                raise TypeError(f'{type(self).__name__}() got an unexpected keyword argument {name!r}')
            setattr(self, name, value)

    def _these(self, documents: Sequence[Any]) -> dict[str, Any]:
        return {'_id': {'$in': [document['_id'] for document in documents]}}


class RenameField(_Documents):
    """Give a field another name in all documents that have it, and not yet the other.

    :param old: its name now, dotted where it is inside of another.
    :param new: its name from then on.
    """

    def __init__(self, id: str, collection: Any, old: str, new: str, **attributes: Any):
        super().__init__(id, collection, {old: {'$exists': True}, new: {'$exists': False}}, **attributes)
        self.old = old
        self.new = new

    def process_batch(self, documents: Sequence[Any]) -> None:
        self.session[self.items].update_many(
            {**self._these(documents), **self.where}, {'$rename': {self.old: self.new}}
        )


class ConvertField(_Documents):
    """Convert the value of a field.

    :param field: its name; not inside of another.
    :param convert: from the old value to the new one.
    :param where: a query for values that are still to be converted, for example ``{'price': {'$type': 'string'}}``.
    """

    def __init__(
        self,
        id: str,
        collection: Any,
        field: str,
        convert: Callable[[Any], Any],
        where: dict[str, Any],
        **attributes: Any,
    ):
        super().__init__(id, collection, where, **attributes)
        self.field = field
        self.convert = convert

    def process(self, document: Any) -> None:
        old = document[self.field]
        # Only as it was read: what the application has written meanwhile is not overwritten.
        self.session[self.items].update_one(
            {'_id': document['_id'], self.field: old}, {'$set': {self.field: self.convert(old)}}
        )


class DeleteDocuments(_Documents):
    """Delete documents by a query."""

    def __init__(self, id: str, collection: Any, where: dict[str, Any], **attributes: Any):
        if not where:
            raise TypeError('DeleteDocuments needs a query: where')
        super().__init__(id, collection, where, **attributes)

    def process_batch(self, documents: Sequence[Any]) -> None:
        self.session[self.items].delete_many({**self._these(documents), **self.where})
