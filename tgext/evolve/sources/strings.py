"""The one place where SQL in plain strings still runs, as it did before SQLAlchemy 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection


class StringConnection(Connection):
    """A connection that also takes statements as SQLAlchemy 1 did: ``execute('UPDATE ...', (1, 2))``.

    It *is* the connection that it was made from, with its transaction: both have one and the same state. So whatever
    asks for a connection of SQLAlchemy (``create_all``, a session's ``bind``, ``inspect``, alembic) takes this one.
    """

    def __init__(self, connection: Connection):
        self.__dict__ = connection.__dict__

    def execute(self, statement: Any, *multiparams: Any, execution_options: Any = None, **params: Any) -> Any:
        if isinstance(statement, str):
            return self.exec_driver_sql(statement, _of_a_driver(multiparams, params), execution_options)
        if 'parameters' in params:  # as SQLAlchemy 2 calls it
            parameters = params['parameters']
        else:
            parameters = params or (multiparams[0] if len(multiparams) == 1 else list(multiparams) or None)
        return super().execute(statement, parameters, execution_options=execution_options)

    def scalar(self, statement: Any, *multiparams: Any, execution_options: Any = None, **params: Any) -> Any:
        return self.execute(statement, *multiparams, execution_options=execution_options, **params).scalar()

    def scalars(self, statement: Any, *multiparams: Any, execution_options: Any = None, **params: Any) -> Any:
        return self.execute(statement, *multiparams, execution_options=execution_options, **params).scalars()


def _of_a_driver(multiparams: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """The parameters of a plain string as a driver takes them: one row of them, or a list of rows."""
    if not multiparams:
        return params or None
    if len(multiparams) > 1:
        return list(multiparams) if all(map(_is_row, multiparams)) else tuple(multiparams)
    [only] = multiparams
    if not _is_row(only):
        return (only,)
    if isinstance(only, list) and not (only and all(map(_is_row, only))):
        return tuple(only) or None
    if isinstance(only, tuple) and only and all(map(_is_row, only)):
        return list(only)
    return only


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple | Mapping)
