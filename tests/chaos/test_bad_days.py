"""Bad days: evolutions that misbehave, databases that refuse, records that somebody edited by hand.

Whatever happens, the server lives and answers, what went wrong is on record or said, nothing runs that must not,
and it goes on by itself or when a person says so.
"""

from __future__ import annotations

import os
import resource
import time

import pytest
import tg
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

import tgext.evolve
from tests import apps
from tests.chaos.checker import check
from tests.chaos.figures import LONG
from tests.processes.harness import until
from tests.processes.worker import ROWS

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300)]

SQL = ('sqlite', 'postgresql', 'mariadb')


def on(*short, also=()):
    """These stores, and with the long form more of them."""
    return pytest.mark.parametrize('store_url', [*short, *(also if LONG else ())], indirect=True)


class Day:
    """A site whose evolutions are deeds."""

    def __init__(self, site, deeds, **settings):
        self.site = site
        site.evolutions = deeds  # what the checker expects
        self.settings = {'evolutions': ['tests.chaos.deeds'], 'deeds': deeds, **settings}

    def fork(self, **settings):
        return self.site.fork(**{**self.settings, **settings})

    def conf(self):
        """The configuration of a shell that has loaded the application."""
        url = {'ming.url' if not self.site.is_sql else 'sqlalchemy.url': self.site.url}
        apps.make(self.site.url, [], ini=url, options=self.site.options)
        return tg.config

    def error(self, id):
        return self.site.store.error_of(self.site.store.history().latest(id))


@pytest.fixture
def day(make_site):
    def begin(url, deeds, *, settings=None, **options):
        return Day(make_site(url, **options), deeds, **(settings or {}))

    return begin


def seen(site) -> list[int]:
    with site._database() as database:
        return list(database.execute(text('SELECT seen FROM page WHERE id <= 10 ORDER BY id')).scalars())


# -- evolutions that misbehave

#: What an evolution does, and what of it is on record; None: whatever.
DEEDS = {
    'system_exit': 'SystemExit: 3',
    'keyboard_interrupt': 'KeyboardInterrupt',
    'generator_exit': 'GeneratorExit',
    'stop_iteration': 'StopIteration',
    'cancelled': 'said by the evolution itself',
    'recurse': 'RecursionError',
    'leak': 'after a leak',
    'close_session': 'after the session was closed',
    'write_on': 'while a thread goes on',
    'say_much': 'after a megabyte',
    'unspeakable': '_Unspeakable',
    'nul': 'a NUL  in it',
    'surrogate': 'of surrogates',
    'password': 'postgresql://somebody:***@example.org/db',
    'long_text': '[... cut ...]',
}


@on('sqlite', also=['postgresql', 'mariadb'])
def test_an_evolution_that_misbehaves_fails_and_its_server_lives(day, store_url, figures):
    """All in one process, one after the other: whatever one of them left behind would meet the next."""
    deeds = [
        {'id': f'{does}-{transactional:d}', 'does': does, 'transactional': transactional}
        for transactional in (False, True)
        for does in DEEDS
    ]
    deeds.append({'id': 'broke', 'does': 'commit', 'transactional': True})
    today = day(store_url, deeds, max_attempts=1, poll=0.05, lease=20)
    site = today.site
    server = today.fork()
    conf = today.conf()
    for number, deed in enumerate(deeds):
        id = deed['id']
        until(lambda id=id: site.states(id) == ['failed'], what=f'{id} has failed')
        assert server.first_answer()[0] == 503
        assert server.fetch('/_evolve/live')[0] == 200
        server.until_reason('failed')
        assert server.status is None
        error = today.error(id)
        words = DEEDS.get(deed['does'], 'BrokeTransaction')
        assert words in error
        assert 'correct-horse' not in error
        assert len(error.encode()) <= 32_000
        # What comes after it stays where it is.
        assert not any(site.count('begin', after['id']) for after in deeds[number + 1 :])
        assert tgext.evolve.retry(conf, [id]) == 1
        figures.count('misbehaviours')
    server.until_open()
    site.go('stop-writing')
    assert server.status is None
    assert len({line.pid for line in site.lines('begin')}) == 1
    transactional = [deed for deed in deeds if deed['transactional'] and deed['id'] != 'broke']
    for deed in deeds:
        assert site.states(deed['id']) == ['failed', 'done']
    halves = ROWS // 2
    plain = len(deeds) - len(transactional)
    # A transactional one leaves nothing when it fails, another one what it had committed.
    assert seen(site)[halves:] == [len(deeds)] * halves
    assert seen(site)[1:halves] == [len(deeds) + plain] * (halves - 1)
    check(site, figures)


