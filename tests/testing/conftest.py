"""Projects whose evolutions are checked."""

from __future__ import annotations

import itertools
import os
import uuid

import pytest

from tests.testing.projects import MingProject, SQLProject

KINDS = ('sqlite', 'sqlite in memory', 'postgresql', 'mariadb', 'mim', 'mongodb')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        needed = getattr(item, 'callspec', None) and item.callspec.params.get('project')
        if needed in ('postgresql', 'mariadb', 'mongodb'):
            item.add_marker(needed)
            item.add_marker('servers')


@pytest.fixture
def run_pytest(pytester, zygote, request):
    """``pytest`` in the directory of a project, in a process of its own; in little time, for its imports are done."""

    def run(*arguments):
        command = ['-m', 'pytest', f'--basetemp={pytester.path}/basetemp', '-p', 'no:cacheprovider', *arguments]
        path = os.pathsep.join([str(pytester.path), str(request.config.rootpath)])
        done = zygote.run(*command, directory=pytester.path, environ={**os.environ, 'PYTHONPATH': path}, timeout=110)
        print(done.stdout, done.stderr, sep='\n')
        return pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), 0.0)

    return run


@pytest.fixture(params=KINDS)
def project(request, tmp_path):
    """A project on each kind of database; each application of it gets an empty one."""
    kind = request.param
    if kind == 'mim':
        return MingProject(lambda: f'mim:///evolve_{uuid.uuid4().hex}', 'mim')
    if kind == 'sqlite in memory':
        return SQLProject(lambda: 'sqlite://')
    if kind == 'sqlite':
        numbers = itertools.count()
        return SQLProject(lambda: f'sqlite:///{tmp_path}/{next(numbers)}.db')
    server = request.getfixturevalue(f'{kind}_server')
    if kind != 'mongodb':
        return SQLProject(server.new_database)
    project = MingProject(server.new_database)

    def close():
        # At the end of the process, when the server is gone, each client would look for it for half a minute.
        for datastore in project.datastores:
            datastore.conn.close()

    request.addfinalizer(close)  # noqa: PT021 - the other kinds have nothing to close
    return project
