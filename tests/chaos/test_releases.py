"""Rolling releases: processes of several releases, each with a plan of its own, on one database at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import tg

import tgext.evolve
from tests import apps
from tests.chaos.checker import check
from tests.chaos.figures import LONG, long_or_short
from tests.processes.harness import until
from tests.processes.worker import ROWS

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(300)]


def on(*short):
    """These stores, and all of them in the long form."""
    every = ['sqlite', 'postgresql', 'mariadb', 'mongodb']
    return pytest.mark.parametrize('store_url', every if LONG else short, indirect=True)


#: Seconds between two looks of an open process, and for which an evolution is announced to it.
WATCH = 2


@pytest.fixture
def urls(request, store_url, tmp_path):
    """As many fresh databases as are asked for."""

    def new(number: int) -> list[str]:
        kind = request.node.callspec.params['store_url']
        if kind == 'sqlite':
            return [f'sqlite:///{tmp_path / f"{index}.db"}' for index in range(number)]
        server = request.getfixturevalue(f'{kind}_server')
        return [server.new_database() for _ in range(number)]

    return new


@contextmanager
def users(*processes):
    """Somebody asks each of them for a page all the time."""
    gone = threading.Event()

    def browse(process):
        while not gone.wait(0.02):
            process.fetch()

    with ThreadPoolExecutor(len(processes)) as pool:
        browsing = [pool.submit(browse, process) for process in processes]
        try:
            yield
        finally:
            gone.set()
    for each in browsing:
        each.result()


def check_nobody_served_during(site, id, figures) -> None:
    """No request of any release was served between the first and the last write of ``id``."""
    first = min(line.time for line in site.lines('begin', id))
    last = max(line.time for line in site.lines('end', id))
    early = [line for line in site.lines('served') if first <= line.time <= last]
    figures.count('early 200s', len(early))
    assert not early, f'served while {id!r} ran ({first} to {last}): {early}'


def check_served_around(site, id, pids) -> None:
    """The users were there: before and after."""
    first = min(line.time for line in site.lines('begin', id))
    last = max(line.time for line in site.lines('end', id))
    for pid in pids:
        served = [line.time for line in site.lines('served', pid=pid)]
        assert min(served) < first
        assert max(served) > last


def retry(site, id) -> None:
    """What a person types in a shell of the application."""
    if site.is_sql:
        apps.make(site.url, [], options=site.options)
        assert tgext.evolve.retry(tg.config, [id]) == 1
    else:
        assert site.store.forgive([id]) == 1


@on('postgresql')
def test_an_old_release_closes_while_a_newer_one_evolves_and_opens_again(make_site, urls, store_url, figures):
    """Also when the newer one's evolution fails, until somebody has it tried again; and when its process is killed."""
    transactional = not store_url.startswith('mongodb')
    old_plan = [{'id': 'a'}]
    fates = {'goes well': 'hold', 'fails': 'fail', 'is killed': 'hold'}
    sites = {}
    for (fate, does), url in zip(fates.items(), urls(3), strict=True):
        new_plan = [*old_plan, {'id': 'b', 'does': does, 'transactional': transactional}]
        site = make_site(
            url,
            evolutions=new_plan,
            watch=WATCH,
            lease=2 if fate == 'is killed' else 20,
            max_attempts=1 if does == 'fail' else 5,
        )
        if does == 'fail':
            site.new = {'evolutions': ['tests.chaos.deeds'], 'deeds': new_plan}
        else:
            site.new = {'evolutions': new_plan}
        site.old = [site.fork(evolutions=old_plan) for _ in range(2)]
        site.before = {'fails': 'failed', 'is killed': 'interrupted'}.get(fate)
        sites[fate] = site
    everybody = [process for site in sites.values() for process in site.old]
    for process in everybody:
        process.until_open()
    with users(*everybody):
        newer = {fate: site.fork(**site.new) for fate, site in sites.items()}
        for fate, site in sites.items():
            site.until_told('half', 'b', newer[fate].pid)
            assert newer[fate].first_answer()[0] == 503
            for process in site.old:
                process.until_reason('newer-release')

        until(lambda: sites['fails'].states('b') == ['failed'], what='b has failed')
        newer['fails'].until_reason('failed')
        newer['is killed'].kill()
        figures.count('kills')
        again = sites['is killed'].fork(evolutions=sites['is killed'].evolutions)
        sites['is killed'].until_told('half', 'b', again.pid)
        # For longer than it takes to look.
        threading.Event().wait(WATCH)
        for process in everybody:
            assert process.first_answer()[0] == 503

        for fate in ('goes well', 'is killed'):
            sites[fate].go()
        retry(sites['fails'], 'b')
        for site in sites.values():
            for process in site.processes:
                if process.status is None:
                    process.until_open()
    for site in sites.values():
        check_nobody_served_during(site, 'b', figures)
        check_served_around(site, 'b', [process.pid for process in site.old])
        site.evolutions = [each for each in site.evolutions if each['id'] == 'b']
        if transactional:
            assert site.seen == [2] * ROWS
        *before, last = site.states('b')
        assert (set(before), last) == ({site.before} if site.before else set(), 'done')
        assert all('Traceback' not in process.log for process in site.old)


