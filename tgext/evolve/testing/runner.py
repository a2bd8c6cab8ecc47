"""Runs the evolutions of an application on its database in a test, as a server would run them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from .. import failure
from ..component import OPTIONS, make_evolver
from ..databases import Databases
from ..errors import EvolutionFailed, NotPlugged, PlanError
from ..events import Event, What
from ..evolver import Ended, Evolver
from ..finding import found_below
from ..ledger import Ledger
from ..options import Options
from ..plan import ID_LENGTH, Plan, PlannedEvolution
from ..stores.base import Store
from .content import Content, Row, content_of, insert

#: More attempts than any test makes: a check decides itself when it is enough.
_ALWAYS = 1_000_000


@dataclass(frozen=True)
class Change:
    """What was in the database before an evolution, and after it."""

    before: Content
    after: Content

    def differences(self) -> list[str]:
        """What it did, one line each; the first few of each table."""
        return self.before.differences(self.after)


class EvolutionRunner:
    """The evolutions of one application, on the database that it is configured with.

    They run in the calling thread, under a real lease, with everything recorded; only nobody is
    told (hooks, mails), nothing is announced, and what fails is not tried again. That
    ``tgext.evolve.enabled = false`` is set, as it should be in a test suite, does not matter.

    What the test itself has done must be committed (SQLAlchemy) or flushed (Ming) before.

    :param application: a configuration (``tg.config``), a WSGI application, or a ``TestApp`` around one.
    :param timeout: seconds that a run may wait for locks that nobody gives back.
    :raises NotPlugged: when tgext.evolve is not plugged there.
    :raises PlanError: when its evolutions make no plan.
    """

    def __init__(self, application: Any, *, timeout: float = 60.0):
        conf = configuration_of(application)
        self.options: Options = replace(
            conf[OPTIONS],
            enabled=True,
            mode='background',
            watch=0.0,
            poll=0.01,
            unknown='ignore',
            on_failure='closed',
            max_attempts=_ALWAYS,
        )
        self.databases = Databases(conf, self.options)
        made = make_evolver(conf, self.options, self.databases)
        self.plan: Plan = made.plan
        self.store: Store = made.store
        self._around = made.around
        self._timeout = timeout
        self._again = 0
        for each in self.plan:
            assert each.fingerprint  # taken now, before anything is noted on the evolution
        self._written = {each.id: _attributes(each.evolution) for each in self.plan}

    # -- what users do

    @property
    def ids(self) -> list[str]:
        """The ids of all evolutions, in the order in which they run."""
        return [planned.id for planned in self.plan]

    @property
    def pending(self) -> list[str]:
        """The ids of those that have not run on this database."""
        return [planned.id for planned in self.plan.pending(Ledger(self.plan, self.store).history())]

    def run_until(self, id: str) -> None:
        """Run what is pending up to and with this one: what ``gearbox evolve run --until`` would run.

        :raises EvolutionFailed: one of them failed.
        """
        self.run_plan(self.plan.until(id))

    def run_before(self, id: str) -> None:
        """Run what is pending before this one, so that the database is as this one will find it.

        :raises EvolutionFailed: one of them failed.
        """
        before = self.plan.order[: self.plan.order.index(self.find(id))]
        if before:
            self.run_plan(Plan(before))

    def run_all(self) -> None:
        """Run all that is pending.

        :raises EvolutionFailed: one of them failed.
        """
        self.run_plan(self.plan)

    def run(self, id: str) -> Change:
        """Run this one alone, whether what it depends on has run or not; once, also when called again.

        :returns: the rows before and after.
        :raises EvolutionFailed: it failed.
        """
        return self._change(_alone(self.find(id)))

    def run_again(self, id: str) -> Change:
        """Run this one alone once more, though it has run: as if nobody had recorded that.

        :returns: the rows before and after.
        :raises EvolutionFailed: it failed.
        :raises PlanError: it is a step whose version table decides: that says it is done, whatever its id.
        """
        planned = self.find(id)
        if planned.table is not None:
            raise PlanError(
                f'{id!r} cannot run again: its version table says that it is applied',
                place=planned.origin,
                remedy='Take a new database to run it once more.',
            )
        self._again += 1
        suffix = f' (again: {self._again})'
        # Under an id of its own, with checkpoints of its own: no record has to be falsified.
        return self._change(_alone(planned, id=id[: ID_LENGTH - len(suffix)] + suffix))

    def content(self) -> Content:
        """What is in all tables and collections now."""
        return content_of(self.databases)

    def rows(self, name: str) -> list[Row]:
        """What is in one table or collection now, in the order of its keys."""
        return self.content()[name]

    def insert(self, name: str, *rows: Row) -> None:
        """Put rows into a table, or documents into a collection."""
        insert(self.databases, name, rows)

    def close(self) -> None:
        """Forget the sessions of this thread, and give evolutions back their attributes."""
        self.databases.abandon()
        self.databases.dispose()
        self.store.close()
        self.forget()

    # -- what checks do

    def find(self, id: str) -> PlannedEvolution:
        """:raises PlanError: when there is no such evolution."""
        planned = self.plan.find(id)
        if planned is None:
            raise PlanError(
                f'there is no evolution {id!r}', place='the plan', remedy=f'There are: {", ".join(self.ids) or "none"}.'
            )
        return planned

    def evolver(self, plan: Plan, store: Store | None = None) -> Evolver:
        """What another process would make: it knows nothing of those before it."""
        self.databases.abandon()
        self.forget()
        for planned in plan:
            if planned.batched:
                # Workers elsewhere would make the application of production.
                vars(planned.evolution)['executor'] = _here
        return Evolver(self.options, plan, store or self.store, self._around)

    def forget(self) -> None:
        """Forget what evolutions have noted on themselves, as the end of their process does."""
        for planned in self.plan:
            attributes = self._written[planned.id]
            if attributes is not None:
                vars(planned.evolution).clear()
                vars(planned.evolution).update(_copied(attributes))

    def run_plan(self, plan: Plan, store: Store | None = None, prepare: Callable[[], object] = lambda: None) -> None:
        """Run what is pending of a plan, in the life of one process.

        :param store: used in place of the real one.
        :param prepare: called before anything runs.
        :raises EvolutionFailed: one of them failed; its exception is the cause.
        """
        evolver = self.evolver(plan, store)
        prepare()
        failed: list[Event] = []

        def hear(event: Event) -> None:
            if event.what is What.FAILED:
                failed.append(event)
                evolver.leave()

        evolver.listeners.add(hear)
        with _after(self._timeout, evolver.leave):
            ended = evolver.run()
        if failed:
            error = failed[0].error
            planned = plan.find(failed[0].evolution_id or '')
            assert error is not None
            assert planned is not None
            raise EvolutionFailed(
                # By the id that people know, also when it runs again under another one.
                f'evolution {str(planned.evolution.evolution_id)!r} raised {failure.brief(error)}',
                place=planned.origin,
                remedy='Mend the evolution, or the old data that the test makes.',
            ) from error
        if ended is not Ended.DONE:
            verdict = evolver.gate.verdict
            why = f'is not over after {self._timeout:g} seconds, ' if ended is Ended.LEFT else ''
            raise EvolutionFailed(
                f'the run {why}{verdict.reason.value}: {verdict.detail or ended.value}',
                place=f'namespace {self.store.namespace!r} of {self.store.name}',
                remedy='Give the test a database of its own, in which nobody holds locks.',
            )

    def _change(self, planned: PlannedEvolution) -> Change:
        before = self.content()
        self.run_plan(Plan([planned]))
        return Change(before, self.content())


def configuration_of(application: Any) -> Any:
    """The configuration of whatever stands for an application.

    :raises NotPlugged: when tgext.evolve is not plugged there.
    """
    current = getattr(application, 'current_conf', None)
    conf = current() if callable(current) else application  # tg.config is another one for each application
    if not isinstance(conf, Mapping):
        from tg.wsgiapp import TGApp

        conf = next((app.config for app in found_below(application, TGApp)), {})
    if OPTIONS not in conf:
        raise NotPlugged(
            'tgext.evolve is not plugged into this application, or it is not configured yet',
            place=f'what was given to the test kit ({type(application).__name__})',
            remedy='Plug it in config/app_cfg.py, and give tg.config, what base_config.configure() returned, '
            'or the WSGI application.',
        )
    return conf


def _alone(planned: PlannedEvolution, id: str | None = None) -> PlannedEvolution:
    alone = replace(planned, depends_on=()) if id is None else replace(planned, id=id, depends_on=(), replaces=())
    # Taken before anything is noted on the evolution: the same in each life.
    assert alone.fingerprint
    return alone


def alone(planned: PlannedEvolution) -> Plan:
    """A plan of this one and nothing else: what it depends on does not matter."""
    return Plan([_alone(planned)])


def _here() -> None:
    """In place of an executor: batches are run by the thread of the test."""


@contextmanager
def _after(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _attributes(evolution: Any) -> dict[str, Any] | None:
    """What was written into it; None where that cannot be restored."""
    return _copied(vars(evolution)) if hasattr(evolution, '__dict__') and not isinstance(evolution, type) else None


def _copied(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Containers are copied; what is alive (an engine, a logger) is one and the same."""
    plain = (list, dict, set, bytearray)
    return {name: copy.copy(value) if isinstance(value, plain) else value for name, value in attributes.items()}
