"""docs/sources.rst, as it stands: an application of quickstart gets its schema and its data at start-up."""

from __future__ import annotations

import re
import sqlite3

import pytest

from tests.docs.guides import PAGES, Reader, steps

# A quickstart, and a dozen commands that each start Python.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PAGE = (PAGES / 'sources.rst').read_text()
HOW_TO = PAGE.partition('a how-to\n')[2].partition('AlembicRevisions\n---')[0]


@pytest.fixture(scope='module')
def reader(tmp_path_factory, zygote):
    """Has typed and written everything of the how-to but the last: the application is not served yet."""
    *before, fresh = steps(HOW_TO)
    assert [step.kind for step in before].count('console') == 2
    assert fresh.name == 'wiki/websetup/schema.py'
    reader = Reader(tmp_path_factory.mktemp('how_to'), zygote, serves=False)
    reader.follow(before)
    reader.fresh = fresh
    return reader


def rows(project, statement):
    with sqlite3.connect(project.directory / 'devdata.db') as connection:
        return connection.execute(statement).fetchall()


def test_the_how_to_does_what_it_says(reader):
    wiki = reader.project
    assert '3 done; again: nothing happened; 2 of them down and up again' in reader.output('gearbox evolve test')
    plan = reader.output('gearbox evolve plan')
    order = [plan.index(id) for id in ('alembic:2a3f515bad0', '2026-11-nicks', 'alembic:7c1d2ab4e90')]
    assert order == sorted(order)
    assert not [name for (name,) in rows(wiki, "SELECT name FROM pragma_table_info('tg_user')") if name == 'nick']

    reader.serve()
    assert sorted(rows(wiki, 'SELECT user_name, nick FROM tg_user')) == [('editor', 'editor'), ('manager', 'manager')]
    assert '7c1d2ab4e90' in wiki.gearbox('migrate', 'db_version')
    assert 'nothing is pending' in wiki.gearbox('evolve', 'check')

    # Down with the one, up with the other.
    wiki.gearbox('migrate', 'downgrade', '2a3f515bad0')
    assert re.search('^pending +alembic:7c1d2ab4e90 ', wiki.gearbox('evolve', 'status'), re.M)
    assert '1 done' in wiki.gearbox('evolve', 'run')
    assert '7c1d2ab4e90' in wiki.gearbox('migrate', 'db_version')

    # A fresh database.
    reader.follow([reader.fresh])
    (wiki.directory / 'devdata.db').unlink()
    wiki.gearbox('setup-app')
    assert 'nothing is pending' in wiki.gearbox('evolve', 'check')
    assert rows(wiki, 'SELECT version_num FROM migrate_version') == [('7c1d2ab4e90',)]
    assert 'already' not in wiki.gearbox('migrate', 'upgrade')
