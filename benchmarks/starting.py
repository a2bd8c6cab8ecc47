"""What it costs to start: with nothing pending, by the length of plan and history; imports and memory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.spread import spread
from benchmarks.stacks import Stack, settle

#: What an application of the measured kind must never import by plugging.
UNUSED = ('alembic', 'asyncio', 'dask', 'kajiki', 'ming', 'multiprocessing', 'psycopg', 'pymongo', 'pymysql', 'rich')


def measure(
    stacks: list[Stack], directory: Path, servers: dict[str, Any], *, sizes: tuple[int, ...], rounds: int
) -> dict[str, Any]:
    """From the creation of the application to its first 200, where everything is done already.

    :param servers: running database servers; ours starts on them too.
    """
    found: dict[str, Any] = {}
    for size in sizes:
        urls = {('sqlite', stack.name): stack.database(directory / f'{stack.name}-{size}', size) for stack in stacks}
        for name, server in servers.items():
            urls[name, 'ours'] = server.new_database()
            settle(urls[name, 'ours'], size)
        for key, figures in _starts(stacks, urls, size, rounds).items():
            found.setdefault(key, {})[str(size)] = figures
    return found


def profile(stack: Stack, directory: Path, *, size: int) -> list[tuple[str, float]]:
    """Where the time of a start goes, with so many evolutions."""
    url = stack.database(directory / 'profiled-start', size)
    with stack.worker() as worker:
        worker.ask('warm')
        return worker.ask('profile_start', url=url, evolutions=size)


def _starts(stacks: list[Stack], urls: dict[tuple[str, str], str], size: int, rounds: int) -> dict[str, Any]:
    told: dict[tuple[str, str], list[tuple[dict[str, float], dict[str, float]]]] = {key: [] for key in urls}
    with ExitStack() as running:
        workers = {stack.name: running.enter_context(stack.worker()) for stack in stacks}
        for worker in workers.values():
            worker.ask('warm')
        for _ in range(rounds):
            for key, url in urls.items():
                worker = workers[key[1]]
                bare = worker.ask('start', url=url, plugged=False, evolutions=size)
                plugged = worker.ask('start', url=url, plugged=True, evolutions=size)
                assert plugged['status'] == 200, f'{key} is not open: {plugged}'
                told[key].append((bare, plugged))
    return {
        f'{database} {stack}': {
            'added': spread([(plugged['seconds'] - bare['seconds']) * 1000 for bare, plugged in pairs]),
            'added cpu': spread([(plugged['cpu'] - bare['cpu']) * 1000 for bare, plugged in pairs]),
            'statements': max(plugged['statements'] for _, plugged in pairs),
        }
        for (database, stack), pairs in told.items()
    }


def weigh(stacks: list[Stack], directory: Path, *, rounds: int) -> dict[str, Any]:
    """Whole processes, from their imports to their first answer."""
    found = {}
    urls = {stack.name: stack.database(directory / f'weight-{stack.name}', 10) for stack in stacks}
    pairs: dict[str, list[dict[bool, Any]]] = {stack.name: [] for stack in stacks}
    for _ in range(rounds):
        for stack in stacks:
            told = {}
            for plugged in (False, True):
                with stack.worker() as worker:
                    told[plugged] = worker.ask('weigh', url=urls[stack.name], plugged=plugged)
            pairs[stack.name].append(told)
    for name, each in pairs.items():
        new = set(each[0][True]['modules']) - set(each[0][False]['modules'])
        found[name] = {
            'seconds': spread([(pair[True]['seconds'] - pair[False]['seconds']) * 1000 for pair in each]),
            'cpu': spread([(pair[True]['cpu'] - pair[False]['cpu']) * 1000 for pair in each]),
            'share': spread([pair[True]['cpu'] / pair[False]['cpu'] - 1 for pair in each]),
            'memory': spread([pair[True]['memory'] - pair[False]['memory'] for pair in each]),
            'bare memory': spread([pair[False]['memory'] for pair in each]),
            'modules': len(new),
            'of others': sorted(module for module in new if not module.startswith('tgext.evolve')),
            'unused': sorted({module.partition('.')[0] for module in new} & set(UNUSED)),
        }
    return found
