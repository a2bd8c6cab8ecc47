"""Tests for the evolutions of a project: ready-made checks, and a runner for tests of its own.

Every pytest in this environment imports this package, because of its plugin: so it loads nothing
until somebody asks for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import CheckFailed, Checks, NotApplicable
    from .content import Content
    from .items import check_evolutions
    from .runner import Change, EvolutionRunner

__all__ = ['Change', 'CheckFailed', 'Checks', 'Content', 'EvolutionRunner', 'NotApplicable', 'check_evolutions']

_HOME = {
    'Change': 'runner',
    'CheckFailed': 'checks',
    'Checks': 'checks',
    'Content': 'content',
    'EvolutionRunner': 'runner',
    'NotApplicable': 'checks',
    'check_evolutions': 'items',
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_HOME[name]}', __name__), name)
