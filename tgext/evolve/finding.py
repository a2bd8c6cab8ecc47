"""Finds the evolver in whatever a server was given as its application."""

from __future__ import annotations

from typing import Any

from .component import EVOLVER, GateMiddleware, evolver_of
from .errors import NotPlugged
from .evolver import Evolver

#: Middlewares are not stacked deeper than this many objects; what is larger is no application.
_MOST = 10_000


def evolver_in(app: Any) -> Evolver | None:
    """The evolver of a WSGI application, below any middleware around it; or of a configuration.

    :raises NotPlugged: when there is none to be found.
    """
    if hasattr(app, 'get') and EVOLVER in app:
        return evolver_of(app)
    seen: set[int] = set()
    todo = [app]
    while todo and len(seen) < _MOST:
        each = todo.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, GateMiddleware):
            return each.evolver
        todo += _inside(each)
    raise NotPlugged(
        'tgext.evolve is not found in this application (it may be disabled there)',
        place=f'{type(app).__module__}.{type(app).__qualname__}',
        remedy='Pass the configuration instead: tgext.evolve.start(tg.config).',
    )


def _inside(thing: Any) -> list[Any]:
    """What a middleware, or a function around one, holds."""
    held = [value for value in getattr(thing, '__dict__', {}).values() if callable(value)]
    held += [value for cell in getattr(thing, '__closure__', None) or () for value in _contents(cell)]
    function = getattr(thing, '__func__', None)
    if function is not None:
        held += [function, thing.__self__]
    return held


def _contents(cell: Any) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # not filled yet
        return []
