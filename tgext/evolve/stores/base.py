"""The one contract that every store keeps: lease, history, and the work between them."""

from __future__ import annotations

import os
import socket
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Protocol

from .. import failure
from ..errors import LeaseLost, StoreAway, StoreError
from ..history import CLAIM, SETTLED, Attempt, History, State
from ..plan import PlannedEvolution
from ..points import point

#: How far the clock may be behind the lease without having jumped back, in milliseconds. A
#: statement's clock stands still from its start on (MariaDB), and may see a row written after it.
CLOCK_SLACK = 5_000

#: No lease is given for longer than this, in milliseconds: the longest that the options allow.
LONGEST_LEASE = 365 * 86_400 * 1000

NO_CONTENTS: Mapping[str, str] = MappingProxyType({})

#: What int() and the enums say of what they cannot read.
UNREADABLE = (KeyError, TypeError, ValueError, OverflowError)


def edited(thing: str, error: Exception, place: str) -> StoreError:
    """What a row or document says makes no sense."""
    return StoreError(
        f'{thing} cannot be read: {failure.brief(error)}',
        place=place,
        remedy='Somebody edited it. Mend or delete it.',
    )


def integer(value: Any) -> int:
    """:raises ValueError: when there is no room to count on from it."""
    number = int(value)
    if abs(number) >= 1 << 62:
        raise ValueError(f'{number} is too large')
    return number


def optional_integer(value: Any) -> int | None:
    return None if value is None else integer(value)


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f'{value!r} is no text')
    return value


