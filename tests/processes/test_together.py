"""Many processes at the same moment: each evolution runs exactly once, and nobody sees an error.

``EVOLVE_ROUNDS`` sets how many rounds are played on each database (by hand: 50).
"""

from __future__ import annotations

import os
import re

import pytest

from tests.processes.harness import PATIENCE, Site, until
from tests.processes.worker import ROWS

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

ROUNDS = int(os.environ.get('EVOLVE_ROUNDS', '5'))
PROCESSES = 8


def release(site: Site, number: int, **settings) -> None:
    """Have *number* processes go through the barrier at once, and end when they are open."""
    processes = site.fork_together(number, **settings)
    for process in processes:
        # Each of 50 processes has its share of two cores.
        assert process.wait(2 * PATIENCE) == 0
    opened = {line.pid for line in site.lines('open')}
    for process in processes:
        assert process.pid in opened
        assert not re.search('Traceback|ERROR|CRITICAL|StoreError|deadlock', process.log), process.log
        site.processes.remove(process)


@pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb', 'mongodb'], indirect=True)
def test_each_evolution_runs_exactly_once(make_site, store_url):
    # A lease that nobody loses because a busy machine has no time for its heartbeat.
    site = make_site(store_url, lease=20)
    transactional = not store_url.startswith('mongodb')
    tokens = [0]
    for number in range(ROUNDS):
        # A growing plan: each round finds the record of those before it.
        new = [f'{number}-{step}' for step in range(3)]
        site.evolutions += [{'id': id, 'transactional': transactional and step != 1} for step, id in enumerate(new)]
        release(site, PROCESSES, barrier='make' if number % 2 else 'start')
        history = site.store.history()
        for id in new:
            assert [attempt.state.value for attempt in history.of(id)] == ['done']
            assert site.count('begin', id) == site.count('end', id) == 1
        now = sorted({attempt.token for id in new for attempt in history.of(id)})
        assert now[0] > tokens[-1]
        tokens += now
        assert site.seen == [3 * (number + 1)] * ROWS
    assert not site.lease.alive


@pytest.mark.parametrize(
    ('store_url', 'number'),
    [('sqlite', 12), ('postgresql', 50), ('mariadb', 50), ('mongodb', 20)],
    indirect=['store_url'],
)
def test_many_processes_make_the_tables_of_an_empty_database_at_once(make_site, store_url, number):
    site = make_site(store_url, evolutions=[{'id': 'one'}], lease=20, poll=0.5)
    release(site, number, barrier='start')
    assert site.count('begin') == 1
    assert site.states('one') == ['done']
    until(lambda: not site.lease.alive)
