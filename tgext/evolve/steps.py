"""Steps of other systems (revisions, scripts), and the version tables that say which of them are applied."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from .evolution import Evolution


class VersionTable(ABC):
    """Where another system keeps what of its own is applied; it decides, and the history only tells the story."""

    @abstractmethod
    def look(self) -> Versions:
        """What it says now, by one read query on a connection that is closed afterwards.

        :raises StoreError: it cannot be asked.
        """

    @abstractmethod
    def stamp(self, ids: Collection[str]) -> None:
        """Have it say that these are applied, without doing anything.

        :raises PlanError: it cannot say that.
        """

    @abstractmethod
    def unstamp(self, ids: Collection[str]) -> None:
        """Have it say that these are not applied, without undoing anything.

        :raises PlanError: it cannot say that.
        """


@dataclass(frozen=True)
class Versions:
    """What a version table says.

    :param applied: the ids of evolutions that are applied, or not needed any more.
    :param unknown: what it names and this release does not have, in words that a person can look for.
    """

    applied: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


class Step(Evolution):
    """One step of another system (a revision, a script): its code is not the module of its class.

    Sources make them; users do not.
    """

    #: What decides whether it is applied; None: the history, as for every other evolution.
    table: VersionTable | None = None

    #: Does it run again whenever its code has changed? The history decides then, not a ``table``.
    repeatable: bool = False

    #: Where it was written, for messages: a file.
    origin: str = ''

    @property
    def reversible(self) -> bool:
        """Does it have a way back?"""
        return False

    def revert(self) -> None:
        """Go that way, in its version table too: only ``gearbox evolve test`` does, on a scratch database.

        :raises NotImplementedError: it has none after all.
        """
        raise NotImplementedError

    def code(self) -> str:
        """The text that is run, for the fingerprint."""
        raise NotImplementedError
