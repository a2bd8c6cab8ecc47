"""Keys of rows and documents as text, and back: a checkpoint is kept in a column whatever the key is."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import uuid
from typing import Any

from .errors import EvolveError


class KeyProblem(EvolveError):
    """A key cannot be kept in a checkpoint."""


def dumps(key: Any) -> str:
    """``key`` as text; equal keys give equal texts.

    :param key: None, a number, a string, bytes, a date, time or datetime, a Decimal, a UUID, an
        ObjectId of MongoDB, or a tuple of these.
    :raises KeyProblem: for anything else.
    """
    return json.dumps(_plain(key), separators=(',', ':'), ensure_ascii=False)


def loads(text: str) -> Any:
    """The key that :func:`dumps` wrote.

    :raises KeyProblem: when somebody edited it.
    """
    try:
        return _key(json.loads(text))
    except (ValueError, KeyError, TypeError, decimal.InvalidOperation) as error:
        raise KeyProblem(
            f'the checkpoint {text[:100]!r} cannot be read: {type(error).__name__}',
            place='tgext_evolve_checkpoint',
            remedy='Somebody edited it. Mend it, or delete the rows of this evolution to begin it anew.',
        ) from None


def _plain(key: Any) -> Any:
    if key is None or isinstance(key, bool | str) or type(key) is int:
        return key
    if isinstance(key, tuple | list):
        return [_plain(each) for each in key]
    for name, kind, write, _ in _KINDS:
        if isinstance(key, kind):
            return {name: write(key)}
    if type(key).__name__ == 'ObjectId':
        return {'oid': str(key)}
    if isinstance(key, int):
        return int(key)
    raise KeyProblem(
        f'a key is {key!r}, of the type {type(key).__module__}.{type(key).__qualname__}',
        place='a batched evolution',
        remedy='Keys are numbers, strings, bytes, dates, Decimals, UUIDs, ObjectIds, or tuples of these.',
    )


def _key(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(_key(each) for each in plain)
    if not isinstance(plain, dict):
        return plain
    [(name, value)] = plain.items()
    if name == 'oid':
        from bson import ObjectId

        return ObjectId(value)
    return _READERS[name](value)


#: In this order: a datetime is a date as well.
_KINDS: tuple[tuple[str, Any, Any, Any], ...] = (
    ('datetime', datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    ('date', datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    ('time', datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    ('decimal', decimal.Decimal, str, decimal.Decimal),
    ('uuid', uuid.UUID, str, uuid.UUID),
    ('float', float, float.hex, float.fromhex),
    ('bytes', bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
)
_READERS = {name: read for name, _, _, read in _KINDS}
