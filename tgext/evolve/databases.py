"""The databases that an application has, as its configuration tells, and the store among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from .errors import OptionError
from .options import PREFIX, Options
from .sources import Place
from .stores.base import Store

#: The URL of the database that applications are made for instead of their own.
_instead: ContextVar[str | None] = ContextVar('tgext.evolve.instead', default=None)


@contextmanager
def made_for(url: str) -> Iterator[None]:
    """Applications that are made in here have this SQL database, whatever their configuration says."""
    token = _instead.set(url)
    try:
        yield
    finally:
        _instead.reset(token)


def is_diverted() -> bool:
    """Is an application made in here for a database that is not its own?"""
    return _instead.get() is not None


def divert(conf: Any) -> None:
    """Inside of :func:`made_for`: before anything is bound, all that leads to the application's own database."""
    url = _instead.get()
    if url is None:
        return
    keys = [key for key in conf if str(key).startswith(('sqlalchemy.master.', 'sqlalchemy.slaves.'))]
    for key in [key for key in keys if key.endswith('.url')] or ['sqlalchemy.url']:
        conf[key] = url
    # The history goes with it, and nobody is served there to whom something would be announced.
    conf[f'{PREFIX}store'] = 'sqlalchemy'
    conf[f'{PREFIX}watch'] = 0.0


