"""``gearbox evolve test``: the whole plan on a scratch database, never on the application's own."""

from __future__ import annotations

import glob
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool

from tests import apps
from tests.commands import application
from tests.sources.projects import contents
from tests.sources.repositories import Project
from tgext.evolve.sources.alembic import AlembicRevisions

SQLITE = pytest.mark.parametrize('store_url', ['sqlite'], indirect=True)


@pytest.fixture
def project(site):
    """The revisions of the application, in the directory of its ini file."""
    ini = (site.directory / 'development.ini').read_text()
    project = Project(site.directory, site.url)
    (site.directory / 'development.ini').write_text(ini)
    return project


def left_behind():
    return glob.glob(f'{tempfile.gettempdir()}/tgext-evolve-*')


def boom(evolution):
    raise ValueError('it is broken')


@SQLITE
def test_a_copy_is_evolved_again_and_down_and_up(site, project):
    data = apps.evolution('data', depends_on=('alembic:b2',))
    site.has(AlembicRevisions('migration'), data)
    project.migrate('upgrade', 'b2')
    before, files = contents(site.url), left_behind()
    typed = site.type('test')
    assert typed.code == 0, typed.err
    lines = typed.out.splitlines()
    assert lines[0].startswith('scratch: a copy of sqlite:///')
    assert lines[-1] == '7 done; again: nothing happened; 6 of them down and up again'
    assert next(line for line in lines if line.endswith(': down')) in ('alembic:c3: down', 'alembic:log1: down')
    assert 'alembic:b2' not in typed.out  # it was applied before
    assert data.runs == 1
    assert contents(site.url) == before
    assert not site.store.history()
    assert left_behind() == files


@SQLITE
def test_without_a_database_yet_it_begins_with_an_empty_one(site, project):
    site.has(AlembicRevisions('migration'))
    document = site.type('test', '--json').json
    assert len(document['ran']) == len(document['reverted']) == len(document['up']) == 8
    assert document['again'] == document['pending'] == []
    assert 'error' not in document
    assert contents(site.url) == {}


@pytest.mark.parametrize('store_url', ['postgresql', 'mariadb'], indirect=True)
def test_another_database_is_given_by_its_url(site, project, request, store_url):
    site.has(AlembicRevisions('migration'))
    refused = site.type('test')
    assert refused.code == 2
    assert '--url' in refused.error
    kind = 'postgresql' if store_url.startswith('postgresql') else 'mariadb'
    scratch = request.getfixturevalue(f'{kind}_server').new_database()
    typed = site.type('test', '--url', scratch)
    assert typed.code == 0, typed.err
    assert '8 of them down and up again' in typed.out
    assert contents(site.url) == {}
    assert set(contents(scratch)) == {'log', 'migrate_version', 'page', 'tag'}
    with create_engine(scratch, poolclass=NullPool).connect() as connection:
        assert not [name for name in inspect(connection).get_table_names() if 'scratch' in name]


@pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb'], indirect=True)
def test_the_application_s_own_database_is_refused_by_whatever_name(site, store_url, tmp_path):
    one = apps.evolution('one')
    site.has(one)
    create_engine(site.url, poolclass=NullPool).connect().close()
    aliases = [site.url]
    if store_url.startswith('sqlite'):
        database = Path(site.url.removeprefix('sqlite:///'))
        database.touch()
        Path(tmp_path, 'linked.db').symlink_to(database)
        Path(tmp_path, 'hard.db').hardlink_to(database)
        aliases += ['sqlite:///evolve.db', f'sqlite:///{tmp_path}/linked.db', f'sqlite:///{tmp_path}/hard.db']
    else:
        aliases += [site.url.replace('127.0.0.1', 'localhost'), site.url.replace('127.0.0.1', '127.0.0.2')]
    for url in aliases:
        typed = site.type('test', '--url', url)
        assert typed.code in (2, 69), url
        assert typed.code == 2 or '127.0.0.2' in url, url
    assert site.type('test', '--url', site.url, '--json').json['error']['kind'] == 'own-database'
    assert one.runs == 0
    assert not site.store.history()


