"""What sources do in the SQL database of the application that they are asked for."""

from __future__ import annotations

from sqlalchemy import Connection

from ..errors import SourceError
from ..failure import clean
from ..stores.sqlalchemy.engines import same_database
from .base import Place

#: Where a step's DDL, its data, its version and our record are one transaction.
_TRANSACTIONAL_DDL = ('postgresql', 'sqlite')


def check(place: Place, what: str) -> None:
    """:raises SourceError: ``what`` works with a SQLAlchemy session, and the application has none."""
    if place.url is None or place.session is None:
        raise SourceError(
            f'{what} changes a SQL database, and the application has no SQLAlchemy session',
            place='the evolutions option',
            remedy='Enable SQLAlchemy (use_sqlalchemy, with a model that has DBSession), or remove that entry.',
        )


def has_transactional_ddl(place: Place) -> bool:
    return place.url.get_backend_name() in _TRANSACTIONAL_DDL


def connection(place: Place, what: str) -> Connection:
    """The connection of the session that the evolution runs in, with its transaction.

    :raises SourceError: the session is bound to another database than the one whose version table decides: the
        step would run for ever.
    """
    found: Connection = place.session.connection()
    if not same_database(found.engine.url, place.url):
        raise SourceError(
            f'{what}: the session is bound to {clean(str(found.engine.url))}, and the versions are read from '
            f'{clean(str(place.url))}',
            place='the sqlalchemy.* options and the bind of DBSession',
            remedy='Bind the session to the database that sqlalchemy.url names.',
        )
    return found
