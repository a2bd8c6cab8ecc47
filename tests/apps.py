"""Small real TurboGears applications for the tests: full stack, without a package on disk."""

from __future__ import annotations

import threading
import types
from contextlib import contextmanager

import zope.sqlalchemy
from sqlalchemy import Boolean, Column, Engine, Integer, Unicode, event
from sqlalchemy.orm import declarative_base, scoped_session, sessionmaker
from tg import FullStackApplicationConfigurator, TGController, expose

import tgext.evolve
from tests.noting import note_all

# Processes of their own have an application too.
note_all()


class Model:
    """A model module of its own for each application: one page table, one scoped session."""

    def __init__(self, *, zope_session=True, **session_options):
        self.Base = declarative_base()
        self.metadata = self.Base.metadata
        self.DBSession = scoped_session(sessionmaker(**session_options))
        if zope_session:
            zope.sqlalchemy.register(self.DBSession)

        class Page(self.Base):
            __tablename__ = 'page'
            id = Column(Integer, primary_key=True)
            title = Column(Unicode(100), nullable=False)
            slug = Column(Unicode(100))
            seen = Column(Integer, nullable=False, default=0)
            flag = Column(Boolean)

        self.Page = Page

    def init_model(self, engine):
        self.DBSession.configure(bind=engine)
        self.engine = engine
        return self.DBSession


class Root(TGController):
    @expose(content_type='text/plain')
    def index(self):
        return 'served'

    @expose(content_type='text/plain')
    def write(self, **kw):
        return 'written'


def package(name='testapp'):
    """An application's package, as ``package`` in its blueprint."""
    module = types.ModuleType(name)
    module.__file__ = __file__
    return module


def configurator(model=None, *, name='testapp', root=None, **blueprint):
    base_config = FullStackApplicationConfigurator()
    base_config.update_blueprint(
        {
            'package': package(name),
            'root_controller': root or Root(),
            'renderers': ['json'],
            'default_renderer': 'json',
            'session.enabled': False,
            'serve_static': False,
            'errorpage.enabled': False,
            'cache.enabled': False,
            'paths': {'static_files': None, 'root': '.', 'controllers': '.', 'templates': ['.']},
        }
    )
    if model is not None:
        base_config.update_blueprint({'use_sqlalchemy': True, 'model': model})
    base_config.update_blueprint(blueprint)
    return base_config


def make(url=None, evolutions=(), *, model=None, options=None, ini=None, name='testapp', **blueprint):
    """A WSGI application with tgext.evolve plugged in.

    :returns: the application, its configurator.
    """
    if url is not None and model is None:
        model = Model()
    base_config = configurator(model, name=name, **blueprint)
    tgext.evolve.plugme(base_config, {'evolutions': list(evolutions), **(options or {})})
    conf = {'debug': 'false', **(ini or {})}
    if url is not None:
        conf['sqlalchemy.url'] = url
    return base_config.make_wsgi_app({}, conf), base_config


def held(id='held', *, work=lambda evolution: None, **attributes):
    """The class of an evolution that stays in its ``evolve`` until the test sets its ``go_on``.

    :param work: called with the evolution after that; ``runs`` counts how often it began.
    """

    class Held(tgext.evolve.Evolution):
        evolution_id = id
        began = threading.Event()
        go_on = threading.Event()
        runs = 0

        def evolve(self):
            Held.runs += 1
            self.began.set()
            assert self.go_on.wait(30), 'the test did not let the evolution go on'
            work(self)

    for name, value in attributes.items():
        setattr(Held, name, value)
    return Held


def evolution(id, work=lambda evolution: None, **attributes):
    """The class of an evolution that does ``work(evolution)``; ``runs`` counts how often it began."""

    class Some(tgext.evolve.Evolution):
        evolution_id = id
        runs = 0

        def evolve(self):
            Some.runs += 1
            work(self)

    for name, value in attributes.items():
        setattr(Some, name, value)
    return Some


@contextmanager
def statements(*, thread=None):
    """The SQL statements that are executed inside of it, on any engine.

    :param thread: only those of this thread, by its ident; None: of every thread.
    """
    seen = []

    def note(connection, cursor, statement, parameters, context, executemany):
        if thread is None or threading.get_ident() == thread:
            seen.append(statement)

    event.listen(Engine, 'before_cursor_execute', note)
    try:
        yield seen
    finally:
        event.remove(Engine, 'before_cursor_execute', note)
