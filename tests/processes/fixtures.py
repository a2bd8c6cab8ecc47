"""Fixtures for tests with real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes.harness import Site, Zygote
from tests.processes.worker import ROWS


@pytest.fixture(scope='session')
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture
def make_site(zygote: Zygote, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes sites; all their processes are ended afterwards."""
    sites: list[Site] = []

    def make(url: str | None = None, *, evolutions=(), rows: int = ROWS, **options) -> Site:
        directory = tmp_path / f'site{len(sites)}'
        directory.mkdir()
        defaults = {'lease': 2, 'poll': 0.1, 'watch': 0}
        url = url or f'sqlite:///{directory / "evolve.db"}'
        site = Site(directory, url, zygote, list(evolutions), {**defaults, **options}, rows=rows)
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.close()
