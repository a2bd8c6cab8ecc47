"""What every source keeps to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


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
    """

    connect: Callable[[], AbstractContextManager[Any]]
    url: Any = None
    session: Any = None
    conf: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class PlacedSource(Protocol):
    """A source that has to know the application, because it asks its database."""

    def at(self, place: Place) -> Source:
        """This source for one application. The source itself stays as it is: several may share it."""
