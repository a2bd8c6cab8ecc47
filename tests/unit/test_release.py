"""What a release says of itself: its public names and the versions that it works with."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import tgext.evolve

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'stability.rst').read_text()
PROJECT = (ROOT / 'pyproject.toml').read_text()

PUBLIC = {
    module: re.findall(r'``(\w+)``', names)
    for module, names in re.findall(r'^``(tgext\.evolve[\w.]*)`` {2,}(.*)$', PAGE, re.M)
}


def names_of(module):
    if module == 'tgext.evolve':
        return set(tgext.evolve.__all__) | {name.rpartition('.')[2] for name in PUBLIC if name.count('.') == 2}
    if module == 'tgext.evolve.testing':
        return set(importlib.import_module(module).__all__)
    if module == 'tgext.evolve.errors':
        return {name for name in vars(importlib.import_module(module)) if name[0].isupper() and name != 'Callable'}
    return set(PUBLIC.get(module, ()))


def test_the_page_lists_modules():
    assert len(PUBLIC) > 10


@pytest.mark.parametrize('module', PUBLIC)
def test_what_is_public_is_there_and_explained(module):
    for name in names_of(module):
        thing = getattr(importlib.import_module(module), name, None) or importlib.import_module(f'{module}.{name}')
        assert thing.__doc__, f'{module}.{name} has no docstring'


def users_code():
    """The documentation's code blocks, and the sample application."""
    pages = [ROOT / 'README.rst', *(ROOT / 'docs').rglob('*.rst')]
    for page in pages:
        if '_build' not in page.parts:
            for line in page.read_text().splitlines():
                yield page, line
    for path in (ROOT / 'sample_app').rglob('*.py'):
        for line in path.read_text().splitlines():
            yield path, line


def test_users_are_told_to_import_nothing_else():
    for path, line in users_code():
        found = re.match(r' *(from (tgext\.evolve[\w.]*) import [\w, ]+)$', line)
        if found:
            [node] = ast.parse(found[1]).body
            wrong = {alias.name for alias in node.names} - names_of(found[2])
            assert not wrong, f'{path.name} imports {wrong} from {found[2]}'


def bound(library):
    found = re.search(rf'"{library} >= ([\d.]+)"', PROJECT)
    assert found is not None
    return found[1]


@pytest.mark.parametrize('library', ['SQLAlchemy', 'Ming', 'pymongo', 'TurboGears2'])
def test_the_oldest_version_that_is_promised_is_the_one_that_is_tested(library):
    tested = re.search(rf"'{library}==([\d.]+)'", (ROOT / 'noxfile.py').read_text())
    assert tested is not None
    assert tested[1] == bound(library) or tested[1].startswith(f'{bound(library)}.')
    assert re.search(rf'^{library.rstrip("2")} +{re.escape(tested[1])} ', PAGE, re.M)
