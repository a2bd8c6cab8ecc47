"""What batches cost: against a loop that somebody wrote by hand, and against one single UPDATE.

    python -m benchmarks.batches [--rows N] [--rounds N] [--store sqlite|postgresql|mongodb]...

Throwaway servers of the tests are used. Times are of whole runs in fresh processes, one after the other, so that what
else the machine does falls on all of them; printed are medians of the ratios, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BATCH = 500
WAYS = ('batched', 'by hand', 'one statement', 'filled', 'two workers')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', type=int, default=1_000_000)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--store', action='append', choices=('sqlite', 'postgresql', 'mongodb'))
    parser.add_argument('--way', action='append', choices=WAYS, help='only this, beside "by hand"')
    parser.add_argument('--json', type=Path, help='also write the figures to this file')
    given = parser.parse_args()
    found = {}
    for store in given.store or ('sqlite', 'postgresql', 'mongodb'):
        found[store] = measure(store, given.rows, given.rounds, given.way or WAYS)
        report(store, given.rows, found[store])
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + '\n')


def measure(store: str, rows: int, rounds: int, wanted: Sequence[str] = WAYS) -> dict[str, list[dict[str, float]]]:
    from tests.servers import MongoDB, PostgreSQL

    server = {'postgresql': PostgreSQL, 'mongodb': MongoDB}.get(store)
    ways = [way for way in WAYS if way in wanted or way == 'by hand']
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as directory:
        running = server() if server else None
        if running:
            running.start()
        try:
            for number in range(rounds):
                # Each goes first once: what runs later finds the machine warmer.
                for way in ways if number % 2 else reversed(ways):
                    url = running.new_database() if running else f'sqlite:///{directory}/{number}-{way}.db'
                    context = multiprocessing.get_context('spawn')
                    ours, theirs = context.Pipe()
                    process = context.Process(target=run, args=(theirs, url, way, rows))
                    process.start()
                    theirs.close()
                    found[way].append(ours.recv())
                    process.join()
        finally:
            if running:
                running.close()
    return found


def report(store: str, rows: int, found: dict[str, list[dict[str, float]]]) -> None:
    print(f'\n{store}, {rows:,} rows, batches of {BATCH}')
    titles = f'{"time / by hand":>20} {"CPU / by hand":>20} {"last / first tenth":>20} {"memory MB":>10}'
    print(f'{"":14} {"rows/s":>10} {titles}')
    for way, each in found.items():
        if not each:
            continue
        rate = rows / statistics.median(one['seconds'] for one in each)
        slower = statistics.median(one['slower'] for one in each)
        memory = max(one['memory'] for one in each)
        time, cpu = (spread(each, found['by hand'], what) for what in ('seconds', 'cpu'))
        print(f'{way:14} {rate:10,.0f} {time:>20} {cpu:>20} {slower:20.2f} {memory:10.0f}')


def spread(each: list[dict[str, float]], base: list[dict[str, float]], what: str) -> str:
    """The median of the ratios, with the smallest and the largest."""
    ratios = sorted(one[what] / other[what] for one, other in zip(each, base, strict=True))
    return f'{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})'


def run(pipe, url: str, way: str, rows: int) -> None:
    """In a process of its own: fill the table, do it in one way, and tell what it took."""
    bench = Mongo(url, rows) if url.startswith('mongodb') else SQL(url, rows)
    before = memory()
    began, busy = time.monotonic(), time.process_time()
    times = bench.do(way)
    seconds, cpu = time.monotonic() - began, time.process_time() - busy
    tenth = max(1, len(times) // 10)
    slower = statistics.median(times[-tenth:]) / statistics.median(times[:tenth]) if len(times) > 10 else 1.0
    figures = {'seconds': seconds, 'cpu': cpu, 'slower': slower, 'memory': memory() - before}
    done = bench.done()  # which may read the whole table into this process
    assert done == rows, f'{way}: {done} of {rows}'
    pipe.send(figures)


def memory() -> float:
    """The peak of this process, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == 'darwin' else 1024)


class Bench:
    """One database with its rows."""

    def evolve(self, evolution) -> list[float]:
        from tgext.evolve.events import What
        from tgext.evolve.evolver import Ended, Evolver
        from tgext.evolve.options import Options
        from tgext.evolve.plan import Plan, planned

        times: list[float] = []
        last = [time.monotonic()]

        def heard(event) -> None:
            if event.what is What.PROGRESS:
                now = time.monotonic()
                times.append(now - last[0])
                last[0] = now

        evolver = Evolver(Options(namespace='bench', watch=0.0), Plan([planned(evolution)]), self.store)
        evolver.listeners.add(heard)
        assert evolver.run() is Ended.DONE
        return times[2:]


