"""How long users wait when a holder dies: from kill -9 to the first 200 of a process that waits."""

from __future__ import annotations

import pytest

from tests.chaos.checker import check
from tests.chaos.figures import LONG, long_or_short
from tests.chaos.recovery import SLACK, held, recover
from tests.processes.harness import PATIENCE
from tgext.evolve.options import Options

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

STORES = ['sqlite', 'postgresql', 'mariadb', 'mongodb']
ROUNDS = long_or_short(long=10, short=1)
#: What users have by default; the short form has no time for it.
LEASE = Options().lease if LONG else 2.0
POLL = Options().poll
#: What is promised, and something for a machine that runs other tests at the same time.
IN_TIME = LEASE + POLL + 1 + SLACK


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
            url = new_database(store)
            sites[store] = make_site(url, evolutions=[held(url)], lease=LEASE, poll=POLL)
        for store, seconds in recover(sites).items():
            figures[store].measure('recovery by default', seconds)
            figures[store].count('kills')
            assert sites[store].states('one') == ['interrupted', 'done']
            check(sites[store], figures[store])
