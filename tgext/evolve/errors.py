"""Everything that can go wrong, each said with the thing, the place and the remedy."""

from __future__ import annotations

from collections.abc import Callable


class EvolveError(Exception):
    """Something is wrong, and a person can mend it.

    :param thing: what is wrong, naming it (an id, an option, a module).
    :param place: where it was found (an option of the ini, a file, a database).
    :param remedy: what to do or to type next.
    """

    def __init__(self, thing: str, *, place: str, remedy: str):
        self.thing = thing
        self.place = place
        self.remedy = remedy
        super().__init__(f'{thing} (in {place}). {remedy}')

    def __reduce__(self) -> tuple[Callable[..., EvolveError], tuple[type[EvolveError], str, str, str]]:
        return _rebuild, (type(self), self.thing, self.place, self.remedy)


def _rebuild(kind: type[EvolveError], thing: str, place: str, remedy: str) -> EvolveError:
    return kind(thing, place=place, remedy=remedy)


class OptionError(EvolveError):
    """An option is unknown, or its value cannot be used."""


class PlanError(EvolveError):
    """The evolutions do not make a plan: an id is bad, twice there, unknown, or in a cycle."""


class SourceError(EvolveError):
    """An entry of ``evolutions`` is not an evolution, or cannot be imported."""


class NotPlugged(EvolveError):
    """The application was configured without tgext.evolve."""


class EvolutionFailed(EvolveError):
    """An evolution failed, and the application may not serve."""


class BrokeTransaction(EvolveError):
    """A transactional evolution ended the transaction that its record belongs to."""


class TimedOut(EvolveError):
    """An evolution ran for longer than its ``timeout``."""

    @classmethod
    def of(cls, id: str, seconds: float, place: str) -> TimedOut:
        return cls(
            f'{id!r} ran for more than {seconds:g} seconds',
            place=place,
            remedy='Make it faster, or give it a longer timeout.',
        )


class ItemFailed(EvolveError):
    """One item of a batched evolution raised: the cause says what."""


class NotRunning(EvolveError):
    """A batched evolution was called without a runner."""


class Endless(EvolveError):
    """A batched evolution finds the same items again in each pass."""


class WorkerFailed(EvolveError):
    """What runs a partition in another process cannot do it."""


class StoreError(EvolveError):
    """The database refused what tgext.evolve needs: rights, a broken table, a full disk."""


class StoreAway(StoreError):
    """The database cannot be reached now."""


class StoreBusy(StoreError):
    """The database is there, but somebody holds a lock that tgext.evolve needs now."""


class LeaseTaken(StoreError):
    """Somebody else holds the lease."""


class NothingRuns(EvolveError):
    """There is nothing to cancel."""


class Stop(BaseException):
    """The evolution that runs must end here.

    It is a ``BaseException`` so that an ``except Exception`` around an evolution's inner loop does
    not swallow it.
    """


class LeaseLost(Stop):
    """This process no longer holds the lease: another one may be running already."""


class Cancelled(Stop):
    """A person cancelled the evolution, or the process that runs it is leaving."""


class Paused(Cancelled):
    """A person asked that nothing goes on."""


class Yielded(Cancelled):
    """A process that waits for something stricter asked for the lease."""


class CancelledByHand(Cancelled):
    """A person cancelled the evolution: it does not run again until a person says so."""
