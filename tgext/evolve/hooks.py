"""What happens, told to TurboGears' hooks and to the listeners of one application."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

import tg

from .errors import OptionError
from .events import Event, Listener, Listeners, What

#: ``tg.hooks`` of these names get one argument: the :class:`~tgext.evolve.events.Event`.
NAMES = tuple(f'evolve.{what.value}' for what in What)


def check_name(name: str) -> str:
    """:raises OptionError: when nothing of this name ever happens."""
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, n=1)
        raise OptionError(
            f'there is no hook {name!r}',
            place='tgext.evolve.listen()',
            remedy=f'Did you mean {close[0]!r}?' if close else f'There are: {", ".join(NAMES)}.',
        )
    return name


class Hooks:
    """Passes events on, with ``tg.config`` being that of the application in which they happen.

    ``tg.hooks`` belong to the process: a function that is registered there hears of every
    application in it. Those given here hear of this one alone.

    :param conf: the application's configuration.
    :param own: pairs of a hook's name and a listener.
    :param forget: undoes what a listener left open in the sessions of this thread.
    """

    def __init__(self, conf: Any, own: Iterable[tuple[str, Listener]], forget: Callable[[], object]):
        self._conf = conf
        self._forget = forget
        self._own: dict[str, Listeners] = {}
        for name, listener in own:
            self._own.setdefault(name, Listeners()).add(listener)

    def __call__(self, event: Event) -> None:
        name = f'evolve.{event.what.value}'
        tg.config.push_thread_config(self._conf)
        try:
            if name in self._own:
                self._own[name](event)
            tg.hooks.notify(name, args=(event,), trap_exceptions=True)
        finally:
            tg.config.pop_thread_config(self._conf)
            if not _in_a_request():
                # Nobody else would: a transaction left open here stays open for as long as the process lives.
                self._forget()


def _in_a_request() -> bool:
    """Does this thread answer a request now, with a session that is its own?"""
    try:
        tg.request._current_obj()
    except Exception:
        return False
    return True
