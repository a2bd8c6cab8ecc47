"""The pages: they build, the reference leaves nothing out, and no block names what there is not."""

from __future__ import annotations

import ast
import html
import pkgutil
import re
import subprocess
import sys
from dataclasses import fields
from textwrap import dedent

import pytest

import tgext.evolve
from tests.docs.guides import PAGES, steps
from tests.processes.harness import ROOT
from tgext.evolve.commands.exits import Exit
from tgext.evolve.commands.parser import VERBS, Parser, add_verbs
from tgext.evolve.events import What
from tgext.evolve.options import COERCE, PREFIX, Options
from tgext.evolve.stores.sqlalchemy.tables import metadata

EVERY = sorted(path for path in PAGES.rglob('*.rst') if '_build' not in path.parts)
#: Those that are meant to be followed from their first line to their last.
FOLLOWED = ['tutorial.rst', 'howto/from-0.0.5.rst', 'howto/from-alembic.rst']

_BLOCK = re.compile(r'^( *)\.\. code-block:: (\w+)\n\n((?:\1 {4}.*\n|\1 {3}.*\n|\n)+)', re.MULTILINE)


def blocks(*kinds):
    """All blocks of these languages, with the page and the line where they stand."""
    found = []
    for path in [*EVERY, ROOT / 'README.rst']:
        text = path.read_text()
        for match in _BLOCK.finditer(text):
            if match[2] in kinds:
                line = text.count('\n', 0, match.start()) + 1
                found.append(pytest.param(dedent(match[3]), id=f'{path.relative_to(ROOT)}:{line}'))
    return found


def build(builder, directory):
    """What Sphinx says, with every warning an error."""
    return subprocess.run(
        [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-b', builder, str(PAGES), str(directory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp('built')
    done = build('html', directory)
    assert done.returncode == 0, done.stdout
    return directory


def words_of(built, page):
    """The text of a page as it is built."""
    article = re.search(r'<article.*?</article>', (built / page).read_text(), re.S)
    return html.unescape(re.sub(r'<[^>]+>', '', article[0].replace('</dt>', '\n')))


@pytest.mark.slow
class TestBuilt:
    def test_there_is_no_warning(self, built):
        assert (built / 'index.html').exists()

    def test_what_stands_at_a_prompt_is_true(self, tmp_path):
        done = build('doctest', tmp_path)
        assert done.returncode == 0, done.stdout
        assert re.search(r'[1-9]\d* tests\n +0 failures in tests', (tmp_path / 'output.txt').read_text())

    def test_every_option_is_explained_with_its_default(self, built):
        page = words_of(built, 'reference/options.html')
        said = dict(re.findall(rf'^{re.escape(PREFIX)}(\w+)\n+(\S.*\n+Default: \S.* Takes: \S.*\.)$', page, re.M))
        assert list(said) == [field.name for field in fields(Options)]
        assert said['lease'].endswith('\nDefault: 10. Takes: a number of seconds, at least 1.')
        assert said['mode'].endswith('\nDefault: background. Takes: one of: background, blocking, wait.')

    def test_every_verb_is_explained_with_what_it_takes(self, built):
        page = words_of(built, 'reference/commands.html')
        sections = dict(re.findall(r'^([\w-]+)¶\n(.*?)(?=^[\w -]+¶\n|\Z)', page, re.M | re.S))
        for name, verb in add_verbs(Parser(add_help=False)).items():
            assert f'gearbox evolve {name}' in sections[name]
            for action in verb._actions:
                if action.dest in ('config_file', 'json'):
                    continue
                for word in action.option_strings or [action.metavar]:
                    assert word in sections[name], (name, word)
        assert set(VERBS) == set(sections)

    def test_every_exit_code_is_explained(self, built):
        page = words_of(built, 'reference/commands.html').rpartition('Exit codes¶')[2]
        assert [int(code) for code in re.findall(r'^(\d+)$', page, re.M)] == [int(code) for code in Exit]

    def test_every_hook_is_explained(self, built):
        page = words_of(built, 'reference/hooks.html')
        for what in What:
            assert re.search(rf'^evolve\.{what.value}\n\S.*', page, re.M), what

    def test_every_table_and_column_is_explained(self, built):
        page = words_of(built, 'reference/tables.html')
        for table in metadata.sorted_tables:
            section = page.partition(f'{table.name}¶')[2].partition('¶')[0]
            for column in table.columns:
                assert re.search(rf'^{column.name}( \(key\))?\n', section, re.M), column
        assert all(column.doc for table in metadata.tables.values() for column in table.columns)

    def test_every_public_name_is_there(self, built):
        page = (built / 'reference' / 'api.html').read_text()
        for name in tgext.evolve.__all__:
            assert f'id="tgext.evolve.{name}"' in page, name

    def test_links_between_files_of_a_clone_lead_to_pages(self, built):
        for path in built.rglob('*.html'):
            assert not re.findall(r'href="[^":]+\.rst[#"]', path.read_text()), path


@pytest.mark.parametrize('path', EVERY, ids=lambda path: str(path.relative_to(PAGES)))
def test_every_page_can_be_reached(path):
    name = str(path.relative_to(PAGES).with_suffix(''))
    assert name == 'index' or re.search(rf'^   {re.escape(name)}$', (PAGES / 'index.rst').read_text(), re.M)


@pytest.mark.parametrize('block', blocks('python'))
def test_every_block_of_python_compiles(block):
    ast.parse(block)


@pytest.mark.parametrize('block', blocks('ini'))
def test_every_ini_names_options_that_there_are(block):
    given = dict(re.findall(r'^tgext\.evolve\.(\w+) *= *(.*)$', block, re.M))
    for name, value in given.items():
        COERCE[name](name, value)


@pytest.mark.parametrize('block', blocks('console', 'yaml'))
def test_every_command_names_a_verb_that_there_is(block):
    typed = re.findall(r'gearbox,? evolve,? ([\w-]+)', block)
    assert set(typed) <= set(VERBS)


def test_every_verb_and_option_in_running_text_is_one():
    for path in EVERY:
        text = path.read_text()
        verbs = set(re.findall(r'``gearbox evolve ([a-z-]+)', text))
        assert verbs <= set(VERBS), path
        options = set(re.findall(r'``tgext\.evolve\.([a-z][a-z_]*)(?: =[^`]*)?``', text))
        modules = {info.name for info in pkgutil.iter_modules(tgext.evolve.__path__)}
        known = {*COERCE, *tgext.evolve.__all__, *modules, 'evolutions'}
        assert options <= known, (path, options - known)


@pytest.mark.parametrize('page', FOLLOWED)
def test_no_block_of_a_guide_is_left_out_when_it_is_followed(page):
    text = (PAGES / page).read_text()
    assert len(steps(text)) == len(re.findall(r'^\.\. code-block::', text, re.M))


def test_the_readme_has_every_option():
    text = (ROOT / 'README.rst').read_text()
    table = text.partition('\nOptions\n')[2].partition('\nThe 503\n')[0]
    named = set(re.findall(r'^``(\w+)``', table, re.M))
    assert named == set(COERCE)
