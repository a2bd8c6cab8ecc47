"""Is every error of tgext.evolve raised in a test? The whole run tells, and fails when one is not.

A site is where an error is made, by its position in the source: a call of a class of :mod:`tgext.evolve.errors` (or of
one of its subclasses, wherever they are), and a call of a function that makes one for its callers, which is what its
annotation says: each caller's message is another one.

Every process of the suite adds what it makes to one file (:mod:`tests.noting`), in the directory that
``EVOLVE_RAISED`` names. To have several runs together, for instance one for each directory of tests, give them the same
one, and the last of them ``--raised``, which shows what is missing after any run.
"""

from __future__ import annotations

import ast
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.noting import NOTES, WHERE, note_all

PACKAGE = Path(__file__).resolve().parents[1] / 'tgext' / 'evolve'


# -- what there is


@dataclass(frozen=True)
class _Span:
    first: int
    last: int

    @classmethod
    def of(cls, node: Any) -> _Span:
        return cls(node.lineno, node.end_lineno or node.lineno)

    def __contains__(self, line: int) -> bool:
        return self.first <= line <= self.last

    @property
    def size(self) -> int:
        return self.last - self.first


def _innermost(spans: list[_Span], line: int) -> _Span | None:
    return min((span for span in spans if line in span), key=lambda span: span.size, default=None)


@dataclass
class _Source:
    """The sites of one file."""

    path: Path
    tree: ast.Module
    lines: list[str]
    sites: list[_Span] = field(default_factory=list)
    functions: list[_Span] = field(default_factory=list)
    #: Of ``functions``, those that make an error for whoever calls them.
    makers: list[_Span] = field(default_factory=list)


class Sites:
    """Where the modules in ``package`` make errors.

    :param base: the name of the class of all of them.
    """

    def __init__(self, package: Path, base: str = 'EvolveError'):
        self._sources = {path: _read(path) for path in sorted(package.resolve().rglob('*.py'))}
        self._errors = self._classes(base)
        makers = {name for source in self._sources.values() for name in self._makers(source)}
        for source in self._sources.values():
            private = {name for name in self._makers(source) if name.startswith('_')}
            self._find(source, private | {name for name in makers if not name.startswith('_')})

    def _classes(self, base: str) -> set[str]:
        errors, found = {base}, 0
        while len(errors) > found:
            found = len(errors)
            for node in self._nodes(ast.ClassDef):
                if any(_name(each) in errors for each in node.bases):
                    errors.add(node.name)
        return errors

    def _nodes(self, kind: type[ast.ClassDef]) -> Iterator[ast.ClassDef]:
        for source in self._sources.values():
            yield from (node for node in ast.walk(source.tree) if isinstance(node, kind))

    def _makers(self, source: _Source) -> Iterator[str]:
        for node in ast.walk(source.tree):
            # What has a decorator is not called, or is called by the name of the class.
            if self._makes(node) and not node.decorator_list:
                yield node.name

    def _makes(self, node: ast.AST) -> bool:
        returns = node.returns if isinstance(node, ast.FunctionDef) else None
        return returns is not None and ast.unparse(returns) in self._errors

    def _find(self, source: _Source, makers: set[str]) -> None:
        def is_site(node: ast.AST) -> bool:
            if not isinstance(node, ast.Call) or node in thrown_away:
                return False
            of_class = isinstance(node.func, ast.Attribute) and _name(node.func.value) in self._errors
            return of_class or _name(node.func) in self._errors | makers

        # Nobody makes an error to throw it away: this is log.error() and the like.
        thrown_away = {node.value for node in ast.walk(source.tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.Lambda):
                source.functions.append(_Span.of(node))
                if self._makes(node) or (isinstance(node, ast.Lambda) and is_site(node.body)):
                    source.makers.append(_Span.of(node))
            elif isinstance(node, ast.ClassDef) and node.name in self._errors:
                source.makers += [_Span.of(each) for each in node.body if isinstance(each, ast.FunctionDef)]
            elif is_site(node):
                source.sites.append(_Span.of(node))

    def __iter__(self) -> Iterator[str]:
        """Each as ``path:line``."""
        for source in self._sources.values():
            yield from (f'{source.path}:{line}' for line in sorted({span.first for span in source.sites}))

    def text(self, site: str) -> str:
        """Its line in the source."""
        path, _, line = site.rpartition(':')
        return self._sources[Path(path)].lines[int(line) - 1].strip()

    def reached(self, positions: list[str]) -> Iterator[str]:
        """The sites that made one error: whoever called the last of the functions that made it for their callers."""
        for position in positions:
            path, _, number = position.rpartition(':')
            source, line = self._sources.get(_resolved(path)), int(number)
            if source is None:
                return
            if site := _innermost(source.sites, line):
                yield f'{source.path}:{site.first}'
            if _innermost(source.functions, line) not in source.makers:
                return

    def missing(self, notes: list[str]) -> list[str]:
        """Those that no line of the notes has."""
        reached = {site for note in set(notes) for site in self.reached(note.split('\t'))}
        return [site for site in self if site not in reached]


@functools.cache
def _resolved(path: str) -> Path:
    return Path(path).resolve()


def _read(path: Path) -> _Source:
    text = path.read_text()
    return _Source(path, ast.parse(text), text.splitlines())


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ''


# -- in the process that controls the run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--raised', action='store_true', help='show which errors of tgext.evolve no test has raised')


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, 'workerinput'):
        config.pluginmanager.register(Controller(config), 'raised-controller')
    note_all()


