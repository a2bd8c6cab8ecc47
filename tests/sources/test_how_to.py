"""docs/sources.rst, as it stands: an application of quickstart gets its schema and its data at start-up."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from textwrap import dedent

import pytest

from tests.processes.harness import ROOT, Process, free_port, program
from tests.processes.test_quickstart import ENTRY_POINTS, Project

# A quickstart, and a dozen commands that each start Python.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PAGE = (ROOT / 'docs' / 'sources.rst').read_text()
HOW_TO = PAGE.partition('a how-to\n')[2].partition('AlembicRevisions\n---')[0]

#: What is to be typed, and what is to be written where, in the order of the page.
STEPS = re.compile(
    r'(?:``([\w/.]+)``(, at its end|, in ``class (\w+)``)?:\n\n)?\.\. code-block:: (\w+)\n\n((?:    .*\n|\n)+)'
)


@pytest.fixture(scope='module')
def wiki(tmp_path_factory):
    """The application after everything of the how-to was typed and written, but the last: it is served."""
    directory = tmp_path_factory.mktemp('how_to')
    project = Project(directory, 'wiki')
    project.output = {}
    steps = STEPS.findall(HOW_TO)
    assert [kind for _, _, _, kind, _ in steps].count('console') == 2
    assert [name for name, *_ in steps if name][-1] == 'wiki/websetup/schema.py'
    for name, where, inside, kind, block in steps:
        if kind == 'console':
            for command in re.findall(r'^    \$ (.*)$', block, re.M):
                project = _type(project, command)
        elif name == 'wiki/websetup/schema.py':
            project.schema = re.sub('^    ', '', block, flags=re.M)
        else:
            _write(project.directory / name, where, inside, dedent(block))
    return project


def _write(path, where, inside, block):
    if inside:
        text = path.read_text()
        line = re.search(rf'class {inside}\(.*?__tablename__ = .*?\n', text, re.S)
        assert line is not None
        path.write_text(text[: line.end()] + '\n    ' + block.strip() + '\n' + text[line.end() :])
    elif where:
        with open(path, 'a') as file:
            file.write('\n' + block)
    else:
        path.write_text(block)


def _type(project, command):
    words = command.split()
    if words[0] == 'cd':
        inside = Project(project.directory / words[1], words[1])
        inside.output = project.output
        return inside
    if words[0] == 'pip':
        # As it would leave it: everything is there already.
        metadata = project.directory / 'wiki-0.1.dist-info'
        metadata.mkdir()
        (metadata / 'METADATA').write_text('Metadata-Version: 2.1\nName: wiki\nVersion: 0.1\n')
        (metadata / 'top_level.txt').write_text('wiki\n')
        (metadata / 'entry_points.txt').write_text(ENTRY_POINTS.format(package='wiki'))
    elif words[:2] != ['gearbox', 'serve']:
        assert words[0] == 'gearbox'
        project.output[command] = project.gearbox(*words[1:])
    return project


def rows(project, statement):
    with sqlite3.connect(project.directory / 'devdata.db') as connection:
        return connection.execute(statement).fetchall()


def test_the_how_to_does_what_it_says(wiki):
    assert '3 done; again: nothing happened; 2 of them down and up again' in wiki.output['gearbox evolve test']
    plan = wiki.output['gearbox evolve plan']
    order = [plan.index(id) for id in ('alembic:2a3f515bad0', '2026-11-nicks', 'alembic:7c1d2ab4e90')]
    assert order == sorted(order)
    assert not [name for (name,) in rows(wiki, "SELECT name FROM pragma_table_info('tg_user')") if name == 'nick']

    port = free_port()
    wiki.configure('development.ini', r'^port = 8080', f'port = {port}')
    log = wiki.directory / 'log'
    with open(log, 'ab') as output:
        popen = subprocess.Popen(
            [program('gearbox'), 'serve'],
            cwd=wiki.directory,
            env=wiki.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Process(popen.pid, log, port, popen=popen)
    try:
        server.until_open()
        assert 'TurboGears' in server.fetch()[1]
    finally:
        server.reap()
    assert 'Traceback' not in server.log
    assert sorted(rows(wiki, 'SELECT user_name, nick FROM tg_user')) == [('editor', 'editor'), ('manager', 'manager')]
    assert '7c1d2ab4e90' in wiki.gearbox('migrate', 'db_version')
    assert 'nothing is pending' in wiki.gearbox('evolve', 'check')

    # Down with the one, up with the other.
    wiki.gearbox('migrate', 'downgrade', '2a3f515bad0')
    assert re.search('^pending +alembic:7c1d2ab4e90 ', wiki.gearbox('evolve', 'status'), re.M)
    assert '1 done' in wiki.gearbox('evolve', 'run')
    assert '7c1d2ab4e90' in wiki.gearbox('migrate', 'db_version')

    # A fresh database.
    with open(wiki.directory / 'wiki' / 'websetup' / 'schema.py', 'a') as file:
        file.write(wiki.schema)
    (wiki.directory / 'devdata.db').unlink()
    wiki.gearbox('setup-app')
    assert 'nothing is pending' in wiki.gearbox('evolve', 'check')
    assert rows(wiki, 'SELECT version_num FROM migrate_version') == [('7c1d2ab4e90',)]
    assert 'already' not in wiki.gearbox('migrate', 'upgrade')
