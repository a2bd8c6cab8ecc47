"""SIGKILL at every step that changes anything durable: nothing is lost, nothing runs twice, nothing sticks.

What is killed at a named point is killed there for certain; what is killed at a random moment finds the steps that
have no name. ``EVOLVE_SEED`` repeats a run of the latter as far as the machine lets it.
"""

from __future__ import annotations

import os
import random
import sys
import textwrap
import time

import pytest
from sqlalchemy import text

from tests.chaos.checker import check
from tests.chaos.figures import LONG, long_or_short
from tests.chaos.sites import IN_TIME, LEASE, POLL, STORES, ended, kinds, was_deposed
from tests.processes.harness import until
from tests.processes.worker import ROWS

# The long form has many processes at once on two cores.
pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600 if LONG else 180)]

#: Where the first process is killed, and how often its evolution has begun when all is over.
POINTS = {
    'before-take': 1,
    'after-take': 1,
    'after-marking': 1,
    'before-attempt': 1,
    'after-attempt': 1,  # begun on record, and not renewed yet
    'before-evolve': 1,
    'after-evolve': 2,  # after its last write and before the commit
    'before-renewal': 2,
    'after-renewal': 2,
    'after-record': 1,
    'before-release': 1,
    'after-release': 1,
}
#: These are passed by one kind of evolution only.
OWN_POINTS = {
    False: {'before-record': 2},  # its work is saved and not recorded
    True: {'before-commit': 2, 'after-commit': 1},  # recorded in a transaction that is open, and in one that is not
}
#: What the short form leaves to the long one, by kind: the other kind is enough there, or tests/processes does it.
LONG_ONLY = {
    True: {'before-take', 'after-take', 'before-attempt', 'before-evolve', 'after-evolve', 'after-record'}
    | {'before-release', 'after-release', 'after-attempt', 'after-renewal'},
    False: {'before-take', 'after-take', 'before-attempt', 'before-evolve', 'after-record', 'before-release'}
    | {'after-marking', 'before-renewal'},
}
#: They are passed while the evolution runs.
MEANWHILE = {'before-renewal', 'after-renewal'}


def evolutions(transactional: bool, does: str = 'count') -> list[dict]:
    """The next one is of the other kind where there is one."""
    return [{'id': 'one', 'does': does, 'transactional': transactional}, {'id': 'two', 'transactional': transactional}]


def matrix(transactional: bool) -> list[str]:
    skipped = set() if LONG else LONG_ONLY[transactional]
    return [point for point in (*POINTS, *OWN_POINTS[transactional]) if point not in skipped]


@STORES
def test_a_kill_at_any_point_loses_nothing_and_records_nothing_twice(make_site, store_url, new_url, figures):
    sites = {}
    for transactional in kinds(store_url):
        for point in matrix(transactional):
            does = 'hold' if point in MEANWHILE else 'count'
            site = make_site(new_url(), evolutions=evolutions(transactional, does), lease=LEASE, poll=POLL)
            sites[point, transactional] = site
    victims = {key: site.fork(http=False, points={key[0]: 'kill'}) for key, site in sites.items()}
    for (point, _), site in sites.items():
        site.until_told('point', point)
    for key, site in sites.items():
        assert victims[key].wait() == -9
        figures.count('kills')
        site.go()
    successors = {key: site.fork(http=False) for key, site in sites.items()}
    for (point, transactional), site in sites.items():
        ended(successors[point, transactional], site)
        begins = {**POINTS, **OWN_POINTS[transactional]}[point]
        states = site.states('one')
        assert states[-1] == site.states('two')[-1] == 'done', point
        if point in MEANWHILE or was_deposed(successors[point, transactional]):
            # The heart may beat for the first time before the evolution has begun.
            assert site.count('begin', 'one') >= 1, point
            assert set(states[:-1]) <= {'interrupted'}, point
        else:
            assert site.count('begin', 'one') == begins, point
            # On record it was tried as often as it began, or was about to.
            about_to = point in ('after-attempt', 'before-evolve')
            assert states[:-1] == ['interrupted'] * (begins - 1 + about_to), point
        check(site, figures)


