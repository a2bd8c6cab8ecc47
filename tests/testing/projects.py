"""Two small projects as users have them, with old data and the same evolutions: on SQLAlchemy, and on Ming."""

from __future__ import annotations

import tg
import transaction
from sqlalchemy import select

import tgext.evolve
from tests import apps
from tgext.evolve import BatchedEvolution, Evolution

ROWS = 10


class SQLProject:
    """Pages in a table; ``make`` makes the application anew on a scratch database."""

    kind = 'sql'
    database = 'sql'

    def __init__(self, new_url):
        self._new_url = new_url
        self.model = apps.Model()
        self.evolutions = []
        self.options = {'enabled': False}

    def has(self, *evolutions, **options):
        self.evolutions = list(evolutions)
        self.options.update(options)
        return self

    def make(self):
        self.model.DBSession.remove()
        apps.make(self._new_url(), self.evolutions, model=self.model, options=self.options)
        self.model.metadata.create_all(self.model.engine)
        self.fill()
        return tg.config

    def fill(self):
        with self.model.engine.begin() as connection:
            rows = [{'title': f'Page {number}', 'seen': 0} for number in range(1, ROWS + 1)]
            connection.execute(self.model.Page.__table__.insert(), rows)

    # -- what evolutions do, in the words of this database

    def unslugged(self):
        page = self.model.Page
        return list(self.model.DBSession.scalars(select(page.id).where(page.slug.is_(None)).order_by(page.id)))

    def titles(self):
        page = self.model.Page
        return dict(self.model.DBSession.execute(select(page.id, page.title)).all())

    def set(self, id, **values):
        for name, value in values.items():
            setattr(self.model.DBSession.get(self.model.Page, id), name, value)

    def save(self):
        transaction.commit()

    def add_to_all(self, number):
        for page in self.model.DBSession.scalars(select(self.model.Page)):
            page.seen += number

    def batched(self, id, process, **attributes):
        page = self.model.Page
        members = {'items': page, 'where': page.slug.is_(None), 'description': 'Something', **attributes}
        return type('Batched', (BatchedEvolution,), {'evolution_id': id, 'process': process, **members})

    def open_something(self, evolution):
        """Opens a transaction of its own, and forgets it."""
        evolution.connection = self.model.engine.connect()
        evolution.connection.execute(select(self.model.Page.id)).all()


class MingProject(SQLProject):
    """Pages in a collection."""

    kind = 'ming'

    def __init__(self, new_url, database='mongodb'):
        from ming import Session, schema
        from ming.odm import FieldProperty, MappedClass, Mapper, ThreadLocalODMSession

        self._new_url = new_url
        self.database = database
        self.datastores = []
        self._session = Session()
        self.DBSession = session = ThreadLocalODMSession(self._session)

        class Page(MappedClass):
            class __mongometa__:
                pass

            __mongometa__.session = session
            __mongometa__.name = 'page'
            _id = FieldProperty(schema.Int)
            title = FieldProperty(schema.String)
            slug = FieldProperty(schema.String(if_missing=None))
            seen = FieldProperty(schema.Int(if_missing=0))

        self.Page = Page
        Mapper.compile_all()
        self.evolutions = []
        self.options = {'enabled': False}

    def init_model(self, datastore):
        self._session.bind = datastore
        self.datastores.append(datastore)
        return self.DBSession

    def make(self):
        base_config = apps.configurator()
        base_config.update_blueprint({'use_ming': True, 'model': self})
        tgext.evolve.plugme(base_config, {'evolutions': self.evolutions, **self.options})
        base_config.make_wsgi_app({}, {'debug': 'false', 'ming.url': self._new_url()})
        self._session.db.page.insert_many(
            [{'_id': number, 'title': f'Page {number}', 'slug': None, 'seen': 0} for number in range(1, ROWS + 1)]
        )
        return tg.config

    def unslugged(self):
        return sorted(page._id for page in self.Page.query.find({'slug': None}))

    def titles(self):
        return {page._id: page.title for page in self.Page.query.find()}

    def set(self, id, **values):
        for name, value in values.items():
            setattr(self.Page.query.get(_id=id), name, value)

    def save(self):
        self.DBSession.flush()

    def add_to_all(self, number):
        for page in self.Page.query.find():
            page.seen += number

    def batched(self, id, process, **attributes):
        members = {'items': self.Page, 'where': {'slug': None}, 'description': 'Something', **attributes}
        return type('Batched', (BatchedEvolution,), {'evolution_id': id, 'process': process, **members})

    def open_something(self, evolution):
        """Changes a document in a session of its own, and forgets to flush it."""
        from ming.odm import ODMSession

        evolution.connection = ODMSession(self._session)
        evolution.connection.get(self.Page, 1).title = 'Never saved'


def evolution(id, work, **attributes):
    """The class of an evolution that does ``work(evolution)``."""
    members = {'description': 'Something', 'evolve': work, **attributes}
    return type('Some', (Evolution,), {'evolution_id': id, **members})


def backfill(project, id='backfill', **attributes):
    """Saves page after page, and leaves alone what is done: as it should be."""

    def evolve(self):
        titles = project.titles()
        for page in project.unslugged():
            project.set(page, slug=titles[page].lower())
            project.save()

    return evolution(id, evolve, **attributes)


def backfill_in_batches(project, id='in-batches', **attributes):
    def process(self, page):
        page.slug = page.title.lower()

    return project.batched(id, process, **attributes)
