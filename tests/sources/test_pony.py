"""Folders of pony_up as evolutions: the same database as by the original, and what it left to its users."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from textwrap import dedent

import pytest
from pony import orm
from sqlalchemy.engine import make_url

import tgext.evolve
from tests import apps
from tests.sources.projects import Application, contents, execute
from tgext.evolve.databases import made_for
from tgext.evolve.errors import EvolutionFailed, PlanError, SourceError, StoreAway, StoreError
from tgext.evolve.evolver import Ended
from tgext.evolve.sources.pony import PonyMigrations, migrate

DATABASES = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb'], indirect=True)
SQLITE = pytest.mark.parametrize('store_url', ['sqlite'], indirect=True)

ORIGINAL = """
import json, sys
from pony import orm
import pony_up.do_update, pony_up.version_db
arguments, folder = json.loads(sys.argv[1]), sys.argv[2]
if arguments['provider'] == 'sqlite':  # its default is none that SQLite knows
    from datetime import datetime
    def register_database(db):
        class Version(db.Entity):
            version = orm.PrimaryKey(int, auto=False)
            upgraded = orm.Required(datetime, sql_default='CURRENT_TIMESTAMP')
            meta = orm.Optional(orm.Json, lazy=True)
    pony_up.do_update._version_db_register_database = register_database
def bind_func(db):
    db.bind(**arguments)
    db.generate_mapping(create_tables=True)
print(pony_up.migrate(bind_func, folder, 'versions'))
"""

MODEL = """
from datetime import datetime
from pony import orm

def register_database(db):
    class Person(db.Entity):
        name = orm.Required(str)
        {more}