@STORES
def test_a_kill_inside_an_evolution_is_survived_in_time(make_site, store_url, new_url, figures):
    """By processes that wait for it, and which are killed themselves while they take over."""
    ways = {'inside': None, 'before-marking': 'before-marking', 'after-marking': 'after-marking'}
    sites = {}
    for transactional in kinds(store_url):
        for way in ways:
            if not LONG and way != 'inside' and transactional != (kinds(store_url)[-1] and way == 'before-marking'):
                continue  # the other kind is taken over in the same way
            site = make_site(new_url(), evolutions=evolutions(transactional, 'hold'), lease=LEASE, poll=POLL)
            sites[way, transactional] = site, site.fork(http=False)
    for site, holder in sites.values():
        site.until_told('half', 'one', holder.pid)
    heirs = {
        (way, transactional): site.fork(http=False, points={ways[way]: 'kill'} if ways[way] else {})
        for (way, transactional), (site, _) in sites.items()
    }
    for key, (site, _) in sites.items():
        site.until_told('made', pid=heirs[key].pid)
    killed = {}
    for key, (site, holder) in sites.items():
        killed[key] = time.monotonic()
        holder.kill()
        site.go()
        figures.count('kills')
    for (way, transactional), (site, holder) in sites.items():
        heir = heirs[way, transactional]
        if ways[way]:
            [line] = site.until_told('point', ways[way], heir.pid)
            assert heir.wait() == -9
            figures.count('kills')
            # Tell the successor's time from the second death on.
            killed[way, transactional] = line.time
            heir = heirs[way, transactional] = site.fork(http=False)
        del holder
    for (way, transactional), (site, holder) in sites.items():
        heir = heirs[way, transactional]
        ended(heir, site)
        [begin] = site.lines('begin', 'one', heir.pid)
        assert begin.time - killed[way, transactional] <= IN_TIME, way
        figures.measure('recovery', begin.time - killed[way, transactional])
        assert site.states('one') == ['interrupted', 'done']
        first, second = site.store.history().of('one')
        assert (first.pid, second.pid) == (holder.pid, heir.pid)
        assert site.count('end', 'one') == 1
        half = ROWS // 2
        assert site.seen == ([2] * ROWS if transactional else [3] * half + [2] * (ROWS - half))
        check(site, figures)


# -- the first time in a database of 0.0.5


def leave_a_version_of_0_0_5(site, version: str) -> None:
    with site._database() as database:
        if site.is_sql:
            database.execute(
                text('CREATE TABLE tgext_evolve (type VARCHAR(16) PRIMARY KEY, value VARCHAR(255) NOT NULL)')
            )
            database.execute(text("INSERT INTO tgext_evolve VALUES ('version', :version)"), {'version': version})
        else:
            database.tgext_evolve.insert_many(
                [{'type': 'lock', 'process': None}, {'type': 'version', 'current': version}]
            )


@STORES
def test_a_kill_in_the_import_of_a_0_0_5_database_runs_nothing_that_it_ran(make_site, store_url, new_url, figures):
    many = [{'id': f'{number:03}'} for number in range(100)]
    few = [{'id': 'one'}, {'id': 'two'}]
    sites = {}
    ways = {'before-import': few, 'after-import': few, 'inside': many}
    if not LONG and store_url.startswith('sqlite'):
        ways.popitem()  # it has one transaction for this as the others have
    for way, old in ways.items():
        site = make_site(new_url(), evolutions=[*old, {'id': 'new'}], lease=LEASE, poll=POLL)
        leave_a_version_of_0_0_5(site, old[-1]['id'])
        victim = site.fork(http=False, points={way: 'kill'})
        if way == 'inside':
            # As soon as anything of it can be seen: whoever reads a part must not take it for the whole.
            until(lambda site=site: site.store.history(), what='something was imported')
            victim.kill()
        sites[way] = site, victim, old
    for site, victim, _ in sites.values():
        assert victim.wait() == -9
        figures.count('kills')
        site.until_told('make')
    successors = {way: site.fork(http=False) for way, (site, _, _) in sites.items()}
    for way, (site, _, old) in sites.items():
        ended(successors[way], site)
        history = site.store.history()
        for each in old:
            assert [attempt.state.value for attempt in history.of(each['id'])] == ['imported'], way
        assert {line.about for line in site.lines('begin')} == {'new'}, way
        assert site.states('new')[-1] == 'done'
        check(site, figures)


