"""Hands out the partitions of a batched evolution, here or to other threads, processes and hosts."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import Any

from . import failure, keys
from .batches import Around, Batches, count, items_of
from .errors import LeaseLost, Stop, StoreAway, StoreBusy, StoreError, WorkerFailed
from .evolution import BatchedEvolution
from .history import Attempt
from .plan import PlannedEvolution
from .points import point
from .stores.base import Checkpoint, Store

log = logging.getLogger(__name__)

#: How often the holder looks how far its workers are, and a worker whether it is still wanted, in seconds.
_LOOK = 1.0

#: How often workers may die without any of them having moved its checkpoint.
_MOST_DEATHS = 5

#: How long workers in other processes that can save nothing any more are waited for, in seconds.
_PATIENCE = 30.0

#: This process, and those that are forked from it, whose pids are others. A pid alone says nothing:
#: in containers many have the same.
_FAMILY = uuid.uuid4().hex


class Fate(Enum):
    """What became of a partition in the hands of a worker."""

    FINISHED = 'finished'
    STOPPED = 'stopped'
    LOST = 'lost'
    AWAY = 'away'
    FAILED = 'failed'


@dataclass(frozen=True)
class Told:
    """What a worker tells the holder; ``error`` only within one process, where nothing is pickled."""

    fate: Fate
    text: str = ''
    error: BaseException | None = None


@dataclass(frozen=True)
class Task:
    """One partition, as it is handed to a worker.

    :param home: the key of what the holder's own process knows.
    :param application: how another process makes the application.
    :param turn: no two tasks are equal: Dask would take the result of the one before.
    """

    attempt: Attempt
    partition: int
    home: str
    application: str | None
    turn: int
    family: str = _FAMILY
    pid: int = field(default_factory=os.getpid)

    @property
    def is_here(self) -> bool:
        """Is this the process of the holder?"""
        return self.family == _FAMILY and self.pid == os.getpid()


@dataclass(frozen=True)
class Home:
    """What a worker works with.

    :param stop: set when the holder wants nothing more of it.
    :param leaves: is this process told to end?
    """

    store: Store
    planned: PlannedEvolution
    around: Around
    stop: threading.Event
    leaves: Callable[[], bool] = lambda: False


_homes: dict[str, Home] = {}


@dataclass(frozen=True)
class Sum:
    """How far all partitions are together."""

    done: int
    total: int | None
    seconds: float

    @classmethod
    def of(cls, checkpoints: Sequence[Checkpoint]) -> Sum:
        totals = [each.total for each in checkpoints if each.total is not None]
        done = sum(each.done for each in checkpoints)
        total = sum(totals) if totals else None
        finished = bool(checkpoints) and all(each.finished for each in checkpoints)
        if total is not None and (done > total or finished):
            total = done  # more came meanwhile, or went away
        return cls(done, total, max((each.seconds for each in checkpoints), default=0.0))


class Conductor:
    """Runs one attempt at a batched evolution, under the lease of the caller.

    :param between: told how far it is after each batch, or each second; what it raises ends the run.
    :param rest: waits for so many seconds, or until the process is told to stop.
    :param application: how another process makes the application, where the evolution does not say.
    """

    def __init__(
        self,
        store: Store,
        planned: PlannedEvolution,
        attempt: Attempt,
        around: Around,
        between: Callable[[Sum], object],
        rest: Callable[[float], object],
        application: str | None = None,
    ):
        self.store = store
        self.planned = planned
        self.evolution: BatchedEvolution = planned.evolution
        self.attempt = attempt
        self._around = around
        self.between = between
        self.rest = rest
        self.application = self.evolution.application or application

    def run(self) -> None:
        checkpoints = self._open()
        self.between(Sum.of(checkpoints))
        executor = self.evolution.executor() if self.store.threads else None
        if executor is None:
            self._run_here(checkpoints)
        else:
            self._hand_out(checkpoints, executor)

    # -- the checkpoints

    def _open(self) -> list[Checkpoint]:
        """This attempt's own: where an earlier one stopped, or from the beginning."""
        taken = self._take()
        if taken and all(each.until is not None for each in taken):
            # Who made them died before the last one.
            self.store.forget_checkpoints([self.planned.id])
            taken = []
        if taken:
            done = Sum.of(taken).done
            if done:
                log.info('[%s] %r goes on after %d items', self.store.namespace, self.planned.id, done)
            return taken
        with self._around():
            bounds = self._bounds()
            total = count(self.store, self.evolution)
        new = [
            Checkpoint(number, after, until, total=total if number == 0 else None)
            for number, (after, until) in enumerate(bounds)
        ]
        point('before-checkpoints')
        taken = self._take(new)
        point('after-checkpoints')
        return taken

    def _take(self, new: Sequence[Checkpoint] = ()) -> list[Checkpoint]:
        said = False
        while True:
            try:
                return self.store.take_checkpoints(self.attempt, new)
            except StoreBusy as busy:
                # A batch of an older holder, whose session could not be ended.
                if not said:
                    log.warning('[%s] %s', self.store.namespace, busy)
                said = True
            self.between(Sum(0, None, 0.0))
            self.rest(0.2)

    def _bounds(self) -> list[tuple[str | None, str | None]]:
        wanted = self.evolution.partitions
        cuts = items_of(self.store, self.evolution).cuts(wanted) if wanted > 1 else []
        texts = list(dict.fromkeys(keys.dumps(cut) for cut in cuts))
        return list(zip([None, *texts], [*texts, None], strict=True))

    # -- here

    def _run_here(self, checkpoints: list[Checkpoint]) -> None:
        batches = Batches(self.store, self.planned, self.attempt, self._around, self.rest)
        current = {each.partition: each for each in checkpoints}

        def between(checkpoint: Checkpoint) -> None:
            current[checkpoint.partition] = checkpoint
            self.between(Sum.of(list(current.values())))

        for checkpoint in checkpoints:
            batches.run(checkpoint, between)

    # -- elsewhere

    def _hand_out(self, checkpoints: list[Checkpoint], executor: Any) -> None:
        home, stop = uuid.uuid4().hex, threading.Event()
        _homes[home] = Home(self.store, self.planned, self._around, stop, lambda: bool(self.rest(0)))
        workers = _Workers(self, home, executor)
        try:
            workers.run(checkpoints)
        except BaseException:
            stop.set()
            workers.end()
            raise
        finally:
            workers.close()
            del _homes[home]


