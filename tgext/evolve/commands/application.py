"""The application of an ini file, loaded as gearbox does it, with nothing started."""

from __future__ import annotations

import configparser
import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from .. import failure
from ..errors import EvolveError, LeaseTaken, OptionError, StoreAway, StoreBusy, StoreError
from ..evolver import Evolver
from ..history import History
from ..records import Records
from ..remedies import to_type
from .exits import Exit, Problem

#: Of an exception by which a driver says that its server does not answer.
_AWAY = frozenset(
    {
        'ConnectionError',
        'ConnectionFailure',
        'InterfaceError',
        'OperationalError',
        'ServerSelectionTimeoutError',
        'TimeoutError',
    }
)


@dataclass(frozen=True)
class Application:
    """What the verbs work on.

    :param conf: the application's configuration.
    :param evolver: None when tgext.evolve is disabled there.
    :param ini: as it was typed, for messages.
    """

    conf: Any
    evolver: Evolver | None
    ini: str

    def records(self, patience: float = 0.0) -> Records:
        """:param patience: seconds to wait for who holds the lease."""
        evolver = self.enabled()
        return Records(evolver.options, evolver.plan, evolver.store, patience)

    def enabled(self) -> Evolver:
        """:raises Problem: when tgext.evolve is disabled."""
        if self.evolver is None:
            raise Problem(
                Exit.CONFIGURATION,
                'disabled',
                f'tgext.evolve is disabled in {self.ini} (tgext.evolve.enabled = false)',
                'Nothing was done; set it to true to use this.',
            )
        return self.evolver

    def check_ids(self, ids: Iterable[str], history: History | None = None, *, planned: bool = False) -> None:
        """:param planned: only those of the plan will do.

        :raises Problem: naming the first that is unknown, with those that look alike.
        """
        evolver = self.enabled()
        known = [name for each in evolver.plan for name in each.names]
        if not planned:
            known += sorted((evolver.ledger.history() if history is None else history).ids)
        for id in ids:
            if id not in known:
                # Also by a part of it: people remember the words, not the date.
                close = difflib.get_close_matches(id, known, n=3) or [k for k in known if id.lower() in k.lower()][:3]
                alike = (
                    f'Did you mean {" or ".join(map(repr, close))}?' if close else f'To see them: {to_type("status")}'
                )
                where = 'the plan' if planned else 'the plan or the history'
                raise Problem(Exit.NO_SUCH_ID, 'no-such-id', f'there is no evolution {id!r} in {where}', alike)

    @contextmanager
    def context(self) -> Iterator[None]:
        """The application's own configuration in ``tg.config``; what was done with its databases is undone."""
        import tg

        tg.config.push_thread_config(self.conf)
        try:
            yield
        finally:
            tg.config.pop_thread_config(self.conf)
            self._undo()

    def _undo(self) -> None:
        databases = self.conf.get('tgext_evolve.databases')
        if 'transaction' in sys.modules:
            sys.modules['transaction'].abort()
        if databases is not None and databases.session is not None:
            databases.session.remove()
        if databases is not None and databases.datastore is not None:
            from ming.odm import ThreadLocalODMSession

            ThreadLocalODMSession.close_all()

    def close(self) -> None:
        if self.evolver is not None:
            self.evolver.store.close()


def load(spec: str) -> Application:
    """Load the application of an ini file.

    :param spec: as other commands of gearbox take it: ``file.ini``, ``file.ini#name``, ``config:file.ini``.
    :raises Problem: in one line, whatever is wrong.
    """
    spec = spec.removeprefix('config:')
    path, _, name = spec.partition('#')
    if not os.path.isfile(path):
        raise Problem(
            Exit.NO_SUCH_INI,
            'no-such-ini',
            f'there is no file {path!r} in {os.getcwd()}',
            "Go to the project's directory, or say which one: gearbox evolve -c FILE.ini ...",
        )
    import tg
    from paste.deploy import loadapp

    from ..component import EVOLVER
    from ..finding import evolvers_below

    try:
        # Whatever applications print: stdout belongs to the command.
        with redirect_stdout(sys.stderr):
            app = loadapp('config:' + spec, name=name or None, relative_to=os.getcwd())
    except EvolveError as error:
        raise of_error(error) from error
    except (configparser.Error, UnicodeDecodeError) as error:
        raise Problem(
            Exit.CONFIGURATION, 'bad-ini', f'{path} cannot be read: {failure.brief(error)}', 'Mend that file.'
        ) from error
    except LookupError as error:
        raise Problem(
            Exit.CONFIGURATION,
            'bad-ini',
            f'{spec} names no application that can be loaded: {failure.brief(error)}',
            'It needs an [app:main] section, or say which one: -c FILE.ini#NAME; and the project must be installed.',
        ) from error
    except Exception as error:
        raise _not_loaded(error, path) from error
    conf = tg.config._current_obj()
    evolvers = list({id(each): each for each in evolvers_below(app)}.values())
    if len(evolvers) > 1:
        raise Problem(
            Exit.CONFIGURATION,
            'several-applications',
            f'{spec} makes {len(evolvers)} applications that evolve',
            'Say which one is meant: -c FILE.ini#NAME',
        )
    if not evolvers and not conf.get('tgext_evolve.plugged', False):
        raise Problem(
            Exit.CONFIGURATION,
            'not-plugged',
            f'tgext.evolve is not plugged into the application of {spec}',
            "Plug it in config/app_cfg.py: plug(base_config, 'tgext.evolve', evolutions=[...])",
        )
    evolver = evolvers[0] if evolvers else None
    if evolver is not None and conf.get(EVOLVER) is not evolver:
        # Made last, another application left its own; ours is not to be had from what wraps it.
        raise Problem(
            Exit.CONFIGURATION,
            'several-applications',
            f'{spec} makes several applications of TurboGears',
            'Say which one is meant: -c FILE.ini#NAME',
        )
    return Application(conf, evolver, path)


def _not_loaded(error: Exception, path: str) -> Problem:
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        away = False
    else:
        away = any(kind.__name__ in _AWAY for each in _chain(error) for kind in type(each).__mro__)
    what = f'the application of {path} cannot be loaded: {failure.brief(error)}'
    if away:
        return Problem(
            Exit.UNAVAILABLE, 'database-away', what, 'It asks its database while it is loaded; start that first.'
        )
    return Problem(Exit.CONFIGURATION, 'not-loaded', what, 'Mend it; the traceback: gearbox --debug evolve ...')


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def of_error(error: EvolveError) -> Problem:
    """What went wrong, with the exit code that scripts see."""
    if isinstance(error, LeaseTaken):
        code, kind = Exit.LATER, 'lease-held'
    elif isinstance(error, StoreBusy):
        code, kind = Exit.LATER, 'database-busy'
    elif isinstance(error, StoreAway):
        code, kind = Exit.UNAVAILABLE, 'database-away'
    elif isinstance(error, StoreError):
        code, kind = Exit.UNAVAILABLE, 'database-refuses'
    elif isinstance(error, OptionError):
        code, kind = Exit.CONFIGURATION, 'bad-option'
    else:
        code, kind = Exit.CONFIGURATION, 'bad-configuration'
    return Problem(code, kind, f'{error.thing} (in {error.place})', error.remedy)
