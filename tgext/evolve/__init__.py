"""Data evolutions for TurboGears 2: run once per database, under a lease, behind a 503."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import import_module
from typing import Any

from .errors import (
    Cancelled,
    EvolutionFailed,
    EvolveError,
    LeaseLost,
    NothingRuns,
    OptionError,
    PlanError,
    SourceError,
    StoreError,
    TimedOut,
)
from .evolution import BatchedEvolution, Evolution

__all__ = [
    'BatchedEvolution',
    'Cancelled',
    'Evolution',
    'EvolutionFailed',
    'EvolveError',
    'LeaseLost',
    'NothingRuns',
    'OptionError',
    'PlanError',
    'SourceError',
    'StoreError',
    'TimedOut',
    'adopt',
    'cancel',
    'claim',
    'down',
    'dry_run',
    'is_open',
    'listen',
    'pause',
    'plugme',
    'register',
    'resume',
    'retry',
    'stamp',
    'start',
    'unstamp',
    'up',
    'wait',
]


def plugme(configurator: Any, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Plug tgext.evolve into an application.

    :param configurator: the application's ``base_config``.
    :param options: ``evolutions`` and any other option of tgext.evolve without its prefix.
    :raises OptionError: naming an option that there is not, or that has a bad value.
    """
    return _component().plugme(configurator, options)


def register(configurator: Any, evolutions: Iterable[Any]) -> None:
    """Add evolutions of another pluggable, before or after tgext.evolve is plugged.

    :param configurator: the application's ``base_config``.
    :param evolutions: entries as in the ``evolutions`` option.
    """
    _component().register(configurator, evolutions)


def listen(configurator: Any, hook: str, listener: Callable[[Any], object]) -> None:
    """Have ``listener`` hear what happens in this application alone; ``tg.hooks`` hear of every application.

    :param configurator: the application's ``base_config``.
    :param hook: as for ``tg.hooks``, for example ``evolve.failed``.
    :param listener: called with the :class:`tgext.evolve.events.Event`.
    :raises OptionError: when there is no such hook.
    """
    _component().listen(configurator, hook, listener)


def start(app: Any) -> None:
    """Begin to run or wait in this process: for servers that are not recognised.

    :param app: the WSGI application that TurboGears made, or its configuration.
    :raises NotPlugged: when tgext.evolve cannot be found in it.
    """
    evolver = import_module('.finding', __name__).evolver_in(app)
    if evolver is not None:
        evolver.start()


def is_open(conf: Any) -> bool:
    """May everything be served? One look at the database, where no server runs.

    :param conf: the application's configuration, for example ``tg.config``.
    """
    evolver = _evolver(conf)
    return evolver is None or evolver.is_open_now()


def wait(conf: Any, timeout: float | None = None) -> bool:
    """Wait until everything may be served: for workers and scripts that need evolved data.

    :param conf: the application's configuration.
    :param timeout: seconds; None: for ever.
    :returns: False when the time ran out.
    """
    evolver = _evolver(conf)
    return evolver is None or evolver.wait(timeout)


def stamp(conf: Any, ids: Collection[str] | None = None) -> list[str]:
    """Record evolutions as done without running them.

    For a fresh database that was made at the newest schema: ``tgext.evolve.stamp(conf)`` in
    ``websetup``, where there is nothing old that could be evolved.

    :param conf: the application's configuration.
    :param ids: which ones; None: the whole plan.
    :returns: the ids; nothing when tgext.evolve is disabled.
    :raises OptionError: naming an id that neither plan nor history has.
    """
    return _record(conf, lambda records: records.stamp(ids), [])


def unstamp(conf: Any, ids: Collection[str]) -> list[str]:
    """Take back :func:`stamp`, or an import from 0.0.5: these are pending again."""
    return _record(conf, lambda records: records.unstamp(ids), [])


def retry(conf: Any, ids: Collection[str], *, restart: bool = False) -> int:
    """Evolutions that failed, were cancelled or interrupted too often may run again at once.

    :param restart: batched evolutions begin anew, instead of where they stopped.
    :returns: how many attempts no longer count.
    """
    return _record(conf, lambda records: records.retry(ids, restart=restart), 0)


def dry_run(conf: Any, id: str) -> int:
    """Process one batch of a batched evolution and roll it back, to see whether it works.

    :returns: how many items it had.
    :raises PlanError: when there is no such evolution, or nothing can be rolled back (MongoDB without transactions).
    :raises ItemFailed: an item raised.
    """
    evolver = _evolver(conf)
    return 0 if evolver is None else evolver.dry_run(id)


def pause(conf: Any) -> None:
    """No evolution begins any more, in whatever process, until :func:`resume`.

    What runs goes on to its end; a batched evolution stops after its batch.
    """
    _record(conf, lambda records: records.pause(), None)


def resume(conf: Any) -> None:
    """Take :func:`pause` back."""
    _record(conf, lambda records: records.resume(), None)


def cancel(conf: Any) -> str | None:
    """Have the evolution that runs end at its next report of progress, whoever runs it.

    It is recorded as cancelled, and runs again only after :func:`retry`.

    :returns: its id.
    :raises NothingRuns: when nothing runs now.
    """
    return _record(conf, lambda records: records.cancel(), None)


def down(conf: Any, message: str = '') -> None:
    """Close the gate of every process by hand, until :func:`up`; they see it within ``watch`` seconds.

    :param message: for the public, at most 1,000 characters.
    """
    _record(conf, lambda records: records.down(message), None)


def up(conf: Any) -> bool:
    """Take :func:`down` back; was it closed by hand?"""
    return _record(conf, lambda records: records.up(), False)


def adopt(conf: Any, version: str | None = None, *, ignore_lock: bool = False) -> list[str]:
    """Take over by hand what tgext.evolve 0.0.5 recorded, where that cannot be done by itself.

    :param version: the last evolution that ran; None: the one that 0.0.5 recorded.
    :param ignore_lock: 0.0.5's lock is a leftover: no process of it runs any more.
    :returns: the ids that count as done now.
    """
    return _record(conf, lambda records: records.adopt(version, ignore_lock=ignore_lock), [])


def claim(conf: Any) -> None:
    """Begin a history of its own in this namespace, though another one has the same evolutions."""
    _record(conf, lambda records: records.claim(), None)


def _component() -> Any:
    return import_module('.component', __name__)


def _evolver(conf: Any) -> Any:
    return _component().evolver_of(conf)


def _record(conf: Any, act: Callable[[Any], Any], disabled: Any) -> Any:
    """Record something by hand, and have this process see it; ``disabled``: what to return then."""
    evolver = _evolver(conf)
    if evolver is None:
        return disabled
    records = import_module('.records', __name__).Records(evolver.options, evolver.plan, evolver.store)
    result = act(records)
    evolver.look()
    return result
