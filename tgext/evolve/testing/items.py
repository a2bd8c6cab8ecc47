"""The checks as tests of pytest: one for each check and each evolution."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from ..component import evolutions_list, written_in
from ..errors import EvolveError, OptionError
from ..plan import Plan
from ..sources import Place, PlacedSource, Source, evolutions_of
from .checks import CheckFailed, Checks, NotApplicable, description_of, report

#: What ``exempt`` may name.
_CHECKS = {
    'description': Checks.has_description,
    'runs': Checks.runs,
    'runs_twice': Checks.runs_twice,
    'survives_kills': Checks.survives_kills,
    'leaves_nothing_open': Checks.leaves_nothing_open,
}


def check_evolutions(
    evolutions: Any,
    *,
    application: str = 'evolve_application',
    ignore: Collection[str] = (),
    exempt: Mapping[str, Collection[str]] | None = None,
) -> type:
    """A class of tests: each check of :class:`tgext.evolve.testing.Checks` for each evolution.

    In a test module, one line::

        TestEvolutions = check_evolutions(base_config)

    :param evolutions: the application's ``base_config``; or entries as in the ``evolutions`` option,
        where that is set in an ini file. Needed to name the tests before any application is made.
    :param application: the name of a fixture: a function that makes the application anew each time
        it is called, on a scratch database with old data, and returns its configuration.
    :param ignore: tables and columns whose content may be another one each time.
    :param exempt: by id, the checks that an evolution need not pass (``runs``, ``runs_twice``,
        ``survives_kills``, ``leaves_nothing_open``, ``description``).
    :raises OptionError: ``exempt`` names a check or an evolution that there is not.
    """
    exempt = dict(exempt or {})
    wrong: EvolveError | None = None
    nowhere = _Nowhere()
    try:
        if hasattr(evolutions, 'get_blueprint_value'):
            found = written_in(evolutions, nowhere)
        else:
            found = evolutions_of(evolutions_list(evolutions), listed=True, place=nowhere)
        if nowhere.sources:
            # They may depend on steps that nobody knows yet: the plan of the application is checked.
            found = [replace(planned, depends_on=()) for planned in found]
        plan = Plan(found)
    except EvolveError as error:
        plan, wrong = Plan(), error  # said by a test: the other tests of the module shall run
    else:
        _check_exempt(exempt, plan, bool(nowhere.sources))
    ids = [planned.id for planned in plan]

    def test_ids_are_unique_and_the_plan_has_an_order(self: Any, request: pytest.FixtureRequest) -> None:
        __tracebackhide__ = True
        if wrong is not None:
            pytest.fail(report(wrong), pytrace=False)
        checks = Checks(request.getfixturevalue(application), ignore=ignore)
        _said(lambda: checks.plan_is_sound(ids, steps=bool(nowhere.sources)))

    def test_has_a_description(self: Any, evolution_id: str) -> None:
        __tracebackhide__ = True
        planned = plan.find(evolution_id)
        assert planned is not None
        _said(lambda: description_of(planned))

    def test_steps_of_other_systems(self: Any, request: pytest.FixtureRequest) -> None:
        __tracebackhide__ = True
        checks = Checks(request.getfixturevalue(application), ignore=ignore)
        _said(lambda: checks.steps({id: [_CHECKS[name].__name__ for name in names] for id, names in exempt.items()}))

    def one_by_one(name: str, test: str) -> Any:
        def check(self: Any, evolution_id: str, request: pytest.FixtureRequest) -> None:
            __tracebackhide__ = True
            checks = Checks(request.getfixturevalue(application), ignore=ignore)
            _said(lambda: _CHECKS[name](checks, evolution_id))

        check.__doc__ = _CHECKS[name].__doc__
        check.__name__ = test
        return for_each(name, check)

    def for_each(name: str, check: Any) -> Any:
        # Where there are none, there is nothing to be skipped either.
        chosen = [id for id in ids if name not in exempt.get(id, ())]
        return pytest.mark.parametrize('evolution_id', chosen)(check) if chosen else None

    test_ids_are_unique_and_the_plan_has_an_order.__doc__ = Checks.plan_is_sound.__doc__
    test_steps_of_other_systems.__doc__ = Checks.steps.__doc__
    test_has_a_description.__doc__ = Checks.has_description.__doc__
    tests = {
        'test_ids_are_unique_and_the_plan_has_an_order': test_ids_are_unique_and_the_plan_has_an_order,
        'test_has_a_description': for_each('description', test_has_a_description),
        'test_runs_on_old_data': one_by_one('runs', 'test_runs_on_old_data'),
        'test_runs_twice_with_the_same_result': one_by_one('runs_twice', 'test_runs_twice_with_the_same_result'),
        'test_survives_a_kill_at_every_boundary': one_by_one(
            'survives_kills', 'test_survives_a_kill_at_every_boundary'
        ),
        'test_leaves_no_transaction_open': one_by_one('leaves_nothing_open', 'test_leaves_no_transaction_open'),
        'test_steps_of_other_systems': test_steps_of_other_systems if nowhere.sources and wrong is None else None,
    }
    return type('Evolutions', (), {name: test for name, test in tests.items() if test is not None})


class _Nowhere(Place):
    """Before any application is made, sources that have to know it are only noted."""

    def __init__(self) -> None:
        super().__init__(nullcontext)

    @property
    def sources(self) -> list[Any]:
        noted: list[Any] = self.shared.setdefault(_Nowhere, [])
        return noted

    def put(self, source: PlacedSource) -> Source:
        self.sources.append(source)
        return _Empty()


class _Empty:
    def evolutions(self) -> Iterable[Any]:
        return ()


def _check_exempt(exempt: Mapping[str, Collection[str]], plan: Plan, has_steps: bool) -> None:
    for id, names in exempt.items():
        # Steps are not known yet: their ids are taken as they are.
        if id not in plan.by_id and not has_steps:
            raise OptionError(
                f'there is no evolution {id!r}',
                place='exempt, of check_evolutions()',
                remedy=f'There are: {", ".join(map(repr, plan.by_id)) or "none"}.',
            )
        unknown = [names] if isinstance(names, str) else [name for name in names if name not in _CHECKS]
        if unknown:
            raise OptionError(
                f'there is no check {unknown[0]!r}',
                place=f'exempt[{id!r}], of check_evolutions()',
                remedy=f'Use a list of some of: {", ".join(_CHECKS)}.',
            )


def _said(check: Callable[[], object]) -> None:
    """What a check says is all that there is to read: a traceback of ours would hide it."""
    __tracebackhide__ = True
    try:
        check()
    except NotApplicable as why:
        pytest.skip(str(why))
    except CheckFailed as failed:
        pytest.fail(report(failed), pytrace=False)