# -- what takes too long

#: At most so long after its time was out, an evolution has failed.
SOON = 6


@on('sqlite', 'postgresql', also=['mariadb'])
def test_a_statement_that_takes_too_long_is_cancelled(day, store_url, figures):
    """One after the other: no cancelling may hit what comes afterwards on the same connection."""
    deeds = [
        {'id': 'hang', 'does': 'hang', 'timeout': 0.5},
        {'id': 'hang-transactional', 'does': 'hang', 'timeout': 0.5, 'transactional': True},
        {'id': 'swallow', 'does': 'hang_and_swallow', 'timeout': 0.5, 'transactional': True},
        {'id': 'asleep', 'does': 'sleep_in_python', 'timeout': 0.5},
        {'id': 'asleep-in-transaction', 'does': 'sleep_in_a_transaction', 'timeout': 0.5},
        {'id': 'after', 'does': 'count', 'timeout': 30},
    ]
    today = day(store_url, deeds, max_attempts=1, poll=0.05, lease=20)
    site = today.site
    server = today.fork()
    conf = today.conf()
    for deed in deeds[:-1]:
        id = deed['id']
        site.until_told('deed', id)
        if id.startswith('asleep'):
            # Nothing stops Python code: the lease is kept, until it says a word.
            time.sleep(0.7)
            assert site.states(id) == ['running']
            assert site.lease.alive
            site.go(f'wake-{id}')
        until(lambda id=id: site.states(id) == ['failed'], SOON, f'{id} has failed')
        assert 'ran for more than 0.5 seconds' in today.error(id)
        assert 'TimedOut' in today.error(id)
        assert server.first_answer()[0] == 503
        assert site.count('begin', 'after') == 0
        figures.count('timeouts')
        # On a machine that is busy with something else, half a second may be too short for honest work as well.
        while site.states(id)[-1] == 'failed':
            tries = len(site.states(id))
            assert tries < 20
            assert tgext.evolve.retry(conf, [id]) == 1

            def ended(id=id, tries=tries):
                states = site.states(id)
                return len(states) > tries and states[-1] in ('failed', 'done')

            until(ended, what=f'{id} has ended again')
    server.until_open()
    for deed in deeds:
        *before, last = site.states(deed['id'])
        assert (set(before), last) == ({'failed'} if deed is not deeds[-1] else set(), 'done')
    check(site, figures)


@on('postgresql', also=['sqlite', 'mariadb'])
def test_a_statement_that_never_ends_is_left_behind_by_who_takes_over(day, store_url, figures):
    """Without a timeout the lease is kept, until somebody kills the process."""
    today = day(store_url, [{'id': 'hang', 'does': 'hang', 'transactional': True}, {'id': 'after', 'does': 'count'}])
    site = today.site
    holder = today.fork(http=False)
    site.until_told('deed', 'hang')
    other = today.fork()
    time.sleep(2.5)  # longer than a lease
    assert other.first_answer()[0] == 503
    assert site.states('hang') == ['running']
    holder.kill()
    figures.count('kills')
    other.until_open(10)
    assert site.states('hang') == ['interrupted', 'done']
    assert site.seen == [2] * ROWS
    check(site, figures)


@on('sqlite', also=['postgresql', 'mariadb'])
def test_an_evolution_that_exits_its_process_is_done_by_the_next(day, store_url, figures):
    today = day(store_url, [{'id': 'exit', 'does': 'exit_at_once'}, {'id': 'after', 'does': 'count'}], lease=1)
    site = today.site
    assert today.fork(http=False).wait() == 3
    assert site.states('exit') == ['running']
    assert site.count('begin', 'after') == 0
    figures.count('kills')
    next_one = today.fork()
    assert next_one.first_answer()[0] == 503
    next_one.until_open(10)
    assert site.states('exit') == ['interrupted', 'done']
    check(site, figures)


# -- a database that refuses


