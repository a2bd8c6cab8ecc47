"""Finds the evolver in whatever a server was given as its application."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from .component import EVOLVER, GateMiddleware, evolver_of
from .errors import NotPlugged
from .evolver import Evolver

#: So many objects are looked at, nearest first, before it is given up.
_MOST = 50_000

#: Where several applications are composed, one is at most so much further away than the nearest: a
#: middleware or two. What is further belongs to other applications of the process, by what all share.
_DEEPER = 8


def evolver_in(app: Any) -> Evolver | None:
    """The evolver of a WSGI application, below any middleware around it; or of a configuration.

    :raises NotPlugged: when there is none to be found.
    """
    if hasattr(app, 'get') and EVOLVER in app:
        return evolver_of(app)
    for evolver in evolvers_below(app):
        return evolver
    raise NotPlugged(
        'tgext.evolve is not found in this application (it may be disabled there)',
        place=f'{type(app).__module__}.{type(app).__qualname__}',
        remedy='Pass the configuration instead: tgext.evolve.start(tg.config).',
    )


def evolvers_below(app: Any) -> Iterator[Evolver]:
    """The evolvers of all applications that a WSGI application is made of, the nearest first."""
    return (gate.evolver for gate in found_below(app, GateMiddleware))


def found_below(app: Any, kind: type) -> Iterator[Any]:
    """What is of this kind in all applications that a WSGI application is made of, the nearest first."""
    seen: set[int] = set()
    todo = deque([(app, 0)])
    deepest = None
    while todo and len(seen) < _MOST:
        each, depth = todo.popleft()
        if id(each) in seen:
            continue
        if deepest is not None and depth > deepest:
            return
        seen.add(id(each))
        if isinstance(each, kind):
            if deepest is None:
                deepest = depth + _DEEPER
            yield each
        else:
            todo += [(inside, depth + 1) for inside in _inside(each)]


def _inside(thing: Any) -> list[Any]:
    """What a middleware, a function around one, or a container of them, holds."""
    if isinstance(thing, FunctionType):
        # Not its globals: everything can be reached from there.
        return [*(thing.__closure__ or ()), *(thing.__defaults__ or ()), thing.__dict__]
    if isinstance(thing, ModuleType | type):
        return []
    return [each for each in gc.get_referents(thing) if not isinstance(each, str | bytes | int | float)]
