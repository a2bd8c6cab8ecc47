"""Who waits, or watches, reads again only what may have changed."""

from __future__ import annotations

import threading

import pytest

from tests.apps import statements
from tests.stores import open_store
from tests.unit.making import CODE, one
from tgext.evolve.evolver import Evolver
from tgext.evolve.gate import Reason
from tgext.evolve.history import State
from tgext.evolve.ledger import _ANEW
from tgext.evolve.options import Options
from tgext.evolve.plan import Plan
from tgext.evolve.stores.base import Owner

pytestmark = pytest.mark.parametrize('store_url', ['sqlite'], indirect=True)


@pytest.fixture
def rival(store_url):
    """Has done one of three."""
    rival = open_store(store_url)
    rival.prepare()
    rival.settle(rival.acquire(Owner(), 60), ['first'], State.STAMPED)
    yield rival
    rival.close()


@pytest.fixture
def waiter(rival, store_url):
    plan = Plan([one('first'), one('second'), one('third')])
    evolver = Evolver(Options(namespace='testing', mode='wait'), plan, open_store(store_url, like=rival))
    evolver._begin_process()
    evolver._turn()
    yield evolver
    evolver.store.close()


def turn(evolver) -> list[bool]:
    """Of each statement of one turn, whether it read the history's rows."""
    with statements(thread=threading.get_ident()) as seen:
        evolver._turn()
    return ['tgext_evolve_history.evolution_id' in statement for statement in seen]


def test_a_turn_in_which_nothing_was_recorded_is_one_statement_that_reads_no_rows(waiter):
    assert [turn(waiter) for _ in range(3)] == [[False]] * 3
    assert waiter.gate.verdict.reason is Reason.WAITING


def test_what_was_recorded_is_read_once(waiter, rival):
    grant = rival.acquire(Owner(rival.lease_row().owner), 60)
    attempt = rival.begin(grant, one('second'), 1, CODE)
    assert [turn(waiter), turn(waiter)] == [[False, True], [False]]
    assert waiter.gate.verdict.reason is Reason.RUNNING
    assert rival.finish(attempt, State.DONE)
    assert [turn(waiter), turn(waiter)] == [[False, True], [False]]
    rival.settle(grant, ['third'], State.STAMPED)
    assert turn(waiter) == [False, True]
    assert waiter.gate.is_open


def test_once_open_a_watch_is_one_statement_too_and_sees_what_a_newer_release_begins(waiter, rival):
    grant = rival.acquire(Owner(rival.lease_row().owner), 60)
    rival.settle(grant, ['second', 'third'], State.STAMPED)
    assert [turn(waiter), turn(waiter)] == [[False, True], [False]]
    rival.begin(grant, one('newer'), 1, CODE)
    assert turn(waiter) == [False, True]
    assert waiter.gate.verdict.reason is Reason.NEWER_RELEASE


def test_what_left_no_mark_is_read_after_a_while_all_the_same(waiter):
    waiter.ledger._read -= _ANEW
    assert [turn(waiter), turn(waiter)] == [[False, True], [False]]