STAMP = """
    import os, signal
    import tg
    import tgext.evolve
    from tests.processes.worker import make
    from tgext.evolve.stores.sqlalchemy import SQLAlchemyStore

    settle = SQLAlchemyStore.settle

    def killed(self, *arguments):
        {before}
        settle(self, *arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    SQLAlchemyStore.settle = killed
    make()
    tgext.evolve.stamp(tg.config)
"""


def test_a_kill_of_a_stamp_by_hand_keeps_nobody_waiting(make_site, figures):
    """It holds the lease as well."""
    sites = []
    for stamped, before in ((False, 'os.kill(os.getpid(), signal.SIGKILL)'), (True, '')):
        site = make_site(evolutions=evolutions(True), lease=LEASE, poll=POLL)
        (site.directory / 'stamp.py').write_text(textwrap.dedent(STAMP.format(before=before)))
        sites.append((site, site.start(sys.executable, 'stamp.py'), stamped))
    for site, stamp, stamped in sites:
        assert stamp.wait() == -9, stamp.log
        figures.count('kills')
        assert site.lease.pid == stamp.pid
        ended(site.fork(http=False), site)
        assert site.states('one') == site.states('two') == ['stamped' if stamped else 'done']
        assert site.seen == [0 if stamped else 2] * ROWS


# -- at any moment

EVENTS = ('make', 'made', 'begin', 'half', 'end')


@pytest.mark.timeout(1800 if LONG else 180)
@STORES
def test_kills_at_random_moments_lose_nothing_and_stick_nowhere(make_site, store_url, new_url, figures):
    seed = int(os.environ.get('EVOLVE_SEED') or random.SystemRandom().getrandbits(32))
    print(f'EVOLVE_SEED={seed}')
    rng = random.Random(seed)
    for number in range(long_or_short(long=15, short=1)):
        # Some rounds have transactional evolutions only: there the rows tell of each that ran twice or half.
        kind = rng.choice(['all', 'some']) if len(kinds(store_url)) > 1 else 'none'
        transactional = {'all': (True, True), 'some': (False, True), 'none': (False, False)}[kind]
        plan = [
            {'id': f'{number}-{step}', 'does': 'linger', 'transactional': transactional[step % 2]} for step in range(6)
        ]
        # So many kills are not the evolution's fault.
        site = make_site(new_url(), evolutions=plan, lease=LEASE, poll=POLL, max_attempts=1000)
        kill_at_random(site, rng, long_or_short(long=8, short=4), figures)
        for process in site.processes:
            if process.status is None:
                process.until_open()
        check(site, figures)
        for process in site.processes:
            process.reap()


def kill_at_random(site, rng: random.Random, kills: int, figures) -> None:
    """Kill one of three or four living processes again and again, mostly the one that has just told something."""
    living = [site.fork() for _ in range(rng.choice([3, 4]))]
    done = 0
    while done < kills:
        event = rng.choice(EVENTS)
        before = site.count(event)

        def told(event=event, before=before):
            lines = site.lines(event)
            return lines[before:] or is_over(site)

        new = until(told, what=f'another {event}')
        if new is True:
            return
        time.sleep(rng.choice([0, rng.uniform(0, 0.02), rng.uniform(0, 0.3)]))
        named = [process for process in living if process.pid == new[0].pid]
        victim = named[0] if named and rng.random() < 0.8 else rng.choice(living)
        rng.choice(living).fetch()
        victim.kill()
        done += 1
        figures.count('kills')
        living.remove(victim)
        living.append(site.fork())


def is_over(site) -> bool:
    return {each['id'] for each in site.evolutions} <= site.store.history().settled
