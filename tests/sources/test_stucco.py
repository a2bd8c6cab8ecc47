"""Packages of stucco_evolution as evolutions: the same database as by the original tool, whoever did which part."""

from __future__ import annotations

from textwrap import dedent

import pytest
from sqlalchemy import create_engine, insert, inspect, text
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import NullPool

from tests import apps
from tests.sources.originals import for_drivers_of_then
from tests.sources.projects import PAGES, USERS, Application, contents, execute
from tgext.evolve.errors import EvolveError, PlanError, SourceError
from tgext.evolve.evolver import Ended
from tgext.evolve.points import at_points
from tgext.evolve.sources import stucco
from tgext.evolve.sources.strings import StringConnection
from tgext.evolve.sources.stucco import CircularDependencyError, StuccoPackages, create_or_upgrade_packages

DATABASES = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb'], indirect=True)
TRANSACTIONAL = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql'], indirect=True)
SQLITE = pytest.mark.parametrize('store_url', ['sqlite'], indirect=True)

ORIGINAL = """
import sys, sqlalchemy, stucco_evolution
with sqlalchemy.create_engine(sys.argv[1]).begin() as connection:
    stucco_evolution.initialize(connection)
    stucco_evolution.create_or_upgrade_packages(connection, 'st_pages')
"""

ALL = [
    *(f'stucco:st_users:{step}' for step in ('create', 1, 2, 3)),
    *(f'stucco:st_pages:{step}' for step in ('create', 1, 2)),
]

ROWS = (
    "INSERT INTO users (id, name) VALUES (1, 'ada'), (2, 'alan')",
    "INSERT INTO pages (id, title) VALUES (1, 'first'), (2, 'second')",
)


@pytest.fixture
def start(store_url, project):
    def start(*entries, **options):
        project.forget()
        return Application(store_url, *(entries or (StuccoPackages('st_pages'),)), **options)

    return start


@pytest.fixture
def theirs(stucco_evolution, project):
    """The original tool runs on a database."""

    def run(url):
        stucco_evolution.python(ORIGINAL, for_drivers_of_then(url), path=project.directory)

    return run


@pytest.fixture
def another_database(request, tmp_path):
    """A second one of the same kind, for what it should look like."""
    kind = request.node.callspec.params['store_url']
    if kind == 'sqlite':
        return f'sqlite:///{tmp_path / "another.db"}'
    return request.getfixturevalue(f'{kind}_server').new_database()


# -- the same as the original


@pytest.mark.slow
@DATABASES
def test_from_nothing_it_is_the_database_of_the_original(store_url, another_database, project, start, theirs):
    project.release(users=3, pages=2)
    theirs(another_database)
    assert start().run() is Ended.DONE
    assert contents(store_url) == contents(another_database)


@pytest.mark.slow
@DATABASES
@pytest.mark.parametrize('first', ['theirs', 'ours'])
def test_what_one_of_them_began_the_other_finishes(store_url, another_database, project, start, theirs, first):
    def ours(url):
        assert Application(url, StuccoPackages('st_pages')).run() is Ended.DONE

    begins, finishes = (theirs, ours) if first == 'theirs' else (ours, theirs)
    project.release(users=1, pages=0)
    for url, begin in ((another_database, theirs), (store_url, begins)):
        begin(url)
        execute(url, *ROWS)
    assert contents(store_url) == contents(another_database)
    project.release(users=3, pages=2)
    theirs(another_database)
    finishes(store_url)
    found = contents(store_url)
    assert found == contents(another_database)
    assert found['stucco_evolution'][1] == [('st_pages', 2), ('st_users', 3), ('stucco_evolution', 2)]
    assert (1, 1, 'ada@example.com', 'first') in [tuple(sorted(row, key=str)) for row in found['pages'][1]]
    # And afterwards nothing is left for either of them.
    assert start().pending() == []
    theirs(store_url)
    assert contents(store_url) == found