class _Workers:
    """The partitions that are in the hands of an executor."""

    def __init__(self, conductor: Conductor, home: str, executor: Any):
        self._of = conductor
        self._home = home
        self._executor = executor
        #: With the executor that each was handed to: a broken one is replaced.
        self._futures: dict[Future[Told], tuple[int, Any]] = {}
        self._turns = itertools.count()
        self._deaths = 0

    def run(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._submit(checkpoints)
        done = Sum.of(checkpoints).done
        while self._futures:
            ended, _ = wait(self._futures, timeout=_LOOK, return_when=FIRST_COMPLETED)
            again = self._left_by(ended)
            checkpoints = self._of.store.checkpoints(self._of.planned.id, self._of.attempt)
            now = Sum.of(checkpoints)
            if now.done > done:
                done, self._deaths = now.done, 0
            self._of.between(now)
            if again:
                self._of.rest(_LOOK)
                self._submit(self._own(checkpoints, again))

    def _own(self, checkpoints: Sequence[Checkpoint], partitions: Collection[int]) -> list[Checkpoint]:
        """:raises LeaseLost: another attempt has one of the partitions now, or a person has begun it anew."""
        own = [each for each in checkpoints if each.partition in partitions]
        if len(own) < len(partitions):
            raise LeaseLost(f'checkpoints of {self._of.planned.id!r} belong to another attempt')
        return own

    def _submit(self, checkpoints: Sequence[Checkpoint]) -> None:
        for checkpoint in checkpoints:
            if checkpoint.finished:
                continue
            task = Task(self._of.attempt, checkpoint.partition, self._home, self._of.application, next(self._turns))
            try:
                future = self._executor.submit(work, task)
            except RuntimeError as error:  # broken, or shut down by somebody else
                self._replace(error)
                future = self._executor.submit(work, task)
            self._futures[future] = checkpoint.partition, self._executor

    def _replace(self, error: BaseException) -> None:
        self._count_death(error)
        self.close()
        self._executor = self._of.evolution.executor()

    def _left_by(self, ended: Collection[Future[Told]]) -> set[int]:
        """The partitions that must be handed out again."""
        left: set[int] = set()
        dead: BaseException | None = None
        for future in ended:
            partition, executor = self._futures.pop(future)
            try:
                told = future.result()
            except (Exception, CancelledError) as error:
                # Our own task tells everything by its result: what is raised is about the worker.
                left.add(partition)
                broken = isinstance(error, BrokenExecutor)
                if broken and executor is self._executor:
                    self._replace(error)
                elif not broken:
                    dead = error
            else:
                if self._is_left(told, partition):
                    left.add(partition)
        if dead is not None:
            # Once, however many partitions died of it.
            self._count_death(dead)
        return left

    def _is_left(self, told: Told, partition: int) -> bool:
        if told.fate is Fate.FINISHED:
            return False
        if told.fate is not Fate.FAILED:
            # Also for one that lost its checkpoint: perhaps to a worker that was taken for dead. Whether
            # it is still ours is seen when it is handed out.
            level = logging.INFO if told.fate is Fate.STOPPED else logging.WARNING
            log.log(level, '[%s] partition %d: %s', self._of.store.namespace, partition, told.text)
            return True
        if told.error is not None:
            raise told.error
        raise WorkerFailed(
            f'partition {partition} of {self._of.planned.id!r} failed in a worker:\n{told.text}',
            place=self._of.planned.origin,
            remedy='Mend the evolution or what the worker lacks; it goes on from its checkpoints.',
        )

    def _count_death(self, error: BaseException) -> None:
        self._deaths += 1
        log.warning('[%s] a worker has died: %s', self._of.store.namespace, failure.brief(error))
        if self._deaths > _MOST_DEATHS:
            raise WorkerFailed(
                f'workers of {self._of.planned.id!r} died {self._deaths} times and nothing was processed meanwhile; '
                f'the last: {failure.brief(error)}',
                place=f'its executor, {type(self._executor).__name__}',
                remedy='See the logs of the workers: they may not start, or process() may kill them.',
            ) from error

    def end(self) -> None:
        """Wait until nobody works any more: threads save their last batch, other processes can save nothing by then."""
        if self._are_threads():
            for future in self._futures:
                future.cancel()
            wait(self._futures)
            return
        with suppress(StoreError):
            # They find out between two batches, or when they save one. Not cancelled: an executor that
            # counts what runs among that (Dask) could not be waited for.
            self._of.store.drop_checkpoints(self._of.attempt)
        _, working = wait(self._futures, timeout=_PATIENCE)
        for future in working:
            future.cancel()
        if working:
            log.warning(
                '[%s] %d workers of %r still run; they can save no checkpoint any more',
                self._of.store.namespace,
                len(working),
                self._of.planned.id,
            )

    def _are_threads(self) -> bool:
        from concurrent.futures import ThreadPoolExecutor

        return isinstance(self._executor, ThreadPoolExecutor)

    def close(self) -> None:
        with suppress(Exception):  # a broken one, or one whose cluster is gone
            self._executor.shutdown(wait=False)


def work(task: Task) -> Told:
    """Work on one partition until it is finished; called by an executor, in whatever process."""
    told = _work(task)
    if not task.is_here:
        log.info(
            'partition %d of %r of %s:%s: %s',
            task.partition,
            task.attempt.evolution_id,
            task.attempt.host,
            task.attempt.pid,
            f'{told.fate.value}: {told.text}' if told.text else told.fate.value,
        )
    return told


def _work(task: Task) -> Told:
    try:
        with _home(task) as home:
            watch = _Watch(task, home)
            checkpoint = watch.own()
            watch.look()
            if not task.is_here:
                log.info('[%s] works on partition %d of %r', home.store.namespace, task.partition, home.planned.id)
            batches = Batches(home.store, home.planned, task.attempt, home.around, home.stop.wait)
            batches.run(checkpoint, watch)
    except LeaseLost as lost:
        return Told(Fate.LOST, str(lost))
    except Stop as stop:
        return Told(Fate.STOPPED, str(stop))
    except (StoreAway, StoreBusy) as error:
        return Told(Fate.AWAY, str(error))
    except Exception as error:
        return Told(Fate.FAILED, failure.describe(error), error if task.is_here else None)
    return Told(Fate.FINISHED)


def _home(task: Task) -> AbstractContextManager[Home]:
    if task.family != _FAMILY:
        # Another process has to make the application first, which is not the business of this module.
        home: AbstractContextManager[Home] = import_module('.workers', __package__).home_of(task)
        return home
    if not task.is_here:
        raise WorkerFailed(
            'the executor forks processes, which share the connections of their parent',
            place='executor() of the evolution',
            remedy='Have them spawned: return tgext.evolve.executors.processes(2).',
        )
    if task.home not in _homes:
        raise LeaseLost('the attempt is over')
    return nullcontext(_homes[task.home])


class _Watch:
    """Looks between two batches whether the work is still wanted."""

    def __init__(self, task: Task, home: Home):
        self._task = task
        self._home = home
        self._looked = time.monotonic()

    def __call__(self, checkpoint: Checkpoint) -> None:
        if self._home.stop.is_set() or self._home.leaves():
            raise Stop('it was told to stop')
        if self._task.is_here or time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        self.own()
        self.look()

    def own(self) -> Checkpoint:
        """:raises LeaseLost: the checkpoint belongs to another attempt now."""
        attempt = self._task.attempt
        for checkpoint in self._home.store.checkpoints(attempt.evolution_id, attempt):
            if checkpoint.partition == self._task.partition:
                return checkpoint
        raise LeaseLost('its checkpoint belongs to another attempt')

    def look(self) -> None:
        """:raises Stop: the holder is gone, or a person asked for it."""
        if self._task.is_here:
            return
        row = self._home.store.lease_row()
        attempt = self._task.attempt
        if row is None or (row.token, row.owner) != (attempt.token, attempt.owner):
            raise LeaseLost('another process holds the lease')
        if not row.alive:
            # Whoever takes it goes on here; if the holder lives, it hands this out again.
            raise Stop('its holder does not renew the lease')
        if row.requests.paused is not None or row.requests.cancel == attempt.evolution_id:
            raise Stop('a person asked for it')
