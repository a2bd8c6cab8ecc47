"""The checks that any project can switch on for its evolutions. They need no pytest.

Each is a method of :class:`Checks`: it returns when all is well, and else raises
:class:`CheckFailed`, which says what is wrong, where, and what to do.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import EvolutionFailed, EvolveError
from ..plan import PlannedEvolution
from ..steps import Step
from .deaths import run_with_deaths
from .leaks import Leaks
from .runner import Change, EvolutionRunner

_OURS = str(Path(__file__).parents[1])


class CheckFailed(EvolveError, AssertionError):
    """An evolution, or the plan, does not do what the check asks for."""


class NotApplicable(Exception):
    """There is nothing to check: the message says why."""


class Checks:
    """Checks of one application's evolutions, each on a scratch database of its own.

    :param make: makes the application anew each time it is called, on an empty scratch database
        with old data in it; returns its configuration, or the WSGI application.
    :param ignore: tables (``'log'``) and columns (``'page.updated'``, ``'*.updated'``) whose
        content may be another one each time: what an evolution takes from the clock or from chance.
    """

    def __init__(self, make: Callable[[], Any], *, ignore: Collection[str] = ()):
        self._make = make
        self._ignore = frozenset(ignore)

    def plan_is_sound(self, known: Collection[str] | None = None, *, steps: bool = False) -> None:
        """Ids are unique, dependencies are there and in no cycle, and nothing is asked of the database that it cannot.

        Where ``tgext.evolve.enabled = false``, as in a test suite, nobody has looked yet: without
        this check the first to find out would be the server that the release is deployed on.

        :param known: the ids that are checked one by one; None: that does not matter.
        :param steps: are those of other systems (revisions, scripts) checked too?
        """
        try:
            with self._runner() as runner:
                ids = [planned.id for planned in runner.plan if not (steps and isinstance(planned.evolution, Step))]
                place = f'the plan of namespace {runner.store.namespace!r}'
        except CheckFailed:
            raise
        except EvolveError as error:
            raise CheckFailed(error.thing, place=error.place, remedy=error.remedy) from None
        unchecked = [id for id in ids if known is not None and id not in known]
        if unchecked:
            raise CheckFailed(
                f'the application has evolutions that no check knows: {", ".join(map(repr, unchecked))}',
                place=place,
                remedy="Give check_evolutions() all of them: the application's base_config, or the same entries as "
                'the evolutions option of its ini file.',
            )

    def has_description(self, id: str) -> None:
        """It says in a line what it does.

        That is what people read at night on the dashboard and in ``gearbox evolve status``, when
        all that they otherwise have is an id.
        """
        with self._runner() as runner:
            description_of(runner.find(id))

    def runs(self, id: str) -> None:
        """It runs to its end on old data, after all that stand before it.

        An evolution runs once in its life, on data that nobody has on the own machine: an error
        in it is found when the site is closed, unless a test has run it.
        """
        with self._ready(id) as runner:
            try:
                runner.run(id)
            except EvolutionFailed as error:
                raise CheckFailed(error.thing, place=error.place, remedy=error.remedy) from error.__cause__

    def runs_twice(self, id: str) -> None:
        """When it runs again on what it has done, it does not fail and changes nothing.

        Evolutions that commit by themselves run at least once: again after a kill, after a
        deposed holder, after a backup was restored and its record was not. Transactional ones
        run once as long as record and data stay together.
        """
        with self._ready(id) as runner:
            _refuse_declared(runner.find(id))
            _refuse_settled(runner.find(id))
            _run_first(runner, id)
            try:
                again = runner.run_again(id)
            except EvolutionFailed as error:
                raise CheckFailed(
                    f'{error.thing}, when it ran a second time on its own result',
                    place=error.place,
                    remedy='Have it find out what is done already, and leave that alone.',
                ) from error.__cause__
            differences = again.before.differences(again.after, self._ignore)
            if differences:
                raise self._differs(
                    runner.find(id), 'changes data when it runs a second time on its own result', differences
                )

    def survives_kills(self, id: str) -> None:
        """Killed at every boundary and run again by another process, it leaves what it leaves without any kill.

        Boundaries are where something is saved: each batch, each commit, each write to MongoDB,
        and the record that it is done. A deployment, a failover or the kernel may end a process
        between any two of these.
        """
        with self._ready(id) as runner:
            _refuse_declared(runner.find(id))
            _refuse_half(runner, id)
            expected = _run_first(runner, id)
        with self._ready(id) as runner:
            planned = runner.find(id)
            before = runner.content()
            made_anew = expected.before.made_anew(before)
            unlike = expected.before.differences(before, self._ignore | made_anew)
            if unlike:
                raise CheckFailed(
                    f'two databases made one after the other have different data before {id!r}, so that they cannot '
                    f'be compared after it:{_listed(unlike)}',
                    place='what makes the application and its old data for the checks',
                    remedy='Have it make the same rows each time, or name the tables in ignore=[...].',
                )
            try:
                number = run_with_deaths(runner, id)
            except EvolutionFailed as error:
                raise CheckFailed(
                    f'{error.thing}, after it was killed',
                    place=error.place,
                    remedy='Have it go on with what the killed one has left: part of its work may be saved.',
                ) from error.__cause__
            differences = expected.after.differences(runner.content(), self._ignore | made_anew)
            if differences:
                raise self._differs(
                    planned,
                    f'leaves something else when it is killed ({number} times, at each boundary once) and run again',
                    differences,
                )

    def leaves_nothing_open(self, id: str) -> None:
        """When it is done, every connection is back in its pool, and no change waits to be saved.

        The session of the application is cleaned up by tgext.evolve. Connections and sessions that
        an evolution makes by itself are not: a transaction that it leaves open holds its locks
        until the server ends, and what it has not committed is lost.
        """
        with self._ready(id) as runner:
            leaks = Leaks(runner.databases.session)
            with leaks.watching():
                _run_first(runner, id)
            if leaks.found:
                raise CheckFailed(
                    f'evolution {id!r} leaves something open:{_listed(leaks.found)}',
                    place=runner.find(id).origin,
                    remedy="Use the application's session, or close what it opens (with engine.begin() as connection).",
                )

    def all(self) -> None:
        """All checks of all evolutions, one after the other: for suites that do not use pytest.

        :raises CheckFailed: the first that fails.
        """
        self.plan_is_sound()
        with self._runner() as runner:
            ids = runner.ids
        for id in ids:
            self._all_of(id)

    def steps(self, exempt: Mapping[str, Collection[str]] | None = None) -> None:
        """The steps of other systems (revisions of alembic, scripts of SQL, versions of a schema) pass all of that too.

        Which steps there are only the application knows, once it is made on a database: so they are one check, in
        their order. Where one fails, those after it would fail for the same reason.

        :param exempt: by id, the methods of this class that a step need not pass.
        :raises CheckFailed: also where ``exempt`` has an id that there is not.
        """
        with self._runner() as runner:
            plan = runner.plan
        for id in exempt or {}:
            if plan.find(id) is None:
                raise CheckFailed(
                    f'there is no evolution or step {id!r}',
                    place='what is exempt from checks',
                    remedy=f'There are: {", ".join(map(repr, plan.by_id))}.',
                )
        for id in [planned.id for planned in plan if isinstance(planned.evolution, Step)]:
            self._all_of(id, (exempt or {}).get(id, ()))

    def _all_of(self, id: str, exempt: Collection[str] = ()) -> None:
        for check in (
            self.has_description,
            self.runs,
            self.runs_twice,
            self.survives_kills,
            self.leaves_nothing_open,
        ):
            try:
                if check.__name__ not in exempt:
                    check(id)
            except NotApplicable:
                pass

    @contextmanager
    def _runner(self) -> Iterator[EvolutionRunner]:
        runner = EvolutionRunner(self._make())
        try:
            yield runner
        finally:
            runner.close()

    @contextmanager
    def _ready(self, id: str) -> Iterator[EvolutionRunner]:
        """On a database as this evolution will find it."""
        with self._runner() as runner:
            planned = runner.find(id)
            if id not in runner.pending:
                raise NotApplicable(f'{id!r} is recorded as done in the database that is made for the checks')
            try:
                runner.run_before(planned.id)
            except EvolutionFailed as error:
                raise NotApplicable(f'{error.thing}, which runs before {id!r}: see the checks of that one') from error
            yield runner

    def _differs(self, planned: PlannedEvolution, what: str, differences: Collection[str]) -> CheckFailed:
        return CheckFailed(
            f'evolution {planned.id!r} {what}:{_listed(differences)}',
            place=planned.origin,
            remedy='Have it find out what is done already, and leave that alone; columns that it takes from the clock '
            "or from chance belong into ignore=['table.column'].",
        )


def description_of(planned: PlannedEvolution) -> str:
    """The line that an evolution says about itself.

    :raises CheckFailed: it says nothing.
    """
    if planned.description.strip():
        return planned.description
    raise CheckFailed(
        f'evolution {planned.id!r} has no description',
        place=planned.origin,
        remedy="Say in one line what it does: description = 'Give every page a slug'.",
    )


def _refuse_declared(planned: PlannedEvolution) -> None:
    if planned.rerunnable is False:
        raise NotApplicable(f'{planned.id!r} says rerunnable = False: after a kill a person decides')


def _refuse_settled(planned: PlannedEvolution) -> None:
    if planned.table is not None:
        raise NotApplicable(
            f'the version table of {planned.id!r} says what is applied: it never runs on its own result'
        )
    if isinstance(planned.evolution, Step) and planned.transactional and not planned.repeatable:
        # CREATE TABLE, written for exactly one state of the database.
        raise NotApplicable(f'{planned.id!r} is a step that is saved with its record: it never runs on its own result')


def _refuse_half(runner: EvolutionRunner, id: str) -> None:
    planned, engine = runner.find(id), runner.databases.engine
    name = 'a database of its own' if engine is None else engine.dialect.name
    if planned.table is not None and not planned.transactional and name != 'postgresql':
        # Nobody who writes a revision can mend that. On PostgreSQL env.py has a transaction around both.
        raise NotApplicable(
            f'{id!r} and its version are not saved together on {name}: after a kill in between a person '
            f'decides; run the checks on PostgreSQL (--evolve-database) for the rest'
        )


def _listed(lines: Collection[str]) -> str:
    return ''.join(f'\n  - {line}' for line in lines) + '\n'


def _run_first(runner: EvolutionRunner, id: str) -> Change:
    """Where it does not run at all, one check says so, and the others have nothing to look at."""
    try:
        return runner.run(id)
    except EvolutionFailed as error:
        raise NotApplicable(f'{error.thing}: see the check that it runs') from error


def report(error: EvolveError) -> str:
    """A failure as it is shown to people: the message, and what the evolution's own code raised."""
    cause = error.__cause__
    if cause is None:
        return str(error)
    frames = traceback.extract_tb(cause.__traceback__)
    while frames and frames[0].filename.startswith(_OURS):
        del frames[0]
    raised = ''.join(traceback.format_list(frames) + traceback.format_exception_only(cause))
    return f'{error}\n\nTraceback (most recent call last):\n{raised}'