# -- what runs, and when


@DATABASES
def test_of_what_is_not_tracked_create_alone_runs(store_url, project, start):
    project.release(users=3, pages=2)
    application = start()
    assert application.pending() == ALL
    assert application.run() is Ended.DONE
    assert application.pending() == []
    assert application.latest('stucco:st_users:create').state.value == 'done'
    assert application.evolver.store.history().ids == {'stucco:st_users:create', 'stucco:st_pages:create'}


@SQLITE
def test_what_depends_on_a_script_waits_for_create_where_that_runs_instead(store_url, project, start):
    project.release(users=3, pages=2)
    seen = []
    data = apps.evolution('fill', lambda evolution: seen.append(contents(store_url)['stucco_evolution'][1]))
    data.depends_on = ('stucco:st_users:2',)
    application = start(data, StuccoPackages('st_pages', depends_on={'st_pages:1': ('fill',)}))
    assert application.run() is Ended.DONE
    assert seen == [[('st_users', 3), ('stucco_evolution', 2)]] or seen == [
        [('st_pages', 2), ('st_users', 3), ('stucco_evolution', 2)]
    ]


@SQLITE
def test_two_sources_may_need_the_same_package(store_url, project, start):
    project.release(users=3, pages=2)
    project.package('st_more', 0, ['st_users'], scripts={'create': 'def create(connection): pass'})
    sources = [StuccoPackages('st_users'), StuccoPackages('st_pages'), StuccoPackages('st_more')]
    application = start(*sources)
    assert application.run() is Ended.DONE
    assert [version for name, version in contents(store_url)['stucco_evolution'][1] if name != 'stucco_evolution'] == [
        *(0, 2, 3)
    ]
    assert start(*reversed(sources)).pending() == []  # each application has them all


@DATABASES
def test_of_what_is_tracked_the_scripts_that_are_missing_run_dependencies_first(store_url, project, start):
    project.release(users=0, pages=0)
    start().run()
    execute(store_url, *ROWS)
    project.release(users=3, pages=2)
    application = start()
    assert application.pending() == [f'stucco:st_users:{n}' for n in (1, 2, 3)] + [
        f'stucco:st_pages:{n}' for n in (1, 2)
    ]
    assert application.run() is Ended.DONE
    assert contents(store_url)['pages'][1] == [(1, 1, 'ada@example.com', 'first'), (1, 2, 'ada@example.com', 'second')]


@SQLITE
def test_nothing_pending_costs_one_query_for_the_history_and_one_for_the_versions(store_url, project, start):
    project.release(users=3, pages=2)
    start().run()
    with apps.statements() as statements:
        application = start()
    assert application.evolver.gate.is_open
    assert len(statements) == 2
    assert sum('FROM stucco_evolution' in statement for statement in statements) == 1


@DATABASES
def test_the_version_table_decides_whatever_the_history_says(store_url, project, start):
    project.release(users=1, pages=0)
    start().run()
    execute(store_url, *ROWS)
    project.release(users=3, pages=0)
    start().run()
    execute(store_url, 'ALTER TABLE users DROP COLUMN active')
    execute(store_url, "UPDATE stucco_evolution SET version = 2 WHERE package = 'st_users'")
    application = start()
    assert application.pending() == ['stucco:st_users:3']
    assert application.run() is Ended.DONE


