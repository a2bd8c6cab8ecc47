"""All evolutions that the running code knows, in a definite order. Pure: no I/O, no clock."""

from __future__ import annotations

import hashlib
import heapq
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import PurePath
from typing import Any

from .errors import PlanError
from .evolution import Evolution
from .gate import Serving
from .history import History

ID_LENGTH = 200


@dataclass(frozen=True)
class PlannedEvolution:
    """One evolution with its attributes read once and checked.

    ``origin`` says where it was written, for messages. ``listed`` is True for Evolution entries of
    the application's own ``evolutions`` option, which is what a 0.0.5 version refers to.
    """

    id: str
    evolution: Any
    origin: str
    depends_on: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    serving: Serving = Serving.NOTHING
    transactional: bool = False
    rerunnable: bool | None = None
    timeout: float | None = None
    description: str = ''
    listed: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the defining module's source and of the instance's parameters."""
        digest = hashlib.sha256()
        digest.update(_source_of(type(self.evolution)).encode('utf-8', 'replace'))
        digest.update(b'\0' + repr(_canonical(_parameters(self.evolution))).encode('utf-8', 'replace'))
        return digest.hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        """All ids under which it may be recorded, its own first."""
        return (self.id, *self.replaces)


_Wrong = Callable[[str, str], PlanError]


def planned(evolution: Any, *, listed: bool = False) -> PlannedEvolution:
    """Read and check the attributes of ``evolution``.

    :param evolution: an :class:`Evolution`, or any object with ``evolution_id`` and ``evolve()``.
    :raises PlanError: naming the evolution, its module and what is wrong with which attribute.
    """
    origin = _origin(evolution)

    def attribute(name: str) -> Any:
        return getattr(evolution, name, getattr(Evolution, name, None))

    def wrong(what: str, remedy: str) -> PlanError:
        return PlanError(what, place=origin, remedy=remedy)

    id = _id(attribute('evolution_id'), 'evolution_id', wrong)
    try:
        serving = Serving(attribute('serving'))
    except ValueError:
        raise wrong(
            f'evolution {id!r} has serving = {attribute("serving")!r}',
            "Use 'nothing', 'reads' or 'everything'.",
        ) from None
    for name, allowed in (('transactional', (True, False)), ('rerunnable', (True, False, None))):
        value = attribute(name)
        if not any(value is each for each in allowed):
            raise wrong(f'evolution {id!r} has {name} = {value!r}', f'Use one of {allowed}.')
    timeout = attribute('timeout')
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0):
        raise wrong(f'evolution {id!r} has timeout = {timeout!r}', 'Use a positive number of seconds, or None.')
    return PlannedEvolution(
        id=id,
        evolution=evolution,
        origin=origin,
        depends_on=_ids(attribute('depends_on'), id, 'depends_on', wrong),
        replaces=_ids(attribute('replaces'), id, 'replaces', wrong),
        serving=serving,
        transactional=attribute('transactional'),
        rerunnable=attribute('rerunnable'),
        timeout=timeout,
        description=str(attribute('description') or ''),
        listed=listed,
    )


def _id(value: Any, name: str, wrong: _Wrong) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise wrong(f'{name} is {value!r}, not a string', f'Give it an {name} of 1 to {ID_LENGTH} characters.')
    if not value or value != value.strip() or len(value) > ID_LENGTH:
        raise wrong(
            f'{name} {_short(value)!r} has {len(value)} characters or white space around it',
            f'Use 1 to {ID_LENGTH} characters without leading or trailing white space.',
        )
    if not value.isprintable():
        raise wrong(
            f'{name} {value!r} has characters that cannot be printed',
            'Use letters, digits, punctuation and spaces.',
        )
    return value


def _short(value: str) -> str:
    return value if len(value) <= 60 else value[:57] + '...'


def _ids(values: Any, id: str, name: str, wrong: _Wrong) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, list | tuple | set | frozenset):
        raise wrong(
            f'evolution {id!r} has {name} = {values!r}',
            f"Write a tuple of ids: {name} = ('some-id',).",
        )
    ids = sorted(values, key=str) if isinstance(values, set | frozenset) else values
    return tuple(dict.fromkeys(_id(value, f'{name} of {id!r}', wrong) for value in ids))


class Plan:
    """The evolutions in the order in which they run.

    Dependencies come first; among those that may run, what keeps users out comes before what does
    not; else the order is as written.

    :raises PlanError: ids that are there twice, dependencies that nobody provides, cycles.
    """

    def __init__(self, evolutions: Iterable[PlannedEvolution] = ()):
        self.written = tuple(evolutions)
        self.by_id = _unique(self.written)
        self._names = _names(self.written, self.by_id)
        self.dependencies = _dependencies(self.written, self._names)
        self.order = _ordered(self.written, self.dependencies)
        self.warnings = _warnings(self.order, self.dependencies)

    def __iter__(self) -> Iterator[PlannedEvolution]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)

    def __contains__(self, id: str) -> bool:
        return id in self._names

    def find(self, name: str) -> PlannedEvolution | None:
        """The evolution of this id, also by an id that it replaces."""
        id = self._names.get(name)
        return None if id is None else self.by_id[id]

    def is_settled(self, planned: PlannedEvolution, history: History) -> bool:
        settled = history.settled
        return planned.id in settled or any(name in settled for name in planned.replaces)

    def pending(self, history: History) -> list[PlannedEvolution]:
        """What is not done yet, in the order in which it will run."""
        settled = history.settled
        return [
            planned
            for planned in self.order
            if planned.id not in settled and not (planned.replaces and self.is_settled(planned, history))
        ]

    def unknown(self, history: History) -> list[str]:
        """Ids that the history knows and this plan does not, sorted."""
        return sorted(id for id in history.ids if id not in self._names)

    def up_to(self, version: str) -> list[PlannedEvolution] | None:
        """The entries of the ``evolutions`` option as written, up to and with ``version``.

        0.0.5 knew only the last id that it ran. None when no entry has that id.
        """
        listed = [planned for planned in self.written if planned.listed]
        for position, planned in enumerate(listed):
            if version in planned.names:
                return listed[: position + 1]
        return None


def _unique(written: tuple[PlannedEvolution, ...]) -> dict[str, PlannedEvolution]:
    by_id: dict[str, PlannedEvolution] = {}
    for planned in written:
        other = by_id.setdefault(planned.id, planned)
        if other is not planned:
            raise PlanError(
                f'two evolutions have the id {planned.id!r}',
                place=f'{other.origin} and {planned.origin}',
                remedy='Give one of them another evolution_id (never the one that has run already).',
            )
    return by_id


def _names(written: tuple[PlannedEvolution, ...], by_id: Mapping[str, PlannedEvolution]) -> dict[str, str]:
    names = {id: id for id in by_id}
    for planned in written:
        for old in planned.replaces:
            if old in names:
                raise PlanError(
                    f'{planned.id!r} replaces {old!r}, but {names[old]!r} stands for that id too',
                    place=f'{planned.origin} and {by_id[names[old]].origin}',
                    remedy='An id may be replaced once, by an evolution that takes its place in the plan.',
                )
            names[old] = planned.id
    return names


def _dependencies(written: tuple[PlannedEvolution, ...], names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    dependencies = {}
    for planned in written:
        missing = [id for id in planned.depends_on if id not in names]
        if missing:
            raise PlanError(
                f'{planned.id!r} depends on {", ".join(map(repr, missing))}, which no evolution provides',
                place=planned.origin,
                remedy='Correct depends_on, or add the evolution to the plan.',
            )
        dependencies[planned.id] = tuple(dict.fromkeys(names[id] for id in planned.depends_on))
    return dependencies


def _ordered(
    written: tuple[PlannedEvolution, ...], dependencies: Mapping[str, tuple[str, ...]]
) -> tuple[PlannedEvolution, ...]:
    position = {planned.id: number for number, planned in enumerate(written)}
    missing = {id: len(needed) for id, needed in dependencies.items()}
    dependents: dict[str, list[str]] = {}
    for id, needed in dependencies.items():
        for other in needed:
            dependents.setdefault(other, []).append(id)

    ready = [(p.serving.rank, position[p.id]) for p in written if not missing[p.id]]
    heapq.heapify(ready)
    order = []
    while ready:
        _, number = heapq.heappop(ready)
        planned = written[number]
        order.append(planned)
        for id in dependents.get(planned.id, ()):
            missing[id] -= 1
            if not missing[id]:
                heapq.heappush(ready, (written[position[id]].serving.rank, position[id]))
    if len(order) < len(written):
        cycle = _cycle(dependencies, {planned.id for planned in order})
        raise PlanError(
            f'evolutions depend on each other: {" -> ".join(map(repr, cycle))}',
            place=', '.join(dict.fromkeys(written[position[id]].origin for id in cycle)),
            remedy='Remove one of these from depends_on.',
        )
    return tuple(order)


def _cycle(dependencies: Mapping[str, tuple[str, ...]], sound: set[str]) -> list[str]:
    """One cycle among the ids that are not ``sound``, with its first id repeated at the end."""
    path: list[str] = []
    id = next(id for id in dependencies if id not in sound)
    while id not in path:
        path.append(id)
        id = next(other for other in dependencies[id] if other not in sound)
    return [*path[path.index(id) :], id]


def _warnings(order: tuple[PlannedEvolution, ...], dependencies: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    by_id = {planned.id: planned for planned in order}
    return tuple(
        f'{planned.id!r} keeps users out and depends on {id!r}, which runs while the application '
        f'serves: users stay out until both are done.'
        for planned in order
        if planned.serving is Serving.NOTHING
        for id in dependencies[planned.id]
        if by_id[id].serving is Serving.EVERYTHING
    )


def _origin(evolution: Any) -> str:
    kind = evolution if isinstance(evolution, type) else type(evolution)
    return f'{kind.__module__}.{kind.__qualname__}'


def _source_of(kind: type) -> str:
    module = sys.modules.get(kind.__module__)
    for thing in (module, kind):
        try:
            return inspect.getsource(thing)  # type: ignore[arg-type]
        except (OSError, TypeError):
            continue
    return _origin(kind)


def _parameters(evolution: Any) -> dict[str, Any]:
    parameters = dict(getattr(evolution, '__dict__', {}))
    for kind in type(evolution).__mro__:
        slots = kind.__dict__.get('__slots__', ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(evolution, name):
                parameters.setdefault(name, getattr(evolution, name))
    return parameters


_PLAIN = (str, bytes, int, float, complex, bool, type(None), Enum, PurePath)


def _canonical(value: Any, seen: tuple[int, ...] = ()) -> Any:
    """``value`` in a form whose repr is equal in every process (no addresses, no set order)."""
    if isinstance(value, _PLAIN):
        return value
    if id(value) in seen or len(seen) > 20:
        return '...'
    seen = (*seen, id(value))
    if isinstance(value, Mapping):
        return sorted(
            ((repr(_canonical(k, seen)), _canonical(v, seen)) for k, v in value.items()),
            key=lambda item: item[0],
        )
    if isinstance(value, set | frozenset):
        return sorted(repr(_canonical(each, seen)) for each in value)
    if isinstance(value, list | tuple):
        return [_canonical(each, seen) for each in value]
    name = getattr(value, '__qualname__', None)
    if name is not None:
        return f'{getattr(value, "__module__", "")}.{name}'
    if type(value).__module__ in ('datetime', 'decimal', 'uuid', 'fractions', 're', 'zoneinfo'):
        return repr(value)
    return [_origin(value), _canonical(_parameters(value), seen)]
