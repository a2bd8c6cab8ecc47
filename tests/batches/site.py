"""A database, the ini file of the application on it, and the processes that hold its lease."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from tests.processes.harness import PATIENCE, ROOT, until
from tgext.evolve.databases import Databases
from tgext.evolve.options import Options

NAMESPACE = 'testapp'

INI = """\
[app:main]
paste.app_factory = tests.batches.spread:make_app
debug = false
{options}
"""


class SpreadSite:
    """See :mod:`tests.batches.spread` for the application.

    :param lease: seconds; short ones are lost on a machine that is busy enough.
    :param options: of the evolution.
    """

    def __init__(self, directory: Path, url: str, rows: int, lease: float = 10, **options):
        self.directory = directory
        self.url = url
        self.rows = rows
        self.is_sql = not url.startswith('mongodb')
        self.ini = directory / 'app.ini'
        self.options = {'meet_in': directory, 'partitions': 8, 'batch_size': 20, 'workers': 'processes', **options}
        self.evolve = {'lease': lease, 'poll': 0.1, 'watch': 0, 'max_attempts': 1}
        self.write_ini()
        self.store = Databases({}, Options(store=url, namespace=NAMESPACE)).store()
        self.holders: list[subprocess.Popen] = []
        self._fill()

    def write_ini(self):
        options = {
            'sqlalchemy.url' if self.is_sql else 'ming.url': self.url,
            **{f'tgext.evolve.{name}': value for name, value in self.evolve.items()},
            **{f'count.{name}': value for name, value in self.options.items()},
        }
        lines = '\n'.join(f'{name} = {value}' for name, value in options.items())
        self.ini.write_text(INI.format(options=lines))

    @contextmanager
    def _database(self):
        if self.is_sql:
            from sqlalchemy import create_engine
            from sqlalchemy.pool import NullPool

            with create_engine(self.url, poolclass=NullPool).begin() as connection:
                yield connection
        else:
            from pymongo import MongoClient

            with MongoClient(self.url) as client:
                yield client.get_default_database()

    def _fill(self):
        with self._database() as database:
            if self.is_sql:
                from sqlalchemy import insert

                from tests.apps import Model

                model = Model()
                model.metadata.create_all(database)
                values = [{'id': id, 'title': 'page', 'seen': 0} for id in range(1, self.rows + 1)]
                database.execute(insert(model.Page), values)
            else:
                database.page.insert_many([{'_id': id, 'seen': 0} for id in range(1, self.rows + 1)])

    @property
    def seen(self) -> Counter[int]:
        """How many rows were processed how often."""
        with self._database() as database:
            if self.is_sql:
                from sqlalchemy import text

                return Counter(database.execute(text('SELECT seen FROM page')).scalars())
            return Counter(page['seen'] for page in database.page.find())

    def once(self, killed: int = 0) -> bool:
        """Was each row processed once? On MongoDB a batch for each worker that was killed may be there twice."""
        seen = self.seen
        if self.is_sql:
            return seen == {1: self.rows}
        size = self.options['batch_size']
        return set(seen) <= {1, 2} and seen[2] <= killed * size

    @property
    def done(self) -> int:
        return sum(each.done for each in self.store.checkpoints('count'))

    @property
    def states(self) -> list[str]:
        return [attempt.state.value for attempt in self.store.history().of('count')]

    @property
    def error(self) -> str:
        return self.store.error_of(self.store.history().latest('count')) or ''

    # -- who works

    def met(self) -> int:
        """The pid of the worker that stands at the row ``stop``."""
        path = self.directory / 'met'
        return int(until(lambda: path.exists() and path.read_text().endswith('\n') and path.read_text(), what='met'))

    def part(self):
        """Whoever comes to the row ``stop`` next stands there, too."""
        (self.directory / 'met').unlink()

    def go(self):
        (self.directory / 'go').touch()

    def evolver(self):
        """Of an application made in this process."""
        from paste.deploy import loadapp

        from tgext.evolve.finding import evolver_in

        return evolver_in(loadapp(f'config:{self.ini}'))

    def hold(self) -> subprocess.Popen:
        """A process that runs it, in a session of its own with those that it starts."""
        with open(self.directory / f'log-{len(self.holders)}', 'ab') as output:
            holder = subprocess.Popen(
                [sys.executable, '-m', 'tests.batches.spread', str(self.ini)],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.holders.append(holder)
        return holder

    def log(self, number: int = 0) -> str:
        return (self.directory / f'log-{number}').read_text(errors='replace')

    def until_open(self, number: int = 0, seconds: float = PATIENCE):
        def opened():
            assert self.holders[number].poll() is None or 'open' in self.log(number).split(), self.log(number)
            return 'open' in self.log(number).split()

        until(opened, seconds, 'the gate is open')

    def close(self):
        self.go()
        for holder in self.holders:
            holder.kill()
            holder.wait()
        for number in range(len(self.holders)):
            print(f'-- holder {number}\n{self.log(number)[-6000:]}')
        self.store.close()


def environment() -> dict[str, str]:
    """For workers that a test starts: they find the application as the tests do."""
    return {**os.environ, 'PYTHONPATH': str(ROOT)}
