"""What users write: an evolution is one change, run once per database and namespace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from .errors import NotRunning


class Run(Protocol):
    """What an evolution can tell the runner while it runs."""

    def progress(self, done: float, total: float | None, message: str | None) -> None: ...

    def fields(self) -> dict[str, object]:
        """What names it in log records, see :func:`tgext.evolve.events.fields`."""
        ...

    def batches(self) -> None:
        """Run the batches of the evolution that is called."""
        ...


_current_run: ContextVar[Run | None] = ContextVar('tgext.evolve.run', default=None)

_batch_place: ContextVar[Any] = ContextVar('tgext.evolve.batch', default=None)


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


class BatchedEvolution(Evolution):
    """One change to many rows or documents, in batches that are saved one by one.

    Say what the items are, and what is done with one of them::

        class BackfillSlugs(BatchedEvolution):
            evolution_id = '2026-11-backfill-slugs'
            items = Page
            where = Page.slug.is_(None)

            def process(self, page):
                page.slug = slugify(page.title)

    Items are read in the order of their keys, each batch after the last key of the one before:
    nothing is skipped or seen for ever because it enters or leaves the filter meanwhile. On SQL
    the work of a batch, its checkpoint and its progress are saved in one transaction, so each
    batch counts exactly once, also under kill -9. So they are on MongoDB where its server has
    transactions; else the checkpoint follows the work: a batch may run twice after a kill, so
    ``process`` must bear that.

    A process that ends or is killed goes on where the last batch ended, in whatever process.
    """

    #: A mapped class of SQLAlchemy or Ming, a ``select()``, or the name of a MongoDB collection;
    #: None: :meth:`fetch` and :meth:`key` are defined instead.
    items: Any = None

    #: Which of them: an expression of SQLAlchemy, or a query of MongoDB; None: all.
    where: Any = None

    #: Columns that identify an item of a ``select()`` and order the batches; None: the primary key.
    key_columns: Sequence[Any] | None = None

    #: How many items are processed and saved at once, in the beginning where it adapts.
    batch_size: int = 500

    #: Seconds that one batch should take: its size adapts to that. None: ``batch_size`` is fixed.
    batch_seconds: float | None = None

    #: Between 1 and this a size adapts itself.
    largest_batch: int = 10_000

    #: Seconds between two batches, for the database to breathe; or a method that returns them.
    pause: float | Callable[[], float] = 0.0

    #: How often the items are gone through. None: until the filter finds nothing, which catches
    #: what old code adds behind the cursor; once where there is no ``where``.
    passes: int | None = None

    #: Into how many ranges of keys the items are cut when it is begun.
    partitions: int = 1

    #: Whether the rows of a batch are locked while it is processed. None: where others may write
    #: meanwhile, which is while this evolution lets the application serve.
    lock: bool | None = None

    #: On MongoDB: False saves the checkpoint after the batch also where the server has transactions. For what
    #: may not be done in one, or takes longer than the server allows.
    transactional_batches: bool = True

    #: In another process: how to make the application. An ini file (``config:/path/app.ini``), or
    #: the dotted name of a function that returns its configuration; None: as the holder was made.
    application: str | None = None

    #: A batch is saved or not: what raised may run again by itself.
    rerunnable: bool | None = True

    @property
    def session(self) -> Any:
        """What the batch that is processed now belongs to: a session of SQLAlchemy, or a database of pymongo.

        :raises NotRunning: while no batch is processed.
        """
        place = _batch_place.get()
        if place is None:
            raise NotRunning(
                f'{type(self).__qualname__} processes no batch now',
                place=f'{type(self).__module__}.{type(self).__qualname__}.session',
                remedy='Use it in process() or process_batch() only, of an evolution that says items = ...',
            )
        return place

    def process(self, item: Any) -> None:
        """Do the change to one item. Neither commit nor roll back."""
        raise NotImplementedError(f'{type(self).__qualname__} has neither process() nor process_batch()')

    def process_batch(self, items: Sequence[Any]) -> None:
        """Do the change to a whole batch at once, instead of :meth:`process`."""
        for item in items:
            try:
                self.process(item)
            except Exception as error:
                raise Unprocessed(item) from error

    def executor(self) -> Any:
        """What partitions run on, see :mod:`tgext.evolve.executors`; None: one after the other, here.

        A ``concurrent.futures.Executor``, or whatever has its ``submit()`` and ``shutdown()``. It is asked
        for anew when one broke, and is shut down after the attempt. Processes must be spawned, not forked.
        """
        return None

    def fetch(self, after: Any, until: Any, limit: int) -> Sequence[Any]:
        """The next items in the order of their keys, where ``items`` cannot say what they are.

        :param after: the key of the last item before; None: from the beginning.
        :param until: the greatest key; None: to the end. Only where it is partitioned.
        :param limit: the most items.
        """
        raise NotImplementedError

    def key(self, item: Any) -> Any:
        """What identifies an item of :meth:`fetch` and orders the batches."""
        raise NotImplementedError

    def count(self) -> int | None:
        """How many items of :meth:`fetch` there are; None: it cannot be told, or costs too much."""
        return None

    def cuts(self, partitions: int) -> Sequence[Any]:
        """Keys that cut the items of :meth:`fetch` into so many partitions."""
        return ()

    def evolve(self) -> None:
        """Run all batches; only the runner can."""
        run = _current_run.get()
        if run is None:
            raise NotRunning(
                f'{type(self).__qualname__} is evolved in batches, which are saved under a lease',
                place=f'{type(self).__module__}.{type(self).__qualname__}.evolve()',
                remedy='For a try: tgext.evolve.dry_run(conf, id) processes one batch and rolls it back.',
            )
        run.batches()


@contextmanager
def writing_to(place: Any) -> Iterator[None]:
    """Make ``place`` the ``session`` of the batched evolution that this context runs."""
    token = _batch_place.set(place)
    try:
        yield
    finally:
        _batch_place.reset(token)


class Unprocessed(Exception):
    """Carries the item that raised from an evolution to who knows its key."""

    def __init__(self, item: Any):
        super().__init__(item)
        self.item = item


@contextmanager
def running(run: Run) -> Iterator[Run]:
    """Make ``run`` the one that :meth:`Evolution.progress` of this context reports to."""
    token = _current_run.set(run)
    try:
        yield run
    finally:
        _current_run.reset(token)
