"""``test``: the whole plan on a scratch database, as ``gearbox migrate test`` tries one revision."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from .. import failure
from ..databases import Databases, made_for
from ..errors import OptionError, StoreError
from ..evolver import Ended, Evolver
from ..plan import PlannedEvolution
from ..steps import Step
from . import words
from .application import Application, load
from .documents import Document, document, of_application, of_overview
from .exits import Exit, Problem
from .output import Output
from .running import foreground

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL


def test(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    """What is pending runs there; then nothing does; then down and up again what has a way down."""
    application.enabled()
    own: Databases = application.conf['tgext_evolve.databases']
    if own.engine is None:
        raise Problem(Exit.CONFIGURATION, 'no-sql', f'the application of {application.ini} has no SQL database')
    if own.datastore is not None:
        raise Problem(
            Exit.CONFIGURATION,
            'other-database',
            'the application has a MongoDB database too, which its evolutions would change',
            'Test it with an ini file that names scratch databases only: gearbox evolve -c FILE.ini run',
        )
    with _scratch(own, opts.url) as (url, about):
        with made_for(url):
            scratch = load(opts.config_file)
        try:
            _check_diverted(scratch, url)
            if not output.json:
                output.lines([f'scratch: {about}'], {})
            return _Test(scratch, output).run()
        finally:
            scratch.close()
            scratch.conf['tgext_evolve.databases'].dispose()


@contextmanager
def _scratch(own: Databases, given: str | None) -> Iterator[tuple[str, str]]:
    """The URL of the scratch database, and what it is for people; a copy is gone afterwards."""
    from ..stores.sqlalchemy.engines import in_memory

    if given is not None:
        yield given, _checked(own, given)
        return
    url = own.engine.url
    if url.get_backend_name() != 'sqlite' or in_memory(url):
        raise Problem(
            Exit.USAGE,
            'no-scratch',
            f'{_shown(url)} cannot be copied',
            'Name a scratch database, which will be changed: gearbox evolve test --url URL',
        )
    with tempfile.TemporaryDirectory(prefix='tgext-evolve-') as directory:
        path = os.path.join(directory, 'scratch.db')
        with own.place().connect() as connection, closing(sqlite3.connect(path)) as copy:
            # As a whole, also while others write.
            connection.connection.driver_connection.backup(copy)
        yield f'sqlite:///{path}', f'a copy of {_shown(url)}'


def _checked(own: Databases, given: str) -> str:
    """:raises Problem: it is no database, or the application's own, by whatever name."""
    from ..stores.sqlalchemy.engines import engine_of_url, in_memory, same_database
    from ..stores.sqlalchemy.store import translated

    try:
        engine = engine_of_url(given)
    except OptionError as error:
        bad = error.thing.replace('tgext.evolve.store', '--url')
        raise Problem(
            Exit.USAGE, 'bad-url', bad, 'Use a URL as SQLAlchemy takes it, and install its driver.'
        ) from error
    if in_memory(engine.url):
        raise Problem(Exit.USAGE, 'bad-url', f'{given} lives in one connection', 'Name a file: sqlite:////tmp/test.db')
    if same_database(engine.url, own.engine.url):
        raise _own(engine.url)
    if own.engine.url.get_backend_name() == engine.url.get_backend_name() and _exists(own.engine.url):
        with translated(engine), _marked(engine) as name:
            if _sees(own, name):
                raise _own(engine.url)
    return _shown(engine.url)


def _own(url: URL) -> Problem:
    return Problem(
        Exit.USAGE,
        'own-database',
        f"{_shown(url)} is the application's own database, which a test must not change",
        'Name another one; for SQLite, leave --url out: a copy is made.',
    )


def _exists(url: URL) -> bool:
    return url.get_backend_name() != 'sqlite' or os.path.exists(url.database or '')


@contextmanager
def _marked(engine: Engine) -> Iterator[str]:
    """A table of a name that no other database has, for a moment."""
    name = f'tgext_evolve_scratch_{uuid.uuid4().hex[:12]}'
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE TABLE {name} (id INTEGER)')
        try:
            yield name
        finally:
            connection.exec_driver_sql(f'DROP TABLE {name}')


def _sees(own: Databases, name: str) -> bool:
    from sqlalchemy import column, select, table

    try:
        return own.place().rows(select(column('id')).select_from(table(name))) is not None
    except StoreError:
        return False  # the other one answers, and this one does not


def _check_diverted(scratch: Application, url: str) -> None:
    """:raises Problem: the application was made for its own database all the same."""
    from sqlalchemy import make_url

    from ..stores.sqlalchemy.engines import same_database

    evolver, databases = scratch.enabled(), scratch.conf['tgext_evolve.databases']
    bound = databases.session.session_factory.kw.get('bind') if databases.session is not None else None
    for engine in (databases.engine, bound):
        if engine is not None and not same_database(engine.url, make_url(url)):
            raise Problem(
                Exit.CONFIGURATION,
                'own-database',
                f'the application works on {_shown(engine.url)} whatever its options say, so nothing was tested',
                'Have it made with the engine of sqlalchemy.url.',
            )
    assert same_database(make_url(evolver.store.name), make_url(url))


