"""The first time in a database: is nothing recorded because the record stands elsewhere?"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from .errors import OptionError
from .gate import Reason, Serving, Verdict
from .history import State
from .lease import Lease
from .plan import Plan
from .points import point
from .remedies import to_type
from .stores.base import Snapshot, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrival:
    """Looks for what 0.0.5 or another namespace recorded, and takes the former over."""

    plan: Plan
    store: Store
    namespace: str

    def obstacle(self, snapshot: Snapshot, *, had_history: bool) -> Verdict | None:
        """Why evolutions may not begin here; None when they may.

        :param had_history: did this process see a history here before?
        """
        if snapshot.history:
            return None
        if had_history:
            return _closed(
                Reason.DATABASE_REFUSES,
                f'the history in {self.store.name} has vanished while this process ran. Restore the '
                f'table tgext_evolve_history; if it is gone on purpose, start again',
            )
        return self._predecessor() or self._elsewhere()

    def _elsewhere(self) -> Verdict | None:
        names = [name for planned in self.plan for name in planned.names]
        others = self.store.namespaces_with(names)
        if not others:
            return None
        return _closed(
            Reason.OTHER_NAMESPACE,
            f'nothing is recorded under {self.namespace!r}, but evolutions with the same ids are under '
            f'{", ".join(map(repr, others))}. Set tgext.evolve.namespace = {others[0]}; or, if this is '
            f'another application that shares the database, type: {to_type("claim")}',
        )

    def _predecessor(self) -> Verdict | None:
        """Why a 0.0.5 database cannot be taken over now; None when it can."""
        old = self.store.predecessor()
        if old is None:
            return None
        if old.locked_by is not None:
            return _closed(
                Reason.PREDECESSOR,
                f'tgext.evolve 0.0.5 holds its lock in {self.store.name} (process {old.locked_by}). If no '
                f'process of it runs any more, type: {to_type("unlock")}',
            )
        if old.version is not None and self.plan.up_to(old.version) is None:
            return _closed(
                Reason.PREDECESSOR,
                f'tgext.evolve 0.0.5 recorded {old.version!r} as the last evolution in {self.store.name}, '
                f'and the evolutions option has no such id. Type: gearbox evolve adopt ID, with the last one '
                f'that ran; or gearbox evolve stamp ID..., with all that ran',
            )
        return None

    def import_predecessor(self, lease: Lease) -> None:
        """Take over what 0.0.5 recorded, once: into an empty history, under the lease."""
        old = self.store.predecessor()
        if old is not None and old.version is not None:
            point('before-import')
            self.adopt(lease, old.version)
            point('after-import')

    def adopt(self, lease: Lease, version: str) -> list[str]:
        """Record everything up to ``version`` as imported; the ids.

        :raises OptionError: when the ``evolutions`` option has no such id.
        """
        done = self.plan.up_to(version)
        if done is None:
            raise OptionError(
                f'there is no evolution {version!r} in the evolutions option',
                place=f'namespace {self.namespace!r}',
                remedy='Name the last one that ran, as written there.',
            )
        ids = [planned.id for planned in done]
        self.store.settle(lease.grant, ids, State.IMPORTED)
        log.warning(
            '[%s] tgext.evolve 0.0.5 ran %r last in this database, so these count as done: %s. If one of '
            'them never ran, type: gearbox evolve unstamp ID',
            self.namespace,
            version,
            ', '.join(map(repr, ids)),
        )
        return ids


def _closed(reason: Reason, detail: str) -> Verdict:
    return Verdict(Serving.NOTHING, reason, detail=detail)