@TRANSACTIONAL
def test_of_a_script_that_fails_nothing_stays_and_the_next_try_goes_on(store_url, project, start):
    project.release(users=1, pages=0)
    start().run()
    execute(store_url, *ROWS)
    before = contents(store_url)
    broken = dict(USERS)
    broken['evolve3'] = dedent(USERS['evolve3']) + '    raise ValueError("no")\n'
    project.package('st_users', 3, ['stucco_evolution'], scripts=broken)
    application = start(max_attempts=1)
    assert application.run() is Ended.STUCK
    assert not application.evolver.gate.is_open
    after = contents(store_url)
    assert after['stucco_evolution'][1] == [('st_pages', 0), ('st_users', 2), ('stucco_evolution', 2)]
    assert after['users'][0] == before['users'][0]
    assert 'ValueError: no' in application.error('stucco:st_users:3')
    project.release(users=3, pages=2)
    assert start().run() is Ended.DONE  # its code changed: that is enough
    assert contents(store_url)['stucco_evolution'][1] == [('st_pages', 2), ('st_users', 3), ('stucco_evolution', 2)]


@SQLITE
def test_a_database_that_is_newer_than_the_code_is_named(store_url, project, start, caplog):
    project.release(users=3, pages=2)
    start().run()
    project.release(users=1, pages=2)
    application = start()
    assert application.evolver.gate.is_open
    assert 'stucco:st_users:3' in caplog.text
    refusing = start(unknown='refuse')
    assert not refusing.evolver.gate.is_open
    assert 'stucco:st_users:2' in refusing.evolver.gate.verdict.detail


@SQLITE
def test_an_evolution_may_stand_between_two_versions(store_url, project, start):
    project.release(users=1, pages=0)
    start().run()
    execute(store_url, *ROWS)
    project.release(users=3, pages=2)
    seen = []
    data = apps.evolution('fill', lambda evolution: seen.append(contents(store_url)['stucco_evolution'][1]))
    data.depends_on = ('stucco:st_users:2',)
    application = start(data, StuccoPackages('st_pages', depends_on={'st_users:3': 'fill'}))
    assert application.run() is Ended.DONE
    assert seen == [[('st_pages', 0), ('st_users', 2), ('stucco_evolution', 2)]]


@SQLITE
def test_what_a_package_waits_for_holds_back_what_depends_on_it_in_the_middle_too(store_url, project, start):
    """Its own create, which waited for the other package once, is done long since."""
    project.release(users=1, pages=0)
    start().run()
    project.release(users=3, pages=2)
    fails = apps.evolution('fails', serving='everything')
    application = start(StuccoPackages('st_pages', depends_on={'st_users:3': 'fails'}), fails)
    assert application.pending().index('stucco:st_pages:1') > application.pending().index('stucco:st_users:3')


def test_a_missing_script_says_so_when_it_is_needed_and_not_before(tmp_path, project):
    url = f'sqlite:///{tmp_path / "it.db"}'
    scripts = {name: source for name, source in USERS.items() if name != 'evolve2'}
    project.package('st_users', 3, scripts=scripts)
    assert Application(url, StuccoPackages('st_users')).run() is Ended.DONE
    execute(url, "UPDATE stucco_evolution SET version = 1 WHERE package = 'st_users'")
    application = Application(url, StuccoPackages('st_users'), max_attempts=1)
    assert application.run() is Ended.STUCK
    error = application.error('stucco:st_users:2')
    assert "'st_users' has no evolve2.py, and the database has the package at version 1" in error
    assert str(project.directory / 'st_users' / 'evolve') in error


def test_a_version_that_somebody_takes_back_meanwhile_is_noticed(tmp_path, project):
    url = f'sqlite:///{tmp_path / "it.db"}'
    project.package('st_users', 3, scripts=USERS)
    assert Application(url, StuccoPackages('st_users')).run() is Ended.DONE
    execute(url, "UPDATE stucco_evolution SET version = 1 WHERE package = 'st_users'")
    application = Application(url, StuccoPackages('st_users'), max_attempts=1)

    def take_back(point):
        if point == 'after-attempt':
            execute(url, 'UPDATE stucco_evolution SET version = 0')

    at_points(take_back)
    try:
        assert application.run() is Ended.STUCK
    finally:
        at_points(None)
    error = application.error('stucco:st_users:2')
    assert "evolve2.py of 'st_users' cannot be the next one: the package is at version 0 (in the table " in error
    assert 'Run what comes before it: create_or_upgrade_packages does all that is needed.' in error


