"""What every source keeps to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ..errors import StoreError


@runtime_checkable
class Source(Protocol):
    """Yields evolutions: of its own, or :class:`~tgext.evolve.steps.Step` s of another system."""

    def evolutions(self) -> Iterable[Any]:
        """The evolutions of this source, in their order."""


@dataclass(frozen=True)
class Place:
    """The application that a source is asked for.

    :param connect: gives a connection of SQLAlchemy to the application's SQL database, in AUTOCOMMIT and
        outside of any pool, and closes it at the end. It raises
        :class:`~tgext.evolve.errors.StoreError` (and its kinds) for what SQLAlchemy raises inside of it.
    :param url: the URL of that database; None when the application has none.
    :param session: its scoped session; None when it has none.
    :param conf: its configuration.
    :param shared: what its sources leave for each other, each under a key of its own.
    """

    connect: Callable[[], AbstractContextManager[Any]]
    url: Any = None
    session: Any = None
    conf: Mapping[str, Any] = field(default_factory=dict)
    shared: dict[Any, Any] = field(default_factory=dict)

    def rows(self, statement: Any) -> list[Any] | None:
        """What one read query finds, as version tables are looked at; None: the table is not there.

        :raises StoreError: the database is away, or refuses.
        """
        from ..stores.sqlalchemy.dialects import Trouble, dialect_for

        try:
            with self.connect() as connection:
                return list(connection.execute(statement))
        except StoreError as error:
            dialect = dialect_for(self.url.get_backend_name(), str(self.url))
            if error.__cause__ is not None and dialect.trouble(error.__cause__) is Trouble.MISSING_TABLE:
                return None
            raise

    def put(self, source: PlacedSource) -> Source:
        """This source, as it is in this application."""
        return source.at(self)


@runtime_checkable
class PlacedSource(Protocol):
    """A source that has to know the application, because it asks its database."""

    def at(self, place: Place) -> Source:
        """This source for one application. The source itself stays as it is: several may share it."""
