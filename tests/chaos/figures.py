"""What the chaos tests counted and measured, per store, for the page on reliability.

Each test reports with its result, so that the figures of several pytest processes come together in one.
``EVOLVE_FIGURES`` names the file (JSON) that they are written to, and ``EVOLVE_CHAOS=long`` asks for the long form.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

#: Whether the long form runs: see script/chaos.
LONG = os.environ.get('EVOLVE_CHAOS') == 'long'

only_long = pytest.mark.skipif(not LONG, reason='only in the long form: EVOLVE_CHAOS=long')

_KEY = 'evolve-figures'


def long_or_short(long: int, short: int) -> int:
    """How often something is repeated in the two forms."""
    return long if LONG else short


class Figures:
    """The figures of one test on one store.

    :param store: ``sqlite``, ``postgresql``, ``mariadb``, ``mongodb`` or ``mim``.
    """

    def __init__(self, store: str):
        self.store = store
        self.counts: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {}

    def count(self, what: str, number: int = 1) -> None:
        """Something was survived: ``kills``, ``pauses``, ``partitions``, ``restarts``, ``clocks``, ``forks``..."""
        self.counts[what] += number

    def measure(self, what: str, seconds: float) -> None:
        """Something took this long, for example ``recovery``: from the kill to the first 200."""
        self.seconds.setdefault(what, []).append(round(seconds, 3))


@pytest.fixture
def make_figures(request: pytest.FixtureRequest) -> Callable[[str], Figures]:
    """Makes the figures of one store; they are reported when the test has ended."""

    def make(store: str) -> Figures:
        figures = Figures(store)
        request.addfinalizer(
            lambda: request.node.user_properties.append((_KEY, [store, dict(figures.counts), figures.seconds]))
        )
        return figures

    return make


@pytest.fixture
def figures(request: pytest.FixtureRequest, make_figures: Callable[[str], Figures]) -> Figures:
    """The figures of the store that a test with ``store_url`` runs on; SQLite for others."""
    params = getattr(getattr(request.node, 'callspec', None), 'params', {})
    return make_figures(params.get('store_url', 'sqlite'))


class Collector:
    """Adds the figures of all tests up, in the process that hears of all results."""

    def __init__(self, path: Path):
        self.path = path
        self.stores: dict[str, Figures] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != 'teardown':
            return
        for key, value in report.user_properties:
            if key != _KEY:
                continue
            store, counts, seconds = value
            total = self.stores.setdefault(store, Figures(store))
            total.counts.update(counts)
            for what, measured in seconds.items():
                total.seconds.setdefault(what, []).extend(measured)

    def pytest_sessionfinish(self) -> None:
        stores = {
            figures.store: {'counts': dict(sorted(figures.counts.items())), 'seconds': figures.seconds}
            for figures in self.stores.values()
        }
        self.path.write_text(json.dumps(stores, indent=1, sort_keys=True) + '\n')


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get('EVOLVE_FIGURES')
    if path and not hasattr(config, 'workerinput'):  # a pytest-xdist worker only reports
        config.pluginmanager.register(Collector(Path(path)), 'evolve-figures-collector')
