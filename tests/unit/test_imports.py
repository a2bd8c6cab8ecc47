"""What is imported when, and what is public."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
import types

import pytest

import tgext.evolve

FRAMEWORKS = ('tg', 'sqlalchemy', 'pymongo', 'ming', 'transaction', 'zope', 'webob')

PURE = (
    'agenda',
    'errors',
    'evolution',
    'evolver',
    'failure',
    'gate',
    'history',
    'lease',
    'ledger',
    'leaving',
    'options',
    'plan',
    'points',
    'policy',
    'processes',
    'runner',
    'sources',
    'stores.base',
)


def loaded_by(*modules):
    """The top-level names that a fresh process has loaded after importing these."""
    code = (
        f'import sys, importlib, json\nfor name in {modules!r}: importlib.import_module(name)\n'
        'print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))'
    )
    process = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(process.stdout))


@pytest.mark.parametrize(
    'modules',
    [('tgext.evolve',), ('tgext.evolve.evolver',), tuple(f'tgext.evolve.{name}' for name in PURE)],
    ids=['the package', 'the evolver', 'all that is pure'],
)
def test_needs_neither_a_framework_nor_a_driver(modules):
    assert not loaded_by(*modules) & set(FRAMEWORKS)


def test_importing_the_package_is_cheap():
    assert not loaded_by('tgext.evolve') & {'asyncio', 'socket', 'multiprocessing', 'email', 'ssl'}


def test_a_database_that_is_not_used_is_not_imported():
    # By the store of any of them: SQLAlchemy's dialects take as long to import as all of ours.
    code = (
        'import sys, tgext.evolve.stores.sqlalchemy\n'
        'print(*[name for name in sys.modules if name.startswith("sqlalchemy.dialects.")])'
    )
    process = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, timeout=60)
    assert not [name for name in process.stdout.split() if name.split('.')[2] in ('mysql', 'postgresql', 'oracle')]


#: What an application that is plugged may have, and needs not.
OPTIONAL = {'alembic', 'asyncio', 'dask', 'kajiki', 'ming', 'pony', 'pymongo', 'rich'}


def test_plugging_imports_nothing_that_is_not_used():
    bare = loaded_by('tg', 'sqlalchemy', 'tests.apps')
    assert not (loaded_by('tests.apps', 'tgext.evolve.component', 'tgext.evolve.controllers') - bare) & OPTIONAL


class TestPublicNames:
    def test_are_all_that_the_package_has_of_its_own(self):
        own = {
            name
            for name, value in vars(tgext.evolve).items()
            if not name.startswith('_')
            and not isinstance(value, types.ModuleType)
            and str(getattr(value, '__module__', '')).startswith('tgext.evolve')
        }
        assert own == set(tgext.evolve.__all__)

    def test_are_sorted_and_there_once(self):
        assert list(tgext.evolve.__all__) == sorted(set(tgext.evolve.__all__))

    def test_are_not_hidden_by_a_module_once_that_is_imported(self):
        modules = {info.name for info in pkgutil.iter_modules(tgext.evolve.__path__)}
        assert not modules & set(tgext.evolve.__all__)

    @pytest.mark.parametrize('name', tgext.evolve.__all__)
    def test_all_have_a_word_of_explanation(self, name):
        assert getattr(tgext.evolve, name).__doc__
