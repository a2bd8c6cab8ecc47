"""Batch after batch through one partition of a batched evolution's items."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from . import keys
from .errors import Endless, ItemFailed, StoreBusy
from .evolution import BatchedEvolution, Unprocessed, writing_to
from .history import Attempt
from .plan import PlannedEvolution
from .points import point
from .stores.base import Checkpoint, Items, Store

#: How often a batch is tried that lost against another transaction.
_TRIES = 10

#: The longest pause before another try, in seconds.
_LONGEST_PAUSE = 2.0

#: By how much the size of a batch changes at most from one to the next.
_STEP = 2.0

Around = Callable[[], AbstractContextManager[object]]


def items_of(store: Store, evolution: BatchedEvolution) -> Items:
    """What reads the items of ``evolution``: the store, or its own methods.

    :raises PlanError: when the store cannot read such items.
    """
    return _Own(evolution) if evolution.items is None else store.items(evolution)


class _Own:
    """The items of an evolution that fetches them itself, from wherever."""

    def where(self) -> Any:
        return None

    def __init__(self, evolution: BatchedEvolution):
        self._evolution = evolution

    def fetch(self, after: Any, until: Any, limit: int) -> list[Any]:
        return list(self._evolution.fetch(after, until, limit))

    def key(self, item: Any) -> Any:
        return self._evolution.key(item)

    def count(self) -> int | None:
        return self._evolution.count()

    def cuts(self, partitions: int) -> list[Any]:
        return list(self._evolution.cuts(partitions))


def count(store: Store, evolution: BatchedEvolution) -> int | None:
    """How many items are left to be processed; None where that cannot be told."""
    if type(evolution).count is not BatchedEvolution.count:
        return evolution.count()
    return items_of(store, evolution).count()


class Batches:
    """The batches of one partition, each saved with its checkpoint.

    :param around: entered around what the evolution does in a batch.
    :param rest: waits for so many seconds, or until the process is told to stop.
    """

    def __init__(
        self,
        store: Store,
        planned: PlannedEvolution,
        attempt: Attempt,
        around: Around,
        rest: Callable[[float], object] = time.sleep,
    ):
        self._store = store
        self._planned = planned
        self._evolution: BatchedEvolution = planned.evolution
        self._attempt = attempt
        self._around = around
        self._rest = rest
        self._items = items_of(store, self._evolution)
        self._size = self._evolution.batch_size
        self._passes = self._evolution.passes
        if self._passes is None and self._evolution.where is None:
            self._passes = 1  # without a filter, nothing ever leaves it
        self._first: set[str] = set()
        self._measured: float | None = None

    def run(self, checkpoint: Checkpoint, between: Callable[[Checkpoint], object]) -> Checkpoint:
        """Until this partition is finished.

        :param between: called after each batch; what it raises ends the run, and nothing is lost.
        :raises ItemFailed: an item raised; its batch is not saved.
        :raises LeaseLost: another attempt has the checkpoint now.
        :raises StoreBusy: a batch lost against others again and again.
        """
        while not checkpoint.finished:
            checkpoint = self._batch(checkpoint)
            point('after-batch')
            between(checkpoint)
            if not checkpoint.finished:
                self._breathe()
        return checkpoint

    def try_one(self, checkpoint: Checkpoint) -> int:
        """Process one batch and save nothing of it; how many items it had."""
        tried = 0
        try:
            with self._store.batch(self._attempt, self._planned, checkpoint), self._around():
                tried = len(self._work(checkpoint)[0])
                raise _Enough
        except _Enough:
            return tried

    def _breathe(self) -> None:
        pause = self._evolution.pause
        if callable(pause):
            with self._around():
                seconds = pause()
        else:
            seconds = pause
        if seconds > 0:
            self._rest(seconds)

    def _batch(self, before: Checkpoint) -> Checkpoint:
        size = self._size
        # From one measurement to the next: commits and pauses belong to what a batch takes.
        since = self._measured or time.monotonic()
        for left in reversed(range(_TRIES)):
            began = time.monotonic()
            try:
                with self._store.batch(self._attempt, self._planned, before) as batch:
                    with self._around():
                        items, last = self._work(before, size)
                    point('before-batch-commit')
                    after = self._moved(before, len(items), last, size, (now := time.monotonic()) - since)
                    batch.checkpoint = after
            except StoreBusy:
                if not left:
                    raise
                self._rest(random.uniform(0.5, 1.0) * min(0.02 * 2 ** (_TRIES - left), _LONGEST_PAUSE))
            else:
                self._measured = now
                if len(items) == size:
                    self._adapt(time.monotonic() - began)
                return after
        raise AssertionError('unreachable')

    def _work(self, before: Checkpoint, size: int | None = None) -> tuple[Sequence[Any], str | None]:
        """Fetch a batch and process it; the items and the key of the last one."""
        after = before.position if before.position is not None else before.after
        items = self._items.fetch(_key(after), _key(before.until), size or self._size)
        if not items:
            return items, None
        if before.found == 0:
            self._notice(items, before)
        # Before its key is changed by what is done with it.
        last = keys.dumps(self._items.key(items[-1]))
        try:
            with writing_to(self._items.where()):
                self._evolution.process_batch(items)
        except Unprocessed as unprocessed:
            cause = unprocessed.__cause__
            assert isinstance(cause, Exception)
            raise self._failed(f'the item with the key {self._name(unprocessed.item)}', cause) from cause
        except Exception as error:
            raise self._failed(f'the batch of {len(items)} items up to the key {keys.loads(last)!r}', error) from error
        return items, last

    def _name(self, item: Any) -> str:
        try:
            return repr(self._items.key(item))
        except Exception:  # what it raised has broken the item or its session
            return '(cannot be told)'

    def _failed(self, what: str, error: Exception) -> ItemFailed:
        return ItemFailed(
            f'{what} raised {type(error).__name__}',
            place=f'evolution {self._planned.id!r}, {self._planned.origin}',
            remedy='Mend the evolution or that item. Its batch was rolled back where the database can; '
            'it goes on from there.',
        )

    def _notice(self, items: Iterable[Any], before: Checkpoint) -> None:
        """The first batch of a pass: the same as in the pass before means that the filter does not shrink."""
        first = {keys.dumps(self._items.key(item)) for item in items}
        if self._passes is None and before.passes and first <= self._first:
            raise Endless(
                f'evolution {self._planned.id!r} finds items again that it has processed in the pass before',
                place=self._planned.origin,
                remedy='If its filter is not to find them any more, mend process(); else say passes = 1.',
            )
        self._first = first

    def _moved(self, before: Checkpoint, number: int, last: str | None, size: int, seconds: float) -> Checkpoint:
        moved = replace(
            before,
            found=before.found + number,
            done=before.done + number,
            seconds=before.seconds + seconds,
            position=last if last is not None else before.position,
        )
        if number >= size:
            return moved
        # The pass has come to its end.
        passes = before.passes + 1
        return replace(
            moved,
            position=None,
            passes=passes,
            found=0,
            last_found=moved.found,
            finished=moved.found == 0 or (self._passes is not None and passes >= self._passes),
        )

    def _adapt(self, seconds: float) -> None:
        """Towards the size that takes ``batch_seconds``, in small steps: one slow batch says little."""
        wanted = self._evolution.batch_seconds
        if wanted is None:
            return
        factor = min(max(wanted / max(seconds, 1e-6), 1 / _STEP), _STEP)
        self._size = min(max(round(self._size * factor), 1), self._evolution.largest_batch)


class _Enough(BaseException):
    """Rolls a tried batch back."""


def _key(text: str | None) -> Any:
    return None if text is None else keys.loads(text)
