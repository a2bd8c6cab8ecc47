"""Fixtures for tests with real processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes.harness import Site, Zygote, making_sites


@pytest.fixture(scope='session')
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture
def make_site(zygote: Zygote, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes sites; all their processes are ended afterwards."""
    with making_sites(zygote, tmp_path) as make:
        yield make
