"""The pytest plugin: two fixtures, and where scratch databases are made.

Installed with tgext.evolve, it is loaded in every project of the environment. So it does nothing
until one of its fixtures is asked for, and imports nothing before that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .runner import EvolutionRunner
    from .scratch import Scratch

_HELP = (
    'where scratch databases for evolutions are made: the URL of a PostgreSQL, MariaDB, MySQL or MongoDB server '
    '(a database of its own is created for each test, and dropped), sqlite:// or mim:///any for one in memory; '
    'default: files of SQLite'
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup('tgext.evolve')
    group.addoption('--evolve-database', metavar='URL', default=None, help=_HELP)
    parser.addini('evolve_database', help=_HELP, default='')


@pytest.fixture
def evolve_database(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Scratch]:
    """Makes scratch databases: each call returns the URL of an empty one, which is dropped after the test."""
    from .scratch import Scratch

    url = request.config.getoption('--evolve-database') or request.config.getini('evolve_database')
    scratch = Scratch(url or None, tmp_path)
    yield scratch
    scratch.close()


@pytest.fixture
def evolution_runner(evolve_application: Callable[[], Any]) -> Iterator[EvolutionRunner]:
    """Runs evolutions of the application that the project's fixture ``evolve_application`` makes."""
    from .runner import EvolutionRunner

    runner = EvolutionRunner(evolve_application())
    yield runner
    runner.close()
