"""Kills, pauses, SIGTERM and dead servers between and inside batches: no item is lost, and none is counted twice.

Each row counts how often it was processed. On SQL that is once, whatever happens, and on MongoDB in transactions;
without these the last batch of an attempt that was cut short may be there twice, and nothing else. ``EVOLVE_SEED``
repeats the random kills as far as the machine lets it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter, deque

import pytest

from tests.chaos.checker import check
from tests.chaos.figures import LONG, long_or_short
from tests.chaos.sites import DEPOSED, IN_TIME, LEASE, POLL, STORES, ended, pause, pause_between_writes, was_deposed
from tests.processes.harness import until

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600 if LONG else 180)]

#: In batches of ten, where a test says nothing else.
ROWS = 60
SIZE = 10

THREADS = {'partitions': 2, 'threads': 2}


def batched(**attributes) -> dict:
    return {'id': 'all', 'batched': True, 'batch_size': SIZE, **attributes}


def ids(about: str) -> range:
    first, last = about.split('-')
    return range(int(first), int(last) + 1)


def cut_short(site, partitions: int = 1) -> Counter[int]:
    """How often a row was in the last batch of an attempt that did not come to its end."""
    begun: Counter[int] = Counter()
    last: dict[tuple[int, int], deque[str]] = {}
    for line in site.lines():
        begun[line.pid] += line.event == 'begin'
        attempt = line.pid, begun[line.pid]
        if line.event == 'batch':
            last.setdefault(attempt, deque(maxlen=partitions)).append(line.about)
        elif line.event == 'end':
            last.pop(attempt, None)
    return Counter(row for batches in last.values() for about in batches for row in ids(about))


def explain(site, twice: Counter[int]) -> None:
    """Every row was processed once; without transactions at most so much oftener."""
    seen = site.seen
    assert len(seen) == site.rows
    if exactly_once(site):
        assert Counter(seen) == {1: site.rows}
    for row, times in enumerate(seen, start=1):
        assert 1 <= times <= 1 + twice[row], row


def exactly_once(site) -> bool:
    """Are a batch and its checkpoint saved in one transaction?"""
    return site.is_sql or site.evolutions[0].get('transactional_batches', True)


def done(site) -> int:
    """How many items are counted as processed."""
    return sum(checkpoint.done for checkpoint in site.store.checkpoints('all'))


def batches(site, pid: int | None = None) -> Counter[str]:
    return Counter(line.about for line in site.lines('batch', pid=pid))


#: On MongoDB both are to be had.
IN_TRANSACTIONS_AND_WITHOUT = pytest.mark.parametrize(
    ('store_url', 'transactional'),
    [
        *(pytest.param(name, True, id=name) for name in ('sqlite', 'postgresql', 'mariadb', 'mongodb')),
        pytest.param('mongodb', False, id='mongodb-without'),
    ],
    indirect=['store_url'],
)

# -- kills at any moment


@pytest.mark.timeout(1800 if LONG else 180)
@IN_TRANSACTIONS_AND_WITHOUT
def test_kills_at_random_moments_lose_no_row_and_count_none_twice(make_site, store_url, transactional, figures):
    seed = int(os.environ.get('EVOLVE_SEED') or random.SystemRandom().getrandbits(32))
    print(f'EVOLVE_SEED={seed}')
    rng = random.Random(seed)
    rows, kills = long_or_short(200_000, 1_500), long_or_short(100, 3)
    size = 500 if rows == 200_000 else 50
    # Slow enough for a machine on which the test itself is slow.
    attributes = {'batch_size': size, 'largest_batch': size, 'seconds': long_or_short(5, 10) / 100}
    if figures.store == 'mongodb':
        attributes['transactional_batches'] = transactional
        # For ranges of _id, SecantusDB reads the whole collection; a mongod does not.
        attributes['batched'] = 'by number'
    if rng.random() < 0.5:
        # It adapts: small batches in the beginning of each attempt, which grow.
        attributes |= {'batch_size': size // 5, 'batch_seconds': 60}
    site = make_site(store_url, rows=rows, evolutions=[batched(**attributes)], lease=1, poll=POLL)
    reached = kill_at_random(site, rng, kills, size, figures)
    check(site, figures)
    twice = cut_short(site)
    explain(site, twice)
    assert sum(site.seen) - rows <= kills * size or any(map(was_deposed, site.processes))
    # Most of them have hit a process in the middle of it, and each went on where the one before was.
    states = site.states('all')
    assert len(states) > kills // 2
    assert states == ['interrupted'] * (len(states) - 1) + ['done']
    recorded = [attempt.reached for attempt in site.store.history().of('all')[:-1]]
    assert recorded == sorted(recorded)
    assert reached == sorted(reached)
    assert done(site) == rows
    [checkpoint] = site.store.checkpoints('all')
    assert (checkpoint.finished, checkpoint.passes, checkpoint.total) == (True, 1, rows)


def kill_at_random(site, rng: random.Random, kills: int, size: int, figures) -> list[int]:
    """Kill whoever works, again and again until the end of the rows; another one waits already.

    :returns: how far it was after each kill.
    """
    living = [site.fork(http=False, patience=600) for _ in range(2)]
    reached = []
    unmoved = 0
    for left in range(kills, 0, -1):
        before, told = done(site), site.count('batch')
        # So many batches are left at least, for this kill and those that follow.
        number = rng.randint(0, max((site.rows - before) // size // (left + 1), 1))
        until(lambda told=told, number=number: site.count('batch') >= told + number, what='more batches')
        if unmoved == 3:
            # Five in a row without a batch would stop it, and rightly.
            until(lambda before=before: done(site) > before, what='a batch is saved')
        time.sleep(rng.choice([0, rng.uniform(0, 0.02), rng.uniform(0, 0.2)]))
        workers = [process for process in living if process.pid == site.lines()[-1].pid]
        victim = rng.choice(workers if workers and rng.random() < 0.9 else living)
        victim.kill()
        figures.count('kills')
        living.remove(victim)
        living.append(site.fork(http=False, patience=600))
        reached.append(done(site))
        unmoved = 0 if reached[-1] > before else unmoved + 1
    assert reached[-1] < site.rows, 'it was over before the last kill'
    for process in living:
        ended(process, site)
    return reached


# -- kills at points

#: Where the first process is killed (at which time it passes there), how much is saved then, and whether it was in
#: the middle of a batch.
POINTS = {
    'before-checkpoints': (1, 0, False),
    'after-checkpoints': (1, 0, False),
    'in-batch': (3, 20, True),
    'before-batch-commit': (3, 20, True),
    'after-batch': (3, 30, False),
    'between-batches': (3, 30, False),
    'after-evolve': (1, ROWS, False),
    'before-record': (1, ROWS, False),
}
#: These are passed on one kind of store only.
SQL_POINTS = {'before-commit': (3, 20, True), 'after-commit': (3, 30, False)}
MONGODB_POINTS = {'before-checkpoint': (3, 20, True), 'between-checkpoints': (1, 0, False)}

#: Without transactions the work of a batch is there before its checkpoint moves.
WORKED = {'before-batch-commit', 'before-checkpoint'}

#: The long form has these as well: what they show, another point does in the short one.
LONG_ONLY = {'after-checkpoints', 'between-batches', 'after-evolve'}


@IN_TRANSACTIONS_AND_WITHOUT
def test_a_kill_at_any_point_of_a_batch_loses_nothing_and_counts_nothing_twice(
    make_site, store_url, new_url, transactional, figures
):
    points = {
        **POINTS,
        **(SQL_POINTS if transactional else {}),
        **(MONGODB_POINTS if store_url.startswith('mongodb') else {}),
    }
    cells = {}
    for point, (time_, _, _) in points.items():
        if point in LONG_ONLY and not LONG:
            continue
        evolution = batched(partitions=3) if point == 'between-checkpoints' else batched()
        if not transactional:
            evolution['transactional_batches'] = False
        site = make_site(new_url(), rows=ROWS, evolutions=[evolution], lease=LEASE, poll=POLL)
        cells[point] = site, site.fork(http=False, points={point: f'kill {time_}'})
    heirs = {}
    for point, (site, victim) in cells.items():
        site.until_told('point', point)
        assert victim.wait() == -9
        figures.count('kills')
        assert done(site) == points[point][1], point
        heirs[point] = site.fork(http=False)
    for point, (site, victim) in cells.items():
        ended(heirs[point], site)
        _, saved, inside = points[point]
        check(site, figures)
        if was_deposed(victim) or was_deposed(heirs[point]):
            explain(site, cut_short(site))
            continue
        assert site.states('all') == ['interrupted', 'done'], point
        assert site.store.history().of('all')[0].reached == saved, point
        # Exactly the batch in the middle of which it died was begun again.
        again = [about for about, times in batches(site).items() if times > 1]
        assert again == [f'{saved + 1}-{saved + SIZE}'] * inside, point
        twice = site.seen.count(2)
        assert twice == (SIZE if point in WORKED and not transactional else 0), point
        explain(site, cut_short(site))


# -- pauses

#: One with transactions and the one without are enough for the short form.
SOME_STORES = STORES if LONG else pytest.mark.parametrize('store_url', ['sqlite', 'mongodb'], indirect=True)


def in_an_open_batch(make_site, new_url, points: dict[str, str], **attributes):
    """Sites with a holder that waits there with one thread, and with two: for each partition one of its sessions.

    :param points: what may be served meanwhile, and where it waits then.
    """
    cells = []
    for serving, point in points.items():
        for threads in ({}, THREADS):
            evolution = batched(**threads, **attributes, serving=serving)
            site = make_site(new_url(), rows=ROWS, evolutions=[evolution], lease=LEASE, poll=POLL)
            cells.append((site, site.fork(points={point: 'on'}), threads.get('threads', 1)))
    for site, holder, number in cells:
        site.until_told('point', pid=holder.pid, times=number)
    return cells


@pytest.mark.parametrize('store_url', ['postgresql', 'mariadb', 'mongodb'], indirect=True)
def test_the_open_batch_of_a_paused_holder_keeps_its_successor_out_for_no_longer_than_the_lease(
    make_site, store_url, new_url, figures
):
    """Rows are locked by what was changed, and where the application serves meanwhile by what was read."""
    cells = in_an_open_batch(make_site, new_url, {'nothing': 'before-batch-commit', 'everything': 'in-batch'})
    heirs = []
    for site, holder, _ in cells:
        heirs.append(site.fork())
        site.until_told('serving', pid=heirs[-1].pid)
        pause(holder, figures)
    paused = time.monotonic()
    for site, *_ in cells:
        site.go('on')
    for (site, holder, number), heir in zip(cells, heirs, strict=True):
        [begin] = site.until_told('begin', pid=heir.pid)
        [end] = site.until_told('end', pid=heir.pid)
        assert begin.time - paused <= IN_TIME
        assert end.time - paused <= IN_TIME + 1
        figures.measure('recovery', begin.time - paused)
        if site.is_sql:
            assert heir.log.count('ended the database session') == number
        else:
            [ended_sessions] = [line for line in heir.log.splitlines() if 'ended the sessions of batches' in line]
            assert ended_sessions.count(f':{holder.pid}') == number
        until(lambda site=site: site.states('all')[-1] == 'done')
    for (site, holder, number), heir in zip(cells, heirs, strict=True):
        before = site.store.checkpoints('all')
        assert sum(each.done for each in before) == ROWS
        holder.send(signal.SIGCONT)
        until(
            lambda holder=holder: any(words in holder.log for words in DEPOSED), what='it says that it lost the lease'
        )
        until(lambda holder=holder: holder.reason() == 'complete')
        assert site.store.checkpoints('all') == before
        assert site.states('all') == ['interrupted', 'done']
        assert site.store.history().of('all')[-1].pid == heir.pid
        assert not site.lines('end', pid=holder.pid)
        # Nobody has begun another batch.
        assert batches(site, holder.pid).total() == number
        assert Counter(site.seen) == {1: ROWS}
        check(site, figures)


def test_on_sqlite_the_successor_of_an_open_batch_waits_and_says_for_whom(make_site, figures):
    """Until it goes on, or dies."""
    cells = []
    for then in (signal.SIGCONT, signal.SIGKILL):
        site = make_site(rows=ROWS, evolutions=[batched()], lease=LEASE, poll=POLL)
        cells.append((site, site.fork(points={'before-batch-commit': 'on 3'}), then))
    heirs = []
    for site, holder, _ in cells:
        site.until_told('point', pid=holder.pid)
        heirs.append(site.fork())
        pause(holder, figures)
        site.go('on')
    for (site, holder, _), heir in zip(cells, heirs, strict=True):
        heir.until_reason('database-busy')
        assert f'the lease was last held by {site.lease.host}:{holder.pid}' in heir.log
        until(lambda site=site: not site.lease.alive, what='the lease has expired')
        assert site.lease.pid == holder.pid
        assert done(site) == 2 * SIZE
    for _, holder, then in cells:
        holder.send(then)
        figures.count('kills', int(then == signal.SIGKILL))
    for (site, holder, then), heir in zip(cells, heirs, strict=True):
        heir.until_open(IN_TIME + 2)
        if then == signal.SIGCONT:
            holder.until_open()
        assert site.states('all')[-1] == 'done'
        assert set(site.states('all')[:-1]) <= {'interrupted'}
        assert Counter(site.seen) == {1: ROWS}
        check(site, figures)


@pytest.mark.parametrize('store_url', ['mongodb'], indirect=True)
def test_without_a_transaction_a_paused_holder_may_finish_its_batch_and_no_other_one(
    make_site, store_url, new_url, figures
):
    """Nothing is locked, and nobody can end its session: the batch is there twice, and counted once."""
    cells = in_an_open_batch(make_site, new_url, {'nothing': 'in-batch'}, transactional_batches=False)
    for site, holder, _ in cells:
        pause(holder, figures)
        site.go('on')
    heirs = [site.fork(http=False) for site, *_ in cells]
    for (site, holder, number), heir in zip(cells, heirs, strict=True):
        ended(heir, site)
        assert site.seen == [1] * ROWS
        before = site.store.checkpoints('all')
        holder.send(signal.SIGCONT)
        until(
            lambda holder=holder: any(words in holder.log for words in DEPOSED), what='it says that it lost the lease'
        )
        holder.until_open()
        assert site.store.checkpoints('all') == before
        assert site.states('all') == ['interrupted', 'done']
        own = batches(site, holder.pid)
        assert own.total() == number
        twice = {row for about in own for row in ids(about)}
        assert [row for row, seen in enumerate(site.seen, start=1) if seen == 2] == sorted(twice)
        assert max(site.seen) == 2
        check(site, figures)


@IN_TRANSACTIONS_AND_WITHOUT
def test_who_was_deposed_between_two_batches_has_the_next_one_refused(
    make_site, store_url, new_url, transactional, figures
):
    """It begins it before its heart has beaten: the checkpoint alone knows."""
    evolution = batched() if transactional else batched(transactional_batches=False)
    site = make_site(new_url(), rows=ROWS, evolutions=[evolution], lease=LEASE, poll=POLL)
    holder = site.fork(points={'between-batches': 'on'})
    site.until_told('point', 'between-batches', holder.pid)
    pause_between_writes(site, holder, figures)
    site.go('on')
    ended(site.fork(http=False), site)
    assert site.seen == [1] * ROWS
    before = site.store.checkpoints('all')
    holder.send(signal.SIGCONT)
    until(lambda: 'goes on as a waiter' in holder.log, what='it says that it lost the lease')
    holder.until_open()
    # It has tried, and it is this that it was refused.
    assert ('a later holder has marked' if site.is_sql else 'the checkpoint belongs to another') in holder.log
    refused_first = transactional and not site.is_sql  # before it has read anything
    assert batches(site, holder.pid) == {'1-10': 1, **({} if refused_first else {'11-20': 1})}
    assert site.store.checkpoints('all') == before
    assert site.states('all') == ['interrupted', 'done']
    once = Counter(site.seen)
    assert once == ({1: ROWS} if transactional else {1: ROWS - SIZE, 2: SIZE})
    explain(site, Counter(ids('11-20')))
    check(site, figures)


@SOME_STORES
def test_who_was_deposed_before_its_first_batch_makes_no_checkpoint_and_says_no_more_than_that(
    make_site, store_url, new_url, figures
):
    """Its successor has made them meanwhile, perhaps for other partitions."""
    site = make_site(new_url(), rows=ROWS, evolutions=[batched(partitions=3)], lease=LEASE, poll=POLL)
    holder = site.fork(points={'before-checkpoints': 'on'})
    site.until_told('point', 'before-checkpoints', holder.pid)
    pause_between_writes(site, holder, figures)
    site.go('on')
    site.evolutions = [batched(partitions=2)]
    ended(site.fork(http=False), site)
    before = site.store.checkpoints('all')
    assert len(before) == 2
    holder.send(signal.SIGCONT)
    until(lambda: 'goes on as a waiter' in holder.log, what='it says that it lost the lease')
    holder.until_open()
    assert site.store.checkpoints('all') == before
    assert not batches(site, holder.pid)
    assert site.states('all') == ['interrupted', 'done']
    assert site.seen == [1] * ROWS
    assert 'ERROR' not in holder.log
    assert 'Traceback' not in holder.log
    check(site, figures)


# -- leaving


@SOME_STORES
def test_sigterm_ends_it_after_the_batch_and_the_next_process_goes_on_from_there(make_site, store_url, figures):
    """Nothing is processed twice, also where there are no transactions, and nobody waits for the lease to expire."""
    leaves_after_its_batch(make_site, store_url, figures, {})


@STORES
def test_sigterm_ends_threads_after_their_batches_and_the_next_process_goes_on_from_there(
    make_site, store_url, figures
):
    leaves_after_its_batch(make_site, store_url, figures, THREADS)


def leaves_after_its_batch(make_site, store_url, figures, threads) -> None:
    site = make_site(store_url, rows=ROWS, evolutions=[batched(**threads)], lease=60, poll=POLL)
    number = threads.get('threads', 1)
    # With several threads on SQLite one writes and the other one waits for that.
    inside = 1 if store_url.startswith('sqlite') else number
    # The second of two threads is in its batch for longer than the first one.
    holder = site.fork(points={'in-batch': 'on', 'before-batch-commit': 'later 2'})
    site.until_told('point', 'in-batch', holder.pid, times=inside)
    holder.send(signal.SIGTERM)
    time.sleep(0.2)
    assert holder.status is None
    heir = site.fork(http=False)
    told = time.monotonic()
    site.go('on')
    if threads:
        until(lambda: 'it was told to stop' in holder.log, what='one of them has stopped')
        site.until_told('point', 'before-batch-commit', holder.pid)
        time.sleep(0.2)  # who would not wait for the other one is gone by then
        site.go('later')
    assert holder.wait() == -signal.SIGTERM
    ended(heir, site)
    [begin] = site.lines('begin', pid=heir.pid)
    assert begin.time - told < 10
    first, second = site.store.history().of('all')
    assert (first.state.value, second.state.value) == ('interrupted', 'done')
    assert first.left_in_order
    assert 0 < first.reached < ROWS
    assert first.reached == batches(site, holder.pid).total() * SIZE
    assert all(times == 1 for times in batches(site).values()), batches(site)
    assert site.seen == [1] * ROWS
    assert 'Traceback' not in holder.log + heir.log
    check(site, figures)


# -- a server that dies


@pytest.mark.parametrize('store_url', ['postgresql', 'mariadb', 'mongodb'], indirect=True)
def test_a_server_that_is_killed_in_mid_batch_loses_nothing_of_those_before(make_site, store_url, request, figures):
    server = request.getfixturevalue(f'{request.node.callspec.params["store_url"]}_server')
    cells = []
    for threads in ({}, THREADS):
        url = server.new_database()
        # The driver's own patience is 30 s.
        url += '?serverSelectionTimeoutMS=1000' if server.name == 'mongodb' else ''
        site = make_site(url, rows=ROWS, evolutions=[batched(**threads)], lease=LEASE, poll=POLL)
        cells.append((site, site.fork(points={'before-batch-commit': 'on 3'}), threads.get('threads', 1)))
    for site, holder, _ in cells:
        site.until_told('point', 'before-batch-commit', holder.pid)
    reached = [done(site) for site, *_ in cells]
    server.kill()
    figures.count('restarts')
    try:
        for site, *_ in cells:
            site.go('on')
        for _, holder, _ in cells:
            holder.until_reason('database-away')
    finally:
        server.start()
    for (site, holder, number), before in zip(cells, reached, strict=True):
        holder.until_open(30)
        states = site.states('all')
        assert states == ['interrupted'] * (len(states) - 1) + ['done']
        assert (site.store.history().of('all')[0].reached or 0) >= before
        # A partition may have been handed out again in the same attempt.
        again = Counter(row for about, times in batches(site).items() for row in ids(about) if times > 1)
        assert again.total() <= number * SIZE
        explain(site, again)
        check(site, figures)