class SQL(Bench):
    def __init__(self, url: str, rows: int):
        import sqlalchemy as sa

        from tests.batches.conftest import SQLTable

        self.table = SQLTable(url)
        self.store = self.table.store
        self.rows = rows
        page = self.table.Page.__table__
        with self.table.engine.begin() as connection:
            for start in range(1, rows + 1, 10_000):
                last = min(start + 10_000, rows + 1)
                values = [{'id': id, 'title': f'Page {id}', 'seen': 0} for id in range(start, last)]
                connection.execute(sa.insert(page), values)

    def done(self) -> int:
        return self.table.slugs() if self.way != 'two workers' else self.table.seen()[1]

    def do(self, way: str) -> list[float]:
        import sqlalchemy as sa

        from tgext.evolve import BatchedEvolution
        from tgext.evolve.ready.sql import FillColumn

        self.way = way
        Page = self.table.Page
        if way == 'by hand':
            return self.by_hand()
        if way == 'one statement':
            with self.table.engine.begin() as connection:
                connection.execute(sa.update(Page.__table__).values(slug=sa.func.lower(Page.__table__.c.title)))
            return []
        if way == 'filled':
            return self.evolve(FillColumn('filled', Page.slug, sa.func.lower(Page.title), batch_size=BATCH))

        class Backfill(BatchedEvolution):
            evolution_id = 'backfill'
            items = Page
            batch_size = BATCH

            def process(self, page):
                page.slug = page.title.lower()
                page.seen += 1

        class InTwo(Backfill):
            partitions = 2

            def executor(self):
                return ThreadPoolExecutor(2)

        return self.evolve(InTwo() if way == 'two workers' else Backfill())

    def by_hand(self) -> list[float]:
        """The loop that one writes without us, with a checkpoint in the transaction of each batch."""
        import sqlalchemy as sa
        import transaction

        Page, session = self.table.Page, self.table.session
        metadata = sa.MetaData()
        checkpoint = sa.Table(
            'checkpoint', metadata, sa.Column('id', sa.Integer, primary_key=True), sa.Column('at', sa.Integer)
        )
        metadata.create_all(self.table.engine)
        with self.table.engine.begin() as connection:
            connection.execute(sa.insert(checkpoint).values(id=1, at=0))
        times = []
        last = 0
        while True:
            began = time.monotonic()
            found = sa.select(Page).where(Page.id > last).order_by(Page.id).limit(BATCH)
            pages = list(session.scalars(found))
            if not pages:
                break
            last = pages[-1].id
            for page in pages:
                page.slug = page.title.lower()
                page.seen += 1
            session.execute(sa.update(checkpoint).values(at=last))
            transaction.commit()
            session.remove()
            times.append(time.monotonic() - began)
        transaction.abort()
        return times


class Mongo(Bench):
    def __init__(self, url: str, rows: int):
        from tests.batches.conftest import MongoTable

        self.table = MongoTable(url)
        self.store = self.table.store
        for start in range(1, rows + 1, 10_000):
            last = min(start + 10_000, rows + 1)
            self.table.db.page.insert_many([{'_id': id, 'title': f'Page {id}', 'seen': 0} for id in range(start, last)])

    def done(self) -> int:
        return self.table.db.page.count_documents({'slug': {'$exists': True}})

    def do(self, way: str) -> list[float]:
        from pymongo import UpdateOne

        from tgext.evolve import BatchedEvolution

        db = self.table.db
        if way == 'by hand':
            times, last = [], 0
            while True:
                began = time.monotonic()
                pages = list(db.page.find({'_id': {'$gt': last}}).sort('_id').limit(BATCH))
                if not pages:
                    return times
                last = pages[-1]['_id']
                db.page.bulk_write(
                    [UpdateOne({'_id': p['_id']}, {'$set': {'slug': p['title'].lower()}}) for p in pages]
                )
                db.checkpoint.update_one({'_id': 1}, {'$set': {'at': last}}, upsert=True)
                times.append(time.monotonic() - began)
        if way in ('one statement', 'filled'):
            db.page.update_many({}, [{'$set': {'slug': {'$toLower': '$title'}}}])
            return []

        class Backfill(BatchedEvolution):
            evolution_id = 'backfill'
            items = 'page'
            batch_size = BATCH

            def process_batch(self, pages):
                changes = [UpdateOne({'_id': p['_id']}, {'$set': {'slug': p['title'].lower()}}) for p in pages]
                self.session.page.bulk_write(changes)

        class InTwo(Backfill):
            partitions = 2

            def executor(self):
                return ThreadPoolExecutor(2)

        return self.evolve(InTwo() if way == 'two workers' else Backfill())


if __name__ == '__main__':
    main()
