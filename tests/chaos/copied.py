"""A pytest plugin that refuses to run on anything but the copy of the product that ``EVOLVE_COPY`` names.

The product is installed editable, and ``tgext`` is a namespace that any directory may have a part of: tests that
import the original would tell nothing about a mutation.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tests.processes.harness
import tgext.evolve


def pytest_configure(config: pytest.Config) -> None:
    copy = Path(os.environ['EVOLVE_COPY']).resolve()
    for module in (tgext.evolve, tests.processes.harness):
        path = Path(str(module.__file__)).resolve()
        if not path.is_relative_to(copy):
            raise pytest.UsageError(f'{path} is not in the copy {copy}')
