"""The store's own engine: the application's database and options, but no pool and no transaction."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, create_engine, engine_from_config, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from ... import failure
from ...errors import OptionError
from .dialects import dialect_for

_POOL_OPTIONS = frozenset(
    {
        'pool',
        'poolclass',
        'pool_size',
        'max_overflow',
        'pool_timeout',
        'pool_recycle',
        'pool_pre_ping',
        'pool_use_lifo',
        'pool_reset_on_return',
        'pool_logging_name',
        'isolation_level',
    }
)


def in_memory(url: URL) -> bool:
    """Is this a SQLite database that lives in one connection only?"""
    if url.get_backend_name() != 'sqlite':
        return False
    database = url.database or ''
    return database in ('', ':memory:') or ':memory:' in database or 'mode=memory' in str(url)


def own_engine(conf: Mapping[str, Any], prefix: str) -> Engine:
    """An engine for lease and history with the application's options, SSL and connect_args too.

    It holds no connection between two uses (a preloading server forks in between), and each
    statement is a transaction of its own: there is no snapshot that could be stale and no lock
    that a paused process could keep.

    :param prefix: of the options, ``sqlalchemy.`` or ``sqlalchemy.master.``.
    """
    options = {
        key: value for key, value in conf.items() if key.startswith(prefix) and key[len(prefix) :] not in _POOL_OPTIONS
    }
    url = make_url(options[f'{prefix}url'])
    given = options.pop(f'{prefix}connect_args', None) or {}
    return engine_from_config(
        options,
        prefix,
        poolclass=NullPool,
        # Nothing is left open, and a broken connection would only be complained about.
        pool_reset_on_return=None,
        isolation_level='AUTOCOMMIT',
        connect_args={**_connect_args(url), **given},
    )


def engine_of_url(url: str) -> Engine:
    """An engine for a ``store`` that was given as a URL.

    :raises OptionError: when it is no database URL, or its driver is not installed.
    """
    try:
        parsed = make_url(url)
        return create_engine(
            parsed,
            poolclass=NullPool,
            pool_reset_on_return=None,
            isolation_level='AUTOCOMMIT',
            connect_args=_connect_args(parsed),
        )
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise OptionError(
            f'tgext.evolve.store = {failure.clean(url)!r}: {failure.brief(error)}',
            place='the options of tgext.evolve',
            remedy='Use a database URL as SQLAlchemy takes it, and install its driver.',
        ) from None


def _connect_args(url: URL) -> dict[str, Any]:
    """Patience with a lost server, unless the URL says otherwise."""
    dialect = dialect_for(url.get_backend_name(), str(url))
    driver = url.get_driver_name()
    return {name: value for name, value in dialect.connect_args.get(driver, {}).items() if name not in url.query}


#: What else this machine is called, and where its servers listen.
_HERE = {'127.0.0.1': 'localhost', '::1': 'localhost'}
_PORTS = {'postgresql': 5432, 'mysql': 3306}


def same_database(one: URL, other: URL) -> bool:
    """Do two URLs name the same database, whatever their driver and user?"""

    def place(url: URL) -> tuple[Any, ...]:
        backend = url.get_backend_name().replace('mariadb', 'mysql')
        if backend == 'sqlite':
            return backend, url.database if in_memory(url) else os.path.realpath(url.database or '')
        host = str(url.host or url.query.get('host') or 'localhost')
        return backend, _HERE.get(host, host), url.port or _PORTS.get(backend), url.database

    return place(one) == place(other)
