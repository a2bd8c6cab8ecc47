"""A database with rows or documents to go through, and an evolver without an application around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Column, Integer, String, insert, select

from tests.apps import Model
from tests.stores import open_store
from tgext.evolve.evolver import Evolver
from tgext.evolve.options import Options
from tgext.evolve.plan import Plan, planned
from tgext.evolve.stores.ming import MimStore
from tgext.evolve.stores.sqlalchemy import SQLAlchemyStore
from tgext.evolve.stores.sqlalchemy.engines import own_engine

NAMESPACE = 'testing'


class Table:
    """What all of them have: evolutions are run, and rows are counted."""

    store: Any

    def evolver(self, *evolutions: Any, **options: Any) -> Evolver:
        given = {'namespace': NAMESPACE, 'watch': 0.0, 'max_attempts': 1, 'poll': 0.05, **options}
        return Evolver(Options(**given), Plan(planned(each) for each in evolutions), self.store)

    def run(self, *evolutions: Any, **options: Any) -> Evolver:
        """Run them here, until nothing more can be done without a person."""
        evolver = self.evolver(*evolutions, **options)
        evolver.run()
        return evolver

    def states(self, id: str) -> list[str]:
        return [attempt.state.value for attempt in self.store.history().of(id)]

    def error(self, id: str) -> str:
        latest = self.store.history().latest(id)
        assert latest is not None
        return self.store.error_of(latest) or ''


class SQLTable(Table):
    """Pages with a key of one column, and visits with a key of two."""

    def __init__(self, url: str):
        self.model = Model()
        self.url = url
        self.Page = self.model.Page

        class Visit(self.model.Base):
            __tablename__ = 'visit'
            site = Column(String(20), primary_key=True)
            number = Column(Integer, primary_key=True)
            seen = Column(Integer, nullable=False, default=0)

        self.Visit = Visit
        self.engine = sqlalchemy.create_engine(url)
        self.model.metadata.create_all(self.engine)
        self.model.init_model(self.engine)
        self.session = self.model.DBSession
        self.store = self.another_store()

    def another_store(self) -> SQLAlchemyStore:
        own = own_engine({'sqlalchemy.url': self.url}, 'sqlalchemy.')
        return SQLAlchemyStore(NAMESPACE, own, self.session, self.engine)

    def fill(self, number: int) -> None:
        with self.engine.begin() as connection:
            rows = [{'id': id, 'title': f'Page {id}', 'seen': 0} for id in range(1, number + 1)]
            connection.execute(insert(self.Page), rows)

    def fill_visits(self, sites: int, each: int) -> None:
        with self.engine.begin() as connection:
            rows = [
                {'site': f'site{site}', 'number': number, 'seen': 0} for site in range(sites) for number in range(each)
            ]
            connection.execute(insert(self.Visit), rows)

    def seen(self, model: Any = None) -> Counter[int]:
        """How many rows were processed how often."""
        with self.engine.connect() as connection:
            return Counter(connection.execute(select((model or self.Page).seen)).scalars())

    def slugs(self) -> int:
        with self.engine.connect() as connection:
            return sum(slug is not None for slug in connection.execute(select(self.Page.slug)).scalars())

    @contextmanager
    def elsewhere(self) -> Iterator[Any]:
        """A transaction of somebody else."""
        with self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        self.session.remove()
        self.engine.dispose()


class MongoTable(Table):
    """Documents in a collection, with and without a mapped class."""

    def __init__(self, url: str):
        from ming import Session, create_datastore, schema
        from ming.odm import FieldProperty, MappedClass, ThreadLocalODMSession

        datastore = create_datastore(url)
        odm = ThreadLocalODMSession(Session(datastore))

        class Page(MappedClass):
            class __mongometa__:
                name = 'page'
                session = odm

            _id = FieldProperty(schema.Int)
            title = FieldProperty(schema.String)
            slug = FieldProperty(schema.String)
            seen = FieldProperty(schema.Int)

        self.Page = Page
        self.db = datastore.db
        self.store: Any = open_store(url, namespace=NAMESPACE)
        if url.startswith('mim'):
            # Each datastore of mim has a memory of its own.
            self.store = MimStore(NAMESPACE, 'mim', lambda: datastore.db, datastore.name)

    def fill(self, number: int) -> None:
        self.db.page.insert_many([{'_id': id, 'title': f'Page {id}', 'seen': 0} for id in range(1, number + 1)])

    def seen(self) -> Counter[int]:
        return Counter(document['seen'] for document in self.db.page.find())

    def close(self) -> None:
        self.store.close()


@pytest.fixture
def table(store_url: str) -> Iterator[Any]:
    """On the database of ``store_url``."""
    made = MongoTable(store_url) if store_url.startswith(('mongodb', 'mim')) else SQLTable(store_url)
    yield made
    made.close()