def test_a_script_without_its_function_says_so_when_it_is_needed(tmp_path, project):
    project.package('st_users', 0, scripts={'create': 'def creat(connection): pass'})
    application = Application(f'sqlite:///{tmp_path / "it.db"}', StuccoPackages('st_users'), max_attempts=1)
    assert application.run() is Ended.STUCK
    error = application.error('stucco:st_users:create')
    place = project.directory / 'st_users' / 'evolve' / 'create.py'
    assert f'st_users.evolve.create has no function create(connection) (in {place}). Define it.' in error


# -- what is wrong is said when the application is configured


@pytest.fixture
def refused(tmp_path):
    def refused(*packages, kind=SourceError):
        with pytest.raises(kind) as raised:
            Application(f'sqlite:///{tmp_path / "it.db"}', StuccoPackages(*packages))
        return str(raised.value)

    return refused


def test_a_cycle_is_named(project, refused):
    project.package('st_a', 0, ['st_b']).package('st_b', 0, ['st_c']).package('st_c', 0, ['st_b'])
    assert 'st_b -> st_c -> st_b' in refused('st_a', kind=CircularDependencyError)


def test_so_is_a_package_that_is_not_there_with_who_needs_it(project, refused):
    project.package('st_a', 0, ['st_nowhere'])
    message = refused('st_a')
    assert "no package 'st_nowhere'" in message
    assert "DEPENDS of 'st_a'" in message


def test_so_is_a_package_without_the_module(project, refused):
    (project.directory / 'st_bare').mkdir()
    (project.directory / 'st_bare' / '__init__.py').touch()
    project.names.add('st_bare')
    assert "'st_bare' has no module evolve" in refused('st_bare')


def test_an_import_error_inside_of_it_stays_one(project, refused):
    project.package('st_a', 0)
    (project.directory / 'st_a' / 'evolve' / '__init__.py').write_text('import nowhere_at_all')
    assert 'nowhere_at_all' in refused('st_a', kind=ModuleNotFoundError)


@pytest.mark.parametrize(
    ('constants', 'expected'),
    [
        ({'NAME': 'other', 'VERSION': 0, 'DEPENDS': []}, "NAME = 'other'"),
        ({'NAME': 'st_a', 'VERSION': '1', 'DEPENDS': []}, "VERSION = '1'"),
        ({'NAME': 'st_a', 'VERSION': -1, 'DEPENDS': []}, 'VERSION = -1'),
        ({'NAME': 'st_a', 'VERSION': 0, 'DEPENDS': 'st_b'}, "DEPENDS = 'st_b'"),
        ({'NAME': 'st_a', 'VERSION': 0}, 'does not define DEPENDS'),
    ],
)
def test_a_constant_that_is_wrong_is_shown_with_its_file(project, refused, constants, expected):
    project.package('st_a', 0, constants=constants)
    message = refused('st_a')
    assert expected in message
    assert str(project.directory / 'st_a' / 'evolve' / '__init__.py') in message


def test_a_name_of_which_no_id_can_be_made(project, refused):
    name = 'st_' + 'a' * 200
    project.package(name, 0)
    assert f'NAME = {name!r} is too long (in {project.directory / name}' in refused(name)


def test_a_name_that_the_table_cannot_take(project, postgresql_server):
    name = 'st_' + 'a' * 28
    project.package(name, 0, scripts={'create': 'def create(connection): pass'})
    with pytest.raises(SourceError, match='has 31 characters'):
        Application(postgresql_server.new_database(), StuccoPackages(name))


def test_a_step_that_depends_on_has_and_the_packages_do_not(project, tmp_path):
    project.package('st_a', 1)
    source = StuccoPackages('st_a', depends_on={'st_a:2': ('x',)})
    with pytest.raises(SourceError, match='stucco:st_a:1'):
        Application(f'sqlite:///{tmp_path / "it.db"}', source)


