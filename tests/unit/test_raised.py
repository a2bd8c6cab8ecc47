"""The suite finds the errors that none of its tests raises."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from textwrap import dedent

import pytest

from tests.noting import WHERE, noted
from tests.raised import Sites

ROOT = Path(__file__).resolve().parents[2]

SOURCE = dedent("""\
    class EvolveError(Exception):
        def __init__(self, thing):
            super().__init__(thing)

    class Other(EvolveError):
        @classmethod
        def of(cls, number) -> 'Other':
            return cls(f'the number {number}')

    class Worded(Other):
        def __init__(self):
            super().__init__('what its class says')

    def _wrong(thing) -> EvolveError:
        return EvolveError(
            thing,
        )

    def read(wrong):
        raise wrong('through a parameter')

    def one():
        raise EvolveError('one')

    def two():
        raise _wrong('two')

    def three():
        raise _wrong(
            'three'
        )

    def four():
        raise Other.of(4)

    def five():
        raise Worded()

    def six():
        read(lambda thing: _wrong(thing))

    def none(log):
        log.wrong('nothing is made here')
""")

#: The lines of the sites that a function of it reaches.
REACHED = {
    'one': {"raise EvolveError('one')"},
    'two': {"raise _wrong('two')", 'return EvolveError('},
    'three': {'raise _wrong(', 'return EvolveError('},
    'four': {'raise Other.of(4)'},
    'five': {'raise Worded()'},
    'six': {'read(lambda thing: _wrong(thing))', 'return EvolveError('},
}


@pytest.fixture
def made_up(tmp_path):
    """A module, and where it makes errors."""
    path = tmp_path / 'package' / 'made_up.py'
    path.parent.mkdir()
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location('made_up', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.notes = tmp_path / 'notes'
    module.EvolveError.__init__ = noted(module.EvolveError.__init__, module.notes)
    return module, Sites(path.parent)


def test_a_site_is_where_a_message_is_written(made_up):
    _, sites = made_up
    assert {sites.text(site) for site in sites} == set().union(*REACHED.values())


@pytest.mark.parametrize('name', REACHED)
def test_an_error_counts_for_whoever_wrote_its_message(made_up, name):
    module, sites = made_up
    with pytest.raises(module.EvolveError):
        getattr(module, name)()
    missing = {sites.text(site) for site in sites.missing(module.notes.read_text().splitlines())}
    assert missing == set().union(*REACHED.values()) - REACHED[name]


def test_each_way_is_noted_once(made_up):
    module, _ = made_up
    for name in ('one', 'two', 'one', 'two', 'one'):
        with pytest.raises(module.EvolveError):
            getattr(module, name)()
    assert len(module.notes.read_text().splitlines()) == 2


CONFTEST = """
    import pathlib
    import made_up
    from tests import noting, raised

    noting.EvolveError = made_up.EvolveError
    raised.PACKAGE = pathlib.Path(made_up.__file__).parent
    pytest_plugins = ['tests.raised']
"""

TEST = """
    import made_up
    import pytest
    import servers

    @pytest.mark.parametrize('name', NAMES)
    def test_it(name):
        with pytest.raises(made_up.EvolveError):
            getattr(made_up, name)()

    def test_with_a_server():
        if SERVERS == 'absent':
            servers.not_here()

    def test_that_is_too_long():
        pytest.skip('not now')
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Runs a suite of its own over the made-up module."""
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.delenv(WHERE, raising=False)
    (pytester.mkpydir('made_up') / '__init__.py').write_text(SOURCE)
    pytester.makeconftest(CONFTEST)
    pytester.makeini('[pytest]\ntestpaths = some')
    pytester.mkdir('some')
    (pytester.path / 'some' / 'servers.py').write_text('import pytest\ndef not_here(): pytest.skip("no server")')

    def now(*options, names=tuple(REACHED), servers='there'):
        text = dedent(TEST).replace('NAMES', repr(names)).replace('SERVERS', repr(servers))
        (pytester.path / 'some' / 'test_it.py').write_text(text)
        result = pytester.runpytest_subprocess('-p', 'no:cacheprovider', *options)
        return result.ret, [line for line in result.outlines if line.startswith('made_up/')]

    return now


@pytest.mark.parametrize('processes', ['0', '2'])
def test_the_whole_run_fails_when_an_error_was_never_raised(run, processes):
    assert run('-n', processes, names=tuple(REACHED)[1:]) == (1, ["made_up/__init__.py:23: raise EvolveError('one')"])


def test_the_whole_run_passes_when_each_was_raised(run):
    assert run('--raised') == (0, [])


def test_a_part_of_the_tests_says_nothing_unless_asked(run):
    assert run('-k', 'server', names=()) == (0, [])
    status, lines = run('some/test_it.py', '--raised', names=('one',))
    assert (status, len(lines)) == (0, 6)


def test_without_servers_they_are_shown_but_the_run_passes(run):
    status, lines = run(names=('one',), servers='absent')
    assert (status, len(lines)) == (0, 6)
