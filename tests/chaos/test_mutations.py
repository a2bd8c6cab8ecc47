"""The tests notice mistakes: each small mutation of the product fails the tests that are there for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.figures import LONG, Figures
from tests.chaos.mutations import MUTATIONS, Mutation
from tests.processes.harness import ROOT

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

in_the_long_form = pytest.mark.skipif(not LONG, reason='only in the long form: script/chaos')

#: Seconds for the tests of one mutation.
PATIENCE = 120


def copy(directory: Path) -> Path:
    """The product and its tests, where nobody else sees what is changed in them."""
    root = directory / 'copy'
    nothing = shutil.ignore_patterns('__pycache__', '*.pyc', '.*')
    for name in ('tgext', 'tests'):
        shutil.copytree(ROOT / name, root / name, ignore=nothing)
    shutil.copy(ROOT / 'pyproject.toml', root)
    return root


def run(root: Path, tests: Sequence[str], *options: str, seconds: float = PATIENCE) -> tuple[int, str]:
    """pytest's exit status and output, in a process that imports the copy."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(('EVOLVE_', 'PYTEST_'))}
    environ |= {'PYTHONPATH': str(root), 'PYTHONDONTWRITEBYTECODE': '1', 'EVOLVE_COPY': str(root)}
    command = [sys.executable, '-m', 'pytest', '-p', 'tests.chaos.copied', '-p', 'no:cacheprovider', '-n', '0']
    # By a signal a runner would take the end of its time for a failure of the evolution.
    command += ['--timeout-method=thread', '--hypothesis-seed=1', '-q', *options, *tests]
    done = subprocess.run(
        command,
        cwd=root,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
    )
    return done.returncode, done.stdout.decode(errors='replace')


@pytest.mark.parametrize('mutation', MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_fits_the_product_as_it_is(mutation: Mutation):
    text = (ROOT / 'tgext' / 'evolve' / mutation.path).read_text('utf-8')
    assert text.count(mutation.old) == 1, (
        f'the product has moved on: {mutation.path} must have this once. Change tests/chaos/mutations.py.\n'
        f'{mutation.old}'
    )
    assert mutation.new != mutation.old


def test_each_mutation_has_a_name_of_its_own():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


@in_the_long_form
@pytest.mark.timeout(900)
def test_what_is_not_mutated_passes(tmp_path: Path):
    """All tests that must notice something, on a copy in which there is nothing to be noticed."""
    tests = dict.fromkeys(test for mutation in MUTATIONS for test in mutation.tests)
    status, output = run(copy(tmp_path), list(tests), seconds=900)
    assert status == 0, output[-10_000:]


@in_the_long_form
@pytest.mark.timeout(PATIENCE + 60)
@pytest.mark.parametrize('mutation', MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_is_noticed(mutation: Mutation, tmp_path: Path, make_figures):
    figures: Figures = make_figures('mutations')
    root = copy(tmp_path)
    mutation.apply(root)
    figures.count('mutations')
    status, output = run(root, mutation.tests, '-x', '--timeout=60')
    # 1: tests failed. Everything else (usage, nothing collected, an interrupt) proves nothing.
    assert status in (0, 1), f'pytest ended with {status}\n{output[-6000:]}'
    assert ' error' not in output.splitlines()[-1], f'the tests did not run\n{output[-6000:]}'
    figures.count('noticed', status == 1)
    assert status == 1, f'no test noticed that {mutation.name}: {" ".join(mutation.tests)}\n{output[-3000:]}'