def _shown(url: URL) -> str:
    return url.render_as_string(hide_password=True)


class _Wrong(Exception):
    """What the test found.

    :param traceback: of the evolution that failed.
    """

    def __init__(self, thing: str, traceback: str = ''):
        super().__init__(thing)
        self.traceback = traceback


class _Test:
    def __init__(self, application: Application, output: Output):
        self._application = application
        self._output = output
        self._evolver: Evolver = application.enabled()
        self._results: dict[str, list[Document]] = {'ran': [], 'again': [], 'up': []}
        self._down: list[str] = []

    def run(self) -> Exit:
        try:
            self._try()
        except _Wrong as wrong:
            problem = Problem(Exit.FAILED, 'test-failed', str(wrong), 'Mend it, and test again.')
            error = {
                'kind': problem.kind,
                'message': problem.thing,
                'remedy': problem.remedy,
                'exit': int(problem.code),
                'traceback': wrong.traceback,
            }
            if wrong.traceback and not self._output.json:
                self._output.lines(wrong.traceback.rstrip().splitlines(), {})
            self._output.wrong(str(problem), self._document(error=error))
            return problem.code
        done, down = len(self._results['ran']), len(self._down)
        lines = [
            f'{done} done; again: nothing happened; {down} of them down and up again' if done else 'nothing is pending'
        ]
        self._output.lines(lines, self._document())
        return Exit.DONE

    def _document(self, **parts: Any) -> Document:
        overview = self._evolver.overview()
        return document(
            'test',
            **of_application(self._evolver),
            **of_overview(overview),
            **self._results,
            reverted=self._down,
            **parts,
        )

    def _try(self) -> None:
        pending = [entry.id for entry in self._evolver.overview().pending]
        self._run('ran')
        attempts = len(self._evolver.store.history().attempts)
        self._run('again')
        again = self._results['again']
        if again or len(self._evolver.store.history().attempts) != attempts:
            raise _Wrong(f'what was done runs again: {words.listed([str(each["id"]) for each in again])}')
        before = _shape(self._evolver, self._application)
        self._revert(pending)
        if self._down:
            self._run('up')
            after = _shape(self._evolver, self._application)
            if before != after:
                raise _Wrong(f'down and up again is not the same as before: {_difference(before, after)}')

    def _run(self, part: str) -> None:
        ended, display = foreground(self._evolver, self._output)
        self._results[part] = display.ran
        if ended is Ended.DONE:
            return
        if ended is Ended.LEFT:
            raise Problem(Exit.TERMINATED, 'terminated', 'ended by SIGTERM')
        overview = self._evolver.overview()
        stopped = [entry for entry in overview.entries if entry.needs_a_person]
        if not stopped:
            raise _Wrong(f'it cannot run there: {overview.verdict.detail or overview.verdict.reason.value}')
        first = stopped[0]
        trace = self._evolver.store.error_of(first.counts) if first.counts is not None else None
        again = ' when it ran again after its way down' if part == 'up' else ''
        raise _Wrong(
            f'{first.id!r} {first.state}{again}: {display.errors.get(first.id) or words.last_line(trace)}', trace or ''
        )

    def _revert(self, ids: list[str]) -> None:
        """Down from the top, as far as there is a way; what ran before the test stays."""
        plan, up = self._evolver.plan, set(ids)
        for planned in reversed(plan.order):
            step = planned.evolution
            if planned.id not in up or not isinstance(step, Step) or not step.reversible:
                continue
            if any(planned.id in plan.dependencies[id] for id in up if plan.by_id[id].table is planned.table):
                continue  # what needs it stays
            if not self._goes_down(planned, step.revert):
                continue
            up.remove(planned.id)
            self._down.append(planned.id)
            if not self._output.json:
                self._output.lines([f'{planned.id}: down'], {})
            if planned.table is not None and planned.id in planned.table.look().applied:
                raise _Wrong(f'{planned.id!r} went down, and its version table still has it')

    def _goes_down(self, planned: PlannedEvolution, revert: Callable[[], None]) -> bool:
        try:
            with self._application.context(), redirect_stdout(sys.stderr if self._output.json else sys.stdout):
                revert()
        except NotImplementedError:
            return False
        except Exception as error:
            thing = f'{planned.id!r} failed on its way down: {failure.brief(error)}'
            raise _Wrong(thing, failure.describe(error)) from error
        return True


def _shape(evolver: Evolver, application: Application) -> dict[str, Any]:
    """Tables with their columns and indexes."""
    from sqlalchemy import inspect

    with application.conf['tgext_evolve.databases'].place().connect() as connection:
        inspector = inspect(connection)
        return {
            name: (
                sorted((each['name'], str(each['type']), each['nullable']) for each in inspector.get_columns(name)),
                sorted((str(each['column_names']), each['unique']) for each in inspector.get_indexes(name)),
            )
            for name in inspector.get_table_names()
        }


def _difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    gone = [name for name in names if name not in after]
    new = [name for name in names if name not in before]
    other = [name for name in names if name in before and name in after]
    parts = (('missing', gone), ('new', new), ('with other columns or indexes', other))
    return '; '.join(f'{what}: {words.listed(those)}' for what, those in parts if those)
