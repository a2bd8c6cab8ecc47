"""Partitions in the hands of other threads and processes, which are killed, stopped and taken for dead."""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.batches import spread
from tests.batches.elsewhere import Elsewhere, Worker
from tests.batches.site import SpreadSite
from tests.batches.test_batches import batched
from tests.chaos.figures import LONG, long_or_short
from tests.processes.harness import alive, until
from tests.servers import _children as children_of
from tests.stores import take_over
from tgext.evolve import executors, partitions
from tgext.evolve.errors import WorkerFailed
from tgext.evolve.evolver import Ended
from tgext.evolve.gate import Reason
from tgext.evolve.stores.base import Owner

ROWS = 400

pytestmark = pytest.mark.timeout(600 if LONG else 120)


def on(*databases):
    return pytest.mark.parametrize('store_url', databases, indirect=True)


@pytest.fixture
def make_site(tmp_path, store_url):
    sites = []

    def make(rows=ROWS, **options):
        sites.append(SpreadSite(tmp_path, store_url, rows, **options))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture(scope='session')
def worker(tmp_path_factory):
    """One process that works for all tests which do not kill it: starting Python is what takes time."""
    worker = Worker(tmp_path_factory.mktemp('worker') / 'log')
    yield worker
    worker.close()


@pytest.fixture
def elsewhere(worker, monkeypatch):
    """An executor with nothing but what the documentation asks of one; all that were made."""
    made = []

    def make():
        made.append(Elsewhere(worker))
        return made[-1]

    monkeypatch.setitem(spread.EXECUTORS, 'elsewhere', make)
    return made


