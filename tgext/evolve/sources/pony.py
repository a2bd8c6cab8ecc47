"""Migrations of pony_up: folders ``v0``, ``v1``, ... with a model and the way to the next version, as they are."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import EvolutionFailed, SourceError
from .base import Place, Source

BindFunc = Callable[[Any], object]


class PonyMigrations:
    """The versions of a PonyORM model, as evolutions ``pony:<name>:start`` and ``pony:<name>:v<N>``.

    PonyORM makes its own connections, so its database need not be the application's. pony_up's table ``Version``
    decides what is applied.

    :param bind_func: called with a ``pony.orm.Database``; it does ``db.bind(...)`` and ``db.generate_mapping(...)``.
    :param folder_path: where the versions are; relative: the folder of ``python_import``.
    :param python_import: the dotted name of that folder: ``myapp.migrations``.
    :param name: in the ids; None: ``python_import``.
    :param depends_on: evolutions of the plan that must be done before a version's step: ``{1: ('fill-slugs',)}``.
    :param serving: what may be served until all are done: ``nothing``, ``reads`` or ``everything``.
    """

    def __init__(
        self,
        bind_func: BindFunc,
        folder_path: str,
        python_import: str,
        *,
        name: str | None = None,
        depends_on: Mapping[int, Sequence[str]] | None = None,
        serving: str = 'nothing',
    ):
        self.bind_func = bind_func
        self.folder_path = folder_path
        self.python_import = python_import
        self.name = name or python_import
        self.depends_on = dict(depends_on or {})
        self.serving = serving

    def __repr__(self) -> str:
        return f'PonyMigrations({self.python_import!r})'

    def at(self, place: Place) -> Source:
        """:raises SourceError: there are no versions, or they are wrong, or PonyORM is not installed."""
        from ..databases import is_diverted

        if is_diverted():
            raise SourceError(
                f'{self!r} has a database of its own, which a test would change',
                place='the evolutions option',
                remedy='Have bind_func bind a scratch database, by an ini file of its own: gearbox evolve -c FILE run',
            )
        source: Source = _folders().Folder(self)
        return source

    def database(self) -> Any:
        """The newest version of the model, bound: what ``migrate()`` returned. Nothing is migrated by this.

        Call it when the gate is open: binding makes tables that are missing.
        """
        return _folders().Folder(self).newest_database()


def migrate(
    bind_func: BindFunc,
    folder_path: str,
    python_import: str,
    *,
    store: str | None = None,
    patience: float = math.inf,
) -> Any:
    """Apply what is missing, one process at a time, and return the newest version of the model, bound.

    For programs without TurboGears. The lock is a lease in the same database, beside the tables of tgext.evolve:
    other processes wait here until it is done. Where ``evolutions`` names :class:`PonyMigrations`, do not call this.

    :param store: the URL of the database that holds the lease; None: the one that ``bind_func`` binds.
    :param patience: seconds to wait for another process.
    :raises EvolutionFailed: a step raised (its traceback is logged), or the wait was too long.
    :raises SourceError: the versions are wrong, or the database of ``bind_func`` cannot be told.
    """
    folder = _folders().Folder(PonyMigrations(bind_func, folder_path, python_import))
    _run(folder, store or folder.url(), f'pony:{python_import}', patience)
    return folder.newest_database()


def _run(folder: Any, url: str, namespace: str, patience: float) -> None:
    from ..databases import Databases
    from ..evolver import Ended, Evolver
    from ..options import Options
    from ..plan import Plan, planned
    from ..records import Records

    # Each call is a person who asks: it tries once, and what failed before does not keep it from that.
    options = Options(store=url, namespace=namespace, watch=0, max_attempts=1, poll=0.1)
    plan = Plan([planned(step) for step in folder.evolutions()])
    lease_store = Databases({}, options).store()
    try:
        evolver = Evolver(options, plan, lease_store)
        failed = [attempt.evolution_id for attempt in evolver.ledger.history().unsettled() if attempt.finished]
        if failed:
            Records(options, plan, lease_store).retry(failed)
        ended = evolver.run(patience=patience)
        if ended is not Ended.DONE:
            raise EvolutionFailed(
                f'the migrations of {namespace!r} are not done, {ended.value}: {evolver.gate.verdict.detail}',
                place=lease_store.name,
                remedy='Mend what is logged, and start again.',
            )
    finally:
        lease_store.close()


def _folders() -> Any:
    """What needs PonyORM, imported where it is used."""
    try:
        return importlib.import_module('.pony_folder', __package__)
    except ImportError as error:
        raise SourceError(
            f'PonyMigrations needs a library that is not installed: {error}',
            place='the evolutions option',
            remedy="Install it: pip install 'tgext.evolve[pony]'",
        ) from None