def test_an_application_without_sql(project):
    project.package('st_a', 0)
    with pytest.raises(SourceError, match='no SQLAlchemy session'):
        apps.make(None, [StuccoPackages('st_a')], options={'store': 'sqlite:///x.db'})


def test_no_package_at_all():
    with pytest.raises(SourceError, match='which packages'):
        StuccoPackages()


@SQLITE
def test_a_session_that_is_bound_elsewhere_is_found_out_before_anything_changes(store_url, project, tmp_path):
    elsewhere = create_engine(f'sqlite:///{tmp_path / "elsewhere.db"}')

    class Bound(apps.Model):
        def init_model(self, engine):
            return super().init_model(elsewhere)

    project.release(users=0, pages=0)
    application = Application(store_url, StuccoPackages('st_pages'), model=Bound(), max_attempts=1)
    assert application.run() is Ended.STUCK
    error = application.error('stucco:st_users:create')
    assert 'elsewhere.db' in error
    assert 'evolve.db' in error
    assert contents(str(elsewhere.url)) == {}


@SQLITE
def test_where_sessions_cannot_be_transactional_packages_say_so(store_url, project, tmp_path):
    project.release(users=0, pages=0)
    store = f'sqlite:///{tmp_path / "store.db"}'  # the history cannot be saved with the scripts there
    with pytest.raises(PlanError, match='stucco:st_users:create'):
        Application(store_url, StuccoPackages('st_pages'), store=store)
    application = Application(store_url, StuccoPackages('st_pages', transactional=False), store=store)
    assert application.run() is Ended.DONE
    assert application.pending() == []


@pytest.mark.parametrize('store_url', ['mariadb'], indirect=True)
def test_where_ddl_cannot_be_rolled_back_what_a_script_made_before_it_failed_stays(store_url, project, start):
    project.release(users=0, pages=0)
    start().run()
    failing = (
        "def evolve(connection):\n    connection.execute('CREATE TABLE made (id INTEGER)')\n    raise ValueError('no')"
    )
    project.package('st_users', 1, scripts={**USERS, 'evolve1': failing})
    application = start(max_attempts=1)
    assert not application.plan.find('stucco:st_users:1').transactional
    assert application.run() is Ended.STUCK
    assert 'made' in contents(store_url)
    assert ('st_users', 0) in contents(store_url)['stucco_evolution'][1]


# -- by hand


@DATABASES
def test_a_fresh_database_is_stamped_at_the_newest_versions(store_url, project, start):
    import tgext.evolve

    project.release(users=3, pages=2)
    application = start()
    tgext.evolve.stamp(application.conf)
    assert contents(store_url)['stucco_evolution'][1] == [('st_pages', 2), ('st_users', 3), ('stucco_evolution', 2)]
    assert application.pending() == []


@DATABASES
def test_stamped_at_a_version_the_later_scripts_run(store_url, project, start):
    import tgext.evolve

    project.release(users=3, pages=2)
    application = start()
    conf = application.conf
    tgext.evolve.stamp(conf, ['stucco:st_users:1'])
    assert application.pending() == ALL[2:]
    with pytest.raises(PlanError, match='stucco:st_users:2'):
        tgext.evolve.stamp(conf, ['stucco:st_users:3'])
    tgext.evolve.stamp(conf, ['stucco:st_users:2', 'stucco:st_users:3'])
    with pytest.raises(PlanError, match='stucco:st_users:3'):
        tgext.evolve.unstamp(conf, ['stucco:st_users:2'])
    tgext.evolve.unstamp(conf, ['stucco:st_users:3'])
    assert application.pending() == ALL[3:]
    tgext.evolve.unstamp(conf, ['stucco:st_users:create'])
    assert application.pending() == ALL


# -- the connection that scripts get


