"""Kills that a test can afford: processes die inside of this one, and nothing that they do afterwards counts.

A real ``kill -9`` needs processes of its own and a database that two of them see, which a test
suite with a database in memory does not have. What makes a kill what it is can be had without: from
that moment on, nothing is saved any more. So at a boundary :class:`Killed` is raised, and from then
on every commit, every write to a collection and everything that tgext.evolve would record raises it
again, whatever ``except`` or ``finally`` the evolution has. Its transaction is rolled back, as the
database does for a client that is gone. Then the next process is made, which has other objects, a
lease of its own and nothing that the evolution noted on itself.

What it cannot show: globals of modules outlive such a death, and what an evolution writes to files
or other services in its ``finally`` is written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, cast

from ..errors import EvolutionFailed, LeaseLost
from ..plan import PlannedEvolution
from ..points import at_points
from ..stores.base import Grant, Owner, Renewal, Requests, Store
from .runner import EvolutionRunner, alone

#: So many batches at least, where the items of the test are as many.
_BATCHES = 5

#: Nobody's evolution has so many boundaries in a test: it begins anew after each death.
_MOST_DEATHS = 500

#: Where the batches of an evolution can be interrupted: everything else looks the same to the database.
_BETWEEN_BATCHES = frozenset({'before-batch-commit', 'before-checkpoint', 'after-batch', 'before-record'})

#: The same of an evolution that is called once; the commits and writes of its own are added.
_AROUND = frozenset({'before-record', 'before-commit', 'after-commit'})

_WRITES = (
    'insert_one',
    'insert_many',
    'replace_one',
    'update_one',
    'update_many',
    'delete_one',
    'delete_many',
    'bulk_write',
    'find_one_and_update',
    'find_one_and_replace',
    'find_one_and_delete',
)


class Killed(LeaseLost):
    """This process is dead. The runner takes it for the end of a holder that may record nothing."""


def run_with_deaths(runner: EvolutionRunner, id: str) -> int:
    """Run one evolution, killed at every boundary, each time by another process; how often.

    A batched evolution dies at each of its boundaries once. Another one dies in its nth life at
    the nth boundary of that life: each gets a little further than the one before.

    :raises EvolutionFailed: it did not survive that.
    """
    planned = runner.find(id)
    plan = alone(planned)
    deaths = _Batched(runner.store) if planned.batched else _Called(runner.store)
    prepare = _in_small_batches(runner, planned)
    while True:
        deaths.live()
        try:
            with deaths.watching():
                runner.run_plan(plan, cast('Store', _Mortal(runner.store, deaths)), prepare)
        except Killed:
            pass
        finally:
            runner.forget()
        if not deaths.dead:
            return deaths.number
        deaths.number += 1
        if deaths.number > _MOST_DEATHS:
            raise EvolutionFailed(
                f'evolution {id!r} is not done after {_MOST_DEATHS} kills',
                place=planned.origin,
                remedy='Do not begin anew what is done: look which rows are left.',
            )
        _expire(runner.store)


def _expire(store: Store) -> None:
    """The lease of the dead expires, and nobody has to wait for that."""
    row = store.lease_row()
    if row is not None:
        store.release(Grant(Owner(row.owner, row.host, row.pid), row.token))


def _in_small_batches(runner: EvolutionRunner, planned: PlannedEvolution) -> Callable[[], None]:
    """Few rows make one batch only: cut them into several, without pauses, in this thread."""
    if not planned.batched:
        return lambda: None
    count = runner.evolver(alone(planned)).count(planned.id) or 0
    size = max(1, min(count // _BATCHES or 1, planned.evolution.batch_size))

    def prepare() -> None:
        vars(planned.evolution).update(batch_size=size, batch_seconds=None, pause=0.0)

    return prepare


class _Deaths:
    """Decides where the process that runs now dies, and keeps it dead."""

    boundaries: frozenset[str]

    def __init__(self, store: Store):
        self.number = 0
        self.dead = False
        self._thread = threading.get_ident()
        self._store = store

    def live(self) -> None:
        """A new process begins."""
        self.dead = False

    def reach(self, name: str) -> None:
        """The process that runs has come to a point; others (the heartbeat) do not matter."""
        if threading.get_ident() != self._thread:
            return
        if self.dead or (name in self.boundaries and self._is_due(name)):
            self.die()

    def _is_due(self, name: str) -> bool:
        raise NotImplementedError

    def write(self) -> None:
        """The process that runs is about to save something by itself."""
        if threading.get_ident() == self._thread and self.dead:
            self.die()

    def die(self) -> None:
        self.dead = True
        raise Killed('killed by a check of tgext.evolve.testing')

    @contextmanager
    def watching(self) -> Iterator[None]:
        before = at_points(self.reach)
        try:
            with ExitStack() as stack:
                stack.enter_context(_sql_commits(self.write))
                stack.enter_context(_mongo_writes(self.write))
                yield
        finally:
            at_points(before)


class _Batched(_Deaths):
    """Dies once at each boundary of each batch."""

    boundaries = _BETWEEN_BATCHES

    def __init__(self, store: Store):
        super().__init__(store)
        self._saved = 0
        self._died: set[tuple[str, int]] = set()

    def _is_due(self, name: str) -> bool:
        boundary = name, self._saved
        self._saved += name == 'after-batch'
        if boundary in self._died:
            return False
        self._died.add(boundary)
        return True


class _Called(_Deaths):
    """Dies in its nth life at the nth boundary."""

    boundaries = _AROUND

    def __init__(self, store: Store):
        super().__init__(store)
        self._passed = 0
        self._inside = False

    def live(self) -> None:
        super().live()
        self._passed = 0
        self._inside = False

    def reach(self, name: str) -> None:
        if threading.get_ident() == self._thread:
            # Between the two, whatever is saved is saved by the evolution itself.
            self._inside = name == 'before-evolve' or (self._inside and name not in _AROUND)
        super().reach(name)

    def _is_due(self, name: str) -> bool:
        self._passed += 1
        return self._passed > self.number

    def write(self) -> None:
        super().write()
        if threading.get_ident() == self._thread and self._inside and self._is_due('write'):
            self.die()


class _Mortal:
    """A store that does nothing for the dead.

    Its heartbeat, in a thread of its own, may not have noticed: it is let be.
    """

    def __init__(self, store: Store, deaths: _Deaths):
        self._real = store
        self._deaths = deaths

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if not self._deaths.dead or not callable(real):
            return real
        if name == 'renew':
            return lambda *ignored: Renewal.KEPT
        if name == 'requests':
            return Requests
        return lambda *ignored, **ignored_too: self._deaths.die()


@contextmanager
def _sql_commits(heard: Callable[[], None]) -> Iterator[None]:
    """Have ``heard`` called before each commit of SQLAlchemy, on any engine."""
    try:
        from sqlalchemy import Engine, event
    except ImportError:
        yield
        return

    def commit(connection: Any) -> None:
        heard()

    event.listen(Engine, 'commit', commit)
    try:
        yield
    finally:
        event.remove(Engine, 'commit', commit)


@contextmanager
def _mongo_writes(heard: Callable[[], None]) -> Iterator[None]:
    """Have ``heard`` called before each write to a collection of pymongo or mim, but for our own."""
    kinds: list[Any] = []
    try:
        from pymongo.collection import Collection

        kinds.append(Collection)
        from ming import mim

        kinds.append(mim.Collection)
    except ImportError:
        pass
    with ExitStack() as stack:
        for kind in kinds:
            for name in _WRITES:
                if name in vars(kind):
                    stack.callback(setattr, kind, name, vars(kind)[name])
                    setattr(kind, name, _heard(vars(kind)[name], heard))
        yield


def _heard(method: Any, heard: Callable[[], None]) -> Any:
    @wraps(method)
    def write(collection: Any, *args: Any, **kwargs: Any) -> Any:
        if not collection.name.startswith('tgext_evolve'):
            heard()
        return method(collection, *args, **kwargs)

    return write
