"""Tests of the stores, on real databases."""

from __future__ import annotations

from tests.processes.harness import until
from tgext.evolve.databases import Databases
from tgext.evolve.options import Options
from tgext.evolve.stores.base import Grant, Owner, Store


def open_store(url: str, *, namespace: str = 'testing', like: Store | None = None) -> Store:
    """A store on the database at ``url``; ``like``: of the same database, for another thread."""
    return Databases({}, Options(store=url, namespace=like.namespace if like else namespace)).store()


def take_over(store: Store, ttl: float = 60.0) -> Grant:
    """As a rival, whatever the holder thinks: its lease has run out, by a clock that nobody waits for."""

    def take() -> Grant | None:
        lease = store.lease_row()
        assert lease is not None
        store.release(Grant(Owner(lease.owner, lease.host, lease.pid), lease.token))
        # None: the holder's heartbeat was quicker.
        return store.acquire(Owner(), ttl)

    return until(take, what='the lease is taken over')
