"""``gearbox evolve create``: what it writes is found, imports, and says by a failing test that it is not written."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date

import pytest

from tests import apps
from tests.commands import application

pytestmark = pytest.mark.parametrize('store_url', ['sqlite'], indirect=True)

SQL_MODEL = """
import zope.sqlalchemy
from sqlalchemy import MetaData
from sqlalchemy.orm import scoped_session, sessionmaker

metadata = MetaData()
DBSession = scoped_session(sessionmaker())
zope.sqlalchemy.register(DBSession)
"""

MING_MODEL = """
from ming import Session
from ming.odm import ThreadLocalODMSession

DBSession = ThreadLocalODMSession(Session())
"""

TODAY = date.today().isoformat()
MODULE = f'e{TODAY.replace("-", "_")}_backfill_slugs'


@pytest.fixture
def project(site, monkeypatch):
    """The application's own package, ``madeup``, on disk."""
    import importlib

    package = site.directory / 'madeup'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / 'model.py').write_text(SQL_MODEL)
    monkeypatch.syspath_prepend(str(site.directory))
    application.package = importlib.import_module('madeup')
    yield package
    for name in [name for name in sys.modules if name.partition('.')[0] == 'madeup']:
        del sys.modules[name]


def outcome(site):
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-c', '/dev/null', '--rootdir', '.', 'madeup'],
        cwd=site.directory,
        env={**os.environ, 'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.stdout


def test_where_nothing_is_yet_a_package_is_made_and_what_to_add_is_said(site, project):
    created = site.type('create', 'backfill slugs')
    assert created.code == 0
    assert "add to the evolutions option (config/app_cfg.py): 'madeup.evolutions'" in created.out
    assert (project / 'evolutions' / f'{MODULE}.py').exists()
    site.has('madeup.evolutions')
    assert f"1 pending: '{TODAY}-backfill-slugs'" in site.type('check').out


def test_its_test_fails_until_it_is_written_and_passes_then(site, project):
    site.type('create', 'BackfillSlugs')
    output = outcome(site)
    assert 'NotImplementedError' in output
    assert '1 failed' in output
    module = project / 'evolutions' / f'{MODULE}.py'
    text = module.read_text()
    assert 'class BackfillSlugs(Evolution):' in text
    module.write_text(text.replace('raise NotImplementedError(', 'print('))
    assert '1 passed' in outcome(site)


def test_so_does_the_one_for_ming(site, project, store_url):
    (project / 'model.py').write_text(MING_MODEL)
    site.write(url='mongodb://127.0.0.1:1/none?serverSelectionTimeoutMS=100')
    created = site.type('create', 'backfill slugs')
    assert created.code == 0
    module = project / 'evolutions' / f'{MODULE}.py'
    text = module.read_text()
    assert "{'$set': " in text
    assert '1 failed' in outcome(site)
    module.write_text(text.replace('raise NotImplementedError(', 'print('))
    assert '1 passed' in outcome(site)


def test_into_the_package_that_is_an_entry_and_then_it_is_found_by_itself(site, project):
    steps = project / 'steps'
    steps.mkdir()
    (steps / '__init__.py').touch()
    site.has('madeup.steps')
    document = site.type('create', '2026-11-backfill-slugs', '--json').json
    assert set(document) == {'version', 'command', 'id', 'module', 'files', 'add'}
    assert document['add'] == ''
    assert document['id'] == '2026-11-backfill-slugs'
    assert document['module'] == 'madeup.steps.e2026_11_backfill_slugs'


def test_a_package_with_a_list_of_its_own_says_that_it_must_be_added_there(site, project):
    steps = project / 'steps'
    steps.mkdir()
    (steps / '__init__.py').write_text('evolutions = []')
    site.has('madeup.steps')
    assert 'add to the list madeup.steps.evolutions' in site.type('create', 'backfill slugs').out


def test_beside_the_modules_of_the_classes_that_are_entries(site, project):
    import importlib

    steps = project / 'steps'
    steps.mkdir()
    (steps / '__init__.py').touch()
    (steps / 'first.py').write_text(
        "from tgext.evolve import Evolution\nclass First(Evolution):\n    evolution_id = 'first'\n"
    )
    site.has(importlib.import_module('madeup.steps.first').First)
    created = site.type('create', 'backfill slugs')
    assert (steps / f'{MODULE}.py').exists()
    assert f"'madeup.steps.{MODULE}'" in created.out


def test_beside_a_module_called_evolutions_which_no_package_may_hide(site, project):
    (project / 'evolutions.py').touch()
    site.has('madeup.evolutions')
    created = site.type('create', 'backfill slugs')
    assert (project / f'evolution_{MODULE}.py').exists()
    assert f"'madeup.evolution_{MODULE}'" in created.out
    assert not (project / 'evolutions').exists()


def test_evolutions_of_other_packages_do_not_tell_where(site, project):
    site.has(apps.evolution('elsewhere'))
    site.type('create', 'backfill slugs')
    assert (project / 'evolutions' / f'{MODULE}.py').exists()


def test_nothing_is_overwritten(site, project):
    site.type('create', 'backfill slugs')
    module = project / 'evolutions' / f'{MODULE}.py'
    module.write_text('mine')
    created = site.type('create', 'backfill slugs')
    assert created.code == 73
    assert str(module) in created.error
    assert module.read_text() == 'mine'


def test_an_id_that_is_in_use_already(site, project):
    site.has(apps.evolution('2026-11-taken'))
    assert site.type('create', '2026 11 taken').code == 73


def test_into_a_package_that_is_named(site, project):
    (project / 'other').mkdir()
    (project / 'other' / '__init__.py').touch()
    assert site.type('create', 'backfill slugs', '--into', 'madeup.other').code == 0
    assert (project / 'other' / f'{MODULE}.py').exists()
    for into in ('madeup.nowhere', 'madeup.model'):
        created = site.type('create', 'more', '--into', into)
        assert created.code == 73
        assert into in created.error


def test_its_test_goes_where_the_tests_are(site, project):
    (site.directory / 'tests').mkdir()
    site.type('create', 'backfill slugs')
    assert (site.directory / 'tests' / f'test_{MODULE}.py').exists()
    assert not (project / 'tests').exists()


@pytest.mark.parametrize('name', ['...', '2026-11', 'x' * 300])
def test_a_name_that_names_nothing(site, project, name):
    assert site.type('create', name).code == 2
    assert sorted(path.name for path in project.iterdir() if path.name != '__pycache__') == ['__init__.py', 'model.py']


def test_it_needs_no_database(site, project):
    site.write(url=site.nowhere)
    assert site.type('create', 'backfill slugs').code == 0


def test_the_module_evolve_of_a_package_and_later_its_next_script(site, project):
    from tgext.evolve.sources.stucco import StuccoPackages

    created = site.type('create', '--package', 'madeup')
    assert created.code == 0
    assert "StuccoPackages('madeup')" in created.out
    evolve = project / 'evolve'
    assert {path.name for path in evolve.glob('*.py')} == {'__init__.py', 'create.py'}
    site.has(StuccoPackages('madeup'))
    assert "1 pending: 'stucco:madeup:create'" in site.type('check').out
    assert site.type('run').code == 1  # not written yet: it says so
    script = evolve / 'create.py'
    script.write_text(script.read_text().replace('raise NotImplementedError(', 'print('))
    del sys.modules['madeup.evolve.create']
    assert site.type('run').code == 0

    created = site.type('create', '--package')  # the application's own
    assert 'VERSION = 1' in created.out
    assert 'evolve(connection)' in (evolve / 'evolve1.py').read_text()
    assert site.type('check').code == 0
    constants = evolve / '__init__.py'
    constants.write_text(constants.read_text().replace('VERSION = 0', 'VERSION = 1'))
    del sys.modules['madeup.evolve']
    assert "1 pending: 'stucco:madeup:1'" in site.type('check').out


def test_of_a_package_nothing_is_overwritten_and_what_is_wrong_is_said(site, project):
    site.type('create', '--package', 'madeup')
    site.type('create', '--package', 'madeup')
    script = project / 'evolve' / 'evolve1.py'
    script.write_text('mine')
    assert site.type('create', '--package', 'madeup').code == 73
    assert script.read_text() == 'mine'
    (project / 'evolve' / '__init__.py').write_text("NAME = 'other'\nVERSION = 0\nDEPENDS = []\n")
    del sys.modules['madeup.evolve']
    created = site.type('create', '--package', 'madeup')
    assert created.code == 73
    assert "NAME = 'other'" in created.error
    assert site.type('create', '--package', 'madeup.nowhere').code == 73
    assert site.type('create', 'words', '--package', 'madeup').code == 2
    assert site.type('create').code == 2
