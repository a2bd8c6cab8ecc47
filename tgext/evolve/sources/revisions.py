"""One alembic repository in one application: its revisions, its version table, its ``env.py``."""

from __future__ import annotations

import ast
import logging
import os
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep, RevisionStep
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import column, select, table

from .. import failure
from ..errors import PlanError, SourceError
from ..remedies import to_type
from ..steps import Step, Versions, VersionTable
from ..stores.sqlalchemy.engines import in_memory, same_database
from .base import Place
from .folders import found

if TYPE_CHECKING:
    from .alembic import AlembicRevisions

#: The section that ``gearbox migrate`` gives to ``env.py``.
SECTION = 'app:main'

#: Alembic's own, where ``env.py`` names none.
VERSION_TABLE = 'alembic_version'

#: What a revision file may say about its evolution, and the dictionary in which it does.
ATTRIBUTE = 'tgext_evolve'
_SAID = frozenset({'depends_on', 'serving', 'rerunnable'})

#: ``alembic.context`` and ``alembic.op`` are one in the whole process.
_one_at_a_time = threading.Lock()


class Repository:
    """The evolutions of one repository.

    :raises SourceError: it is not there or broken, or the application has no SQL database.
    """

    def __init__(self, given: AlembicRevisions, place: Place):
        self.given = given
        self.place = place
        if place.url is None:
            raise self.wrong(
                'the application has no SQL database for alembic to work on',
                'Set sqlalchemy.url, or remove that entry.',
            )
        self.path = found(given.location, place.conf, self.wrong)
        env = self.path / 'env.py'
        if not env.is_file():
            raise self.wrong(f'there is no env.py in {self.path}', 'Name the folder that alembic init made.')
        text = env.read_text(encoding='utf-8', errors='replace')
        self.version_table = given.version_table or self._said(text, 'version_table') or VERSION_TABLE
        self.version_table_schema = given.version_table_schema or self._said(text, 'version_table_schema')
        self.config = _config(self.path, place, text)
        with self._reading():
            self.directory = ScriptDirectory.from_config(self.config)
            scripts = sorted(self.directory.walk_revisions(), key=lambda script: str(script.path))
            steps = [MigrationStep.upgrade_from_script(self.directory.revision_map, script) for script in scripts]
        self.scripts = {script.revision: script for script in scripts}
        #: What must be applied before each revision: its down revisions, and alembic's own ``depends_on``.
        self.below = {step.revision.revision: step.info.down_revision_ids for step in steps}
        #: Lower ones first; the same in every process.
        self.order = tuple(TopologicalSorter(self.below).static_order())
        self._check_names()

    def evolutions(self) -> Iterable[Step]:
        versions = AlembicTable(self)
        return [Revision(self, self.scripts[revision], versions) for revision in self.order]

    def id(self, revision: str) -> str:
        return f'{self.given.name}:{revision}'

    @cached_property
    def by_id(self) -> dict[str, str]:
        return {self.id(revision): revision for revision in self.order}

    def wrong(self, thing: str, remedy: str, place: str = '') -> SourceError:
        return SourceError(thing, place=place or f'{self.given!r} in the evolutions option', remedy=remedy)

    def under(self, revisions: Iterable[str]) -> set[str]:
        """These revisions, and all that must be applied before them."""
        found: set[str] = set()
        left = list(revisions)
        while left:
            revision = left.pop()
            if revision not in found:
                found.add(revision)
                left += self.below[revision]
        return found

    def over(self, revisions: Collection[str]) -> set[str]:
        """All that needs one of these, without themselves."""
        found = set(revisions)
        for revision in self.order:
            if not found.isdisjoint(self.below[revision]):
                found.add(revision)
        return found.difference(revisions)

    def heads(self) -> set[str]:
        """What stands in the version table."""
        version = table(self.version_table, column('version_num'), schema=self.version_table_schema)
        return {str(row[0]) for row in self.place.rows(select(version.c.version_num)) or ()}

    def run(self, steps: Sequence[RevisionStep]) -> None:
        """Take these steps in order, through ``env.py``, with all that alembic writes into its version table.

        :raises SourceError: ``env.py`` works elsewhere than the application; nothing was done, if it could be told.
        """
        if in_memory(self.place.url):
            raise self.wrong(
                f'{self.place.url} lives in one connection, so env.py would work on another database',
                'Name a file: sqlalchemy.url = sqlite:////path/to/database.db',
                place=str(self.path / 'env.py'),
            )
        heads = self.heads()
        wanted = heads
        for step in steps:
            wanted = self._after(wanted, step)

        def choose(found: Any, context: MigrationContext) -> Sequence[RevisionStep]:
            restore()
            self._check_place(heads, set(found), context)
            return steps

        with (
            _one_at_a_time,
            _logging_kept() as restore,
            EnvironmentContext(
                self.config,
                self.directory,
                # As alembic's own commands give them: an env.py may ask for each.
                fn=choose,
                as_sql=False,
                starting_rev=None,
                destination_rev=steps[-1].revision.revision,
                tag=None,
            ),
        ):
            self.directory.run_env()
        now = self.heads()
        if self.under(now & self.scripts.keys()) != self.under(wanted & self.scripts.keys()):
            raise self.wrong(
                f'env.py ran, and {self._table} of {self._url} has {sorted(now)}, not {sorted(wanted)}: it worked on '
                f'another database, or did not run the revision at all',
                'Have env.py connect by the options of config, as alembic and gearbox quickstart write it.',
                place=str(self.path / 'env.py'),
            )

    def _after(self, heads: set[str], step: RevisionStep) -> set[str]:
        """What is applied after a step, in as many words as it takes."""
        known = self.under(heads & self.scripts.keys())
        revision = step.revision.revision
        return known | {revision} if step.is_upgrade else known - {revision}

    @property
    def _table(self) -> str:
        schema = self.version_table_schema
        return f'{schema}.{self.version_table}' if schema else self.version_table

    @property
    def _url(self) -> str:
        return self.place.url.render_as_string(hide_password=True)

    def _check_place(self, ours: set[str], theirs: set[str], context: MigrationContext) -> None:
        """Before anything is done: does ``env.py`` work where the application does?"""
        env = str(self.path / 'env.py')
        said = context.version_table, context.version_table_schema
        if said != (self.version_table, self.version_table_schema):
            names = f'version_table={said[0]!r}, version_table_schema={said[1]!r}'
            raise self.wrong(
                f'env.py keeps its versions in {names}, and {self.given!r} looks at {self._table}',
                f'Say so there: AlembicRevisions({self.given.location!r}, {names})',
                place=env,
            )
        url = context.connection.engine.url if context.connection is not None else None
        if url is None or not same_database(url, self.place.url) or theirs != ours:
            where = url.render_as_string(hide_password=True) if url is not None else 'no database'
            raise self.wrong(
                f'env.py works on {where} (which has {sorted(theirs)}), and the application on {self._url} '
                f'(which has {sorted(ours)})',
                'Have env.py connect by the options of config, as alembic and gearbox quickstart write it.',
                place=env,
            )

    def _said(self, text: str, keyword: str) -> str | None:
        """What ``env.py`` gives alembic for this keyword, wherever it does; None: nothing."""
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            raise self.wrong(f'env.py cannot be read: {error}', 'Mend it.', place=str(self.path / 'env.py')) from error
        names = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        said: set[str | None] = set()
        for node in ast.walk(tree):
            for given in node.keywords if isinstance(node, ast.Call) else ():
                if given.arg != keyword:
                    continue
                value: Any = names.get(given.value.id) if isinstance(given.value, ast.Name) else given.value
                if not isinstance(value, ast.Constant) or not isinstance(value.value, str | None):
                    raise self._untold(keyword)
                said.add(value.value)
        if len(said) > 1:
            raise self._untold(keyword)
        return said.pop() if said else None

    def _untold(self, keyword: str) -> SourceError:
        return self.wrong(
            f'{keyword} cannot be read off {self.path / "env.py"}, which computes it',
            f'Say it: AlembicRevisions({self.given.location!r}, {keyword}=...)',
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Revision files are imported in here: what is wrong with one is said with its name."""
        try:
            with warnings.catch_warnings():
                # It goes on with one of them, or fails without a name.
                warnings.filterwarnings('error', message='Revision .* (is present more than once|is not present)')
                yield
        except (CommandError, UserWarning) as error:
            raise self.wrong(str(error), 'Mend that repository.', place=str(self.path)) from error
        except Exception as error:
            raise self.wrong(
                f'a revision file cannot be imported: {failure.brief(error)}',
                'Mend that file.',
                place=_file_of(error, self.path),
            ) from error

    def _check_names(self) -> None:
        missing = [revision for revision in self.given.depends_on if revision not in self.scripts]
        if missing:
            raise self.wrong(
                f'depends_on names {", ".join(map(repr, missing))}, which is no revision of {self.path}',
                'Name whole revisions, as they stand in the files.',
            )


class Revision(Step):
    """One revision; ``env.py`` connects by itself and commits."""

    def __init__(self, repository: Repository, script: Script, table: AlembicTable):
        self._repository = repository
        self._script = script
        given, said = repository.given, self._attributes(script)
        self.evolution_id = repository.id(script.revision)
        self.table = table
        self.origin = str(script.path)
        self.description = ' '.join(script.doc.split())
        self.serving = said.get('serving', given.serving)
        self.rerunnable = said.get('rerunnable', given.rerunnable)
        self.depends_on = (
            *map(repository.id, repository.below[script.revision]),
            *given.depends_on.get(script.revision, ()),
            *said.get('depends_on', ()),
        )

    def _attributes(self, script: Script) -> dict[str, Any]:
        said = getattr(script.module, ATTRIBUTE, {})
        if not isinstance(said, dict) or not _SAID.issuperset(said):
            raise SourceError(
                f'{ATTRIBUTE} = {said!r}',
                place=str(script.path),
                remedy=f'Write a dictionary with some of {", ".join(sorted(_SAID))}.',
            )
        needed = said.get('depends_on', ())
        if isinstance(needed, str) or not isinstance(needed, list | tuple):
            raise SourceError(
                f'{ATTRIBUTE} has depends_on = {needed!r}',
                place=str(script.path),
                remedy="Write a tuple of ids: {'depends_on': ('some-id',)}",
            )
        return said

    def evolve(self) -> None:
        self._run(MigrationStep.upgrade_from_script)

    @property
    def reversible(self) -> bool:
        return callable(getattr(self._script.module, 'downgrade', None))

    def revert(self) -> None:
        self._run(MigrationStep.downgrade_from_script)

    def _run(self, step_of: Callable[..., RevisionStep]) -> None:
        self._repository.run([step_of(self._repository.directory.revision_map, self._script)])

    def code(self) -> str:
        return Path(self._script.path).read_bytes().decode('utf-8', 'backslashreplace')


class AlembicTable(VersionTable):
    """Alembic's version table: the heads of what is applied, one row each."""

    def __init__(self, repository: Repository):
        self._repository = repository

    def look(self) -> Versions:
        applied, unknown = self._applied()
        id = self._repository.id
        return Versions(frozenset(map(id, applied)), frozenset(map(id, unknown)))

    def _applied(self) -> tuple[set[str], set[str]]:
        repository = self._repository
        heads = repository.heads()
        unknown = heads.difference(repository.scripts)
        known = heads - unknown
        if not unknown:
            return repository.under(known), unknown
        # A newer release was here. Its rows stand for what lies below them, which cannot be told from here: it
        # is all that does not stand above a row that is known, or that row would not be there any more.
        return set(repository.order) - repository.over(known), unknown

    def stamp(self, ids: Collection[str]) -> None:
        repository = self._repository
        applied, _ = self._applied()
        wanted = {repository.by_id[id] for id in ids} - applied
        below = repository.under(wanted) - applied - wanted
        if below:
            raise self._cannot('applied', wanted, 'what they need is not', below, 'stamp')
        self._record([revision for revision in repository.order if revision in wanted], upgrade=True)

    def unstamp(self, ids: Collection[str]) -> None:
        repository = self._repository
        heads = repository.heads()
        applied = repository.under(heads.intersection(repository.scripts))
        wanted = {repository.by_id[id] for id in ids} & applied
        above = (repository.over(wanted) & applied) - wanted
        if above:
            raise self._cannot('not applied', wanted, 'what needs them is', above, 'unstamp')
        self._record([revision for revision in reversed(repository.order) if revision in wanted], upgrade=False)

    def _cannot(self, what: str, wanted: set[str], but: str, others: set[str], verb: str) -> PlanError:
        repository = self._repository
        ids, more = ([repository.id(each) for each in repository.order if each in those] for those in (wanted, others))
        return PlanError(
            f'alembic cannot have it that {", ".join(map(repr, ids))} is {what}: {but} ({", ".join(map(repr, more))})',
            place=f'the table {repository.version_table}',
            remedy=f'Name all of them: {to_type(verb, *ids, *more)}',
        )

    def _record(self, revisions: Sequence[str], *, upgrade: bool) -> None:
        if revisions:
            self._repository.run([self._stamped(self._repository.scripts[each], upgrade) for each in revisions])

    def _stamped(self, script: Script, upgrade: bool) -> RevisionStep:
        """A step that only writes its version: in one go, all of them or one by one, each boundary is legal."""
        step = MigrationStep.upgrade_from_script(self._repository.directory.revision_map, script)
        step.is_upgrade = upgrade
        step.migration_fn = _nothing
        return step


def _nothing(**options: Any) -> None:
    """What a stamped revision does."""


#: Options of a pool: ``env.py`` has a NullPool, or one of its own, which would not take them.
_POOL = ('sqlalchemy.pool', 'sqlalchemy.max_overflow')


class _ApplicationConfig(Config):
    """The application's options for ``env.py``, which it would read from the ini file."""

    #: Options of the application's engine that no ini file can express.
    objects: Mapping[str, Any] = {}

    def get_section(self, name: str, default: Any = None) -> Any:
        section = super().get_section(name, default)
        return {**section, **self.objects} if name == self.config_ini_section else section


def _config(path: Path, place: Place, env: str) -> Config:
    options = {str(key): value for key, value in place.conf.items() if not str(key).startswith(_POOL)}
    master, slaves = 'sqlalchemy.master.', 'sqlalchemy.slaves.'
    if f'{master}url' in options and master not in env:
        # What quickstart writes knows one database only.
        for key in [key for key in options if key.startswith((master, slaves))]:
            value = options.pop(key)
            if key.startswith(master):
                options['sqlalchemy.' + key[len(master) :]] = value
        options = {key: value for key, value in options.items() if not key.startswith(_POOL)}
    options.setdefault('sqlalchemy.url', place.url.render_as_string(hide_password=False))
    config = _ApplicationConfig(ini_section=SECTION)
    config.objects = {
        key: value
        for key, value in options.items()
        if key.startswith('sqlalchemy.') and not isinstance(value, str | bool | int | float)
    }
    for key, value in options.items():
        if isinstance(value, str | bool | int | float):
            config.set_main_option(key, str(value).replace('%', '%%'))
    config.set_main_option('script_location', str(path).replace('%', '%%'))
    ini = place.conf.get('__file__')
    if ini and os.path.isfile(str(ini)):
        # Only its name: for an env.py that reads more of it. The options are as the application has them.
        config.config_file_name = str(ini)
    return config


def _file_of(error: BaseException, folder: Path) -> str:
    """The file below ``folder`` in which ``error`` was raised, the innermost one."""
    found = str(folder)
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename
    traceback = error.__traceback__
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if Path(name).resolve().is_relative_to(folder.resolve()):
            found = name
        traceback = traceback.tb_next
    return found


@contextmanager
def _logging_kept() -> Iterator[Callable[[], None]]:
    """What ``fileConfig`` in an ``env.py`` does to the logging of the whole process is taken back.

    :returns: what does that, at any moment inside too.
    """
    there = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(each for each in there if isinstance(each, logging.Logger))]
    before = [(each, each.handlers[:], each.level, each.propagate, each.disabled) for each in loggers]

    def restore() -> None:
        for logger, handlers, level, propagate, disabled in before:
            if logger.handlers != handlers:
                logger.handlers[:] = handlers
            if logger.level != level:
                logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled

    try:
        yield restore
    finally:
        restore()
