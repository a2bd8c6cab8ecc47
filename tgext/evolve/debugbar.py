"""A section of tgext.debugbar: the plan in short, on every page while an application is developed.

It costs nothing without tgext.debugbar, which is never imported from here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from .desk import Desk

#: How many of each are shown.
_ROWS = 8

_TABLE = Markup('<h1>{}</h1><table class="tgdb_table">{}</table>')


class EvolveSection:
    """What tgext.debugbar asks a section for."""

    name = 'Evolutions'
    hooks: Mapping[str, list[Any]] = {}

    @property
    def is_active(self) -> bool:
        """Has the application that serves this request evolutions? tgext.debugbar has one list for all."""
        return _desk() is not None

    def title(self) -> str:
        return self.name

    def content(self) -> Markup:
        desk = _desk()
        if desk is None:
            return Markup()
        answer = desk.state()
        state = answer.body
        if answer.status != 200:
            return _table('Evolutions', [('database', state['error']['thing']), ('gate', _gate(state['gate']))])
        left = [each for each in (state['running'], *state['stuck'], *state['pending']) if each is not None]
        parts = [
            _table('Evolutions', _about(state)),
            _table('Not done', [(each['id'], each['state'], each['why']) for each in left[:_ROWS]]),
            _table('Last runs', [_ran(run, attempt) for run in state['runs'] for attempt in run['attempts']][:_ROWS]),
        ]
        if state['left'] > _ROWS:
            parts.insert(2, Markup('<p>and {} more</p>').format(state['left'] - _ROWS))
        return Markup().join(parts)


def add_section() -> None:
    """Add the section if tgext.debugbar is there; once, however many applications are made."""
    module = sys.modules.get('tgext.debugbar.sections')
    if module is not None and not any(isinstance(each, EvolveSection) for each in module.__sections__):
        module.__sections__.append(EvolveSection())


def _desk() -> Desk | None:
    import tg

    from .controllers import desk_of

    return desk_of(tg.config)


def _about(state: dict[str, Any]) -> Iterable[tuple[str, str]]:
    counts = ', '.join(f'{number} {name}' for name, number in sorted(state['counts'].items()))
    yield 'plan', f'{state["total"]}: {counts}' if counts else 'no evolutions'
    yield 'gate', _gate(state['gate'])
    lease = state['lease']
    if lease is None or not lease['alive']:
        yield 'lease', 'free'
    else:
        yield 'lease', f'held by {lease["by"]}, for {lease["left"]:g} s more'
    if state['paused']:
        yield 'paused', 'nothing begins until: gearbox evolve resume'
    yield 'history', f'{state["store"]}, namespace {state["namespace"]}'


def _gate(verdict: dict[str, Any]) -> str:
    detail = f' ({verdict["detail"]})' if verdict['detail'] else ''
    return f'may serve {verdict["serving"]}: {verdict["reason"]}{detail}'


def _ran(run: dict[str, Any], attempt: dict[str, Any]) -> tuple[str, str, str, str]:
    started, finished = attempt['started'], attempt['finished']
    took = f'{(finished - started) / 1000:.2f} s' if started and finished else ''
    return attempt['id'], attempt['state'], took, run['by']


def _table(title: str, rows: Iterable[tuple[str, ...]]) -> Markup:
    lines = [
        Markup('<tr class="tgdb_row {}"><td><strong>{}</strong></td>{}</tr>').format(
            'tgdb_row_even' if number % 2 else 'tgdb_row_odd',
            first,
            Markup().join(Markup('<td>{}</td>').format(each) for each in others),
        )
        for number, (first, *others) in enumerate(rows)
    ]
    return _TABLE.format(title, Markup().join(lines)) if lines else Markup()