"""

#: What each version has: a folder with model and migrate, one with only one of them, a file.
VERSIONS = {
    'v0/__init__.py': 'from . import model, migrate',
    'v0/model.py': MODEL.replace('{more}', ''),
    'v0/migrate.py': """
        from pony import orm

        def do_update(migrator):
            assert migrator.old_db is None
            assert migrator.old_version == 0
            for name in ('ada', 'alan'):
                migrator.new_db.Person(name=name)
            orm.flush()
            migrator.new_db.execute('ALTER TABLE {person} ADD COLUMN age INTEGER')
            return 1, {'message': 'people'}
    """,
    'v1/__init__.py': 'from . import model',
    'v1/model.py': MODEL.replace('{more}', 'age = orm.Optional(int)'),
    'v2/__init__.py': '',
    'v2/migrate.py': """
        def do_update(migrator):
            assert migrator.new_db is None
            for person in migrator.old_db.Person.select():
                person.age = 30
            return 3, {'message': 'ages'}
    """,
    'v3.py': """
        from types import SimpleNamespace
        from pony import orm

        def register_database(db):
            class Person(db.Entity):
                name = orm.Required(str)
                age = orm.Optional(int)

            class Pet(db.Entity):
                name = orm.Required(str)

        model = SimpleNamespace(register_database=register_database)

        def do_update(migrator):
            migrator.new_db.Pet(name='rex')
            return 4, {'message': 'pets'}

        migrate = SimpleNamespace(do_update=do_update)
    """,
    'v4/__init__.py': 'from . import model',
    'v4/model.py': """
        from pony import orm

        def register_database(db):
            class Person(db.Entity):
                name = orm.Required(str)
                age = orm.Optional(int)

            class Pet(db.Entity):
                name = orm.Required(str)

            class Toy(db.Entity):
                name = orm.Required(str)
    """,
}


def bind_arguments(url):
    """What ``db.bind`` takes."""
    parsed = make_url(url)
    if parsed.get_backend_name() == 'sqlite':
        return {'provider': 'sqlite', 'filename': parsed.database, 'create_db': True}
    common = {'host': parsed.host, 'port': parsed.port, 'user': parsed.username}
    if parsed.get_backend_name() == 'postgresql':
        return {'provider': 'postgres', 'dbname': parsed.database, **common}
    return {'provider': 'mysql', 'db': parsed.database, **common}


class Folder:
    """The versions on disk, up to one of them."""

    def __init__(self, directory: Path, url: str):
        self.directory = directory
        self.url = url
        self.versions = directory / 'versions'
        # As PonyORM calls it in this database.
        self.person = {'sqlite': '"Person"', 'mariadb': '`person`'}.get(make_url(url).get_backend_name(), '"person"')

    def until(self, newest: int, **files: str) -> Folder:
        for name, text in {**VERSIONS, **files}.items():
            path = self.versions / name
            if int(path.relative_to(self.versions).parts[0].removesuffix('.py')[1:]) <= newest:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(dedent(text).replace('{person}', self.person))
        (self.versions / '__init__.py').touch()
        self.forget()
        return self

    def forget(self) -> None:
        for name in [name for name in sys.modules if name.partition('.')[0] == 'versions']:
            del sys.modules[name]

    def bind_func(self, db) -> None:
        db.bind(**bind_arguments(self.url))
        db.generate_mapping(create_tables=True)

    @property
    def source(self) -> PonyMigrations:
        self.forget()
        return PonyMigrations(self.bind_func, str(self.versions), 'versions', name='people')

    def migrate(self, **rest):
        self.forget()
        return migrate(self.bind_func, str(self.versions), 'versions', **rest)

    def application(self, *more, **options) -> Application:
        return Application(self.url, self.source, *more, **options)

    def theirs(self, pony_up) -> str:
        arguments = json.dumps(bind_arguments(self.url))
        return pony_up.python(ORIGINAL, arguments, str(self.versions), path=self.directory)

    def state(self):
        """The tables without the times in them."""
        found = {name.lower(): table for name, table in contents(self.url).items() if name not in ('page',)}
        columns, rows = found.get('version', ({}, []))
        # meta, upgraded, version
        found['version'] = columns, [(json.loads(meta) if isinstance(meta, str) else meta, v) for meta, _, v in rows]
        return {name: (columns, sorted(rows, key=repr)) for name, (columns, rows) in found.items()}

    def versions_stored(self):
        return sorted(version for _, version in self.state()['version'][1])


@pytest.fixture
def folder(project, store_url):
    folder = Folder(project.directory, store_url)
    yield folder
    folder.forget()


@pytest.fixture
def other(project, request, tmp_path):
    """The same versions on another database of the same kind."""
    kind = request.node.callspec.params['store_url']
    url = (
        f'sqlite:///{tmp_path / "other.db"}'
        if kind == 'sqlite'
        else request.getfixturevalue(f'{kind}_server').new_database()
    )
    return Folder(project.directory, url)


STEPS = ['pony:people:start', *(f'pony:people:v{number}' for number in range(5))]


# -- the same as the original


@pytest.mark.slow
@DATABASES
def test_from_nothing_it_is_the_database_of_the_original(folder, other, pony_up):
    folder.until(4)
    other.theirs(pony_up)
    application = folder.application()
    assert application.pending() == STEPS
    assert application.run() is Ended.DONE
    assert folder.state() == other.state()
    assert folder.versions_stored() == [0, 1, 2, 3, 4]
    assert application.pending() == []


@pytest.mark.slow
@DATABASES
@pytest.mark.parametrize('first', ['theirs', 'ours'])
def test_what_one_of_them_began_the_other_finishes(folder, other, pony_up, first):
    folder.until(1)
    if first == 'theirs':
        folder.theirs(pony_up)
    else:
        folder.application().run()
    assert folder.versions_stored() == [0, 1]
    # v2 has no model: where the original starts with it, it crashes. So the one that finishes starts at v1.
    folder.until(4)
    if first == 'theirs':
        application = folder.application()
        assert application.pending() == [f'pony:people:v{number}' for number in (1, 2, 3, 4)]
        assert application.run() is Ended.DONE
    else:
        folder.theirs(pony_up)
    other.theirs(pony_up)
    assert folder.state() == other.state()
    # The table of versions does not tell whether the newest model has its tables.
    assert folder.application().pending() == ([] if first == 'theirs' else ['pony:people:v4'])
    assert folder.application().run() is Ended.DONE
    assert folder.state() == other.state()


# -- as evolutions of a plan


@DATABASES
def test_a_look_makes_nothing_and_leaves_nothing_connected(folder, monkeypatch):
    folder.until(4)
    connected = []
    from pony.orm.dbapiprovider import Pool

    original = Pool.connect
    monkeypatch.setattr(Pool, 'connect', lambda pool: connected.append(pool) or original(pool))
    application = folder.application()
    assert application.pending() == STEPS
    with orm.db_session:  # of a request, in which no other may make tables
        assert application.pending() == STEPS
    assert connected
    assert all(pool.con is None for pool in connected)
    assert not any(name.lower() in ('version', 'person') for name in contents(folder.url))


@SQLITE
def test_where_a_version_without_a_model_is_the_first_to_run_it_gets_the_one_before(folder):
    folder.until(1).application().run()
    folder.until(2).application().run()
    assert folder.versions_stored() == [0, 1, 2, 3]
    assert {age for age, _, _ in folder.state()['person'][1]} == {30}


@DATABASES
def test_of_a_step_that_fails_neither_data_nor_version_is_saved(folder):
    fails = VERSIONS['v3.py'].replace("return 4, {'message': 'pets'}", "raise ValueError('no')")
    folder.until(4, **{'v3.py': fails})
    application = folder.application(max_attempts=1)
    assert application.run() is Ended.STUCK
    assert 'ValueError: no' in application.error('pony:people:v3')
    assert folder.versions_stored() == [0, 1, 2, 3]
    assert folder.state()['pet'][1] == []
    assert folder.until(4).application().run() is Ended.DONE
    assert len(folder.state()['pet'][1]) == 1


@DATABASES
def test_a_last_update_that_returns_nothing_stores_its_version_and_runs_once(folder):
    """pony_up stored none: the update ran again at every start."""
    nothing = VERSIONS['v3.py'].replace("return 4, {'message': 'pets'}", 'return None')
    folder.until(3, **{'v3.py': nothing})
    assert folder.application().run() is Ended.DONE
    assert folder.versions_stored() == [0, 1, 2, 3, 4]
    assert folder.application().pending() == []
    assert len(folder.state()['pet'][1]) == 1


@SQLITE
@pytest.mark.parametrize('returned', ["'4'", '4', '(3, {})', '(4,)'])
def test_what_cannot_be_a_version_saves_nothing(folder, returned):
    folder.until(3, **{'v3.py': VERSIONS['v3.py'].replace("return 4, {'message': 'pets'}", f'return {returned}')})
    application = folder.application(max_attempts=1)
    assert application.run() is Ended.STUCK
    assert 'do_update of pony:people:v3 returned' in application.error('pony:people:v3')
    assert folder.state()['pet'][1] == []


@SQLITE
def test_an_update_may_skip_versions_and_a_missing_one_is_named(folder):
    skips = VERSIONS['v0/migrate.py'].replace('return 1,', 'return 3,')
    folder.until(4, **{'v0/migrate.py': skips})
    assert folder.application().run() is Ended.DONE
    assert folder.versions_stored() == [0, 3, 4]
    for name in ('v1', 'v2'):
        for path in (folder.versions / name).iterdir():
            if path.is_file():
                path.unlink()
    execute(folder.url, 'DELETE FROM "Version" WHERE version > 0', 'DELETE FROM "Person"', 'DROP TABLE "Pet"')
    execute(folder.url, 'ALTER TABLE "Person" DROP COLUMN age')
    folder.until(0)
    application = folder.application(max_attempts=1)
    assert application.run() is Ended.STUCK
    assert 'starts from version 3, and the database is at 1' in application.error('pony:people:v3')


@SQLITE
def test_a_database_that_is_newer_than_the_code_is_named(folder, caplog):
    folder.until(4).application().run()
    execute(folder.url, """INSERT INTO "Version" (version, meta) VALUES (7, '{}')""")
    assert folder.application().evolver.gate.is_open
    assert "'pony:people:v6'" in caplog.text
    assert not folder.application(unknown='refuse').evolver.gate.is_open


@SQLITE
def test_evolutions_stand_between_its_versions(folder):
    folder.until(3)
    seen = []
    between = apps.evolution('between', lambda evolution: seen.append(folder.versions_stored()))
    between.depends_on = ('pony:people:v1',)
    source = folder.source
    source.depends_on = {2: ('between',)}
    assert Application(folder.url, between, source).run() is Ended.DONE
    assert seen == [[0, 1, 2]]


@DATABASES
def test_stamped_and_taken_back(folder):
    application = folder.until(4).application()
    tgext.evolve.stamp(application.conf, STEPS[:3])
    assert folder.versions_stored() == [0, 2]
    assert application.pending() == STEPS[3:]
    with pytest.raises(PlanError, match='pony:people:v2'):
        tgext.evolve.stamp(application.conf, ['pony:people:v3'])
    tgext.evolve.unstamp(application.conf, ['pony:people:v1'])
    assert folder.versions_stored() == [0, 1]
    with pytest.raises(PlanError, match='pony:people:v0'):
        tgext.evolve.unstamp(application.conf, ['pony:people:start'])
    tgext.evolve.unstamp(application.conf, STEPS[:2])
    assert application.pending() == STEPS


@SQLITE
def test_what_is_wrong_with_the_folder_is_said_when_the_application_is_configured(folder):
    with pytest.raises(SourceError, match='no folder'):
        folder.application()
    folder.versions.mkdir()
    with pytest.raises(SourceError, match='no version'):
        folder.application()
    folder.until(1)
    (folder.versions / 'v1.py').touch()
    with pytest.raises(SourceError, match='version 1 is there twice'):
        folder.application()
    (folder.versions / 'v1.py').unlink()
    folder.forget()
    source = PonyMigrations(folder.bind_func, str(folder.versions), 'versions', depends_on={7: ('x',)})
    with pytest.raises(SourceError, match=r'depends_on has 7, and there is no such step.* Use one of these: 0, 1'):
        Application(folder.url, source)
    (folder.versions / 'v5.py').touch()
    with pytest.raises(SourceError, match='neither model nor migrate'):
        folder.application()


@SQLITE
def test_a_database_that_is_away_or_refuses_is_told_with_who_binds_it(folder, tmp_path):
    application = folder.until(1).application()
    (tmp_path / 'text').write_text('This is no database, whatever bind_func takes it for. ' * 100)
    folder.url = f'sqlite:///{tmp_path / "text"}'
    with pytest.raises(StoreError, match=r'the database of PonyMigrations\(.* refuses: .*not a database') as raised:
        application.pending()
    assert type(raised.value) is StoreError
    assert raised.value.place.startswith('PonyMigrations(')
    assert raised.value.remedy == 'Correct bind_func, or the rights of its user.'
    folder.url = 'postgresql://nobody@127.0.0.1:1/none'
    with pytest.raises(StoreAway, match=r'the database of PonyMigrations\(.* cannot be reached: ') as raised:
        application.pending()
    assert raised.value.remedy == 'It is tried again until it answers.'


@SQLITE
def test_an_entity_that_is_called_like_the_table_of_versions(folder):
    folder.until(0, **{'v0/model.py': MODEL.replace('Person', 'Version').replace('{more}', '')})
    application = folder.application(max_attempts=1)
    assert application.run() is Ended.STUCK
    error = application.error('pony:people:v0')
    assert 'the model has an entity Version, which is the name of the table of versions' in error
    assert 'Call that entity something else.' in error


@SQLITE
def test_versions_of_which_none_has_a_model(folder):
    folder.until(0, **{'v0/__init__.py': 'from . import migrate'})
    (folder.versions / 'v0' / 'model.py').unlink()
    with pytest.raises(SourceError, match='v0 has no model, and no version before it has one') as raised:
        folder.source.database()
    assert raised.value.place.startswith(str(folder.versions / 'v0'))
    assert raised.value.remedy == 'Add a model with register_database(db).'


@SQLITE
def test_the_command_that_tests_on_a_scratch_database_does_not_touch_the_one_that_pony_binds(folder, tmp_path):
    folder.until(0)
    with made_for(f'sqlite:///{tmp_path / "scratch.db"}'), pytest.raises(SourceError, match='database of its own'):
        folder.application()


# -- migrate()


@DATABASES
def test_migrate_returns_the_newest_database_whatever_was_to_do(folder):
    for newest in (0, 3, 4, 4):
        db = folder.until(newest).migrate()
        with orm.db_session:
            assert db.Person.select().count() == 2
        assert set(db.entities) == {
            'Version',
            'Person',
            *(['Pet'] if newest > 2 else []),
            *(['Toy'] if newest > 3 else []),
        }
        db.disconnect()
    assert folder.versions_stored() == [0, 1, 2, 3, 4]


@DATABASES
def test_two_that_migrate_at_once_do_not_run_anything_twice(folder):
    folder.until(4)
    found = []

    def one():
        db = migrate(folder.bind_func, str(folder.versions), 'versions')
        with orm.db_session:
            found.append((db.Person.select().count(), db.Pet.select().count()))
        db.disconnect()

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(2, 1)] * 3


@SQLITE
def test_migrate_raises_what_fails_and_tries_again_when_it_is_called_again(folder):
    fails = VERSIONS['v3.py'].replace("return 4, {'message': 'pets'}", "raise ValueError('no')")
    folder.until(4, **{'v3.py': fails})
    for _ in range(2):
        with pytest.raises(EvolutionFailed, match='pony:versions:v3'):
            folder.migrate()
    folder.until(4).migrate().disconnect()
    assert folder.versions_stored() == [0, 1, 2, 3, 4]


def test_a_database_that_cannot_be_told_must_be_named(project, tmp_path):
    folder = Folder(project.directory, f'sqlite:///{tmp_path / "x.db"}').until(0)

    def bind_func(db):
        db.bind(provider='sqlite', filename=':memory:')
        db.generate_mapping(create_tables=True)

    with pytest.raises(SourceError, match=r'store='):
        migrate(bind_func, str(folder.versions), 'versions')
    folder.forget()


# -- killed


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.parametrize('store_url', ['sqlite', 'postgresql'], indirect=True)
def test_killed_at_each_boundary_it_goes_on_and_nothing_is_there_twice(folder, other, make_site):
    folder.until(4)
    assert other.until(4).application().run() is Ended.DONE
    site = make_site(folder.url, evolutions=['st_pony'], lease=1)
    (site.directory / 'st_pony.py').write_text(
        f'import sys\nsys.path.insert(0, {str(folder.directory)!r})\n'
        'from pathlib import Path\nfrom tests.sources.test_pony import Folder\n'
        f'evolutions = [Folder(Path({str(folder.directory)!r}), {folder.url!r}).source]\n'
    )
    for point in ('after-attempt', 'before-evolve', 'after-evolve', 'before-record', 'after-record'):
        site.fork(http=False, points={point: 'kill'}).wait()
    assert site.fork(http=False).wait() == 0
    assert folder.state() == other.state()