class Databases:
    """Reads a configuration in which engine, session and datastore are bound."""

    def __init__(self, conf: Mapping[str, Any], options: Options):
        self._conf = conf
        self._options = options
        self._globals = conf.get('tg.app_globals')
        self.engine = self._sqlalchemy_engine()
        self.session = self._sqlalchemy_session() if self.engine is not None else None
        self.datastore: Any = getattr(self._globals, 'ming_datastore', None)

    def _sqlalchemy_engine(self) -> Any:
        balanced = self._conf.get('balanced_engines')
        if balanced:
            return balanced['master']
        return getattr(self._globals, 'sa_engine', None)

    def _sqlalchemy_session(self) -> Any:
        session = self._conf.get('SQLASession')
        if session is None:
            session = self._conf.get('DBSession')
        return session if hasattr(session, 'session_factory') else None

    def store(self) -> Store:
        """The store that the ``store`` option means.

        :raises OptionError: when there is none, or its library is not installed.
        """
        wanted = self._options.store
        if '://' in wanted:
            if wanted.startswith(('mongodb:', 'mongodb+srv:', 'mim:')):
                return self._mongo_url_store(wanted)
            return self._sql_url_store(wanted)
        if wanted not in ('auto', 'sqlalchemy', 'ming'):
            raise self._wrong(f'tgext.evolve.store = {wanted!r}', 'Use auto, sqlalchemy, ming or a database URL.')
        if self.engine is not None and wanted != 'ming':
            return self._sql_store()
        if self.datastore is not None and wanted != 'sqlalchemy':
            return self._ming_store()
        what = {'auto': 'neither SQLAlchemy nor Ming'}.get(wanted, f'no {wanted}')
        raise self._wrong(
            f'the application has {what}, so there is nowhere to keep lease and history',
            'Enable one of them (use_sqlalchemy, ming.enabled), or give tgext.evolve.store a database URL.',
        )

    def _wrong(self, thing: str, remedy: str) -> OptionError:
        return OptionError(thing, place='the options of tgext.evolve', remedy=remedy)

    # -- SQL

    def _sql_store(self) -> Store:
        from .stores.sqlalchemy import SQLAlchemyStore
        from .stores.sqlalchemy.engines import in_memory, own_engine

        namespace = self._options.namespace
        if in_memory(self.engine.url):
            return SQLAlchemyStore(namespace, self.engine, self.session, self.engine, threads=False)
        return SQLAlchemyStore(namespace, own_engine(*self._engine_options()), self.session, self.engine)

    def _engine_options(self) -> tuple[Mapping[str, Any], str]:
        """What the application's engine was made from, and the prefix of it."""
        prefix = 'sqlalchemy.master.' if self._conf.get('balanced_engines') else 'sqlalchemy.'
        if f'{prefix}url' in self._conf:
            return self._conf, prefix
        # An engine that the application made by itself: its URL is all that can be known.
        return {f'{prefix}url': self.engine.url}, prefix

    def _sql_url_store(self, url: str) -> Store:
        try:
            from .stores.sqlalchemy import SQLAlchemyStore
            from .stores.sqlalchemy.engines import engine_of_url, in_memory
        except ImportError as error:
            raise self._missing('sqlalchemy', error) from None
        engine = engine_of_url(url)
        if in_memory(engine.url):
            raise self._wrong(
                'tgext.evolve.store is a SQLite database in memory, which every look would find empty',
                'Name a file: sqlite:////path/to/evolve.db',
            )
        return SQLAlchemyStore(self._options.namespace, engine, self.session, self.engine)

    # -- MongoDB

    def _ming_store(self) -> Store:
        from ming import mim

        from .stores.ming import MimStore, MongoStore, client_of_url

        namespace = self._options.namespace
        url = str(self._conf.get('ming.url', ''))
        if url.startswith('mim:') or isinstance(self.datastore.conn, mim.Connection):
            datastore = self.datastore
            return MimStore(namespace, 'mim (in memory)', lambda: datastore.db, datastore.name)
        options = {
            key[len('ming.connection.') :]: value
            for key, value in self._conf.items()
            if key.startswith('ming.connection.') and not key.endswith(('read_preference', 'auto_ensure_indexes'))
        }
        # As the application connects, on a connection of our own that no fork shares.
        datastore = self.datastore
        return MongoStore(
            namespace, _without_password(url), client_of_url(url, **options), datastore.name, lambda: datastore.db
        )

    def _mongo_url_store(self, url: str) -> Store:
        try:
            from pymongo.uri_parser import parse_uri

            from .stores.ming import MimStore, MongoStore, client_of_url
        except ImportError as error:
            raise self._missing('ming', error) from None
        if url.startswith('mim:'):
            from ming import create_datastore

            datastore = create_datastore(url)
            return MimStore(self._options.namespace, 'mim (in memory)', lambda: datastore.db, datastore.name)
        try:
            database = parse_uri(url)['database']
        except Exception as error:
            raise self._wrong(
                f'tgext.evolve.store is no MongoDB URL: {error}',
                'Use mongodb://host:port/database.',
            ) from None
        if not database:
            raise self._wrong(
                f'tgext.evolve.store = {_without_password(url)!r} names no database',
                'Use mongodb://host:port/database.',
            )
        return MongoStore(self._options.namespace, _without_password(url), client_of_url(url), database)

    def _missing(self, extra: str, error: ImportError) -> OptionError:
        return self._wrong(
            f'tgext.evolve.store needs a library that is not installed: {error}',
            f"Install it: pip install 'tgext.evolve[{extra}]'",
        )

    def place(self) -> Place:
        """The application, for sources that ask its database."""
        return Place(self._connect, None if self.engine is None else self.engine.url, self.session, self._conf)

    @contextmanager
    def _connect(self) -> Iterator[Any]:
        if self.engine is None:
            raise self._wrong(
                'the application has no SQL database, which a source in its evolutions option asks for',
                'Set sqlalchemy.url, or remove that source.',
            )
        from .stores.sqlalchemy.engines import in_memory, own_engine
        from .stores.sqlalchemy.store import translated

        engine = self.engine if in_memory(self.engine.url) else own_engine(*self._engine_options())
        with translated(engine), engine.connect() as connection:
            yield connection

    def dispose(self) -> None:
        """Close the connections that evolutions left in the application's own pool."""
        if self.engine is None:
            return
        from .stores.sqlalchemy.engines import in_memory

        if not in_memory(self.engine.url):
            self.engine.dispose()

    def abandon(self) -> None:
        """Roll back and forget what is open in the sessions of the calling thread."""
        if self.session is not None:
            from .stores.sqlalchemy.work import abandon

            abandon(self.session)
        if self.datastore is not None:
            from ming.odm import ThreadLocalODMSession

            ThreadLocalODMSession.close_all()

    # -- what is not the store's

    def beside(self, store: Store) -> AbstractContextManager[None]:
        """Around an evolution: the session of the application's *other* database.

        What it leaves there is flushed or committed before the record, and nothing stays behind.
        """
        if self.engine is None or self.datastore is None:
            return nullcontext()
        return _ming_beside() if self._is_sql(store) else self._sql_beside()

    def _is_sql(self, store: Store) -> bool:
        return type(store).__name__ == 'SQLAlchemyStore'

    def _sql_beside(self) -> AbstractContextManager[None]:
        from .stores.sqlalchemy.work import session_beside

        return session_beside(self.session, self.engine)


@contextmanager
def _ming_beside() -> Iterator[None]:
    from ming.odm import ThreadLocalODMSession

    try:
        yield
        ThreadLocalODMSession.flush_all()
    finally:
        ThreadLocalODMSession.close_all()


def _without_password(url: str) -> str:
    from . import failure

    return failure.clean(url)
