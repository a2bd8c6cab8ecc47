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
    Column('namespace', _id(200), primary_key=True, doc='whose lease it is'),
    Column('owner', _id(64), nullable=False, doc='the random id of who holds it, or held it last'),
    Column('token', BigInteger, nullable=False, doc='grows at each take-over'),
    Column('host', String(255), nullable=False, doc='of the holder, for people'),
    Column('pid', Integer, nullable=False, doc='of the holder, for people'),
    Column('ttl', BigInteger, nullable=False, doc='how long it is given for, in milliseconds'),
    Column(
        'expires_at',
        BigInteger,
        nullable=False,
        doc='when it expires, by the clock of the database (milliseconds since 1970)',
    ),
    # What the holder reports at each renewal, for everybody who waits.
    Column('evolution_id', _id(200), doc='what the holder runs'),
    Column('since', BigInteger, doc='when that began (milliseconds since 1970)'),
    Column('done', Float(53), doc='how much of it is done'),
    Column('total', Float(53), doc='how much there is'),
    Column('message', String(255), doc='what the evolution says about it'),
    # What people ask of the holder.
    Column('paused', BigInteger, doc='since when nothing may begin (milliseconds since 1970)'),
    Column('cancel', _id(200), doc='the evolution that is to end'),
    Column(
        'wanted', String(16), doc='what may be served until that is done for which a waiting process wants the lease'
    ),
    info={'meaning': 'Who may run evolutions, until when, and what people ask of it: one row for each namespace.'},
)

history: Any = Table(
    'tgext_evolve_history',
    metadata,
    Column('namespace', _id(200), primary_key=True, doc='whose evolution it is'),
    Column('evolution_id', _id(200), primary_key=True, doc='which one; empty for what concerns the whole namespace'),
    # The token is part of the key: a deposed holder's row can never collide with its successor's.
    Column('token', BigInteger, primary_key=True, autoincrement=False, doc='the lease under which it ran'),
    Column('attempt', Integer, primary_key=True, autoincrement=False, doc='1 the first time'),
    Column('owner', _id(64), nullable=False, doc='the random id of the holder'),
    Column(
        'state',
        String(16),
        nullable=False,
        doc='running, done, failed, interrupted, cancelled, stamped, imported, or (of no evolution) down',
    ),
    Column('serving', String(16), nullable=False, doc='what may be served until it is done'),
    Column('fingerprint', String(64), doc='of the code that ran, SHA-256'),
    Column('host', String(255), doc='of the holder, for people'),
    Column('pid', Integer, doc='of the holder, for people'),
    Column('started', BigInteger, doc='milliseconds since 1970'),
    Column('finished', BigInteger, doc='milliseconds since 1970; empty: it runs, or its process died'),
    Column('error', _long_text, doc='the traceback, without parameters and passwords; of down: its message'),
    Column('reached', BigInteger, doc='how many items of a batched evolution were done in all when it ended'),
    Column('final', Boolean, doc='true: it does not run again by itself'),
    info={'meaning': 'What became of each attempt: a row for each, which is also the fence of its work.'},
)
Index('ix_tgext_evolve_history_evolution', history.c.evolution_id)

checkpoint: Any = Table(
    'tgext_evolve_checkpoint',
    metadata,
    Column('namespace', _id(200), primary_key=True, doc='whose evolution it is'),
    Column('evolution_id', _id(200), primary_key=True, doc='which one'),
    Column('partition', Integer, primary_key=True, autoincrement=False, doc='0 where there is only one'),
    # Whose attempt may move it: the fence of each batch.
    Column('token', BigInteger, nullable=False, doc='the lease under which it may move'),
    Column('owner', _id(64), nullable=False, doc='the random id of who may move it'),
    # Keys as texts, see tgext.evolve.keys.
    Column('after_key', _long_text, doc='the items behind this key'),
    Column('until_key', _long_text, doc='up to this one; empty: to the end'),
    Column('position', _long_text, doc='the last item that is done in this pass'),
    Column('passes', Integer, nullable=False, doc='how many are complete'),
    Column('found', BigInteger, nullable=False, doc='items that this pass has found'),
    Column('last_found', BigInteger, nullable=False, doc='items that the pass before found'),
    Column('done', BigInteger, nullable=False, doc='items that were processed in all'),
    Column('total', BigInteger, doc='items that there were in the beginning'),
    Column('seconds', Float(53), nullable=False, doc='how long that has taken'),
    Column('finished', Boolean, nullable=False, doc='true: nothing is left in it'),
    info={'meaning': 'How far a batched evolution is: one row for each of its partitions.'},
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
