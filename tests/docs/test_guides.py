"""The tutorial and the ways from other tools, followed command by command in an empty directory."""

from __future__ import annotations

import sqlite3

import pytest

from tests.docs.guides import PAGES, Reader, not_shown, steps

# A quickstart each, and a dozen commands that each start Python.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def reader(tmp_path, zygote):
    return Reader(tmp_path, zygote)


def read(page):
    return steps((PAGES / page).read_text())


def rows(reader, statement):
    with sqlite3.connect(reader.project.directory / 'devdata.db') as connection:
        return connection.execute(statement).fetchall()


def test_the_tutorial_does_what_it_says(reader):
    *before, new_database = read('tutorial.rst')
    reader.follow(before)
    assert rows(reader, 'SELECT display_name FROM tg_user ORDER BY 1') == [('Example Editor',), ('Example Manager',)]
    assert rows(reader, 'SELECT min(title), count(*) FROM todo_item') == [('item 0', 1000)]
    assert 'tgext.evolve is disabled' in reader.project.gearbox('evolve', 'status', '-c', 'test.ini')
    reader.follow([new_database])
    assert rows(reader, 'SELECT display_name FROM tg_user ORDER BY 1') == [('Example editor',), ('Example manager',)]


def test_the_way_from_0_0_5_does_what_it_says(reader):
    reader.follow(read('howto/from-0.0.5.rst'))
    # The third ran, and the first, which was said not to have.
    shouted = [('Example editor!!',), ('Example manager!!',)]
    assert rows(reader, 'SELECT display_name FROM tg_user ORDER BY 1') == shouted
    assert rows(reader, 'SELECT type, value FROM tgext_evolve ORDER BY 1') == [('lock', '4711'), ('version', 'second')]


def test_the_way_from_alembic_does_what_it_says(reader):
    reader.follow(read('howto/from-alembic.rst'))
    # Back at the older release's revision, and the application was told to go on.
    assert rows(reader, 'SELECT version_num FROM migrate_version') == [('2a3f515bad0',)]
    assert 'alembic:7c1d2ab4e90' in reader.project.gearbox('evolve', 'plan')


def test_what_a_page_shows_is_compared_line_by_line():
    said = 'one   1 s\ntwo\nthree\n'
    assert not_shown(['one ...', 'three'], said) is None
    assert not_shown(['three', 'one ...'], said) == 'one ...'
    assert not_shown(['two s'], said) == 'two s'
