"""Tests of the stores, on real databases."""

from tgext.evolve.databases import Databases
from tgext.evolve.options import Options
from tgext.evolve.stores.base import Store


def open_store(url: str, *, namespace: str = 'testing', like: Store | None = None) -> Store:
    """A store on the database at ``url``; ``like``: of the same database, for another thread."""
    return Databases({}, Options(store=url, namespace=like.namespace if like else namespace)).store()
