"""How long users wait when a holder dies: from kill -9 to the first 200 of a process that waits."""

from __future__ import annotations

import time

import pytest

from tests.chaos.checker import check
from tests.chaos.figures import LONG, long_or_short
from tests.processes.harness import PATIENCE
from tgext.evolve.options import Options

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

STORES = ['sqlite', 'postgresql', 'mariadb', 'mongodb']
ROUNDS = long_or_short(long=10, short=1)
#: What users have by default; the short form has no time for it.
LEASE = Options().lease if LONG else 2.0
POLL = Options().poll
#: What is promised, and something for a machine that runs other tests at the same time.
IN_TIME = LEASE + POLL + 1 + 5


@pytest.fixture
def new_database(request, tmp_path):
    """A fresh database of each kind; what cannot be had here skips the test, and says why."""
    servers = {name: request.getfixturevalue(f'{name}_server') for name in STORES[1:]}
    numbers = iter(range(1000))

    def new(store):
        return servers[store].new_database() if store in servers else f'sqlite:///{tmp_path / f"{next(numbers)}.db"}'

    return new


@pytest.mark.timeout(120 + ROUNDS * (PATIENCE + IN_TIME))  # starting three servers counts as well
def test_users_of_a_killed_holder_are_served_again_within_lease_and_poll_and_a_second(
    make_site, new_database, make_figures
):
    """On all databases at the same time: most of it is waiting."""
    figures = {store: make_figures(store) for store in STORES}
    for _ in range(ROUNDS):
        sites = {}
        for store in STORES:
            evolutions = [{'id': 'one', 'does': 'hold', 'transactional': store != 'mongodb'}]
            sites[store] = make_site(new_database(store), evolutions=evolutions, lease=LEASE, poll=POLL)
        holders = {store: site.fork() for store, site in sites.items()}
        for store, site in sites.items():
            site.until_told('half', 'one', holders[store].pid)
        waiters = {store: site.fork() for store, site in sites.items()}
        for waiter in waiters.values():
            assert waiter.first_answer()[0] == 503
        killed = {}
        for store, holder in holders.items():
            killed[store] = time.monotonic()
            holder.kill()
            # Whoever runs it again is not held.
            sites[store].go()
        waiting = set(STORES)
        while waiting:
            for store in sorted(waiting):
                passed = time.monotonic() - killed[store]
                if waiters[store].first_answer()[0] == 200:
                    waiting.remove(store)
                    figures[store].measure('recovery by default', time.monotonic() - killed[store])
                assert passed <= IN_TIME, f'{store}: no 200 after {passed:.1f} s\n{waiters[store].log}'
            time.sleep(0.01)
        for store, site in sites.items():
            figures[store].count('kills')
            assert site.states('one') == ['interrupted', 'done']
            check(site, figures[store])
            for process in (holders[store], waiters[store]):
                process.reap()
