"""What more than one worker is worth where ``process()`` computes: threads, processes of this host, a Dask cluster.

    python -m benchmarks.workers [--rows N] [--rounds N] [--effort N]

PostgreSQL of the tests, one way after the other in each round, so that what else the machine does falls on all of them.
Printed are medians of the times as ratios to one worker of the same round, with the smallest and the largest. What it
takes to start the processes of a pool belongs to the time; the cluster runs before, as clusters do.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

WAYS = ('one worker', 'two threads', 'two processes', 'two Dask workers')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', type=int, default=200_000)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--effort', type=int, default=400, help='SHA-256 digests for each row')
    given = parser.parse_args()
    found = measure(given.rows, given.rounds, given.effort)
    base = found['one worker']
    print(f'postgresql, {given.rows:,} rows, {given.effort} digests for each, {given.rounds} rounds')
    print(f'{"":18} {"rows/s":>8} {"time / one worker":>22}')
    for way, seconds in found.items():
        ratios = sorted(each / one for each, one in zip(seconds, base, strict=True))
        spread = f'{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})'
        print(f'{way:18} {given.rows / statistics.median(seconds):8,.0f} {spread:>22}')


def measure(rows: int, rounds: int, effort: int) -> dict[str, list[float]]:
    from tests.batches.cluster import Cluster
    from tests.servers import PostgreSQL

    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server = PostgreSQL()
        server.start()
        cluster = Cluster(directory)
        workers = dict(zip(WAYS, ('', 'threads', 'processes', cluster.address), strict=True))
        try:
            for number in range(rounds):
                for way in WAYS:
                    place = directory / f'{number}-{workers[way].partition(":")[0]}'
                    place.mkdir()
                    found[way].append(run(place, server.new_database(), rows, effort, workers[way]))
        finally:
            cluster.close()
            server.close()
    return found


def run(directory: Path, url: str, rows: int, effort: int, workers: str) -> float:
    """Seconds from the beginning of the attempt to its end, with what it takes to start workers for it."""
    from tests.batches.site import SpreadSite

    site = SpreadSite(directory, url, rows, workers=workers, effort=effort, batch_size=500, partitions=8)
    try:
        evolver = site.evolver()
        began = time.monotonic()
        evolver.run()
        seconds = time.monotonic() - began
        assert site.once()
        return seconds
    finally:
        site.close()


if __name__ == '__main__':
    main()
