"""Measures everything beside 0.0.5, prints it, and writes the page and a file for machines: see ``script/bench``."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import batches, page, requests, servers, starting, waiting
from benchmarks.stacks import stacks
from tests.pages import machine
from tests.processes.harness import Zygote, making_sites


@dataclass(frozen=True)
class Effort:
    """How much is done of each."""

    processes: int = 5
    rounds: int = 10
    requests: int = 1000
    sizes: tuple[int, ...] = (10, 1_000, 10_000)
    starts: int = 9
    weights: int = 7
    waiters: tuple[int, ...] = (2, 8, 32)
    openings: int = 3
    load: float = 4.0
    leases: tuple[float, ...] = (2.0, 10.0, 30.0)
    recoveries: int = 3
    crowds: tuple[int, ...] = (8, 64, 256)
    rows: int = 10_000
    batch_rounds: int = 3


#: Seconds instead of minutes: to see whether everything works.
QUICK = Effort(
    processes=1,
    rounds=2,
    requests=20,
    sizes=(10, 20),
    starts=1,
    weights=1,
    waiters=(2,),
    openings=1,
    load=0.5,
    leases=(1.0,),
    recoveries=1,
    crowds=(3,),
    rows=500,
    batch_rounds=1,
)

#: The databases that are measured beside SQLite.
SERVERS = ('postgresql', 'mariadb', 'mongodb')


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__.splitlines()[0])
    parser.add_argument('--predecessor', metavar='PYTHON', help='the Python that has 0.0.5; without it, ours alone')
    parser.add_argument('--only', action='append', choices=list(PARTS), help='measure this alone; may be repeated')
    parser.add_argument('--quick', action='store_true', help='seconds instead of minutes; the figures mean nothing')
    parser.add_argument('--without-servers', action='store_true', help='SQLite alone')
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    parser.add_argument('--page', type=Path, help='write the page to this file')
    given = parser.parse_args(arguments)
    figures = measure(
        given.predecessor,
        QUICK if given.quick else Effort(),
        given.only or list(PARTS),
        () if given.without_servers else SERVERS,
    )
    text = page.page(figures)
    print(text)
    for path, content in ((given.json, json.dumps(figures, indent=1) + '\n'), (given.page, text)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, 'utf-8')


@dataclass
class Bench:
    """What all parts share while they run."""

    effort: Effort
    predecessor: str | None
    directory: Path
    servers: dict[str, Any]
    make_site: Callable[..., Any]

    def __post_init__(self) -> None:
        self.stacks = stacks(self.predecessor)
        self.stores = ['sqlite', *self.servers]
        self.sql = {name: server for name, server in self.servers.items() if name != 'mongodb'}
        self.new_database = waiting.new_databases(self.directory, self.servers)

    def requests(self) -> Any:
        effort = self.effort
        return requests.measure(
            self.stacks, self.directory, processes=effort.processes, rounds=effort.rounds, requests=effort.requests
        )

    def starting(self) -> Any:
        return starting.measure(
            self.stacks, self.directory, self.sql, sizes=self.effort.sizes, rounds=self.effort.starts
        )

    def weight(self) -> Any:
        return starting.weigh(self.stacks, self.directory, rounds=self.effort.weights)

    def opening(self) -> Any:
        numbers, rounds = self.effort.waiters, self.effort.openings
        return waiting.opening(self.make_site, self.new_database, self.stores, numbers=numbers, rounds=rounds)

    def load(self) -> Any:
        sizes = (self.effort.sizes[0], self.effort.sizes[-1])
        return waiting.load(self.new_database, self.stores, sizes=sizes, seconds=self.effort.load)

    def recovery(self) -> Any:
        leases, rounds = self.effort.leases, self.effort.recoveries
        return waiting.recovery(self.make_site, self.new_database, self.stores, leases=leases, rounds=rounds)

    def crowd(self) -> Any:
        return waiting.crowd(self.make_site, self.sql, numbers=self.effort.crowds)

    def batches(self) -> Any:
        rows, rounds = self.effort.rows, self.effort.batch_rounds
        stores = [store for store in self.stores if store != 'mariadb']
        return {'rows': rows, 'stores': {store: batches.measure(store, rows, rounds) for store in stores}}

    def profiles(self) -> Any:
        ours, effort = self.stacks[0], self.effort
        return {
            'trapped': requests.profile(ours, self.directory, requests=effort.requests),
            'starting': starting.profile(ours, self.directory, size=effort.sizes[-1]),
        }


PARTS: dict[str, Callable[[Bench], Any]] = {
    'requests': Bench.requests,
    'starting': Bench.starting,
    'weight': Bench.weight,
    'opening': Bench.opening,
    'load': Bench.load,
    'recovery': Bench.recovery,
    'crowd': Bench.crowd,
    'batches': Bench.batches,
    'profiles': Bench.profiles,
}


def measure(predecessor: str | None, effort: Effort, parts: list[str], names: tuple[str, ...]) -> dict[str, Any]:
    """The figures of these parts, one after the other, so that none disturbs another."""
    figures: dict[str, Any] = {'machine': machine(), 'versions': {}, 'took': {}, 'quick': effort is QUICK}
    for stack in stacks(predecessor):
        with stack.worker() as worker:
            figures['versions'][stack.name] = worker.ask('versions')
    with tempfile.TemporaryDirectory() as scratch, servers.running(*names) as running, _sites(Path(scratch)) as make:
        bench = Bench(effort, predecessor, Path(scratch), running, make)
        for part in parts:
            print(f'measuring: {part}', file=sys.stderr)
            began = time.monotonic()
            figures[part] = PARTS[part](bench)
            figures['took'][part] = round(time.monotonic() - began, 1)
    return figures


@contextmanager
def _sites(directory: Path) -> Iterator[Callable[..., Any]]:
    zygote = Zygote()
    try:
        # What sites tell of their processes when they are closed is for tests that fail.
        below = directory / 'sites'
        below.mkdir()
        with contextlib.redirect_stdout(io.StringIO()), making_sites(zygote, below) as make:
            yield make
    finally:
        zygote.close()


if __name__ == '__main__':
    main()