class Controller:
    """Asks all processes of the run, and tells at its end."""

    sites: Sites

    def __init__(self, config: pytest.Config):
        self.config = config
        self.missing: list[str] = []
        #: Tests that were skipped because what they need is not installed (tests/servers.py).
        self.absent = 0
        self.own = None
        if WHERE not in os.environ:
            self.own = os.environ[WHERE] = tempfile.mkdtemp(prefix='raised')
        # Workers and servers run in other directories.
        self.where = Path(os.environ[WHERE]).resolve()
        os.environ[WHERE] = str(self.where)
        self.where.mkdir(parents=True, exist_ok=True)

    def is_whole(self, session: pytest.Session) -> bool:
        """Did all tests run, to the end? Nothing is said of a part, unless asked for."""
        option = self.config.option
        chosen = (
            *(option.keyword, option.markexpr, option.deselect, option.ignore, option.ignore_glob, option.collectonly),
            *(getattr(option, name, False) for name in ('lf', 'last_failed', 'stepwise', 'setuponly', 'setupplan')),
        )
        everywhere = self.config.args_source is pytest.Config.ArgsSource.TESTPATHS
        return everywhere and not any(chosen) and session.exitstatus == pytest.ExitCode.OK

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Where it was skipped: not where a test skips itself, as the long ones do.
        where = report.longrepr[0] if report.skipped and isinstance(report.longrepr, tuple | list) else ''
        self.absent += Path(str(where)).name == 'servers.py'

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session):
        # Not before xdist's workers have ended.
        result = yield
        whole = self.is_whole(session)
        if whole or self.config.option.raised:
            self.sites = Sites(PACKAGE)
            notes = self.where / NOTES
            self.missing = self.sites.missing(notes.read_text().splitlines() if notes.exists() else [])
            if whole and self.missing and not self.absent:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.missing:
            return
        terminalreporter.section('errors that no test has raised', red=True)
        for site in self.missing:
            terminalreporter.line(f'{self._short(site)}: {self.sites.text(site)}')
        said = f'{len(self.missing)} of {len(list(self.sites))}: each needs a test that raises it, as users come to it'
        if self.absent:
            said += f'; {self.absent} tests were skipped for want of a server or a browser, and may raise them'
        terminalreporter.line(f'{said}. See tests/raised.py.')

    def pytest_unconfigure(self) -> None:
        if self.own is not None:
            os.environ.pop(WHERE, None)
            shutil.rmtree(self.own, ignore_errors=True)

    def _short(self, site: str) -> str:
        return os.path.relpath(site, self.config.rootpath)
