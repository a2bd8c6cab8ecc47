"""Sources are imported without the libraries that they use, and say which one is missing when they are used."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

from tests.processes.harness import ROOT

PROGRAM = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {missing!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Missing())
from tests.noting import note_all
note_all()
import tgext.evolve, tgext.evolve.sources
from tgext.evolve.errors import SourceError
from tgext.evolve.sources.base import Place
from tgext.evolve.sources.pony import PonyMigrations
from tgext.evolve.sources.schema import Schema
from tgext.evolve.sources.sql import SQLScripts
from tgext.evolve.sources.stucco import StuccoPackages

class MySchema(Schema):
    guid = 'it'

for name in {missing!r}:
    assert name not in sys.modules
try:
    {use}.at(Place(connect=None))
except SourceError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ('missing', 'use', 'extra'),
    [
        (('pony',), "PonyMigrations(None, 'x', 'x')", 'tgext.evolve[pony]'),
        (('sqlalchemy', 'alembic', 'pony'), "StuccoPackages('x')", 'tgext.evolve[sqlalchemy]'),
        (('alembic',), 'MySchema()', 'alembic]'),
        (('sqlalchemy', 'sqlglot'), "SQLScripts('x')", 'tgext.evolve[sqlalchemy,sql]'),
    ],
)
def test_the_extra_is_named(missing, use, extra):
    done = subprocess.run(
        [sys.executable, '-c', dedent(PROGRAM).format(missing=missing, use=use)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert extra in done.stdout, done.stderr