@on('sqlite')
def test_a_release_that_is_rolled_back_finds_a_history_ahead_of_its_plan(make_site, store_url, figures):
    """``unknown`` says what it does; what the newer release left half done keeps everybody out."""
    plan = [{'id': id} for id in 'abc']
    site = make_site(store_url, evolutions=plan, watch=0.3, lease=3)
    # The one that refuses is there before the newer release is.
    refuses = site.fork(evolutions=plan[:1], options={'unknown': 'refuse'})
    refuses.until_reason('complete')
    newer = site.fork()
    newer.until_reason('complete')
    refuses.until_reason('unknown-evolutions')
    newer.kill()
    back = {unknown: site.fork(evolutions=plan[:1], options={'unknown': unknown}) for unknown in ('ignore', 'warn')}
    for unknown, process in back.items():
        assert process.first_answer()[0] == 200
        assert ('knows evolutions that this release does not' in process.log) is (unknown == 'warn')
    assert refuses.first_answer()[0] == 503
    late = site.fork(evolutions=plan[:1], options={'unknown': 'refuse'})
    assert late.first_answer()[0] == 503
    assert late.reason() == 'unknown-evolutions'
    # A release of the old branch with something of its own to do.
    mended = site.fork(evolutions=[plan[0], {'id': 'hotfix', 'transactional': site.is_sql}])
    mended.until_reason('complete')
    assert site.states('hotfix') == ['done']
    # The newer release comes again with one more, and is killed in its middle: nobody goes on with that by itself.
    site.evolutions = [*plan, {'id': 'd', 'does': 'hold'}]
    newer = site.fork()
    site.until_told('half', 'd')
    newer.kill()
    figures.count('kills')
    after = site.fork(evolutions=plan[:1])
    for process in (*back.values(), mended, after):
        process.until_reason('newer-release')
        # It may have been closed already, for what was begun before.
        until(lambda process=process: "'d' (" in process.log, what="the log names 'd'")
        assert 'gearbox evolve stamp d' in process.log
    site.go()
    newer = site.fork()
    for process in (newer, *back.values(), mended, after):
        process.until_reason('complete')
    assert back['warn'].log.count('knows evolutions that this release does not: ') <= 3
    assert site.states('d') == ['interrupted', 'done']
    site.evolutions.append({'id': 'hotfix', 'transactional': site.is_sql})
    check_nobody_served_during(site, 'd', figures)
    assert all(site.count('begin', id) == 1 for id in 'abc')
    figures.count('evolutions', len(site.evolutions))


#: What the next release makes of a plan, and which evolutions run for it.
NEXT_PLANS = {
    'one in the middle': (['a', 'm', 'b', 'c'], ['m']),
    'one removed': (['a', 'c'], []),
    'the other way round': (['c', 'b', 'a'], []),
    'one renamed': (['a', ('b2', 'b'), 'c'], []),
    'all of it': ([('c2', 'c'), 'x', ('b2', 'b'), 'y', 'a'], ['x', 'y']),
}


def steps(plan) -> list[dict]:
    """(new, old) is a renamed one."""
    return [
        {'id': each[0], 'replaces': [each[1]], 'does': 'hold'} if isinstance(each, tuple) else {'id': each}
        for each in plan
    ]


