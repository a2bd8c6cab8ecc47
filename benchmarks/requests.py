"""What a request costs: raw WSGI in process, against the same application that is not plugged."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.spread import spread
from benchmarks.stacks import Stack

#: What the application is in: is it closed, and does its ErrorController trap the 503?
STATES = {'finished': (False, False), 'closed': (True, False), 'closed and trapped': (True, True)}


def measure(stacks: list[Stack], directory: Path, *, processes: int, rounds: int, requests: int) -> dict[str, Any]:
    """Each figure is from several pairs of processes, which take turns: no layout of memory and no moment counts alone.

    :param requests: in each half of each round.
    """
    found: dict[str, dict[str, list[dict[str, float]]]] = {
        state: {stack.name: [] for stack in stacks} for state in STATES
    }
    for number in range(processes):
        for state, (closed, traps) in STATES.items():
            with ExitStack() as running:
                workers = {}
                for stack in stacks:
                    path = directory / f'{number}-{state}-{stack.name}'.replace(' ', '-')
                    worker = running.enter_context(stack.worker())
                    plugged = stack.database(path, 10, pending=closed)
                    worker.ask('serve', url='sqlite://', plugged_url=plugged, closed=closed, traps=traps)
                    worker.ask('rounds', rounds=1, requests=requests)  # caches fill
                    workers[stack.name] = worker
                for _ in range(rounds):
                    for name, worker in workers.items():
                        found[state][name] += worker.ask('rounds', rounds=1, requests=requests)
    return {
        state: {name: _figures(each, requests) for name, each in by_stack.items()} for state, by_stack in found.items()
    }


def profile(stack: Stack, directory: Path, *, requests: int) -> list[tuple[str, float]]:
    """Where the time of a 503 goes that ErrorController renders."""
    closed, traps = STATES['closed and trapped']
    with stack.worker() as worker:
        plugged = stack.database(directory / 'profiled', 10, pending=closed)
        worker.ask('serve', url='sqlite://', plugged_url=plugged, closed=closed, traps=traps)
        worker.ask('rounds', rounds=1, requests=requests)
        return worker.ask('profile_requests', requests=requests)


def _figures(rounds: list[dict[str, float]], requests: int) -> dict[str, Any]:
    microseconds = 1e6 / requests
    return {
        'rate': spread([requests / each['plugged'] for each in rounds]),
        'bare rate': spread([requests / each['bare'] for each in rounds]),
        'ratio': spread([each['bare'] / each['plugged'] for each in rounds]),
        'added': spread([(each['plugged'] - each['bare']) * microseconds for each in rounds]),
        'added share': spread([each['plugged'] / each['bare'] - 1 for each in rounds]),
        'statements': sum(each['statements'] for each in rounds) / (requests * len(rounds)),
    }
