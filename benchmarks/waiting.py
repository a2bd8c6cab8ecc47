"""What happens to processes that wait: how soon they open, what they cost, and when they all come at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.spread import spread
from benchmarks.stacks import settle
from tests.chaos.recovery import held, recover
from tests.processes.harness import PATIENCE, Site
from tgext.evolve import Evolution
from tgext.evolve.databases import Databases
from tgext.evolve.evolver import Evolver
from tgext.evolve.options import Options
from tgext.evolve.plan import Plan, planned
from tgext.evolve.stores.base import Owner

MakeSite = Callable[..., Site]
NewDatabase = Callable[[str], str]

#: What a log says when something was not as it should be at the database.
TROUBLE = re.compile(r'Traceback|\bERROR\b|\bCRITICAL\b|database-(?:away|busy|refuses)|deadlock')


def opening(
    make_site: MakeSite, new_database: NewDatabase, stores: list[str], *, numbers: tuple[int, ...], rounds: int
) -> dict[str, Any]:
    """From the commit of the last evolution to the first 200 in each waiting process, with default options."""
    found: dict[str, Any] = {}
    for store in stores:
        for number in numbers:
            seconds = [each for _ in range(rounds) for each in _open(make_site, new_database(store), number)]
            found.setdefault(store, {})[str(number)] = spread(seconds)
    return found


def _open(make_site: MakeSite, url: str, number: int) -> list[float]:
    evolution = held(url)
    site = make_site(url, evolutions=[evolution], poll=Options().poll, lease=Options().lease)
    # The point is passed at once, because the file is there by then, and it is told when.
    committed = 'after-commit' if evolution['transactional'] else 'after-record'
    holder = site.fork(http=False, points={committed: 'go'})
    site.until_told('half', 'one', holder.pid)
    waiters = [site.fork(http=False, ask=True) for _ in range(number)]
    site.until_told('made', times=1 + number)
    time.sleep(2 * Options().poll)  # until each of them waits somewhere between two looks
    site.go()
    for process in waiters:
        assert process.wait(PATIENCE + number) == 0, process.log
    [saved] = site.lines('point', committed)
    served = {line.pid: line.time for line in site.lines('served')}
    site.close()
    return [served[process.pid] - saved.time for process in waiters]


class _Pending(Evolution):
    evolution_id = 'pending'

    def evolve(self) -> None:
        raise AssertionError('it only waits')


def load(new_database: NewDatabase, stores: list[str], *, sizes: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """What one waiting process asks of the database, and what that costs it, by the length of the history."""
    found: dict[str, Any] = {}
    for store in stores:
        for size in sizes:
            url = new_database(store)
            settle(url, size)
            found.setdefault(store, {})[str(size)] = _wait(url, seconds)
    return found


def _wait(url: str, seconds: float) -> dict[str, float]:
    options = Options(store=url, namespace='testapp', mode='wait', unknown='ignore')
    holder = Databases({}, options).store()
    assert holder.acquire(Owner(), 3600) is not None
    with _counting(url) as counted:
        store = Databases({}, options).store()
        evolver = Evolver(options, Plan([planned(_Pending())]), store)
        evolver.look()
        evolver.start()
        time.sleep(1.5 * options.poll)  # the first look reads the history; those that follow are what waiting costs
        before, cpu, began = dict(counted), time.process_time(), time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - began
        found = {what: (counted[what] - before[what]) / passed for what in counted}
        found['cpu'] = (time.process_time() - cpu) / passed
        evolver.leave()
        assert evolver.join(PATIENCE)
    holder.close()
    return found


@contextmanager
def _counting(url: str):
    counted = {'statements': 0, 'connections': 0}

    def note(what: str) -> Callable[..., None]:
        def count(*args: Any, **kw: Any) -> None:
            counted[what] += 1

        return count

    if url.startswith('mongodb'):
        from pymongo import monitoring

        class Listener(monitoring.CommandListener):
            started = staticmethod(note('statements'))
            succeeded = failed = staticmethod(lambda event: None)

        monitoring.register(Listener())
        try:
            yield counted
        finally:
            monitoring._LISTENERS.command_listeners.pop()  # there is no public way
        return
    from sqlalchemy import Engine, event

    pairs = [('before_cursor_execute', note('statements')), ('do_connect', note('connections'))]
    # do_connect is of the dialect; it counts and lets the dialect connect.
    for name, listener in pairs:
        event.listen(Engine, name, listener)
    try:
        yield counted
    finally:
        for name, listener in pairs:
            event.remove(Engine, name, listener)


def recovery(
    make_site: MakeSite, new_database: NewDatabase, stores: list[str], *, leases: tuple[float, ...], rounds: int
) -> dict[str, Any]:
    """kill -9 of the holder to the first 200 of a process that waits; all at the same time: it is waiting."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        sites: dict[tuple[str, float], Site] = {}
        for store in stores:
            for lease in leases:
                url = new_database(store)
                sites[store, lease] = make_site(url, evolutions=[held(url)], lease=lease, poll=Options().poll)
        told = recover({f'{store} {lease:g}': site for (store, lease), site in sites.items()})
        for store, lease in sites:
            found.setdefault(store, {}).setdefault(f'{lease:g}', []).append(told[f'{store} {lease:g}'])
        for site in sites.values():
            site.close()
    return {store: {lease: spread(each) for lease, each in by_lease.items()} for store, by_lease in found.items()}


def crowd(make_site: MakeSite, servers: Mapping[str, Any], *, numbers: tuple[int, ...]) -> dict[str, Any]:
    """Processes that start at the same moment, with one evolution to be run by one of them."""
    found: dict[str, Any] = {}
    for name, server in servers.items():
        for number in numbers:
            found.setdefault(name, {})[str(number)] = _come(make_site, server, number)
    return found


def _come(make_site: MakeSite, server: Any, number: int) -> dict[str, float]:
    options = Options()
    site = make_site(
        server.new_database(), evolutions=[{'id': 'one', 'transactional': True}], lease=options.lease, poll=options.poll
    )
    before = server.counters()
    processes = site.fork_together(number, barrier='start')
    began = time.monotonic()
    for process in processes:
        assert process.wait(PATIENCE + number) == 0, process.log
    seconds = max(line.time for line in site.lines('open')) - began
    after = server.counters()
    assert site.states('one') == ['done']
    told = {
        'seconds': seconds,
        'errors': sum(bool(TROUBLE.search(line)) for process in processes for line in process.log.splitlines()),
        'began': site.count('begin'),
        **{what: after[what] - before[what] for what in after},
    }
    site.close()
    return told


def new_databases(directory: Path, servers: Mapping[str, Any]) -> NewDatabase:
    """Makes fresh databases of any kind."""
    numbers = iter(range(100_000))

    def new(store: str) -> str:
        return servers[store].new_database() if store in servers else f'sqlite:///{directory / f"{next(numbers)}.db"}'

    return new
