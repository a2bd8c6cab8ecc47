"""The two environments that are measured side by side, and processes in them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.minimal import evolution_id

ROOT = Path(__file__).resolve().parents[1]

#: For the page, in this order.
NAMES = {'ours': '1.0', 'predecessor': '0.0.5'}


@dataclass(frozen=True)
class Stack:
    """A Python with one release of tgext.evolve."""

    name: str
    python: str

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        environ = {**os.environ, 'PYTHONHASHSEED': '0'}
        environ.pop('PYTHONPATH', None)
        process = subprocess.Popen(
            [self.python, str(ROOT / 'benchmarks' / 'minimal.py')],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            cwd='/',
        )
        try:
            yield Worker(process)
        finally:
            process.kill()
            process.communicate()

    def database(self, path: Path, evolutions: int, *, pending: bool = False) -> str:
        """The URL of an SQLite database that says that so many evolutions are done, or is closed."""
        url = f'sqlite:///{path}'
        if self.name == 'predecessor':
            with closing(sqlite3.connect(path)) as database, database:
                database.execute(
                    'CREATE TABLE tgext_evolve (type VARCHAR(16) PRIMARY KEY, value VARCHAR(255) NOT NULL)'
                )
                database.execute("INSERT INTO tgext_evolve VALUES ('version', ?)", (evolution_id(evolutions - 1),))
                if pending:
                    database.execute("INSERT INTO tgext_evolve VALUES ('lock', '1')")
        elif not pending:
            settle(url, evolutions)
        return url


def settle(url: str, evolutions: int) -> None:
    """Record so many evolutions as done in a database of ours."""
    from tgext.evolve.databases import Databases
    from tgext.evolve.history import State
    from tgext.evolve.options import Options
    from tgext.evolve.stores.base import Owner

    store = Databases({}, Options(store=url, namespace='testapp')).store()
    store.prepare()
    grant = store.acquire(Owner(), 60)
    assert grant is not None
    store.settle(grant, [evolution_id(number) for number in range(evolutions)], State.STAMPED)
    store.release(grant)
    store.close()


class Worker:
    """A process of a stack: asked by a JSON object a line."""

    def __init__(self, process: subprocess.Popen[bytes]):
        self._process = process

    def ask(self, do: str, **order: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({'do': do, **order}).encode() + b'\n')
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            assert self._process.stderr is not None
            raise RuntimeError(f'{do} failed:\n{self._process.stderr.read().decode()[-4000:]}')
        return json.loads(answer)


def stacks(predecessor: str | None) -> list[Stack]:
    """:param predecessor: the Python that has 0.0.5; None: it is not measured."""
    found = [Stack('ours', sys.executable)]
    if predecessor:
        found.append(Stack('predecessor', os.path.abspath(predecessor)))
    return found
