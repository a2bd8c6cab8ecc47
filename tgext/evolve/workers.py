"""Another process that works on partitions: it makes the application, and takes the evolution from there."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from .component import evolver_of
from .errors import NotPlugged, WorkerFailed
from .evolver import Evolver
from .finding import evolver_in
from .partitions import Home, Task

_evolvers: dict[str, Evolver] = {}
_making = threading.Lock()

#: How many partitions are worked on in this process now, by application: a worker may have several threads.
_at_work: Counter[Evolver] = Counter()
_counting = threading.Lock()


@contextmanager
def home_of(task: Task) -> Iterator[Home]:
    """What to work with in this process.

    The worker may live for long, and have nothing more to do for us: it keeps no connection.

    :raises WorkerFailed: the application cannot be made here, or it is another release.
    """
    evolver = _evolver(task.application)
    with _counting:
        _at_work[evolver] += 1
    try:
        yield _home(evolver, task)
    finally:
        with _counting:
            _at_work[evolver] -= 1
            if not _at_work[evolver]:
                evolver.store.retire()


def _home(evolver: Evolver, task: Task) -> Home:
    planned = evolver.plan.find(task.attempt.evolution_id)
    if planned is None or planned.fingerprint != task.attempt.fingerprint:
        raise WorkerFailed(
            f'this worker has another release of the application: its code of '
            f'{task.attempt.evolution_id!r} is {"missing" if planned is None else "different"}',
            place='a worker of the executor',
            remedy='Deploy the same release to the workers, and start them again.',
        )
    return Home(evolver.store, planned, evolver.around, threading.Event())


def _evolver(application: str | None) -> Evolver:
    with _making:
        if application is None:
            raise WorkerFailed(
                'this process does not know how to make the application',
                place='the attribute application of the evolution',
                remedy="Say application = 'config:/path/to/production.ini', or the dotted name of a function that "
                'returns the configuration of the application.',
            )
        if application not in _evolvers:
            _evolvers[application] = _make(application)
        return _evolvers[application]


def _make(application: str) -> Evolver:
    try:
        if application.startswith(('config:', 'egg:')):
            from paste.deploy import loadapp

            made: Any = loadapp(application)
        else:
            module, _, name = application.rpartition('.')
            made = getattr(import_module(module), name)()
        evolver = evolver_of(made) if hasattr(made, 'get') else evolver_in(made)
    except NotPlugged:
        evolver = None
    except Exception as error:
        raise WorkerFailed(
            f'the application {application!r} cannot be made here: {type(error).__name__}: {error}',
            place='a worker of the executor',
            remedy='Install the application with its configuration where the workers run.',
        ) from error
    if evolver is None:
        raise WorkerFailed(
            f'the application {application!r} has no tgext.evolve here, or it is disabled',
            place='a worker of the executor',
            remedy='Plug it in there, and set tgext.evolve.enabled = true.',
        )
    return evolver
