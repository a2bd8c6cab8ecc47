"""Scripts of SQL as evolutions: those with a version run once, repeatable ones whenever their content has changed."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .. import failure
from ..errors import SourceError
from ..steps import Step
from .base import Place
from .folders import found
from .script_files import VARIANTS, ScriptFile, chosen, files_in, said, text_of, version_of
from .statements import DIALECTS, Statement, statements_of

#: How much of a statement stands in an error, in characters.
_SHOWN = 300


class ScriptError(SourceError):
    """A statement of a script failed, or cannot be run as it stands there."""


class SQLScripts:
    """The scripts in a folder as evolutions: ``sql:12`` is ``V012__title.sql``, ``sql:R__views`` is ``R__views.sql``.

    Versions are numbers with dots or underscores between them; the version alone is what a script is known by, so
    titles and leading zeros may change. ``V012__title.postgresql.sql`` is the variant for one database. A repeatable
    one runs after all versions, whenever its content is not what ran last.

    A script says more in comments at its top: ``-- tgext.evolve: transactional = false`` (for what no transaction
    takes: ``VACUUM``, ``CREATE INDEX CONCURRENTLY``), and in the same way ``depends_on``, ``serving``, ``rerunnable``
    and ``description``.

    :param location: a folder, beside the ini file or the project's ``setup.py`` where it is relative, or
        ``package:folder``. Folders inside of it are not looked into.
    :param name: what the ids begin with; two folders of one application need two.
    :param depends_on: evolutions of the plan that must be done before a script: ``{'12': ('fill-slugs',)}``.
    :param transactional: all of a script and its record are saved in one transaction. None: where the database
        can do that with DDL (PostgreSQL, SQLite).
    :param serving: what may be served until they are done: ``nothing``, ``reads`` or ``everything``.
    """

    def __init__(
        self,
        location: str = 'sql',
        *,
        name: str = 'sql',
        depends_on: Mapping[str, Sequence[str]] | None = None,
        transactional: bool | None = None,
        serving: str = 'nothing',
    ):
        self.location = str(location)
        self.name = name
        self.depends_on = dict(depends_on or {})
        self.transactional = transactional
        self.serving = serving

    def __repr__(self) -> str:
        return f'SQLScripts({self.location!r}, name={self.name!r})'

    def at(self, place: Place) -> PlacedScripts:
        """:raises SourceError: the folder is not there, or has what is no script, or a version twice."""
        _places().check(place, repr(self))
        return PlacedScripts(self, place)


class PlacedScripts:
    """The scripts of one folder for one application's database."""

    def __init__(self, source: SQLScripts, place: Place):
        self._source = source
        backend = place.url.get_backend_name()
        if backend not in VARIANTS:
            raise _wrong(f'{source!r} cannot split scripts for {backend}', repr(source), f'Use {", ".join(VARIANTS)}.')
        folder = found(source.location, place.conf, lambda what, remedy: _wrong(what, repr(source), remedy))
        files = chosen(files_in(folder, _wrong), backend, _wrong)
        if files and backend in DIALECTS and importlib.util.find_spec('sqlglot') is None:
            raise _wrong(
                f'{source!r} needs a library that is not installed: sqlglot',
                'the evolutions option',
                "Install it: pip install 'tgext.evolve[sql]'",
            )
        self._scripts = [Script(file, source, place) for file in files]
        self._order()
        self._depend()

    def evolutions(self) -> Iterable[Script]:
        return self._scripts

    def _order(self) -> None:
        """Each version after the one before; what is repeatable after all versions, also those that come late."""
        before: tuple[str, ...] = ()
        versions: list[str] = []
        for script in self._scripts:
            id = str(script.evolution_id)
            if script.repeatable:
                script.depends_on = (*script.depends_on, *versions, *before)
            else:
                script.depends_on = (*script.depends_on, *before)
                versions.append(id)
            before = (id,)

    def _depend(self) -> None:
        by_key = {script.key: script for script in self._scripts}
        for given, ids in self._source.depends_on.items():
            script = by_key.get(_key(str(given), self._source.name))
            if script is None:
                raise _wrong(
                    f'depends_on has {given!r}, and there is no such script',
                    repr(self._source),
                    f'Use one of these: {", ".join(map(repr, by_key))}.',
                )
            script.depends_on = (*script.depends_on, *((ids,) if isinstance(ids, str) else ids))


def _key(given: str, name: str) -> str:
    """``sql:012``, ``V012``, ``12``: all the same script."""
    given = given.removeprefix(f'{name}:')
    try:
        return '.'.join(map(str, version_of(given.removeprefix('V'))))
    except ValueError:
        return given