@pytest.fixture
def connection(store_url):
    with create_engine(store_url, poolclass=NullPool).begin() as connection:
        connection.execute(text('CREATE TABLE thing (id INTEGER PRIMARY KEY, name VARCHAR(50))'))
        yield StringConnection(connection)


@DATABASES
def test_plain_strings_take_parameters_as_they_did(connection):
    mark, named = ('?', ':name') if connection.dialect.name == 'sqlite' else ('%s', '%(name)s')
    values = f'INSERT INTO thing (id, name) VALUES ({mark}, {mark})'
    connection.execute(values, 1, 'one')
    connection.execute(values, (2, 'two'))
    connection.execute(values, [3, 'three'])
    connection.execute(values, [(4, 'four'), (5, 'five')])
    connection.execute(values, (6, 'six'), (7, 'seven'))
    connection.execute(values, ((8, 'eight'), (9, 'nine')))
    connection.execute(f'INSERT INTO thing (id, name) VALUES (10, {named})', name='ten')
    connection.execute(f'INSERT INTO thing (id, name) VALUES (11, {named})', {'name': 'eleven'})
    rows = [{'name': 'twelve', 'id': 12}, {'name': 'thirteen', 'id': 13}]
    connection.execute(f'INSERT INTO thing (id, name) VALUES ({named.replace("name", "id")}, {named})', rows)
    names = [row[0] for row in connection.execute('SELECT name FROM thing ORDER BY id').fetchall()]
    assert ' '.join(names) == 'one two three four five six seven eight nine ten eleven twelve thirteen'
    assert connection.scalar('SELECT count(*) FROM thing') == 13
    assert connection.scalar(f'SELECT name FROM thing WHERE id = {mark}', 3) == 'three'
    assert connection.scalars('SELECT id FROM thing WHERE id < 3 ORDER BY id').all() == [1, 2]


@DATABASES
def test_it_is_the_connection_for_whatever_asks_for_one(connection):
    model = apps.Model()
    model.metadata.create_all(connection)
    assert inspect(connection).has_table('page')
    connection.execute(insert(model.Page.__table__), {'title': 'a'})
    connection.execute(insert(model.Page.__table__), title='b')
    connection.execute(insert(model.Page.__table__), {'title': 'c'}, {'title': 'd'})
    session = sessionmaker(bind=connection)()
    session.add(model.Page(title='e'))
    session.flush()
    assert session.query(model.Page).count() == 5
    assert connection.scalar(text('SELECT count(*) FROM page WHERE title <> :title'), {'title': 'a'}) == 4
    assert connection.execute(text('SELECT count(*) FROM page')).scalar() == 5
    session.close()
    assert connection.in_transaction()


@DATABASES
def test_what_it_begins_the_connection_that_it_was_made_from_commits(store_url):
    execute(store_url, 'CREATE TABLE thing (id INTEGER)')
    with create_engine(store_url, poolclass=NullPool).connect() as connection:
        StringConnection(connection).execute('INSERT INTO thing VALUES (1)')
        assert connection.in_transaction()
        connection.commit()
    assert contents(store_url)['thing'][1] == [(1,)]


# -- what stucco_evolution offered to programs


def create(url, name='st_pages'):
    with create_engine(url, poolclass=NullPool).begin() as connection:
        create_or_upgrade_packages(connection, name)


@DATABASES
def test_the_function_of_that_name_does_the_same(store_url, another_database, project, start):
    project.release(users=1, pages=0)
    create(store_url)
    execute(store_url, *ROWS)
    Application(another_database, StuccoPackages('st_pages')).run()
    execute(another_database, *ROWS)
    project.release(users=3, pages=2)
    create(store_url)
    Application(another_database, StuccoPackages('st_pages')).run()
    assert contents(store_url) == contents(another_database)
    create(store_url)
    assert contents(store_url) == contents(another_database)


