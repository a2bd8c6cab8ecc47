"""What users write: an evolution is one change, run once per database and namespace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Run(Protocol):
    """What an evolution can tell the runner while it runs."""

    def progress(self, done: float, total: float | None, message: str | None) -> None: ...

    def fields(self) -> dict[str, object]:
        """What names it in log records, see :func:`tgext.evolve.events.fields`."""
        ...


_current_run: ContextVar[Run | None] = ContextVar('tgext.evolve.run', default=None)


class Evolution:
    """One change to the data (or to anything else), with a stable id.

    Subclass it, give it an ``evolution_id`` and an :meth:`evolve`, and name the class (or an
    instance, when it takes parameters) in the ``evolutions`` option.
    """

    #: 1 to 200 characters, compared byte for byte; an int is taken as its string.
    evolution_id: str | int

    #: Ids of the evolutions that must be done before this one.
    depends_on: Sequence[str] = ()

    #: True: the data and the record of it are committed by the engine in one transaction.
    #: False: the evolution commits its own work.
    transactional: bool = False

    #: True: may also run again by itself after it raised. False: not even after a kill.
    #: None: after a kill; after it raised only when it is transactional.
    rerunnable: bool | None = None

    #: What the application may serve until this is done: ``nothing``, ``reads`` or ``everything``.
    serving: str = 'nothing'

    #: Ids under which this evolution may be recorded already: it was renamed.
    replaces: Sequence[str] = ()

    #: Seconds after which the next :meth:`progress` raises; None: no limit. A statement that the
    #: application's SQLAlchemy session executes then is cancelled on PostgreSQL, MariaDB, MySQL and
    #: SQLite (not where the history is kept in MongoDB), and the evolution has failed, however it
    #: ends. Nothing stops Python code that does neither.
    timeout: float | None = None

    #: One line for people.
    description: str = ''

    def evolve(self) -> None:
        """Do the change. Raise to say that it failed."""
        raise NotImplementedError(f'{type(self).__qualname__} has no evolve() method')

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Report how far it is; outside of a run this does nothing.

        :param done: how much is done, in the evolution's own unit.
        :param total: how much there is, in the same unit, where that is known.
        :param message: one line for the operator; never shown to the public.
        :raises LeaseLost: another process may have taken over; stop writing.
        :raises Cancelled: the process is leaving, or a person cancelled the evolution.
        :raises TimedOut: it has run for longer than its ``timeout``.
        """
        run = _current_run.get()
        if run is not None:
            run.progress(done, total, message)

    def __repr__(self) -> str:
        return f'<{type(self).__qualname__} {getattr(self, "evolution_id", None)!r}>'


def current() -> Run | None:
    """The run of the evolution in whose ``evolve()`` the caller is, in this thread."""
    return _current_run.get()


@contextmanager
def running(run: Run) -> Iterator[Run]:
    """Make ``run`` the one that :meth:`Evolution.progress` of this context reports to."""
    token = _current_run.set(run)
    try:
        yield run
    finally:
        _current_run.reset(token)
