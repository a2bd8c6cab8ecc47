"""What one number in a version table says about a row of steps."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..errors import PlanError
from ..steps import Versions


@dataclass(frozen=True)
class Numbered:
    """A first step that makes the newest version from nothing, and steps that lead from each version to the next.

    At version ``k`` the first and all up to ``k`` are applied. Where nothing is recorded none is; once the first one
    ran, no other is left. They do not count as applied before: what depends on one of them has to wait for the first.

    :param prefix: of the ids: ``stucco:mypackage``.
    :param first: what stands behind it for the first step; behind it for the others stands the version they lead to.
    :param newest: the version that the code is at.
    :param table: where the number stands, for people.
    """

    prefix: str
    first: str
    newest: int
    table: str

    def id(self, number: int | None) -> str:
        """:param number: None: of the first step."""
        return f'{self.prefix}:{self.first if number is None else number}'

    def __iter__(self) -> Iterator[int | None]:
        yield None
        yield from range(1, self.newest + 1)

    def versions(self, recorded: int | None) -> Versions:
        """:param recorded: the number in the table; None: there is none."""
        if recorded is None:
            return Versions()
        return Versions(
            frozenset(self.id(number) for number in self if number is None or number <= recorded),
            frozenset(self.id(number) for number in range(self.newest + 1, recorded + 1)),
        )

    def among(self, ids: Collection[str]) -> list[int | None]:
        """Which of these steps have one of ``ids``."""
        return [number for number in self if self.id(number) in ids]

    def stamped(self, recorded: int | None, chosen: Collection[int | None]) -> int:
        """What is to be recorded so that the ``chosen`` steps are applied.

        :raises PlanError: that would make others applied too.
        """
        highest = max((number for number in chosen if number is not None), default=None)
        if recorded is None:
            return self.newest if highest is None else highest
        if highest is None or highest <= recorded:
            return recorded
        self._check(set(range(recorded + 1, highest + 1)).difference(chosen), 'applied')
        return highest

    def unstamped(self, recorded: int | None, chosen: Collection[int | None]) -> int | None:
        """What is to be recorded so that the ``chosen`` steps are not applied; None: nothing at all.

        :raises PlanError: others would not be applied then, either.
        """
        if recorded is None or None in chosen:
            return None
        lowest = min(number for number in chosen if number is not None)
        if lowest > recorded:
            return recorded
        self._check(set(range(lowest, recorded + 1)).difference(chosen), 'not applied')
        return lowest - 1

    def _check(self, missing: Collection[int], what: str) -> None:
        if missing:
            raise PlanError(
                f'one number stands for all steps of {self.prefix!r}: it cannot say that only those are {what}',
                place=self.table,
                remedy=f'Name these too: {", ".join(self.id(number) for number in sorted(missing))}.',
            )