@TRANSACTIONAL
def test_it_leaves_nothing_when_a_script_fails(store_url, project):
    project.release(users=0, pages=0)
    create(store_url)
    execute(store_url, *ROWS)
    before = contents(store_url)
    project.release(users=3, pages=1)
    broken = {**PAGES, 'evolve1': dedent(PAGES['evolve1']) + '    raise ValueError("no")\n'}
    project.package('st_pages', 1, ['st_users'], scripts=broken)
    with pytest.raises(ValueError, match='no'):
        create(store_url)
    assert contents(store_url) == before


@SQLITE
def test_the_parts_of_it_are_there_too(store_url, project):
    project.release(users=3, pages=2)
    with create_engine(store_url).begin() as connection:
        assert not stucco.is_initialized(connection)
        stucco.initialize(connection)
        assert stucco.is_initialized(connection)
        managers = stucco.managers(connection, stucco.dependencies('st_pages'))
        assert [manager.get_db_version() for manager in managers] == [None, None]
        with pytest.raises(SourceError, match='is not tracked'):
            stucco.upgrade_many(managers)
        stucco.create_many(managers)
        stucco.upgrade_many(managers)
        assert [manager.get_db_version() for manager in managers] == [3, 2]
        assert stucco.manager(connection, 'st_users').get_sw_version() == 3


@SQLITE
def test_rows_under_the_name_that_the_table_once_had_come_over(store_url, project, start):
    project.release(users=3, pages=2)
    never = "def create(connection): raise AssertionError('it was made long ago')"
    project.package('st_users', 3, scripts={**USERS, 'create': never})
    execute(
        store_url,
        'CREATE TABLE stucco_evolution (package VARCHAR(30) PRIMARY KEY, version INTEGER)',
        "INSERT INTO stucco_evolution VALUES ('stucco_evolution', 1)",
        'CREATE TABLE ponzi_evolution (package VARCHAR(30), version INTEGER)',
        "INSERT INTO ponzi_evolution VALUES ('st_users', 2)",
        'CREATE TABLE users (id INTEGER PRIMARY KEY, name VARCHAR(50), email VARCHAR(80))',
    )
    assert start().run() is Ended.DONE
    assert contents(store_url)['stucco_evolution'][1] == [('st_pages', 2), ('st_users', 3), ('stucco_evolution', 2)]


def test_it_is_an_error_of_ours_that_survives_pickling():
    import pickle

    error = pickle.loads(pickle.dumps(CircularDependencyError(['a', 'b', 'a'])))
    assert error.packagenames == ['a', 'b', 'a']
    assert isinstance(error, EvolveError)


# -- killed


BOUNDARIES = [
    'before-attempt',
    'after-attempt',
    'before-evolve',
    'after-evolve',
    'before-commit',
    'after-commit',
    'after-record',
]


@pytest.mark.chaos
@pytest.mark.slow
@TRANSACTIONAL
def test_killed_at_each_boundary_it_goes_on_and_comes_to_the_same(store_url, another_database, project, make_site):
    project.release(users=1, pages=0)
    for url in (store_url, another_database):
        Application(url, StuccoPackages('st_pages')).run()
        execute(url, *ROWS)
    project.release(users=3, pages=2)
    Application(another_database, StuccoPackages('st_pages')).run()
    expected = {name: table for name, table in contents(another_database).items() if name != 'page'}

    site = make_site(store_url, evolutions=['st_app'], lease=1)
    (site.directory / 'st_app.py').write_text(
        f'import sys\nsys.path.insert(0, {str(project.directory)!r})\n'
        "from tgext.evolve.sources.stucco import StuccoPackages\nevolutions = [StuccoPackages('st_pages')]\n"
    )
    for point in BOUNDARIES:
        site.fork(http=False, points={point: 'kill'}).wait()
    last = site.fork(http=False)
    assert last.wait() == 0
    assert {name: table for name, table in contents(store_url).items() if name != 'page'} == expected