class Script(Step):
    """One script."""

    def __init__(self, file: ScriptFile, source: SQLScripts, place: Place):
        self.key = file.key
        self.path = file.path
        self.repeatable = file.version is None
        self.evolution_id = f'{source.name}:{file.key}'
        self.origin = str(file.path)
        self._text = text_of(file.path, _wrong)
        header = said(self._text, file.path, _wrong)
        self.description = header.get('description', file.title.replace('_', ' '))
        self.serving = header.get('serving', source.serving)
        self.rerunnable = header.get('rerunnable')
        self.depends_on = header.get('depends_on', ())
        wanted = header.get('transactional', source.transactional)
        self.transactional = _places().has_transactional_ddl(place) if wanted is None else wanted
        self._place = place

    def code(self) -> str:
        return self._text

    def statements(self) -> list[Statement]:
        """:raises ScriptError: it cannot be split, or one of them cannot be run in a transaction."""
        backend = self._place.url.get_backend_name()
        found = statements_of(self._text, backend, self._wrong)
        for statement in found if self.transactional else ():
            self._check_transactional(statement, backend)
        return found

    def _wrong(self, line: int, what: str, remedy: str) -> ScriptError:
        return ScriptError(what, place=f'{self.path}, line {line}', remedy=remedy)

    def _check_transactional(self, statement: Statement, backend: str) -> None:
        """What would end the transaction, or do nothing in one, before anything was run."""
        words = statement.words
        if _ends_transaction(words):
            raise self._wrong(
                statement.line,
                f'{words[0]} in a script that is saved in one transaction',
                f'Leave it out; or, to have transactions of its own, write {_NOT_TRANSACTIONAL} at its top.',
            )
        if backend == 'sqlite' and words[:2] == ('PRAGMA', 'FOREIGN_KEYS'):
            raise self._wrong(
                statement.line,
                'PRAGMA foreign_keys does nothing in a transaction, and SQLite does not say so',
                f'Write {_NOT_TRANSACTIONAL} at its top, with BEGIN and COMMIT around the rest.',
            )

    def evolve(self) -> None:
        statements = self.statements()  # all of it, before the first one is run
        with self._connection() as connection:
            for number, statement in enumerate(statements):
                self.progress(number, len(statements), f'{self.path.name}, line {statement.line}')
                self._execute(connection, statement)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """The session's, with the transaction that is saved with the record; else one that saves each statement."""
        if self.transactional:
            yield _places().connection(self._place, self.evolution_id)
            return
        with self._place.connect() as connection:
            # In memory, where it is the application's own, it is in no such mode.
            yield connection.execution_options(isolation_level='AUTOCOMMIT')

    def _execute(self, connection: Any, statement: Statement) -> None:
        from sqlalchemy.exc import DBAPIError

        from ..stores.sqlalchemy.dialects import Trouble, dialect_of_session

        try:
            # Without parameters the driver leaves percent signs and colons alone.
            result = connection.exec_driver_sql(statement.text, execution_options={'no_parameters': True})
            result.close()
        except DBAPIError as error:
            if dialect_of_session(connection.dialect.name).trouble(error) is Trouble.AWAY:
                raise  # whoever waits for the database to come back must see it as it is
            shown = statement.text if len(statement.text) <= _SHOWN else f'{statement.text[:_SHOWN]} ...'
            raise self._wrong(
                statement.line, f'{failure.brief(error.orig or error)}, by the statement: {shown}', self._remedy(error)
            ) from error.orig  # what SQLAlchemy did with it tells nobody anything

    def _remedy(self, error: Exception) -> str:
        if self.transactional and _NEEDS_NO_TRANSACTION.search(str(error)):
            return f'Write {_NOT_TRANSACTIONAL} at its top: it cannot run in a transaction.'
        if self.transactional:
            return 'Nothing of this script was saved.'
        return 'What stands before it in the script was saved, statement by statement, and must bear to run again.'


_NOT_TRANSACTIONAL = '-- tgext.evolve: transactional = false'

#: What PostgreSQL and SQLite say of VACUUM, CREATE INDEX CONCURRENTLY, PRAGMA journal_mode and the like.
_NEEDS_NO_TRANSACTION = re.compile(
    r'cannot (run|be executed|VACUUM|change into wal mode|ATTACH database).* transaction|'
    r'cannot be executed within a pipeline|Safety level may not be changed inside a transaction',
    re.IGNORECASE | re.DOTALL,
)


def _ends_transaction(words: Sequence[str]) -> bool:
    first, rest = (words[0] if words else ''), words[1:]
    if first == 'ROLLBACK':
        return 'TO' not in rest[:3]  # to a savepoint
    if first == 'BEGIN':
        return 'NOT' not in rest[:1]  # MariaDB's compound statement
    if first in ('START', 'PREPARE'):
        return rest[:1] == ('TRANSACTION',)
    return first in ('COMMIT', 'END', 'ABORT')


def _wrong(what: str, place: str, remedy: str) -> SourceError:
    return SourceError(what, place=place, remedy=remedy)


def _places() -> Any:
    """What needs SQLAlchemy, imported where it is used."""
    try:
        return importlib.import_module('.places', __package__)
    except ImportError as error:
        raise SourceError(
            f'SQLScripts needs a library that is not installed: {error}',
            place='the evolutions option',
            remedy="Install it: pip install 'tgext.evolve[sqlalchemy,sql]'",
        ) from None