@SQLITE
@pytest.mark.parametrize('url', ['nonsense', 'no_such_database://x', 'sqlite://'])
def test_a_url_that_is_none_is_one_line(site, url):
    site.has()
    typed = site.type('test', '--url', url)
    assert typed.code == 2
    assert 'tgext.evolve.store' not in typed.error


@SQLITE
def test_a_failure_is_told_with_its_traceback_and_nothing_is_left(site):
    site.has(apps.evolution('one', boom))
    files = left_behind()
    typed = site.type('test')
    assert typed.code == 1
    assert 'ValueError: it is broken' in typed.error
    assert 'in boom\n' in typed.out
    assert left_behind() == files
    error = site.type('test', '--json').json['error']
    assert error['kind'] == 'test-failed'
    assert 'in boom' in error['traceback']
    assert not site.store.history()


@SQLITE
def test_a_way_down_that_fails_is_told(site, project):
    project.write('d4', ('c3',), down='raise ValueError("no way")')
    site.has(AlembicRevisions('migration'))
    typed = site.type('test')
    assert typed.code == 1
    assert "'alembic:d4' failed on its way down: ValueError: no way" in typed.error


@SQLITE
def test_a_way_down_that_leaves_something_is_told_when_it_goes_up_again(site, project):
    project.write('d4', ('c3',), up="op.create_table('left_over', {id})", down='pass')
    site.has(AlembicRevisions('migration'))
    typed = site.type('test')
    assert typed.code == 1
    assert "'alembic:d4' failed when it ran again after its way down" in typed.error


@SQLITE
def test_a_way_down_that_takes_too_much_is_told(site, project):
    project.write('d4', ('c3',), up='pass', down="op.drop_column('tag', 'name')")
    project.write('left', ('b2',), up="op.create_table('tag', {id}, sa.Column('name', sa.String(80)))", down=None)
    site.has(AlembicRevisions('migration'))
    typed = site.type('test')
    assert typed.code == 1
    assert "with other columns or indexes: 'tag'" in typed.error


@SQLITE
@pytest.mark.parametrize('down', [None, 'raise NotImplementedError("never back")'])
def test_below_what_has_no_way_down_nothing_goes_down(site, project, down):
    project.write('merge', ('left', 'right'), down=down)
    site.has(AlembicRevisions('migration'))
    typed = site.type('test')
    assert typed.code == 0, typed.err
    down = {line.removesuffix(': down') for line in typed.out.splitlines() if line.endswith(': down')}
    assert down == {'alembic:c3', 'alembic:log1', 'alembic:log0'}


@SQLITE
def test_what_runs_again_is_told(site, project, monkeypatch):
    """An env.py that keeps nothing in the end would run for ever: here, the version table forgets."""
    project.write('d4', ('c3',))
    site.has(AlembicRevisions('migration'))
    from tgext.evolve.commands import testing

    original = testing._Test._run

    def forgetful(self, part):
        if part == 'again':
            [table] = self._evolver.plan.tables
            table.unstamp(['alembic:d4'])
        original(self, part)

    monkeypatch.setattr(testing._Test, '_run', forgetful)
    monkeypatch.setattr(testing, '_shape', lambda *arguments: {})
    typed = site.type('test')
    assert typed.code == 1
    assert "'alembic:d4'" in typed.error
    assert 'runs again' in typed.error


@SQLITE
def test_an_application_that_makes_its_own_engine_is_not_tested(site, tmp_path, monkeypatch):
    elsewhere = create_engine(f'sqlite:///{tmp_path}/fixed.db', poolclass=NullPool)
    configurator = application.configurator

    def fixed(is_sql=True):
        made = configurator(is_sql)
        model = apps.Model()
        model.init_model = lambda engine: apps.Model.init_model(model, elsewhere)
        made.update_blueprint({'model': model})
        return made

    monkeypatch.setattr(application, 'configurator', fixed)
    one = apps.evolution('one')
    site.has(one)
    typed = site.type('test')
    assert typed.code == 78
    assert 'fixed.db' in typed.error
    assert one.runs == 0


@pytest.mark.parametrize('store_url', ['mongodb'], indirect=True)
def test_an_application_without_sql_is_told_so(site):
    site.has(apps.evolution('one'))
    assert site.type('test').code == 78