def execute(url, *statements):
    """Each for itself, as whoever the URL names."""
    engine = create_engine(url, isolation_level='AUTOCOMMIT', poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def until_refused(server, *words) -> None:
    """Closed, alive, and the log says what to do."""
    server.until_reason('database-refuses')
    assert server.first_answer()[0] == 503
    assert server.fetch('/_evolve/live')[0] == 200
    assert server.status is None
    for word in words:
        until(lambda word=word: word in server.log, 5, f'the log says {word!r}')


REMEDY = 'must be able to create, read and write the tables tgext_evolve_lease'


def as_user(url, user):
    return make_url(url).set(username=user, password='secret').render_as_string(hide_password=False)


@pytest.fixture
def poor_user(store_url):
    """A user who may log in, and the statements that give him the rights of an application."""
    user = f'poor_{os.getpid()}_{time.monotonic_ns() % 10**9}'
    database = make_url(store_url).database
    if store_url.startswith('postgresql'):
        execute(store_url, f"CREATE ROLE {user} LOGIN PASSWORD 'secret'", 'REVOKE ALL ON SCHEMA public FROM PUBLIC')
        reads = [f'GRANT USAGE ON SCHEMA public TO {user}', f'GRANT SELECT, UPDATE ON page TO {user}']
        creates = [f'GRANT CREATE ON SCHEMA public TO {user}']
    else:
        execute(store_url, f"CREATE USER {user}@'%' IDENTIFIED BY 'secret'")
        reads = [f"GRANT SELECT, UPDATE ON {database}.page TO {user}@'%'"]
        creates = [f"GRANT CREATE, INDEX, SELECT, INSERT, UPDATE, DELETE ON {database}.* TO {user}@'%'"]
    return user, reads, creates


@on('postgresql', also=['mariadb'])
def test_without_the_right_to_create_tables_it_says_so_and_goes_on_when_it_has_it(
    make_site, store_url, poor_user, figures
):
    user, reads, creates = poor_user
    site = make_site(store_url, evolutions=[{'id': 'one', 'transactional': True}, {'id': 'two'}])
    execute(store_url, *reads)
    site.url = as_user(store_url, user)
    server = site.fork()
    until_refused(server, REMEDY)
    assert 'secret' not in server.log
    assert site.count('begin') == 0
    execute(store_url, *creates)
    server.until_open()
    figures.count('refusals')
    check(site, figures)


@on('postgresql')
def test_tables_that_somebody_else_made_and_does_not_share(make_site, store_url, poor_user, figures):
    """Not readable, then readable, then writable: closed and loud until the last."""
    user, reads, _ = poor_user
    site = make_site(store_url, evolutions=[{'id': 'one', 'transactional': True}])
    execute(store_url, *reads)
    site.store.prepare()
    site.url = as_user(store_url, user)
    server = site.fork()
    until_refused(server, REMEDY)
    tables = 'tgext_evolve_lease, tgext_evolve_history'
    execute(store_url, f'GRANT SELECT ON {tables} TO {user}')
    other = site.fork()
    until_refused(other, REMEDY)
    assert site.count('begin') == 0
    execute(store_url, f'GRANT INSERT, UPDATE, DELETE ON {tables} TO {user}')
    server.until_open()
    other.until_open()
    figures.count('refusals', 2)
    check(site, figures)


@on('sqlite', 'postgresql')
def test_a_database_that_becomes_read_only(make_site, store_url, figures):
    """At the start, and in mid-run: the holder can record nothing, and stops."""
    database = make_url(store_url).database

    def read_only(yes):
        if yes:
            execute(store_url, f'ALTER DATABASE {database} SET default_transaction_read_only = on')
        else:
            engine = create_engine(store_url, isolation_level='AUTOCOMMIT', poolclass=NullPool)
            with engine.connect() as connection:
                connection.execute(text('SET default_transaction_read_only = off'))
                connection.execute(text(f'ALTER DATABASE {database} RESET default_transaction_read_only'))

    evolutions = [{'id': 'one', 'does': 'hold', 'transactional': True}, {'id': 'two', 'transactional': True}]
    site = make_site(store_url, evolutions=evolutions, lease=1)
    if store_url.startswith('sqlite'):
        # Modes of files are nothing to root.
        url = site.url
        site.url = f'sqlite:///file:{make_url(url).database}?mode=ro&uri=true'
        server = site.fork()
        site.url = url
    else:
        read_only(True)
        server = site.fork()
    until_refused(server, REMEDY)
    assert site.count('begin') == 0
    if store_url.startswith('sqlite'):
        # Somebody else can write; who cannot, sees it.
        site.go()
        site.fork()
        server.until_open()
        figures.count('refusals')
    else:
        read_only(False)
        site.until_told('half', 'one')
        read_only(True)
        until(lambda: 'this process holds it no longer' in server.log, what='the holder has noticed')
        site.go()
        until(lambda: 'this process goes on as a waiter' in server.log, what='the holder has stopped')
        assert server.first_answer()[0] == 503
        read_only(False)
        server.until_open()
        assert site.states('one') == ['interrupted', 'done']
        figures.count('refusals', 2)
    check(site, figures)


def test_a_full_disk_keeps_the_gate_closed_until_there_is_room(day, make_site, tmp_path, figures):
    """At the start there is no room for the tables; later none for an evolution's data."""
    today = day(None, [{'id': 'grow', 'does': 'grow', 'transactional': True}, {'id': 'after', 'does': 'count'}])
    site = today.site
    site.options['max_attempts'] = 1
    path = make_url(site.url).database
    server = today.fork(points={'before-take': 'room', 'before-evolve': 'room-for-data'})

    def room(size):
        # For every file of that process: its log and its witness are much smaller.
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    # Tables are made before the lease is taken.
    site.until_told('point', 'before-take')
    execute(site.url, 'DROP TABLE IF EXISTS tgext_evolve_checkpoint')
    execute(site.url, 'DROP TABLE tgext_evolve_lease', 'DROP TABLE tgext_evolve_history', 'VACUUM')
    room(os.path.getsize(path))
    site.go('room')
    until_refused(server)
    assert site.count('begin') == 0
    room(os.path.getsize(path) + 400_000)
    site.until_told('point', 'before-evolve')
    site.go('room-for-data')
    until(lambda: site.states('grow') == ['failed'], what='the failure is on record')
    assert 'full' in today.error('grow') or 'disk I/O' in today.error('grow')
    assert site.count('begin', 'after') == 0
    server.until_reason('failed')
    room(resource.RLIM_INFINITY)
    assert tgext.evolve.retry(today.conf(), ['grow']) == 1
    server.until_open()
    figures.count('refusals', 2)
    assert seen(site) == [2] * ROWS
    check(site, figures)


# -- what somebody did by hand


def change(site, **documents):
    """Edit history or lease as a person would: a statement for SQL, or a filter and an update for MongoDB."""
    if site.is_sql:
        execute(site.url, documents['sql'])
    else:
        with site._database() as database:
            database[documents['collection']].update_one({}, documents['update'])


@on('postgresql', also=['sqlite', 'mariadb'])
def test_tables_that_are_dropped_under_a_running_evolution(make_site, store_url, figures):
    """Without its lease the holder stops, and all begins again, with tokens that go on growing."""
    evolutions = [
        {'id': 'zero', 'transactional': True},
        {'id': 'one', 'does': 'hold', 'transactional': True},
        {'id': 'two', 'transactional': True},
    ]
    site = make_site(store_url, evolutions=evolutions, lease=1, watch=0.2)
    server = site.fork()
    site.until_told('half', 'one')
    # The evolution has SQLite's write lock.
    dropped = not store_url.startswith('sqlite')
    if dropped:
        token = site.lease.token
        execute(store_url, 'DROP TABLE tgext_evolve_lease')
        until(lambda: 'this process holds it no longer' in server.log, what='the holder has noticed')
    site.go()
    server.until_open()
    if dropped:
        assert site.states('one') == ['interrupted', 'done']
        assert site.lease.token > token
    figures.count('edits')
    # A history that vanishes from an open application is no reason to do all of it again.
    execute(store_url, 'ALTER TABLE tgext_evolve_history RENAME TO saved')
    until_refused(server, 'has vanished while this process ran')
    if 'tgext_evolve_history' in site.tables:
        execute(store_url, 'DROP TABLE tgext_evolve_history')
    execute(store_url, 'ALTER TABLE saved RENAME TO tgext_evolve_history')
    server.until_open()
    figures.count('edits')
    check(site, figures)


#: What somebody writes into a row of the history: it cannot be read, and nobody is served on such a record.
UNREADABLE = {
    'sqlite': ["state = 'finished'", "token = 'x'", "attempt = 'first'", "started = 'today'", "attempt = x'00'"],
    'postgresql': ["state = 'finished'"],
    'mariadb': ["state = 'finished'", "state = ''"],
    'mongodb': [
        {'state': 'finished'},
        {'state': None},
        {'token': None},
        {'token': 'x'},
        {'attempt': [1]},
        {'started': {}},
        {'evolution_id': 5},
        {'evolution_id': None},
    ],
}

#: What can be read though it makes no sense: one is recorded as done all the same.
ODD = {
    'sql': ['attempt = -7', 'token = -7', 'pid = NULL', 'fingerprint = NULL', "serving = 'sometimes'", 'finished = -1'],
    'mongodb': [{'attempt': -7}, {'token': -7}, {'pid': None}, {'fingerprint': None}, {'serving': 'sometimes'}],
}


@on('sqlite', also=['mongodb', 'postgresql', 'mariadb'])
def test_a_record_that_somebody_edited(make_site, store_url, request, figures):
    kind = request.node.callspec.params['store_url']
    site = make_site(store_url, evolutions=[{'id': 'one'}], watch=0.2)
    assert site.fork(http=False).wait() == 0
    if site.is_sql:
        with site._database() as database:
            [row] = database.execute(text('SELECT * FROM tgext_evolve_history')).mappings()
    else:
        with site._database() as database:
            row = database.tgext_evolve_history.find_one()

    def restore():
        if site.is_sql:
            names = ', '.join(f'{name} = :{name}' for name in row)
            with site._database() as database:
                database.execute(text(f'UPDATE tgext_evolve_history SET {names}'), dict(row))
        else:
            with site._database() as database:
                database.tgext_evolve_history.replace_one({}, row)

    def edit(what):
        figures.count('edits')
        change(
            site,
            sql=f'UPDATE tgext_evolve_history SET {what}',
            collection='tgext_evolve_history',
            update={'$set': what},
        )

    open_one = site.fork()
    open_one.until_open()
    for what in UNREADABLE[kind]:
        edit(what)
        # Two looks of the one that is open: what was known to be done stays done.
        new = site.fork()
        until_refused(new, 'omebody edited it')
        assert open_one.first_answer()[0] == 200, what
        restore()
        new.until_open()
        new.kill()
    for what in ODD['sql' if site.is_sql else 'mongodb']:
        edit(what)
        new = site.fork()
        assert new.first_answer()[0] == 200, what
        new.kill()
        restore()
    assert open_one.first_answer()[0] == 200
    assert 'unexpected' not in open_one.log
    assert site.count('begin') == 1
    check(site, figures)


#: What somebody writes into the row of the lease, and whether the next holder can mend that by itself.
LEASES = {
    'sql': {
        'ttl = 1000000000000000, expires_at = 1000000000000000': True,
        'token = -5': True,
        'token = 0': True,
        'expires_at = -1': True,
        'ttl = -1': True,
        'token = 9223372036854775807': False,
    },
    'sqlite': {"token = 'x'": False, "expires_at = 'tomorrow'": False, "ttl = 'long'": False, "pid = 'x'": True},
    'mongodb': {
        "{'ttl': 10**15, 'expires_at': 10**15}": True,
        "{'token': -5}": True,
        "{'token': None}": False,
        "{'token': 'x'}": False,
        "{'expires_at': None}": False,
        "{'ttl': 'long'}": False,
        "{'owner': None}": True,
        "{'host': None, 'pid': None}": True,
    },
}


@pytest.mark.skipif(not LONG, reason='only in the long form: script/chaos')
@on('sqlite', also=['mongodb', 'postgresql', 'mariadb'])
def test_a_lease_that_somebody_edited(make_site, store_url, request, figures):
    """New work is done all the same, with tokens above all that were recorded, or it says what is wrong."""
    kind = request.node.callspec.params['store_url']
    edits = {**(LEASES['sql'] if kind != 'mongodb' else {}), **LEASES.get(kind, {})}
    site = make_site(store_url, evolutions=[{'id': 'first'}])
    assert site.fork(http=False).wait() == 0
    for number, (what, mends) in enumerate(edits.items()):
        figures.count('edits')
        change(
            site,
            sql=f'UPDATE tgext_evolve_lease SET {what}',
            collection='tgext_evolve_lease',
            update={'$set': eval(what) if not site.is_sql else None},
        )
        site.evolutions.append({'id': f'new-{number}'})
        server = site.fork()
        if not mends:
            until_refused(server)
            assert site.count('begin', f'new-{number}') == 0, what
            if site.is_sql:
                execute(site.url, 'DELETE FROM tgext_evolve_lease')
            else:
                with site._database() as database:
                    database.tgext_evolve_lease.delete_many({})
        server.until_reason('complete', 20)
        server.kill()
        tokens = [attempt.token for attempt in site.store.history().attempts]
        assert tokens[-1] == max(tokens) > 0
    assert site.store.history().attempts[-1].evolution_id == site.evolutions[-1]['id']
    check(site, figures)
