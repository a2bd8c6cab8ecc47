"""Schemas in Dejavu's manner, held against what its documentation says of them."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import Boolean, Column, ForeignKey, Integer, String, create_engine, event, inspect, select, text
from sqlalchemy.orm import declarative_base
from sqlalchemy.pool import NullPool

import tgext.evolve
from tests import apps
from tests.sources.projects import Application, contents, execute
from tgext.evolve.errors import PlanError, SourceError
from tgext.evolve.evolver import Ended
from tgext.evolve.sources.schema import Arena, DeployedVersion, Schema, SchemaError

DATABASES = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb'], indirect=True)
TRANSACTIONAL = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql'], indirect=True)
SQLITE = pytest.mark.parametrize('store_url', ['sqlite'], indirect=True)


class Release:
    """The model of an application and its schema, as one of its releases has them.

    0: employees with a zip code. 1: with a start date instead. 2: nothing but a number. 3: their name is called so,
    and there are teams. 4: they are in one, and have a rank.
    """

    def __init__(self, version, **attributes):
        self.Base = declarative_base()

        class Employee(self.Base):
            __tablename__ = 'employee'
            id = Column(Integer, primary_key=True)
            if version < 3:
                surname = Column(String(50), nullable=False)
            else:
                name = Column('full_name', String(50), nullable=False)
            if version < 1:
                zip_code = Column(String(10))
            else:
                start_date = Column(String(10))
            if version >= 4:
                team_id = Column(Integer, ForeignKey('team.id'))
                rank = Column(Integer, nullable=False, default=7)

        self.Employee = Employee
        self.Team = None
        if version >= 3:

            class Team(self.Base):
                __tablename__ = 'team'
                id = Column(Integer, primary_key=True)
                title = Column(String(50))

            self.Team = Team
        release = self

        class MySchema(Schema):
            guid = 'staff'
            latest = version
            models = [release.Base]

            def upgrade_to_1(self):
                """Employees have a start date"""
                self.arena.drop_property(release.Employee, 'zip_code')
                self.arena.add_property(release.Employee, 'start_date')
                self.arena.connection.execute(text("UPDATE employee SET start_date = '2026-11-21'"))

            def upgrade_to_3(self):
                self.arena.rename_property(release.Employee, 'surname', 'name')
                if not self.arena.has_storage(release.Team):
                    self.arena.create_storage(release.Team)

            def upgrade_to_4(self):
                self.arena.add_property(release.Employee, 'team_id')
                self.arena.add_property(release.Employee, 'rank')

        for name, value in attributes.items():
            setattr(MySchema, name, value)
        self.Schema = MySchema

    def install_without_schema(self, url):
        engine = create_engine(url, poolclass=NullPool)
        self.Base.metadata.create_all(engine)

    def by_hand(self, url):
        return self.Schema(Arena(create_engine(url, poolclass=NullPool), self.Base))

    def application(self, url, *more, **options):
        return Application(url, self.Schema, *more, **options)


EMPLOYEES = "INSERT INTO employee (id, surname, zip_code) VALUES (1, 'Lovelace', '12345'), (2, 'Turing', NULL)"


def deployed(url):
    return contents(url)['DeployedVersion'][1]


def columns(url, table):
    return sorted(contents(url)[table][0])


@pytest.fixture
def at_0(store_url):
    """A database with rows, deployed at version 0."""
    Release(0).application(store_url).run()
    execute(store_url, EMPLOYEES)
    return store_url


# -- as evolutions of a plan


@DATABASES
def test_a_new_installation_starts_at_the_latest_and_runs_no_step(store_url):
    application = Release(4).application(store_url)
    assert application.pending() == ['schema:staff:install', *(f'schema:staff:{number}' for number in (1, 2, 3, 4))]
    assert application.run() is Ended.DONE
    assert application.evolver.store.history().ids == {'schema:staff:install'}
    assert deployed(store_url) == [('staff', 4)]
    assert columns(store_url, 'employee') == ['full_name', 'id', 'rank', 'start_date', 'team_id']
    assert columns(store_url, 'team') == ['id', 'title']
    assert application.pending() == []


@DATABASES
def test_each_step_is_an_evolution_and_comes_to_what_a_new_installation_has(at_0, request, tmp_path):
    application = Release(4).application(at_0)
    assert application.pending() == [f'schema:staff:{number}' for number in (1, 2, 3, 4)]
    assert application.run() is Ended.DONE
    assert deployed(at_0) == [('staff', 4)]
    kind = request.node.callspec.params['store_url']
    fresh = (
        f'sqlite:///{tmp_path / "fresh.db"}'
        if kind == 'sqlite'
        else request.getfixturevalue(f'{kind}_server').new_database()
    )
    Release(4).application(fresh).run()
    for table in ('employee', 'team', 'DeployedVersion'):
        assert contents(at_0)[table][0] == contents(fresh)[table][0]
    # full_name, id, rank, start_date, team_id
    assert contents(at_0)['employee'][1] == [
        ('Lovelace', 1, 7, '2026-11-21', None),
        ('Turing', 2, 7, '2026-11-21', None),
    ]
    with create_engine(at_0, poolclass=NullPool).connect() as connection:
        by_name = {column['name']: column for column in inspect(connection).get_columns('employee')}
        assert not by_name['rank']['nullable']
        assert not by_name['full_name']['nullable']
        [key] = inspect(connection).get_foreign_keys('employee')
        assert key['referred_table'] == 'team'


@DATABASES
def test_a_step_without_a_method_is_skipped_and_recorded(at_0):
    application = Release(2).application(at_0)
    assert application.run() is Ended.DONE
    assert deployed(at_0) == [('staff', 2)]
    assert application.latest('schema:staff:2').state.value == 'done'


@TRANSACTIONAL
def test_of_a_step_that_fails_nothing_stays(at_0):
    def fails(self):
        self.arena.add_property(release.Employee, 'start_date')
        raise ValueError('no')

    release = Release(2, upgrade_to_1=fails)
    application = release.application(at_0, max_attempts=1)
    assert application.run() is Ended.STUCK
    assert deployed(at_0) == [('staff', 0)]
    assert columns(at_0, 'employee') == ['id', 'surname', 'zip_code']
    assert 'ValueError: no' in application.error('schema:staff:1')
    assert Release(2).application(at_0).run() is Ended.DONE
    assert deployed(at_0) == [('staff', 2)]


@SQLITE
def test_nothing_pending_costs_one_query_for_the_history_and_one_for_the_version(at_0):
    with apps.statements() as statements:
        application = Release(0).application(at_0)
    assert application.evolver.gate.is_open
    assert len(statements) == 2


@SQLITE
def test_a_version_beyond_the_code_is_named(store_url, caplog):
    Release(3).application(store_url).run()
    assert Release(1).application(store_url).evolver.gate.is_open
    assert 'schema:staff:2' in caplog.text
    assert 'schema:staff:3' in caplog.text
    assert not Release(1).application(store_url, unknown='refuse').evolver.gate.is_open


@DATABASES
def test_what_was_upgraded_by_hand_is_applied_in_the_plan_and_the_other_way_round(at_0):
    Release(4).by_hand(at_0).upgrade(1)
    application = Release(4).application(at_0)
    assert application.pending() == [f'schema:staff:{number}' for number in (2, 3, 4)]
    assert application.run() is Ended.DONE
    by_hand = Release(4).by_hand(at_0)
    by_hand.assert_version()
    by_hand.upgrade()
    assert by_hand.deployed == 4


@SQLITE
def test_evolutions_stand_between_its_steps(at_0):
    seen = []
    between = apps.evolution('between', lambda evolution: seen.append(deployed(at_0)), depends_on=('schema:staff:1',))
    application = Release(3, depends_on={2: ('between',)}).application(at_0, between)
    assert application.run() is Ended.DONE
    assert seen == [[('staff', 1)]]


@DATABASES
def test_stamped_and_taken_back(store_url):
    """A database that is older than its Schema: it says which version it is before anything else."""
    Release(0).install_without_schema(store_url)
    execute(store_url, EMPLOYEES)
    application = Release(4).application(store_url)
    tgext.evolve.stamp(application.conf, ['schema:staff:install'])
    assert deployed(store_url) == [('staff', 4)]
    tgext.evolve.unstamp(application.conf, [f'schema:staff:{number}' for number in (1, 2, 3, 4)])
    assert deployed(store_url) == [('staff', 0)]
    assert application.pending() == [f'schema:staff:{number}' for number in (1, 2, 3, 4)]
    with pytest.raises(PlanError, match='schema:staff:1'):
        tgext.evolve.stamp(application.conf, ['schema:staff:2'])
    assert application.run() is Ended.DONE
    tgext.evolve.unstamp(application.conf, ['schema:staff:install'])
    assert deployed(store_url) == []
    assert application.pending()[0] == 'schema:staff:install'


@pytest.mark.parametrize(
    ('attributes', 'expected'),
    [
        ({'guid': ''}, "guid = ''"),
        ({'latest': '1'}, "latest = '1'"),
        ({'latest': -1}, 'latest = -1'),
        ({'depends_on': {9: ('x',)}}, 'depends_on has 9'),
    ],
)
def test_what_is_wrong_with_it_is_said_when_the_application_is_configured(tmp_path, attributes, expected):
    with pytest.raises(SourceError, match=re.escape(expected)) as raised:
        Release(1, **attributes).application(f'sqlite:///{tmp_path / "it.db"}')
    assert 'MySchema' in str(raised.value)


def test_the_same_schema_as_an_instance_is_an_entry_too(tmp_path):
    application = Application(f'sqlite:///{tmp_path / "it.db"}', Release(1).Schema())
    assert application.pending() == ['schema:staff:install', 'schema:staff:1']


def test_methods_tell_people_what_they_do(tmp_path):
    plan = Release(2).application(f'sqlite:///{tmp_path / "it.db"}').plan
    assert plan.find('schema:staff:1').description == 'Employees have a start date'
    assert plan.find('schema:staff:1').fingerprint != plan.find('schema:staff:2').fingerprint


# -- by hand, as documented


@DATABASES
def test_deployed_records_the_latest_where_nothing_is_and_can_be_set(store_url):
    schema = Release(2).by_hand(store_url)
    assert not schema.versioned()
    with pytest.raises(SchemaError, match='no version'):
        schema.deployed_unit()
    assert not schema.versioned()
    assert schema.deployed == 2
    assert schema.versioned()
    assert schema.deployed_unit() == DeployedVersion('staff', 2)
    schema.deployed = 0
    assert schema.deployed_unit(1).Version == 0


@DATABASES
def test_an_older_database_that_says_its_version_first_is_upgraded(store_url):
    Release(0).install_without_schema(store_url)
    execute(store_url, EMPLOYEES)
    schema = Release(4).by_hand(store_url)
    schema.deployed = 0
    schema.upgrade()
    assert schema.deployed == 4
    assert columns(store_url, 'employee') == ['full_name', 'id', 'rank', 'start_date', 'team_id']


@SQLITE
def test_upgrade_is_idempotent_and_goes_no_further_than_asked(at_0):
    schema = Release(4).by_hand(at_0)
    schema.upgrade(3)
    schema.upgrade(3)
    assert schema.deployed == 3
    with pytest.raises(SchemaError, match='deployed at version 3, which is greater than 2'):
        schema.upgrade(2)
    assert schema.deployed == 3


@SQLITE
def test_stage_is_the_version_that_a_step_starts_from_and_none_otherwise(at_0):
    stages = []
    release = Release(2, upgrade_to_1=lambda self: stages.append(self.stage))
    release.Schema.upgrade_to_2 = lambda self: stages.append(self.stage) or 1 / 0
    schema = release.by_hand(at_0)
    assert schema.stage is None
    with pytest.raises(ZeroDivisionError):
        schema.upgrade()
    assert stages == [0, 1]
    assert schema.stage is None
    assert schema.deployed == 1


@SQLITE
def test_assert_version_dies_if_it_is_missing_or_out_of_sync(at_0, tmp_path):
    Release(0).by_hand(at_0).assert_version()
    with pytest.raises(SchemaError, match='less than the latest version, 2'):
        Release(2).by_hand(at_0).assert_version()
    Release(2).by_hand(at_0).upgrade()
    with pytest.raises(SchemaError, match='greater than the latest version, 1'):
        Release(1).by_hand(at_0).assert_version()
    nowhere = Release(2).by_hand(f'sqlite:///{tmp_path / "fresh.db"}')
    with pytest.raises(SchemaError, match='could not be determined'):
        nowhere.assert_version()
    assert not nowhere.versioned()  # asking records nothing


@DATABASES
def test_assert_storage_makes_what_is_missing(store_url):
    release = Release(3)
    schema = release.by_hand(store_url)
    schema.arena.create_storage(release.Team)
    schema.assert_storage()
    schema.assert_storage()
    assert schema.arena.has_storage(release.Employee)
    assert not schema.versioned()


@SQLITE
def test_on_an_engine_a_step_that_fails_leaves_nothing(at_0):
    def fails(self):
        self.arena.add_property(release.Employee, 'start_date')
        raise ValueError('no')

    release = Release(1, upgrade_to_1=fails)
    schema = release.by_hand(at_0)
    with pytest.raises(ValueError, match='no'):
        schema.upgrade()
    assert schema.deployed == 0
    assert columns(at_0, 'employee') == ['id', 'surname', 'zip_code']


# -- the arena


@pytest.fixture
def arena(store_url):
    return Arena(create_engine(store_url, poolclass=NullPool))


@pytest.fixture
def Thing(arena):
    Base = declarative_base()

    class Thing(Base):
        __tablename__ = 'thing'
        id = Column(Integer, primary_key=True)
        name = Column(String(50))
        code = Column('kode', String(5))
        flag = Column(Boolean, nullable=False, default=True)
        since = Column(String(10), nullable=False, server_default='2000')

    return Thing


@DATABASES
def test_properties_are_called_as_in_the_class_and_columns_as_in_the_database(arena, Thing, store_url):
    execute(store_url, 'CREATE TABLE thing (id INTEGER PRIMARY KEY, label VARCHAR(50) NOT NULL)')
    execute(store_url, "INSERT INTO thing (id, label) VALUES (1, 'a')")
    arena.rename_property(Thing, 'label', 'name')
    arena.add_property(Thing, 'code')
    arena.add_property(Thing, 'flag')
    arena.add_property(Thing, 'since')
    arena.add_property(Thing, 'gone', Column('gone', Integer, server_default='5'))
    with arena.transaction() as connection:
        assert connection.execute(text('SELECT id, name, kode, since, gone FROM thing')).one() == (
            1,
            'a',
            None,
            '2000',
            5,
        )
        assert connection.execute(select(Thing.flag)).scalar() is True
        found = {column['name']: column['nullable'] for column in inspect(connection).get_columns('thing')[1:]}
        assert found == {'name': False, 'kode': True, 'flag': False, 'since': False, 'gone': True}
    arena.drop_property(Thing, 'gone')
    arena.drop_property(Thing, 'code')
    assert columns(store_url, 'thing') == ['flag', 'id', 'name', 'since']
    with pytest.raises(SchemaError, match="Thing has no property 'gone'"):
        arena.add_property(Thing, 'gone')
    with pytest.raises(SchemaError, match="no column 'nowhere'"):
        arena.rename_property(Thing, 'nowhere', 'somewhere')


@DATABASES
def test_storage_of_classes_and_of_what_is_a_class_no_longer(arena, Thing):
    assert not arena.has_storage(Thing)
    arena.create_storage(Thing)
    assert arena.has_storage(Thing)
    assert arena.has_storage('thing')
    arena.drop_storage(Thing)
    assert not arena.has_storage(Thing)
    arena.create_storage(Thing.__table__)
    arena.drop_storage('thing')
    assert not arena.has_storage('thing')
    with pytest.raises(SchemaError, match='which columns'):
        arena.create_storage('thing')


@SQLITE
def test_only_mapped_classes_are_registered(arena, Thing):
    arena.register(Thing)
    assert arena.classes == [Thing]
    with pytest.raises(SchemaError, match='not mapped'):
        arena.register(object)
    with pytest.raises(SchemaError, match=r"<class 'object'> is not mapped .*\(in the arena\)\. Use a mapped class"):
        arena.has_storage(object)
    with pytest.raises(SchemaError, match='outside of a step'):
        assert arena.connection


@SQLITE
def test_where_foreign_keys_are_enforced_no_other_row_is_lost(store_url):
    engine = create_engine(store_url, poolclass=NullPool)
    event.listen(engine, 'connect', lambda dbapi, record: dbapi.execute('PRAGMA foreign_keys = ON'))
    execute(
        store_url,
        'CREATE TABLE team (id INTEGER PRIMARY KEY, title VARCHAR(50), old INTEGER)',
        'CREATE TABLE member (id INTEGER PRIMARY KEY, team_id INTEGER REFERENCES team (id) ON DELETE CASCADE)',
        "INSERT INTO team VALUES (1, 'a', 1)",
        'INSERT INTO member VALUES (1, 1)',
    )
    arena = Arena(engine)
    arena.rename_property('team', 'title', 'name')
    arena.drop_property('team', 'old')
    arena.add_property('team', 'motto', Column('motto', String(50)))
    with pytest.raises(SchemaError, match='foreign keys are enforced'):
        arena.add_property('team', 'rank', Column('rank', Integer, nullable=False, default=1))
    assert columns(store_url, 'team') == ['id', 'motto', 'name']
    assert contents(store_url)['member'][1] == [(1, 1)]


# -- killed


@pytest.mark.chaos
@pytest.mark.slow
@TRANSACTIONAL
def test_killed_at_each_boundary_it_goes_on_and_comes_to_the_same(store_url, make_site):
    site = make_site(store_url, evolutions=['st_schema'], lease=1)
    Release(0).application(store_url).run()
    execute(store_url, EMPLOYEES)
    (site.directory / 'st_schema.py').write_text(
        'from tests.sources.test_schema import Release\nevolutions = [Release(4).Schema]\n'
    )
    for point in ('after-attempt', 'after-evolve', 'before-commit', 'after-commit', 'after-record'):
        site.fork(http=False, points={point: 'kill'}).wait()
    assert site.fork(http=False).wait() == 0
    assert deployed(store_url) == [('staff', 4)]
    assert columns(store_url, 'employee') == ['full_name', 'id', 'rank', 'start_date', 'team_id']
    assert len(contents(store_url)['employee'][1]) == 2
