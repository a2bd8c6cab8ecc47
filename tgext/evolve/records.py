"""What people record by hand: stamps, second chances, and what 0.0.5 left."""

from __future__ import annotations

import time
from collections.abc import Collection

from . import failure
from .arrival import Arrival
from .errors import LeaseTaken, NothingRuns, OptionError
from .history import CLAIM, History, State
from .lease import Lease
from .ledger import Ledger
from .options import Options
from .plan import Plan
from .remedies import to_type
from .stores.base import LeaseRow, Owner, Store


class Records:
    """Writes to the history of one application, under the lease where that matters.

    :param patience: seconds to wait for who holds the lease.
    """

    def __init__(self, options: Options, plan: Plan, store: Store, patience: float = 30.0):
        self._options = options
        self._plan = plan
        self._store = store
        self._ledger = Ledger(plan, store)
        self._patience = patience

    def hold(self, patience: float = 30.0) -> Lease:
        """Take the lease for a record.

        :param patience: seconds to wait for who holds it.
        :raises LeaseTaken: naming the holder.
        """
        self._store.prepare()
        owner = Owner()
        until = time.monotonic() + patience
        while True:
            lease = Lease.take(self._store, owner, self._options.lease)
            if lease is not None:
                return lease
            if time.monotonic() >= until:
                raise LeaseTaken(
                    f'the lease of {self._options.namespace!r} is held by {self._store.snapshot().lease}',
                    place=self._store.name,
                    remedy='Wait until its evolutions are done, or stop that process.',
                )
            time.sleep(self._options.poll)

    def stamp(self, ids: Collection[str] | None = None) -> list[str]:
        """Record evolutions as done without running them; all of the plan when ``ids`` is None."""
        with self.hold(self._patience) as lease:
            self._store.interrupt_older(lease.grant)
            history = self._ledger.history()
            if ids is None:
                wanted = [planned.id for planned in self._plan.pending(history)]
            else:
                wanted = self._known(ids, history)
            self._ledger.settle(lease.grant, wanted, State.STAMPED)
            self._withdraw_cancel(wanted)
        return wanted

    def _withdraw_cancel(self, ids: Collection[str]) -> None:
        """Who lets an evolution go on does not want it cancelled any more."""
        if self._store.requests().cancel in ids:
            self._store.ask(Owner(), cancel='')

    def unstamp(self, ids: Collection[str]) -> list[str]:
        """Evolutions that were only stamped or imported are pending again."""
        with self.hold(self._patience) as lease:
            wanted = self._known(ids, self._ledger.history())
            # What is left may be nothing, and must not look like a database never seen.
            self._store.settle(lease.grant, [CLAIM], State.STAMPED)
            self._ledger.unsettle(lease.grant, wanted)
        return wanted

    def retry(self, ids: Collection[str], *, restart: bool = False) -> int:
        """What failed or was cancelled may run again at once; how many attempts were forgiven.

        :param restart: batched evolutions begin anew, instead of where they stopped.
        """
        names: list[str] = []
        for id in self._known(ids, self._ledger.history()):
            planned = self._plan.find(id)
            names += planned.names if planned is not None else [id]
        self._withdraw_cancel(names)
        if restart:
            # Under the lease: nobody works on a batch meanwhile.
            with self.hold(self._patience):
                self._store.forget_checkpoints(names)
        return self._store.forgive(names)

    def pause(self) -> None:
        """Nothing begins any more, in whatever process, until :meth:`resume`.

        What runs goes on to its end; a batched evolution stops after its batch.
        """
        self._store.prepare()
        self._store.ask(Owner(), paused=True)

    def resume(self) -> None:
        """Take :meth:`pause` back."""
        self._store.prepare()
        self._store.ask(Owner(), paused=False)

    def cancel(self, id: str | None = None) -> str:
        """Ask whoever runs an evolution to end it at its next report; its id.

        It is recorded as cancelled, and stays closed until :meth:`retry` or :meth:`stamp`. One that
        reports nothing cannot be ended, and one that comes to its end before it hears of it is done.

        :param id: only this one: nobody said that another should end, if that runs by now.
        :raises NothingRuns: when nothing runs now, or another one.
        """
        snapshot = self._ledger.snapshot()
        running = _running(snapshot.history, snapshot.lease)
        if running is None or id not in (None, running):
            nothing = 'there is nothing to cancel: no evolution runs now'
            if id is not None:
                nothing = f'{id!r} does not run now' + (f', {running!r} does' if running else '')
            raise NothingRuns(
                nothing,
                place=f'namespace {self._options.namespace!r} of {self._store.name}',
                remedy=f'Nothing was cancelled. To keep what is pending from beginning, type: {to_type("pause")}',
            )
        self._store.ask(Owner(), cancel=running)
        return running

    def down(self, message: str = '') -> None:
        """Close the gate of every process by hand, until :meth:`up`; processes see it within ``watch`` seconds.

        :param message: for the public, at most 1,000 characters.
        """
        self._store.prepare()
        self._store.shut(Owner(), failure.clean(message)[:1000])

    def up(self) -> bool:
        """Take :meth:`down` back; was it closed by hand?"""
        return self._store.reopen()

    def adopt(self, version: str | None = None, *, ignore_lock: bool = False) -> list[str]:
        """Take over the record of 0.0.5; the ids that count as done now."""
        old = self._store.predecessor()
        if old is not None and old.locked_by is not None and not ignore_lock:
            raise LeaseTaken(
                f'tgext.evolve 0.0.5 holds its lock (process {old.locked_by})',
                place=self._store.name,
                remedy=f'Stop it; or, if no process of it runs any more, type: {to_type("unlock")} '
                f'(in Python: ignore_lock=True).',
            )
        version = version or (old.version if old is not None else None)
        with self.hold(self._patience) as lease:
            if version is None:
                # Nothing ever ran, so there is nothing else to record.
                self._store.settle(lease.grant, [CLAIM], State.IMPORTED)
                return []
            return Arrival(self._plan, self._store, self._options.namespace).adopt(lease, version)

    def claim(self) -> None:
        """Begin a history in this namespace, though another one has the same evolutions."""
        with self.hold(self._patience) as lease:
            self._store.settle(lease.grant, [CLAIM], State.STAMPED)

    def _known(self, ids: Collection[str], history: History) -> list[str]:
        if isinstance(ids, str | int):
            ids = [str(ids)]
        wanted = list(dict.fromkeys(str(id) for id in ids))
        unknown = [id for id in wanted if id not in self._plan and id not in history.ids]
        if unknown:
            raise OptionError(
                f'there is no evolution {", ".join(map(repr, unknown))}',
                place=f'namespace {self._options.namespace!r}',
                remedy='Use ids of the plan or of the history.',
            )
        return [planned.id if (planned := self._plan.find(id)) else id for id in wanted]


def _running(history: History, lease: LeaseRow | None) -> str | None:
    """The id of what the holder of the lease runs now."""
    if lease is None or not lease.alive:
        return None
    # Not what it reports: that comes to the database a moment later than it begins and ends.
    running = (a.evolution_id for a in history.attempts if a.state is State.RUNNING and a.token == lease.token)
    return next(running, None)