@on('sqlite')
def test_plans_that_change_while_processes_of_the_one_before_are_there(make_site, urls, store_url, figures):
    before = [{'id': id} for id in 'abc']
    sites = {}
    for name, url in zip(NEXT_PLANS, urls(len(NEXT_PLANS)), strict=True):
        sites[name] = make_site(url, evolutions=before, watch=WATCH, lease=20)
        sites[name].old = sites[name].fork()
    for site in sites.values():
        site.old.until_open()
    with users(*(site.old for site in sites.values())):
        for name, (plan, runs) in NEXT_PLANS.items():
            site = sites[name]
            site.new = [site.fork(evolutions=steps(plan)) for _ in range(long_or_short(long=3, short=1))]
            if not runs:
                # Nothing is pending: the first answer is a 200.
                assert site.new[0].first_answer()[0] == 200, name
        for name, (_, runs) in NEXT_PLANS.items():
            site = sites[name]
            for process in (*site.new, site.old):
                process.until_open()
            for id in runs:
                until(lambda site=site, id=id: site.states(id) == ['done'], what=f'{id} is done')
            for process in (*site.new, site.old):
                process.until_open()
    for name, (_, runs) in NEXT_PLANS.items():
        site = sites[name]
        for id in runs:
            check_nobody_served_during(site, id, figures)
            check_served_around(site, id, [site.old.pid])
        assert sorted(line.about for line in site.lines('begin')) == sorted([*'abc', *runs]), name
        assert site.seen == [3 + len(runs)] * ROWS
        figures.count('evolutions', 3 + len(runs))
        assert 'Traceback' not in ''.join(process.log for process in site.processes)


@on('postgresql')
@pytest.mark.parametrize('killed', [False, True])
def test_an_evolution_that_is_renamed_while_the_release_before_runs_it(make_site, store_url, killed, figures):
    """The new release waits for it under its old name, or does it under its new one; and nobody does it twice."""
    transactional = not store_url.startswith('mongodb')
    old_plan = [{'id': 'old', 'does': 'hold', 'transactional': transactional}]
    new_plan = [{'id': 'new', 'replaces': ['old'], 'does': 'hold', 'transactional': transactional, 'go': 'go-new'}]
    site = make_site(store_url, evolutions=old_plan, watch=0.3, lease=3 if killed else 20)
    holder = site.fork()
    site.until_told('half', 'old')
    newer = site.fork(evolutions=new_plan)
    assert newer.first_answer()[0] == 503
    if not killed:
        site.go()
        newer.until_open()
        holder.until_open()
        assert site.states('new') == []
        assert site.states('old') == ['done']
        check(site, figures)
        return
    holder.kill()
    figures.count('kills')
    site.until_told('half', 'new', newer.pid)
    # A process of the old release waits meanwhile, for what it knows by the old name.
    site.go()
    waiting = site.fork(evolutions=old_plan)
    assert waiting.first_answer()[0] == 503
    site.go('go-new')
    newer.until_open()
    waiting.until_open()
    assert site.count('end', 'old') + site.count('end', 'new') == 1
    if transactional:
        assert site.seen == [1] * ROWS
    check_nobody_served_during(site, 'new', figures)


@on('postgresql')
def test_two_releases_with_something_of_their_own_to_do_at_the_same_moment(make_site, store_url, figures):
    """They take turns, and none of them serves while the other evolves."""
    transactional = not store_url.startswith('mongodb')
    base = [{'id': 'base'}]
    plans = [
        [*base, *({'id': f'{release}{number}', 'transactional': transactional} for number in range(2))]
        for release in ('x', 'y')
    ]
    rounds = long_or_short(long=3, short=1)
    site = make_site(store_url, evolutions=base, watch=WATCH, lease=20)
    old = site.fork()
    old.until_open()
    for number in range(rounds):
        plans = [[*plan, {'id': f'{number}-{side}', 'transactional': transactional}] for side, plan in enumerate(plans)]
        both = [site.fork(evolutions=plan) for plan in plans for _ in range(2)]
        with users(old, *both):
            for process in both:
                process.until_open()
            done = [each['id'] for plan in plans for each in plan]
            until(lambda done=done: all(site.states(id) == ['done'] for id in done), what='all are done')
            for process in (old, *both):
                process.until_open()
        for process in both:
            process.kill()
    ids = {each['id'] for plan in plans for each in plan}
    for id in ids - {'base'}:
        assert site.count('begin', id) == site.count('end', id) == 1
        check_nobody_served_during(site, id, figures)
    assert site.seen == [len(ids)] * ROWS
    figures.count('evolutions', len(ids))