@dataclass(frozen=True)
class Owner:
    """Who holds or wants the lease: a random id, with host and pid for people only."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=lambda: socket.gethostname()[:255])
    pid: int = field(default_factory=os.getpid)

    def __str__(self) -> str:
        return f'{self.host}:{self.pid}'


@dataclass(frozen=True)
class Grant:
    """The lease as it was given: the token is larger than any before in this namespace."""

    owner: Owner
    token: int


def grant_of(attempt: Attempt) -> Grant:
    """The lease under which the attempt runs."""
    return Grant(Owner(attempt.owner, attempt.host or '', attempt.pid or 0), attempt.token)


def to_settle(history: History, ids: Collection[str], contents: Mapping[str, str]) -> list[str]:
    """Which of ``ids`` :meth:`Store.settle` has to record."""
    found = []
    for id in dict.fromkeys(ids):
        latest = history.latest(id)
        wanted = contents.get(id)
        if wanted is None:
            is_settled = id in history.recorded or (id == CLAIM and history.is_claimed)
        else:
            is_settled = latest is not None and latest.state in SETTLED and latest.fingerprint == wanted
        if not is_settled:
            found.append(id)
    return found


@dataclass(frozen=True)
class Report:
    """What the holder tells everybody in passing, at each renewal."""

    evolution_id: str | None = None
    done: float | None = None
    total: float | None = None
    message: str | None = None
    since: int | None = None


@dataclass(frozen=True)
class Requests:
    """What people ask of whoever holds the lease, now or next.

    :param paused: since when nothing may begin, and a batched evolution stops after its batch (milliseconds).
    :param cancel: the evolution that is to end at its next report.
    :param wanted: a process that waits for something stricter wants the lease: what may be served
        until that is done.
    """

    paused: int | None = None
    cancel: str | None = None
    wanted: str | None = None


@dataclass(frozen=True)
class LeaseRow:
    """The lease as it stands in the database, at ``now`` by its clock. Times in milliseconds."""

    token: int
    owner: str
    host: str
    pid: int
    ttl: int
    expires_at: int
    now: int
    report: Report = Report()
    requests: Requests = Requests()

    @property
    def alive(self) -> bool:
        # Between both ends: a clock that jumped back must not freeze the lease.
        return self.ttl <= LONGEST_LEASE and self.expires_at - self.ttl - CLOCK_SLACK <= self.now < self.expires_at

    def __str__(self) -> str:
        return f'{self.host}:{self.pid}'


@dataclass(frozen=True)
class Snapshot:
    """One look: the history, the lease, and the database's clock (milliseconds).

    :param mark: of the history as it stood before it was read: another one is there as soon as anything is
        recorded. None: the store makes none.
    """

    history: History
    lease: LeaseRow | None
    now: int
    mark: Hashable = None


@dataclass(frozen=True)
class Checkpoint:
    """How far a batched evolution is in one partition of its items.

    Keys are texts, see :mod:`tgext.evolve.keys`. What lies after ``after`` and up to ``until`` belongs
    to the partition; None: there is no such end.

    :param position: the key of the last item that was processed in this pass.
    :param passes: how many passes have come to their end.
    :param found: how many items this pass has found so far.
    :param last_found: how many the pass before found.
    :param done: how many items were processed in all.
    :param total: how many there were in the beginning, where that is known.
    :param seconds: how long that has taken.
    """

    partition: int
    after: str | None = None
    until: str | None = None
    position: str | None = None
    passes: int = 0
    found: int = 0
    last_found: int = 0
    done: int = 0
    total: int | None = None
    seconds: float = 0.0
    finished: bool = False


@dataclass
class Batch:
    """What is saved together with the work of one batch."""

    checkpoint: Checkpoint


class Renewal(Enum):
    """What became of an attempt to renew the lease."""

    KEPT = 'kept'
    LOST = 'lost'
    #: The holder's own evolution keeps the whole database locked (SQLite): nobody else can take
    #: the lease either, so this is no loss; the fence decides.
    BUSY = 'busy'


@dataclass(frozen=True)
class Predecessor:
    """What a 0.0.5 database says: the last evolution that ran, and whether somebody locked it."""

    version: str | None
    locked_by: str | None


class Items(Protocol):
    """Reads the items of a batched evolution in the order of their keys."""

    def where(self) -> Any:
        """Where a batch is to write: a session on SQL, a database of pymongo on MongoDB; None: not known."""

    def fetch(self, after: Any, until: Any, limit: int) -> list[Any]:
        """The first ``limit`` items whose keys are greater than ``after`` and not greater than ``until``."""

    def key(self, item: Any) -> Any: ...

    def count(self) -> int | None: ...

    def cuts(self, partitions: int) -> list[Any]:
        """Keys that cut the items into about equal partitions: at most ``partitions - 1``."""


class Store(ABC):
    """Lease and history of one namespace in one database.

    Every method may raise :class:`~tgext.evolve.errors.StoreAway`,
    :class:`~tgext.evolve.errors.StoreBusy` or :class:`~tgext.evolve.errors.StoreError`. Nothing of
    it keeps a connection after it returned, unless it says so.
    """

    #: What the lease and the history are kept under.
    namespace: str
    #: For people: the database, without passwords.
    name: str
    #: False when only the thread that made the database sees it (SQLite in memory).
    threads = True

    @abstractmethod
    def history(self) -> History:
        """The history, by one read query; empty when nothing was ever recorded here."""

    @abstractmethod
    def error_of(self, attempt: Attempt) -> str | None:
        """The error of one attempt, which :meth:`history` leaves out for its size."""

    @abstractmethod
    def snapshot(self, known: Snapshot | None = None) -> Snapshot:
        """The history, the lease and the clock.

        :param known: an earlier one. A store that can tell that nothing was recorded since takes the history
            from there, so that waiting costs the same however long histories are; lease and clock are always read.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Make the tables that are missing; safe when many processes do it at once."""

    @abstractmethod
    def acquire(self, owner: Owner, ttl: float) -> Grant | None:
        """Take the lease if it is free, expired, or ``owner``'s own: a new, larger token.

        :param ttl: seconds until it expires when it is not renewed.
        """

    @abstractmethod
    def renew(self, grant: Grant, ttl: float, report: Report) -> Renewal:
        """Push the expiry ``ttl`` seconds away from the database's now, if it is still ours."""

    @abstractmethod
    def release(self, grant: Grant) -> None:
        """Give the lease back, if it is still ours."""

    @abstractmethod
    def lease_row(self) -> LeaseRow | None:
        """The lease alone; None when it was never taken."""

    @abstractmethod
    def requests(self) -> Requests:
        """What people ask of the holder; nothing when the lease was never taken."""

    @abstractmethod
    def ask(
        self,
        owner: Owner,
        *,
        paused: bool | None = None,
        cancel: str | None = None,
        wanted: str | None = None,
    ) -> None:
        """Ask the holder of the lease for something; what is None stays as it is.

        :param owner: who asks, for a lease that nobody ever took.
        :param paused: nothing may begin until it is taken back with False.
        :param cancel: the id of the evolution that is to end; ``''`` takes it back.
        :param wanted: the level of what waits for the lease; whoever takes the lease next takes it back.
        """

    @abstractmethod
    def shut(self, owner: Owner, message: str) -> None:
        """Record that a person closed the gate of this namespace, with a message for the public.

        Nothing that is recorded of evolutions changes; an earlier message is replaced.
        """

    @abstractmethod
    def reopen(self) -> bool:
        """Take :meth:`shut` back; was there anything to take back?"""

    @abstractmethod
    def interrupt_older(self, grant: Grant) -> list[Attempt]:
        """Mark every running attempt of an older token interrupted, and return these.

        Waits for a commit in flight; ends the dead holder's session where the database lets it.
        From here on nothing that an older holder still does can be recorded, and no checkpoint of
        its is moved.
        """

    @abstractmethod
    def begin(self, grant: Grant, planned: PlannedEvolution, number: int, fingerprint: str) -> Attempt:
        """Record that an attempt runs.

        The caller renews the lease *afterwards*: when that succeeds, every later holder sees
        this row.
        """

    @abstractmethod
    def finish(self, attempt: Attempt, state: State, error: str | None = None, *, final: bool = False) -> bool:
        """Record the outcome on the attempt's own row, if that still runs: the fence.

        :param final: it does not run again by itself.

        :returns: False when it was no longer running: a later holder has marked it.
        """

    @abstractmethod
    def withdraw(self, attempt: Attempt) -> None:
        """Take back :meth:`begin`: the attempt still runs, and its evolution was never called."""

    @contextmanager
    def _recorded(self, attempt: Attempt, planned: PlannedEvolution) -> Iterator[None]:
        """Around what saves its work by itself: all that is left is the record."""
        yield
        point('before-record')
        if not self.record_done(attempt, planned):
            raise LeaseLost('a later holder has marked this attempt')

    def record(
        self,
        attempt: Attempt,
        state: State,
        error: str | None = None,
        patience: float = 30.0,
        *,
        final: bool = False,
    ) -> bool:
        """:meth:`finish`, tried again for ``patience`` seconds while the database is busy.

        Recording an outcome must not fail because somebody else was writing just then.
        """
        until = time.monotonic() + patience
        while True:
            try:
                return self.finish(attempt, state, error, final=final)
            except StoreAway:
                raise
            except StoreError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def record_done(self, attempt: Attempt, planned: PlannedEvolution) -> bool:
        """:meth:`record` that it is done, and with it the ids that it replaces.

        A release that knows it by its old id, or is rolled back to, must not run it again.
        """
        if not self.record(attempt, State.DONE):
            return False
        if planned.replaces:
            self.settle(grant_of(attempt), planned.replaces, State.STAMPED)
        return True

    @abstractmethod
    def settle(
        self, grant: Grant, ids: Collection[str], state: State, contents: Mapping[str, str] = NO_CONTENTS
    ) -> None:
        """Record that these evolutions need not run (``stamped``, ``imported``); what is settled already stays.

        :param contents: the fingerprints of those that are settled with this content only; what was the last one to
            be recorded is not recorded again.
        """

    @abstractmethod
    def unsettle(self, grant: Grant, ids: Collection[str]) -> None:
        """Take back what :meth:`settle` recorded; what really ran stays done."""

    @abstractmethod
    def forgive(self, ids: Collection[str]) -> int:
        """Failed, cancelled and interrupted attempts at these no longer count; how many were."""

    @abstractmethod
    def work(self, attempt: Attempt, planned: PlannedEvolution) -> AbstractContextManager[None]:
        """What surrounds one piece of work on this database.

        Opens what the evolution needs, and on a good end saves the work *and* records the attempt
        as done, under the fence, and with it the ids that the evolution replaces; on an exception
        rolls back and cleans up.

        :raises LeaseLost: the record was refused: a later holder has taken over.
        :raises BrokeTransaction: a transactional evolution ended the engine's transaction.
        """

    # -- batches

    @abstractmethod
    def checkpoints(self, evolution_id: str, attempt: Attempt | None = None) -> list[Checkpoint]:
        """How far it is, by partition; empty when it was never begun.

        :param attempt: only what this attempt may move; None: all.
        """

    @abstractmethod
    def take_checkpoints(self, attempt: Attempt, new: Sequence[Checkpoint] = ()) -> list[Checkpoint]:
        """Make the checkpoints this attempt's own: from here on no other attempt can move them.

        :param new: what to begin with when there are none.
        :raises LeaseLost: a later holder has marked this attempt.
        """

    @abstractmethod
    def drop_checkpoints(self, attempt: Attempt) -> None:
        """What still works on a partition for this attempt can save nothing any more."""

    @abstractmethod
    def forget_checkpoints(self, ids: Collection[str]) -> None:
        """Begin these evolutions anew when they run next."""

    @abstractmethod
    def batch(
        self, attempt: Attempt, planned: PlannedEvolution, checkpoint: Checkpoint
    ) -> AbstractContextManager[Batch]:
        """What surrounds one batch: its work and its checkpoint are saved together at a good end.

        In one transaction where the store can; else the checkpoint follows the work, so that a
        batch may run twice. The caller puts the new checkpoint into what it gets.

        :param checkpoint: from where it goes on. It is moved from there only: of two workers on the same
            partition (one was taken for dead too early) one saves its batch.
        :raises LeaseLost: the checkpoint belongs to another attempt now, or was moved by another worker;
            nothing was saved.
        :raises StoreBusy: it lost against another transaction; nothing was saved, try again.
        """

    @abstractmethod
    def items(self, evolution: Any) -> Items:
        """The items of a batched evolution that says ``items = ...``, as this store reads them.

        :raises PlanError: when it cannot read such items.
        """

    @abstractmethod
    def predecessor(self) -> Predecessor | None:
        """What 0.0.5 left in this database; None when it never was here."""

    @abstractmethod
    def namespaces_with(self, ids: Collection[str]) -> list[str]:
        """Other namespaces whose history has one of ``ids``, sorted."""

    def refuses(self, planned: PlannedEvolution) -> str | None:
        """Why this transactional evolution cannot be one here; None when it can."""
        return None

    def keeps(self, planned: PlannedEvolution) -> str | None:
        """Why what a batch of this evolution did cannot be rolled back; None when it can."""
        return self.refuses(planned)

    def close(self) -> None:
        """Let go of everything that a forked child must not share."""

    def retire(self) -> None:
        """Let go of every connection, also of those that evolutions left in the application's pool."""
        self.close()
