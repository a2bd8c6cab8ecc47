"""Plans and histories grow for years: what is done at each look stays cheap, and grows no faster than they do."""

from __future__ import annotations

import functools
import random
import time

import pytest

from tgext.evolve import PlanError
from tgext.evolve.agenda import Agenda, judge
from tgext.evolve.gate import Serving
from tgext.evolve.history import History
from tgext.evolve.plan import Plan
from tgext.evolve.policy import RetryPolicy

from .making import at, one

LARGE = 10_000

#: Seconds; many times what it takes, as the machines that run this are busy.
ENOUGH = 1.0


@functools.cache
def evolutions_of(size):
    chance = random.Random(1)
    levels = list(Serving)
    return [
        one(
            f'e{number}',
            depends_on=tuple({f'e{chance.randrange(number)}' for _ in range(min(number, 3))}),
            serving=chance.choice(levels),
            replaces=(f'old{number}',) if number % 10 == 0 else (),
        )
        for number in range(size)
    ]


def look(plan, history):
    agenda = Agenda.of(plan, history, RetryPolicy(), now=0)
    judge(plan, agenda, history, lease_alive=True, refuse_unknown=True)


def begun(size):
    """Of every second one: the first failed, the rest is done."""
    return [at(f'e{number}', 'done' if number % 2 else 'failed', token=number, finished=1) for number in range(size)]


PIECES = {
    'a plan': (evolutions_of, Plan),
    'a history': (begun, History),
    'a look with all done': (
        lambda size: (Plan(evolutions_of(size)), History(at(f'e{n}') for n in range(size))),
        lambda made: look(*made),
    ),
    'a look with half done': (
        lambda size: (Plan(evolutions_of(size)), History(at(f'e{n}') for n in range(0, size, 2))),
        lambda made: look(*made),
    ),
    'a look with failures': (
        lambda size: (Plan(evolutions_of(size)), History(begun(size))),
        lambda made: look(*made),
    ),
    'a look with a newer release': (
        lambda size: (Plan(), History(at(f'e{n}', 'running', serving='everything') for n in range(size))),
        lambda made: look(*made),
    ),
    'a look after attempts without end': (
        lambda size: (
            Plan([one('e0', transactional=True)]),
            History(at('e0', 'interrupted', token=n, finished=1) for n in range(size)),
        ),
        lambda made: look(*made),
    ),
}


def seconds(do, made):
    best = float('inf')
    for _ in range(3):
        # Of this process alone: what else the machine does now is not its fault.
        started = time.process_time()
        do(made)
        best = min(best, time.process_time() - started)
    return best


@pytest.mark.parametrize('piece', PIECES)
def test_ten_thousand_are_no_burden_and_twenty_times_as_many_take_about_twenty_times_as_long(piece):
    make, do = PIECES[piece]
    long = seconds(do, make(LARGE))
    assert long < ENOUGH
    # What is squared would take four hundred times as long; caches and collections cost some.
    assert long < 100 * max(seconds(do, make(LARGE // 20)), 0.0005)


def test_a_cycle_of_ten_thousand_is_found_as_fast():
    def fail(ring):
        with pytest.raises(PlanError):
            Plan(ring)

    ring = [one(f'e{number}', depends_on=(f'e{(number + 1) % LARGE}',)) for number in range(LARGE)]
    assert seconds(fail, ring) < ENOUGH
