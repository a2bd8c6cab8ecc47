"""From the entries of the ``evolutions`` option to evolutions with their attributes checked."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from ..errors import EvolveError, SourceError
from ..evolution import Evolution
from ..plan import PlannedEvolution, planned
from .base import Place, PlacedSource, Source

ENTRY_POINTS = 'tgext.evolve.evolutions'


def evolutions_of(entries: Iterable[Any], *, listed: bool, place: Place) -> list[PlannedEvolution]:
    """All evolutions that ``entries`` stand for, in order.

    :param listed: do they stand in the application's own ``evolutions`` option? Only there, and
        only as entries of their own, a version of 0.0.5 can be found.
    :param place: the application, for sources that have to know it.
    :raises SourceError: for an entry that is no evolution and no source.
    """
    found: list[PlannedEvolution] = []
    for entry in entries:
        found += _evolutions(entry, listed, place)
    return found


def _evolutions(entry: Any, listed: bool, place: Place) -> list[PlannedEvolution]:
    if isinstance(entry, str):
        return _of_dotted_name(entry, place)
    if isinstance(entry, ModuleType):
        return _of_module(entry, place)
    if isinstance(entry, type) and _is_evolution(entry):
        return [planned(_instance(entry), listed=listed)]
    if not isinstance(entry, type) and _is_evolution(entry):
        return [planned(entry, listed=listed)]
    if isinstance(entry, type) and isinstance(entry, PlacedSource):
        entry = _instance(entry)  # a source as a class: a Schema
    if isinstance(entry, PlacedSource):
        entry = place.put(entry)
    if isinstance(entry, Source) and not isinstance(entry, type):
        return evolutions_of(entry.evolutions(), listed=False, place=place)
    if isinstance(entry, list | tuple):
        return evolutions_of(entry, listed=listed, place=place)
    raise SourceError(
        f'{entry!r} is not an evolution',
        place='the evolutions option',
        remedy='An entry is an Evolution class, an instance of one, a source, or the dotted name of '
        'a module or package that defines some.',
    )


def _is_evolution(thing: Any) -> bool:
    """Also what only looks like one: 0.0.5 asked for no base class."""
    if isinstance(thing, Evolution) or (isinstance(thing, type) and issubclass(thing, Evolution)):
        return True
    return hasattr(thing, 'evolution_id') and callable(getattr(thing, 'evolve', None))


def _instance(kind: type) -> Any:
    try:
        inspect.signature(kind).bind()
    except TypeError as error:
        raise SourceError(
            f'{kind.__module__}.{kind.__qualname__} takes parameters: {error}',
            place='the evolutions option',
            remedy=f'Register an instance: {kind.__qualname__}(...).',
        ) from None
    except ValueError:
        pass  # no signature to be had: calling it will tell
    return kind()


def _of_dotted_name(name: str, place: Place) -> list[PlannedEvolution]:
    try:
        thing: Any = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        thing = _attribute(name)
        if thing is None:
            raise SourceError(
                f'{name!r} cannot be imported: {missing}',
                place='the evolutions option',
                remedy='Correct the dotted name, or install what is missing.',
            ) from missing
    except Exception as error:
        raise SourceError(
            f'{name!r} cannot be imported: {type(error).__name__}: {error}',
            place='the evolutions option',
            remedy='Mend that module.',
        ) from error
    return _evolutions(thing, listed=False, place=place)


def _attribute(name: str) -> Any:
    """``package.module.Class`` for a name whose last part is no module."""
    module_name, _, attribute = name.rpartition('.')
    if not module_name:
        return None
    try:
        return getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError:
        return None


def _of_module(module: ModuleType, place: Place) -> list[PlannedEvolution]:
    """Of a module, or of a package with all its modules in the order of their names."""
    explicit = getattr(module, 'evolutions', None)
    if isinstance(explicit, list | tuple):
        try:
            return evolutions_of(explicit, listed=False, place=place)
        except RecursionError:
            raise SourceError(
                f'{module.__name__!r} lists itself, or a module that lists it',
                place=f'its list {module.__name__}.evolutions',
                remedy='List each module once.',
            ) from None
    found = [
        planned(_instance(kind))
        for kind in dict.fromkeys(filter(_is_class, vars(module).values()))  # an alias is no second one
        if issubclass(kind, Evolution) and kind.__module__ == module.__name__ and not _is_abstract(kind)
    ]
    for info in sorted(pkgutil.iter_modules(getattr(module, '__path__', ())), key=lambda i: i.name):
        found += _of_dotted_name(f'{module.__name__}.{info.name}', place)
    return found


def _is_class(thing: Any) -> bool:
    return isinstance(thing, type)


def _is_abstract(kind: type) -> bool:
    """A base class for others: it has no id, or abstract methods."""
    return not hasattr(kind, 'evolution_id') or inspect.isabstract(kind)


def offered(place: Place) -> list[PlannedEvolution]:
    """The evolutions that installed distributions offer through their entry points."""
    found: list[PlannedEvolution] = []
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: (p.name, p.value)):
        try:
            found += _evolutions(point.load(), listed=False, place=place)
        except EvolveError:
            raise
        except Exception as error:
            raise SourceError(
                f'the entry point {point.name} = {point.value} cannot be loaded: {error}',
                place=f'the group {ENTRY_POINTS}',
                remedy='Mend or uninstall that distribution, or set tgext.evolve.discover = false.',
            ) from error
    return found
