"""The checks know the steps of other systems: revisions of alembic, scripts of SQL, versions of a schema."""

from __future__ import annotations

import itertools

import pytest
import tg
from sqlalchemy import text

from tests import apps
from tests.sources.repositories import OLD
from tests.sources.repositories import Project as Repository
from tests.testing.projects import ROWS, SQLProject, backfill_in_batches
from tests.testing.test_checks import failure
from tgext.evolve.errors import PlanError
from tgext.evolve.sources.alembic import AlembicRevisions
from tgext.evolve.sources.schema import Schema
from tgext.evolve.sources.sql import SQLScripts
from tgext.evolve.testing import Checks, EvolutionRunner, NotApplicable, check_evolutions


class ProjectOnDisk(SQLProject):
    """With folders of scripts and revisions beside its ini file."""

    def __init__(self, new_url, directory):
        super().__init__(new_url)
        self.directory = directory
        self.has_pages = True

    def script(self, name, content):
        (self.directory / 'sql').mkdir(exist_ok=True)
        (self.directory / 'sql' / name).write_text(content)

    def make(self):
        self.model.DBSession.remove()
        url = self._new_url()
        ini = {'here': str(self.directory), '__file__': str(self.directory / 'development.ini')}
        apps.make(url, self.evolutions, model=self.model, options=self.options, ini=ini)
        if self.has_pages:
            self.model.metadata.create_all(self.model.engine)
            self.fill()
        return tg.config


@pytest.fixture
def project(request, tmp_path):
    kind = request.param
    if kind == 'sqlite':
        numbers = itertools.count()
        return ProjectOnDisk(lambda: f'sqlite:///{tmp_path}/{next(numbers)}.db', tmp_path)
    return ProjectOnDisk(request.getfixturevalue(f'{kind}_server').new_database, tmp_path)


def on(*kinds):
    return pytest.mark.parametrize('project', kinds, indirect=True)


class Wiki(Schema):
    guid = 'wiki'
    latest = 2

    def upgrade_to_1(self):
        """Have seen each page once more."""
        self.arena.connection.execute(text('UPDATE page SET seen = seen + 1'))

    def upgrade_to_2(self):
        """And once more."""
        self.arena.connection.execute(text('UPDATE page SET seen = seen + 1'))


@on('sqlite', 'postgresql', 'mariadb')
def test_scripts_pass_with_what_stands_among_them(project):
    project.script('V001__visits.sql', 'CREATE TABLE IF NOT EXISTS visit (id INTEGER PRIMARY KEY, page INTEGER);')
    project.script('V002__first.sql', 'DELETE FROM visit;\nINSERT INTO visit (id, page) SELECT id, id FROM page;')
    project.script('R__titles.sql', 'DROP VIEW IF EXISTS titles;\nCREATE VIEW titles AS SELECT title FROM page;')
    batches = backfill_in_batches(project, 'slugs', depends_on=('sql:2',))
    Checks(project.has(SQLScripts(), batches).make).all()


@on('sqlite', 'postgresql')
def test_revisions_pass(project):
    project.has_pages = False
    Repository(project.directory, 'sqlite://', OLD)
    checks = Checks(project.has(AlembicRevisions()).make)
    checks.all()
    if project.model.engine.dialect.name == 'postgresql':
        checks.survives_kills('alembic:b2')
    else:
        with pytest.raises(NotApplicable, match='not saved together on sqlite'):
            checks.survives_kills('alembic:b2')


@on('sqlite', 'postgresql')
def test_a_schema_passes_and_none_of_its_steps_runs_on_its_own_result(project):
    project.has(Wiki)
    made = project.make

    def make():
        conf = made()
        with project.model.engine.begin() as connection:
            connection.execute(text('CREATE TABLE schema_version (id INTEGER)'))
        return conf

    checks = Checks(make)
    checks.all()
    with pytest.raises(NotApplicable, match='says what is applied'):
        checks.runs_twice('schema:wiki:2')


@on('sqlite')
def test_a_script_that_fails_is_found_out(project):
    project.script('V001__wrong.sql', 'UPDATE pages SET seen = 1;')
    error = failure(Checks(project.has(SQLScripts()).make).steps)
    assert "evolution 'sql:1' raised ScriptError" in str(error)
    assert error.place.endswith('V001__wrong.sql')


@on('sqlite')
def test_a_script_that_does_not_bear_a_kill_is_found_out(project):
    project.script('V001__add.sql', '-- tgext.evolve: transactional = false\nUPDATE page SET seen = seen + 1;')
    checks = Checks(project.has(SQLScripts()).make)
    checks.runs('sql:1')
    assert 'seen is 2 instead of 1' in str(failure(checks.survives_kills, 'sql:1'))
    assert "'sql:1' changes data when it runs a second time" in str(failure(checks.steps))
    checks.steps({'sql:1': ['runs_twice', 'survives_kills']})


@on('sqlite')
def test_what_is_pending_is_asked_of_the_version_table(project):
    project.has_pages = False
    Repository(project.directory, 'sqlite://', OLD)
    runner = EvolutionRunner(project.has(AlembicRevisions()).make())
    assert runner.pending == ['alembic:a1', 'alembic:b2']
    runner.run_until('alembic:a1')
    with project.model.engine.begin() as connection:
        connection.execute(text("UPDATE migrate_version SET version_num = 'b2'"))
    assert runner.pending == []
    with pytest.raises(PlanError, match="'alembic:a1' cannot run again: its version table says"):
        runner.run_again('alembic:a1')
    runner.close()


def test_what_only_the_application_knows_is_one_test():
    assert not hasattr(check_evolutions([]), 'test_steps_of_other_systems')
    for source in (AlembicRevisions(), SQLScripts(), Wiki, [[Wiki()]]):
        kit = check_evolutions([apps.evolution('data', depends_on=('alembic:b2',)), source])
        assert kit.test_steps_of_other_systems.__doc__ == Checks.steps.__doc__


@on('sqlite')
def test_batches_are_run_here_whatever_their_executor(project):
    import threading

    threads = set()

    def process(self, page):
        threads.add(threading.current_thread())
        page.slug = 'x'

    def executor(self):
        raise AssertionError('workers would make another application')

    batched = project.batched('spread', process, executor=executor, partitions=3)
    checks = Checks(project.has(batched).make)
    checks.all()
    runner = EvolutionRunner(project.make())
    assert len(runner.run('spread').after['page']) == ROWS
    runner.close()
    assert threads == {threading.current_thread()}
    assert runner.find('spread').evolution.executor.__func__ is executor
