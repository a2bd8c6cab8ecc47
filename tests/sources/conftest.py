"""What the tests of the sources for other systems share."""

from __future__ import annotations

import pytest

from tests.sources.originals import Original
from tests.sources.projects import Project


@pytest.fixture
def project(tmp_path, monkeypatch):
    directory = tmp_path / 'project'
    directory.mkdir()
    monkeypatch.syspath_prepend(str(directory))
    project = Project(directory)
    yield project
    project.forget()


@pytest.fixture(scope='session')
def stucco_evolution(request):
    """The last stucco_evolution that there is, with the last SQLAlchemy that runs its users' scripts."""
    directory = request.config.cache.mkdir('stucco_evolution')
    return Original(
        directory, 'stucco_evolution==0.50.0', 'setuptools<81', 'SQLAlchemy<2', 'psycopg2-binary', 'PyMySQL'
    )


@pytest.fixture(scope='session')
def pony_up(request):
    """The last pony_up that there is, and a PonyORM of today."""
    directory = request.config.cache.mkdir('pony_up')
    return Original(directory, 'pony_up==0.1.1', 'pony', 'setuptools<81', 'psycopg2-binary', 'PyMySQL')
