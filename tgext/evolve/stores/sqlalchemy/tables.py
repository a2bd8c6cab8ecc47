"""The tables, and the database's clock as an expression."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

metadata = MetaData()


def _id(length: int) -> String:
    """A string that is compared byte for byte on every database."""
    # The collation implies the character set. MySQL's own types would be imported on every database.
    return String(length).with_variant(String(length, collation='utf8mb4_bin'), 'mysql', 'mariadb')


#: On MySQL a MEDIUMTEXT: the smallest type that holds so many characters of four bytes.
_long_text = Text().with_variant(Text(4_000_000), 'mysql', 'mariadb')

lease: Any = Table(
    'tgext_evolve_lease',
    metadata,
    Column('namespace', _id(200), primary_key=True),
    Column('owner', _id(64), nullable=False),
    Column('token', BigInteger, nullable=False),
    Column('host', String(255), nullable=False),
    Column('pid', Integer, nullable=False),
    Column('ttl', BigInteger, nullable=False),
    Column('expires_at', BigInteger, nullable=False),
    # What the holder reports at each renewal, for everybody who waits.
    Column('evolution_id', _id(200)),
    Column('since', BigInteger),
    Column('done', Float(53)),
    Column('total', Float(53)),
    Column('message', String(255)),
    # What people ask of the holder.
    Column('paused', BigInteger),
    Column('cancel', _id(200)),
    Column('wanted', String(16)),
)

history: Any = Table(
    'tgext_evolve_history',
    metadata,
    Column('namespace', _id(200), primary_key=True),
    Column('evolution_id', _id(200), primary_key=True),
    # The token is part of the key: a deposed holder's row can never collide with its successor's.
    Column('token', BigInteger, primary_key=True, autoincrement=False),
    Column('attempt', Integer, primary_key=True, autoincrement=False),
    Column('owner', _id(64), nullable=False),
    Column('state', String(16), nullable=False),
    Column('serving', String(16), nullable=False),
    Column('fingerprint', String(64)),
    Column('host', String(255)),
    Column('pid', Integer),
    Column('started', BigInteger),
    Column('finished', BigInteger),
    Column('error', _long_text),
    Column('reached', BigInteger),
    Column('final', Boolean),
)
Index('ix_tgext_evolve_history_evolution', history.c.evolution_id)

checkpoint: Any = Table(
    'tgext_evolve_checkpoint',
    metadata,
    Column('namespace', _id(200), primary_key=True),
    Column('evolution_id', _id(200), primary_key=True),
    Column('partition', Integer, primary_key=True, autoincrement=False),
    # Whose attempt may move it: the fence of each batch.
    Column('token', BigInteger, nullable=False),
    Column('owner', _id(64), nullable=False),
    # Keys as texts, see tgext.evolve.keys.
    Column('after_key', _long_text),
    Column('until_key', _long_text),
    Column('position', _long_text),
    Column('passes', Integer, nullable=False),
    Column('found', BigInteger, nullable=False),
    Column('last_found', BigInteger, nullable=False),
    Column('done', BigInteger, nullable=False),
    Column('total', BigInteger),
    Column('seconds', Float(53), nullable=False),
    Column('finished', Boolean, nullable=False),
)

#: What 0.0.5 left; never made and never written by this release.
predecessor: Any = Table(
    'tgext_evolve',
    MetaData(),
    Column('type', String(16), primary_key=True),
    Column('value', String(255), nullable=False),
)


class database_now(FunctionElement[int]):
    """Milliseconds since 1970 by the database's clock."""

    type = BigInteger()
    inherit_cache = True


@compiles(database_now)
def _unknown(element: Any, compiler: Any, **kw: Any) -> str:
    raise NotImplementedError(
        f'tgext.evolve does not know how to ask {compiler.dialect.name} for its clock. '
        f'It knows SQLite, PostgreSQL, MariaDB and MySQL.'
    )


@compiles(database_now, 'postgresql')
def _postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    # now() stands still within a transaction.
    return 'CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)'


@compiles(database_now, 'mysql', 'mariadb')
def _mysql(element: Any, compiler: Any, **kw: Any) -> str:
    return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000)"


@compiles(database_now, 'sqlite')
def _sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
