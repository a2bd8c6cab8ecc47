"""What is recorded: the history, and what the version tables of other systems say about their own."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace

from .history import Applied, History, Repeatable, State
from .plan import Plan
from .steps import VersionTable
from .stores.base import Grant, Snapshot, Store

#: The whole history is read after so many seconds, whatever its mark says: who edits a row by hand may leave no mark.
_ANEW = 30.0


class Ledger:
    """Reads and settles what is recorded of a plan, wherever that stands, for one process.

    One read query for the history, and one for each version table.
    """

    def __init__(self, plan: Plan, store: Store):
        self._plan = plan
        self._store = store
        self._decides = frozenset(planned.id for planned in plan if planned.table is not None)
        self._repeatables = [planned for planned in plan if planned.repeatable]
        #: The order of the latest attempt at each of these, when this process first looked.
        self._since: dict[str, tuple[int, int]] = {}
        #: What the last :meth:`look_again` read, and when it read its history.
        self._known: Snapshot | None = None
        self._read = 0.0

    def history(self) -> History:
        """:raises StoreError: the history or a version table cannot be read."""
        return self._seen(self._store.history())

    def snapshot(self) -> Snapshot:
        """:raises StoreError: the history or a version table cannot be read."""
        return self._snapshot_seen(self._store.snapshot())

    def look_again(self) -> Snapshot:
        """A snapshot that does not read again what the one before read.

        A gate that is closed by a history stays so while that is the same, and who takes the lease reads everything
        under it: what is taken from before opens nothing and runs nothing. What version tables say is always read.

        :raises StoreError: the history or a version table cannot be read.
        """
        now = time.monotonic()
        known = self._known if now - self._read < _ANEW else None
        snapshot = self._store.snapshot(known)
        if known is None or snapshot.history is not known.history:
            self._read = now
        self._known = snapshot
        return self._snapshot_seen(snapshot)

    def _snapshot_seen(self, snapshot: Snapshot) -> Snapshot:
        return replace(snapshot, history=self._seen(snapshot.history))

    def _seen(self, history: History) -> History:
        return self._with_repeatables(self._with_tables(history))

    def _with_repeatables(self, history: History) -> History:
        if not self._repeatables:
            return history
        known = []
        for planned in self._repeatables:
            since = self._since.get(planned.id)
            if since is None:
                attempts = history.under(planned.names)
                since = self._since.setdefault(planned.id, attempts[-1].order if attempts else (0, 0))
            known.append(Repeatable(planned.names, planned.fingerprint, since))
        return history.with_repeatables(known)

    def _with_tables(self, history: History) -> History:
        if not self._decides:
            return history
        looks = [table.look() for table in self._plan.tables]
        return history.with_applied(
            Applied(
                self._decides,
                frozenset().union(*(look.applied for look in looks)),
                frozenset().union(*(look.unknown for look in looks)),
            )
        )

    def settle(self, grant: Grant, ids: Collection[str], state: State) -> None:
        """Record that these need not run, in their version tables first."""
        for table, those in self._by_table(ids):
            table.stamp(those)
        contents = {planned.id: planned.fingerprint for planned in self._repeatables if planned.id in ids}
        self._store.settle(grant, ids, state, contents)

    def unsettle(self, grant: Grant, ids: Collection[str]) -> None:
        """Take :meth:`settle` back; what really ran stays done, but where a version table decides."""
        for table, those in self._by_table(ids):
            table.unstamp(those)
        self._store.unsettle(grant, ids)

    def _by_table(self, ids: Collection[str]) -> list[tuple[VersionTable, list[str]]]:
        found = []
        for table in self._plan.tables:
            those = [each.id for each in self._plan if each.table is table and each.id in ids]
            if those:
                found.append((table, those))
        return found
