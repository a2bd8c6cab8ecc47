"""Executors for the partitions of a batched evolution: processes of this host, and a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from importlib import import_module
from multiprocessing.connection import wait
from typing import Any

from .errors import WorkerFailed


def processes(number: int) -> ProcessPoolExecutor:
    """So many processes of this host, spawned, which end when their parent is killed."""
    return ProcessPoolExecutor(
        number, mp_context=multiprocessing.get_context('spawn'), initializer=_end_with_the_parent
    )


def _end_with_the_parent() -> None:
    """Who only waits for work does not notice by itself that nobody is there to give any."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        # What runs is a batch that a later holder does anew: rolled back, as after any kill.
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), name='tgext.evolve parent', daemon=True).start()


def dask(address: Any, **options: Any) -> Executor:
    """The workers of a Dask cluster; needs the extra ``dask``.

    :param address: of the scheduler, or a cluster object; as for ``distributed.Client``, which gets
        the ``options`` as well.
    """
    try:
        make: Any = import_module('distributed').Client
    except ImportError as error:
        raise WorkerFailed(
            f'Dask is not installed: {error}',
            place='tgext.evolve.executors.dask()',
            remedy="Install it here and where the workers run: pip install 'tgext.evolve[dask]'",
        ) from error
    return _Dask(make(address, **{'set_as_default': False, **options}))


class _Dask(Executor):
    """Closes its client in the end, which Dask's own executor leaves open: one for each attempt."""

    def __init__(self, client: Any):
        self._client = client
        # Dask takes a function for pure by default: asked again, it would give the result it has.
        self._executor = client.get_executor(pure=False)

    def submit(self, function: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        if self._client.status == 'closed':
            # As any executor that takes nothing more: another client may reach a scheduler.
            raise RuntimeError('the client of Dask is closed: it could not reach its scheduler again')
        future: Future[Any] = self._executor.submit(function, *args, **named)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        try:
            self._executor.shutdown(wait)
        finally:
            self._client.close()