def run(evolver):
    """In a thread, as in a server; its result comes when it is asked for."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(evolver.run)
    pool.shutdown(wait=False)
    return future


# -- processes of this host


@on('sqlite', 'postgresql', 'mariadb', 'mongodb')
def test_another_process_does_each_row_once(make_site, elsewhere, worker):
    """All that is asked of an executor is submit() and shutdown(); tasks and what they return are bytes on the way."""
    site = make_site(workers='elsewhere')
    assert site.evolver().run() is Ended.DONE
    assert site.once()
    assert site.states == ['done']
    assert elsewhere[0].shut
    log = worker.log.read_text()
    assert "works on partition 3 of 'count'" in log
    assert 'finished' in log


@pytest.mark.slow
@on('postgresql', 'mongodb', *(['sqlite', 'mariadb'] if LONG else []))
def test_a_killed_process_has_its_partition_done_by_another(make_site, caplog):
    """One death ends all eight partitions in the hands of the pool, and counts as one."""
    rows = long_or_short(20_000, ROWS)
    site = make_site(rows, stop=rows // 2 + 7)
    running = run(site.evolver())
    os.kill(site.met(), signal.SIGKILL)
    site.go()
    assert running.result(100) is Ended.DONE
    assert site.once(killed=2)
    assert site.states == ['done']
    assert caplog.text.count('a worker has died') == 1


@on('postgresql')
def test_processes_that_are_forked_are_refused(make_site):
    site = make_site(workers='forked')
    assert site.evolver().run() is Ended.STUCK
    assert 'share the connections of their parent' in site.error
    assert site.seen == {0: ROWS}


@pytest.mark.slow
@on('postgresql')
def test_processes_end_with_a_holder_that_is_killed(make_site, monkeypatch):
    site = make_site(lease=2, stop=ROWS // 2 + 7)
    holder = site.hold()
    pid = site.met()
    workers = children_of(holder.pid)
    assert pid in workers
    holder.kill()
    until(lambda: not any(map(alive, workers)), what='they have ended')
    site.go()
    monkeypatch.setitem(spread.EXECUTORS, 'processes', lambda: ThreadPoolExecutor(2))
    assert site.evolver().run(patience=60) is Ended.DONE
    assert site.once()
    assert site.states == ['interrupted', 'done']


# -- workers that cannot


@on('sqlite')
def test_a_worker_that_cannot_make_the_application_says_why(make_site, elsewhere):
    site = make_site(workers='elsewhere', application='tests.batches.spread.nothing')
    evolver = site.evolver()
    assert evolver.run() is Ended.STUCK
    assert evolver.gate.verdict.reason is Reason.FAILED
    assert "'tests.batches.spread.nothing' cannot be made here: AttributeError" in site.error
    assert 'Install the application with its configuration where the workers run' in site.error
    assert site.seen == {0: ROWS}


@on('sqlite')
def test_a_worker_that_was_not_told_of_the_application_says_what_to_say(table, worker):
    """As of one that was made in Python, without an ini file."""
    table.fill(10)
    table.run(batched(table, partitions=2, executor=lambda self: Elsewhere(worker)))
    error = table.error('count')
    assert 'this process does not know how to make the application (in the attribute application of' in error
    assert "Say application = 'config:/path/to/production.ini'" in error
    assert table.seen() == {0: 10}


@on('sqlite')
def test_a_worker_where_it_is_disabled_says_so(make_site, elsewhere):
    site = make_site(workers='elsewhere')
    evolver = site.evolver()
    site.evolve['enabled'] = 'false'
    site.write_ini()
    assert evolver.run() is Ended.STUCK
    assert f"the application 'config:{site.ini}' has no tgext.evolve here, or it is disabled (in a worker" in site.error
    assert 'Plug it in there, and set tgext.evolve.enabled = true.' in site.error
    assert site.seen == {0: ROWS}


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'distributed', None)
    with pytest.raises(WorkerFailed, match='Dask is not installed: ') as raised:
        executors.dask('tcp://scheduler:8786')
    assert raised.value.place == 'tgext.evolve.executors.dask()'
    assert raised.value.remedy.endswith("pip install 'tgext.evolve[dask]'")


@on('sqlite')
def test_a_worker_with_another_release_is_refused(make_site, elsewhere):
    site = make_site(workers='elsewhere')
    evolver = site.evolver()
    site.options['effort'] = 1
    site.write_ini()
    assert evolver.run() is Ended.STUCK
    assert "another release of the application: its code of 'count' is different" in site.error
    assert site.seen == {0: ROWS}


@on('sqlite')
def test_an_item_that_raises_elsewhere_is_named(make_site, elsewhere):
    site = make_site(workers='elsewhere', stop=222, meet_in='/no/such/directory')
    assert site.evolver().run() is Ended.STUCK
    assert 'the item with the key 222 raised FileNotFoundError' in site.error
    assert site.done == site.seen[1] < ROWS


@on('sqlite')
def test_an_executor_that_loses_every_task_ends_the_attempt(make_site, monkeypatch):
    class Loses:
        def submit(self, function, task):
            from concurrent.futures import Future

            future = Future()
            future.set_exception(OSError('the broker is gone'))
            return future

        def shutdown(self, wait):
            pass

    monkeypatch.setitem(spread.EXECUTORS, 'loses', Loses)
    monkeypatch.setattr(partitions, '_LOOK', 0.01)
    site = make_site(workers='loses')
    assert site.evolver().run() is Ended.STUCK
    assert 'died 6 times and nothing was processed meanwhile; the last: OSError: the broker is gone' in site.error


# -- workers that are to stop


@on('postgresql', 'mongodb')
@pytest.mark.parametrize('asked', ['cancel', 'pause'])
def test_what_a_person_asks_for_reaches_workers_elsewhere(make_site, elsewhere, asked):
    site = make_site(workers='elsewhere', stop=7, pause=0.05, partitions=2, batch_size=5)
    running = run(site.evolver())
    site.met()
    site.store.ask(Owner(), **({'cancel': 'count'} if asked == 'cancel' else {'paused': True}))
    until(lambda: site.store.requests() != type(site.store.requests())(), what='asked')
    site.go()
    assert running.result(60) is (Ended.STUCK if asked == 'cancel' else Ended.PAUSED)
    assert site.states == ['cancelled' if asked == 'cancel' else 'interrupted']
    assert all(future.done() for future in elsewhere[0].futures)
    assert 0 < site.done < ROWS
    if site.is_sql:
        assert site.seen[1] == site.done
    if asked == 'pause':
        site.store.ask(Owner(), paused=False)
        assert site.evolver().run() is Ended.DONE
        assert site.once(killed=2)


@on('postgresql')
def test_a_holder_that_leaves_leaves_no_worker_behind(make_site, elsewhere):
    site = make_site(workers='elsewhere', stop=7, pause=0.05, partitions=2, batch_size=5)
    evolver = site.evolver()
    running = run(evolver)
    site.met()
    evolver.leave()
    site.go()
    assert running.result(60) is Ended.LEFT
    assert all(future.done() for future in elsewhere[0].futures)
    assert site.seen[1] == site.done < ROWS


@on('postgresql')
def test_workers_elsewhere_have_no_more_time_than_the_evolution(make_site, elsewhere):
    site = make_site(workers='elsewhere', timeout=3, pause=0.2, batch_size=5)
    assert site.evolver().run() is Ended.STUCK
    assert 'TimedOut' in site.error
    assert all(future.done() for future in elsewhere[0].futures)
    assert site.seen[1] == site.done < ROWS


@on('postgresql', 'mariadb')  # on SQLite nobody can take the lease while a worker writes
def test_the_workers_of_a_deposed_holder_save_nothing(make_site, elsewhere):
    site = make_site(workers='elsewhere', stop=ROWS // 2)
    running = run(site.evolver())
    site.met()
    before = site.done
    grant = take_over(site.store)
    assert [attempt.evolution_id for attempt in site.store.interrupt_older(grant)] == ['count']
    site.go()
    assert running.result(60) is Ended.TAKEN
    assert site.done == before == site.seen[1]


@on('postgresql')
def test_a_worker_whose_holder_does_not_renew_stops_by_itself(make_site, elsewhere, monkeypatch):
    """Also where nobody takes the lease over."""
    site = make_site(lease=2, workers='elsewhere', pause=0.3, partitions=1, batch_size=5, stop=7)
    evolver = site.evolver()
    paused = threading.Event()

    def stands(original):
        return lambda *args: paused.wait(60) and original(*args)

    running = run(evolver)
    site.met()
    for name in ('renew', 'drop_checkpoints'):
        monkeypatch.setattr(evolver.store, name, stands(getattr(evolver.store, name)))
    site.go()
    until(lambda: elsewhere[0].futures[0].done(), what='the worker has stopped')
    told = elsewhere[0].futures[0].result()
    assert (told.fate, told.text) == (partitions.Fate.STOPPED, 'its holder does not renew the lease')
    evolver.leave()
    paused.set()
    assert running.result(60) in (Ended.LEFT, Ended.TAKEN)
    assert site.seen[1] == site.done < ROWS


# -- workers that are taken for others


@on('sqlite', 'postgresql', 'mariadb')
def test_two_workers_on_one_partition_do_each_row_once(make_site, monkeypatch):
    """An executor took one for dead, and gave its task to another: both go on."""

    class Twice(ThreadPoolExecutor):
        def submit(self, function, task):
            super().submit(function, task)
            return super().submit(function, task)

    monkeypatch.setitem(spread.EXECUTORS, 'twice', lambda: Twice(4))
    monkeypatch.setattr(partitions, '_LOOK', 0.05)
    site = make_site(workers='twice', partitions=2, batch_size=5)
    assert site.evolver().run() is Ended.DONE
    assert site.once()


@on('sqlite')
def test_a_worker_in_another_container_may_have_the_pid_of_the_holder(make_site, worker, monkeypatch):
    """It is another process all the same: it looks whether it is wanted, and what raised comes back as text."""

    class SamePid(Elsewhere):
        def submit(self, function, task):
            return super().submit(with_the_pid_of, task)

    monkeypatch.setitem(spread.EXECUTORS, 'same pid', lambda: SamePid(worker))
    site = make_site(workers='same pid', stop=222, meet_in='/no/such/directory')
    assert site.evolver().run() is Ended.STUCK
    assert "of 'count' failed in a worker:" in site.error
    assert 'the item with the key 222 raised FileNotFoundError' in site.error


def with_the_pid_of(task):
    return partitions.work(replace(task, pid=os.getpid()))


@on('postgresql')
def test_a_worker_without_work_keeps_no_connection(make_site, elsewhere):
    site = make_site(workers='elsewhere')
    site.evolver().run()
    with site._database() as connection:
        from sqlalchemy import text

        others = text(
            'SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()'
        )
        # The application of this process may keep one: it was the holder.
        assert connection.execute(others).scalar() <= 1
