"""The page for whoever is on call knows every reason, hook, field and message."""

from __future__ import annotations

import ast
import re
from dataclasses import fields as fields_of
from pathlib import Path

import pytest

from tgext.evolve.events import Event, What, fields
from tgext.evolve.gate import Reason, Serving, Verdict
from tgext.evolve.logs import MARKER

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs' / 'operating.rst'

#: Of what this page is not about: they are explained where they belong.
ELSEWHERE = {'bypass.py', 'controllers.py', 'debugbar.py', 'desk.py'}


def words(text):
    return ' '.join(text.split())


def cells(text):
    """The page with each cell of a table in one piece: columns begin where the rule above begins."""
    pieces, columns = [], None
    rows = []
    for line in text.splitlines():
        rule = [match.span() for match in re.finditer(r'=+', line)] if re.fullmatch(r'(=+ ?)+', line) else None
        if rule is not None and len(rule) > 1:
            columns = [start for start, _ in rule]
            rows = [[] for _ in columns]
        elif columns and line.strip():
            ends = [*columns[1:], None]
            parts = [line[start:end] for start, end in zip(columns, ends, strict=True)]
            if parts[0].strip():
                pieces += [words(' '.join(row)) for row in rows]
                rows = [[] for _ in columns]
            for row, part in zip(rows, parts, strict=True):
                row.append(part)
        elif not line.strip():
            columns = None
            pieces += [words(' '.join(row)) for row in rows]
            rows = []
    return pieces


def messages():
    """What is logged at WARNING or ERROR, by its longest piece without anything filled in."""
    for path in sorted((ROOT / 'tgext' / 'evolve').rglob('*.py')):
        if path.name in ELSEWHERE or 'commands' in path.parts:
            continue
        tree = ast.parse(path.read_text())
        constants = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and len(node.targets) == 1
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            arguments = node.args
            if node.func.attr in ('_say', 'log') and 'DEBUG' not in ast.dump(node) and 'INFO' not in ast.dump(node):
                arguments = arguments[1:]
            elif node.func.attr not in ('warning', 'error', 'exception', 'critical', '_warn'):
                continue
            first = arguments[0] if arguments else None
            text = constants.get(first.id) if isinstance(first, ast.Name) else getattr(first, 'value', None)
            if not isinstance(text, str):
                continue
            piece = max(re.split(r'%\w|[].;:(]', text.partition('. ')[0]), key=len).strip()
            if len(piece) > 3:
                yield pytest.param(words(piece), id=f'{path.stem}: {words(piece)[:50]}')


@pytest.fixture(scope='module')
def page():
    return PAGE.read_text()


def test_finds_messages_at_all():
    assert len(list(messages())) > 12


@pytest.mark.parametrize('piece', messages())
def test_every_message_is_explained(page, piece):
    assert piece in words(page) or any(piece in cell for cell in cells(page))


@pytest.mark.parametrize('reason', Reason)
def test_every_reason_is_explained(page, reason):
    [_] = re.findall(rf'^``{reason.value}`` +(INFO|WARNING|ERROR) +\S', page, re.MULTILINE)


@pytest.mark.parametrize('reason', Reason)
def test_every_reason_is_logged_at_the_level_that_stands_there(page, reason, caplog):
    import tg

    from tests.apps import make
    from tgext.evolve.component import EVOLVER

    make('sqlite://')
    evolver = tg.config[EVOLVER]
    evolver.gate.move(Verdict(Serving.NOTHING, Reason.COMPLETE if reason is Reason.STARTING else Reason.STARTING))
    caplog.clear()
    with caplog.at_level('DEBUG', 'tgext.evolve'):
        evolver._move(Verdict(Serving.NOTHING, reason, detail='why'))
    if reason is not Reason.STARTING:
        [record] = [record for record in caplog.records if record.name == 'tgext.evolve.evolver']
        assert re.search(rf'^``{reason.value}`` +{record.levelname} ', page, re.MULTILINE)


@pytest.mark.parametrize('what', What)
def test_every_hook_is_explained(page, what):
    assert re.search(rf'^``evolve\.{what.value}``', page, re.MULTILINE)


@pytest.mark.parametrize('name', [field.name for field in fields_of(Event)])
def test_every_part_of_an_event_is_explained(page, name):
    assert re.search(rf'^``{name}`` ', page, re.MULTILINE)


@pytest.mark.parametrize('name', fields())
def test_every_field_of_a_record_is_explained(page, name):
    assert re.search(rf'^``{name}`` ', page, re.MULTILINE)


def test_the_marker_is_explained(page):
    assert f'``{MARKER}``' in page


def test_every_verb_that_is_named_there_is_one(page):
    from tgext.evolve.commands.parser import VERBS

    named = set(re.findall(r'gearbox evolve (\w+)', page))
    remedies = {verb for text in cells(page) for verb in re.findall(r'``([a-z]+)(?: ID| --\w+)?``', text)}
    assert named <= set(VERBS)
    known = set(VERBS) | {reason.value for reason in Reason} | {what.value for what in What}
    assert remedies <= known | {name.name for name in fields_of(Event)} | PARTS


#: Words of the page in the same print that are no verbs.
PARTS = {'gate', 'done', 'total', 'message', 'fraction', 'elapsed', 'remaining', 'serving', 'detail', 'lease', 'refuse'}


def test_the_page_is_valid(page):
    from docutils import core

    messages = []

    class Stream:
        def write(self, text):
            messages.append(text)

    core.publish_doctree(page, settings_overrides={'warning_stream': Stream(), 'report_level': 2})
    assert messages == []
