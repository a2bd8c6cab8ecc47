"""All evolutions that the running code knows, in a definite order. Pure: no I/O, no clock."""

from __future__ import annotations

import hashlib
import heapq
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cached_property, partial
from pathlib import PurePath
from typing import Any

from .errors import PlanError
from .evolution import BatchedEvolution, Evolution
from .gate import Serving
from .history import History
from .steps import Step, VersionTable

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
    batched: bool = False
    table: VersionTable | None = None
    repeatable: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the defining module's source and of the instance's parameters; of a step's own code."""
        if isinstance(self.evolution, Step):
            return _sha256(self.evolution.code())
        digest = hashlib.sha256()
        digest.update(_source_of(type(self.evolution)).encode('utf-8', 'replace'))
        digest.update(b'\0' + _Parameters(self.evolution).digest.encode())
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
        try:
            return getattr(evolution, name)
        except AttributeError:
            return getattr(Evolution, name, None)

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
    transactional, rerunnable = attribute('transactional'), attribute('rerunnable')
    if not isinstance(transactional, bool):
        raise wrong(f'evolution {id!r} has transactional = {transactional!r}', 'Use True or False.')
    if not isinstance(rerunnable, bool | None):
        raise wrong(f'evolution {id!r} has rerunnable = {rerunnable!r}', 'Use True, False or None.')
    timeout = attribute('timeout')
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0):
        raise wrong(f'evolution {id!r} has timeout = {timeout!r}', 'Use a positive number of seconds, or None.')
    batched = isinstance(evolution, BatchedEvolution)
    if batched:
        _check_batches(evolution, id, wrong)
    return PlannedEvolution(
        id=id,
        evolution=evolution,
        origin=origin,
        depends_on=_ids(attribute('depends_on'), id, 'depends_on', wrong),
        replaces=_ids(attribute('replaces'), id, 'replaces', wrong),
        serving=serving,
        transactional=transactional,
        rerunnable=rerunnable,
        timeout=timeout,
        description=str(attribute('description') or ''),
        listed=listed,
        batched=batched,
        table=evolution.table if isinstance(evolution, Step) else None,
        repeatable=isinstance(evolution, Step) and evolution.repeatable,
    )


def _check_batches(evolution: BatchedEvolution, id: str, wrong: _Wrong) -> None:
    def check(name: str, good: Callable[[Any], bool], expected: str) -> None:
        value = getattr(evolution, name)
        if not good(value):
            raise wrong(f'evolution {id!r} has {name} = {value!r}', f'Use {expected}.')

    def is_count(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1

    def is_seconds(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0

    for name in ('batch_size', 'largest_batch', 'partitions'):
        check(name, is_count, 'a whole number, at least 1')
    check('passes', lambda value: value is None or is_count(value), 'a whole number, at least 1, or None')
    check('pause', lambda value: callable(value) or is_seconds(value), 'seconds, or a method that returns them')
    positive = 'a positive number of seconds, or None'
    check('batch_seconds', lambda value: value is None or (is_seconds(value) and value > 0), positive)
    if evolution.transactional:
        raise wrong(
            f'evolution {id!r} is batched and says transactional = True',
            'Leave transactional out: each of its batches is a transaction of its own.',
        )
    own_fetch = type(evolution).fetch is not BatchedEvolution.fetch and type(evolution).key is not BatchedEvolution.key
    if evolution.items is None and not own_fetch:
        raise wrong(
            f'evolution {id!r} does not say what its items are', 'Say items = ..., or define fetch() and key().'
        )
    kind = type(evolution)
    if kind.process is BatchedEvolution.process and kind.process_batch is BatchedEvolution.process_batch:
        raise wrong(f'evolution {id!r} does nothing with its items', 'Define process() or process_batch().')


def _id(value: Any, name: str, wrong: _Wrong) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(int(value))
    if isinstance(value, str):
        value = str.__str__(value)  # of an enum's member, its value: drivers take nothing else
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
    if type(values) is tuple and not values:
        return ()  # as nearly all have it
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
        self.order = _complete(_ordered(self.written, self.dependencies), self.written, self.dependencies)
        self.warnings = _warnings(self.written, self.dependencies)
        #: The version tables of other systems that decide about some of it.
        self.tables = tuple(dict.fromkeys(planned.table for planned in self.written if planned.table is not None))

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
        """What is not done yet, in the order in which it will run.

        That is not always the order of the whole plan: what waited there for something laxer that
        is done by now no longer stands behind what is laxer than itself.
        """
        settled = history.settled
        left = [
            planned
            for planned in self.written
            if planned.id not in settled and not (planned.replaces and self.is_settled(planned, history))
        ]
        if len(left) == len(self.order):
            return list(self.order)
        return _ordered(left, self.dependencies)

    def unknown(self, history: History) -> list[str]:
        """Ids that the history knows and this plan does not, sorted."""
        return sorted({id for id in history.ids if id not in self._names} | history.applied.unknown)

    def until(self, id: str) -> Plan:
        """The part of this plan that runs up to and with ``id``.

        :raises PlanError: when there is no such evolution.
        """
        last = self.find(id)
        if last is None:
            raise PlanError(f'there is no evolution {id!r}', place='the plan', remedy='Use an id of the plan.')
        return Plan(self.order[: self.order.index(last) + 1])

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
        if planned.id in by_id:
            other = by_id[planned.id]
            raise PlanError(
                f'two evolutions have the id {planned.id!r}',
                place=f'{other.origin} and {planned.origin}',
                remedy='Give one of them another evolution_id (never the one that has run already).',
            )
        by_id[planned.id] = planned
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
    dependencies: dict[str, tuple[str, ...]] = {}
    for planned in written:
        if not planned.depends_on:
            dependencies[planned.id] = ()
            continue
        try:
            needed = [names[id] for id in planned.depends_on]
        except KeyError:
            missing = [id for id in planned.depends_on if id not in names]
            raise PlanError(
                f'{planned.id!r} depends on {", ".join(map(repr, missing))}, which no evolution provides',
                place=planned.origin,
                remedy='Correct depends_on, or add the evolution to the plan.',
            ) from None
        dependencies[planned.id] = tuple(dict.fromkeys(needed))
    return dependencies


def _ordered(
    written: Sequence[PlannedEvolution], dependencies: Mapping[str, tuple[str, ...]]
) -> list[PlannedEvolution]:
    """``written`` in the order in which it runs, without what is in a cycle or waits for one.

    Dependencies on what is not in ``written`` are met already.
    """
    # By position, not by id: this takes a third of the time, and plans grow for years.
    count = len(written)
    position = {planned.id: number for number, planned in enumerate(written)}
    missing = [0] * count
    dependents: list[list[int] | None] = [None] * count
    for number, planned in enumerate(written):
        for id in dependencies[planned.id]:
            needed = position.get(id)
            if needed is None:
                continue
            missing[number] += 1
            those = dependents[needed]
            if those is None:
                dependents[needed] = [number]
            else:
                those.append(number)

    # Stricter levels first, else as written; one number for both, to be compared in one step.
    keys = [planned.serving.rank * count + number for number, planned in enumerate(written)]
    ready = [key for key, lacks in zip(keys, missing, strict=True) if not lacks]
    heapq.heapify(ready)
    order = []
    while ready:
        number = heapq.heappop(ready) % count
        order.append(written[number])
        for dependent in dependents[number] or ():
            missing[dependent] = lacks = missing[dependent] - 1
            if not lacks:
                heapq.heappush(ready, keys[dependent])
    return order


def _complete(
    order: list[PlannedEvolution],
    written: tuple[PlannedEvolution, ...],
    dependencies: Mapping[str, tuple[str, ...]],
) -> tuple[PlannedEvolution, ...]:
    if len(order) < len(written):
        cycle = _cycle(dependencies, {planned.id for planned in order})
        origins = {planned.id: planned.origin for planned in written}
        raise PlanError(
            f'evolutions depend on each other: {" -> ".join(map(repr, cycle))}',
            place=', '.join(dict.fromkeys(origins[id] for id in cycle)),
            remedy='Remove one of these from depends_on.',
        )
    return tuple(order)


def _cycle(dependencies: Mapping[str, tuple[str, ...]], sound: set[str]) -> list[str]:
    """One cycle among the ids that are not ``sound``, with its first id repeated at the end."""
    path: dict[str, None] = {}
    id = next(id for id in dependencies if id not in sound)
    while id not in path:
        path[id] = None
        id = next(other for other in dependencies[id] if other not in sound)
    ids = list(path)
    return [*ids[ids.index(id) :], id]


def _warnings(written: tuple[PlannedEvolution, ...], dependencies: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    lax = {planned.id for planned in written if planned.serving is Serving.EVERYTHING}
    return tuple(
        f'{planned.id!r} keeps users out and depends on {id!r}, which runs while the application '
        f'serves: users stay out until both are done.'
        for planned in written
        if planned.serving is Serving.NOTHING and not lax.isdisjoint(dependencies[planned.id])
        for id in dependencies[planned.id]
        if id in lax
    )


def _origin(evolution: Any) -> str:
    if isinstance(evolution, Step) and evolution.origin:
        return evolution.origin
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


#: What is its own repr, equal in every process.
_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(...))

_ADDRESS = re.compile(r' at 0x[0-9a-fA-F]+')

#: What is nested deeper than this does not count.
_DEEPEST = 100


class _Parameters:
    """The parameters of an evolution as a digest that is equal in every process.

    No addresses, no order of sets and mappings. What is alive (an engine, a session, a logger)
    counts by its type only: its inside changes while the process runs, and an evolution whose
    fingerprint changed would run again after any failure. So the insides of objects are looked at
    only where they are values: dataclasses, and objects of the evolution's own top-level package.
    """

    def __init__(self, evolution: Any):
        self._package = _package(type(evolution))
        # Each value once, also where many refer to it; kept alive, so that no id is used twice.
        self._known: dict[int, tuple[Any, str]] = {}
        self._open: set[int] = set()
        self.digest = self._digest(_attributes(evolution))

    def _digest(self, value: Any) -> str:
        if type(value) in _PLAIN:
            return _sha256(repr(value))
        known = self._known.get(id(value))
        if known is not None:
            return known[1]
        if id(value) in self._open or len(self._open) > _DEEPEST:
            return '...'
        self._open.add(id(value))
        try:
            digest = _sha256(self._text(value))
        except Exception:  # a proxy of nothing, a broken repr: nothing that could be compared
            digest = _sha256(_origin(value))
        self._open.discard(id(value))
        self._known[id(value)] = (value, digest)
        return digest

    def _text(self, value: Any) -> str:
        """What ``value`` is, in words and in digests of what is inside."""
        if isinstance(value, Enum):
            return f'{_origin(value)}.{value.name}={self._digest(value.value)}'
        for plain in _PLAIN:
            if isinstance(value, plain):
                return f'{_origin(value)}({plain.__repr__(value)})'  # type: ignore[call-arg]
        if isinstance(value, PurePath):
            return f'path {value}'
        if isinstance(value, Mapping):
            items = sorted((self._digest(key), self._digest(each)) for key, each in value.items())
            return f'mapping {items}'
        if isinstance(value, set | frozenset):
            return f'set {sorted(map(self._digest, value))}'
        if isinstance(value, list | tuple):
            return f'sequence {list(map(self._digest, value))}'
        if isinstance(value, partial):
            return f'partial {list(map(self._digest, (value.func, value.args, value.keywords)))}'
        name = getattr(value, '__qualname__', None)
        if isinstance(name, str):
            return f'{getattr(value, "__module__", "")}.{name}'
        if is_dataclass(value):
            inside = {each.name: getattr(value, each.name, None) for each in fields(value)}
            return f'{_origin(value)} {self._digest(inside)}'
        if _package(type(value)) == self._package:
            return f'{_origin(value)} {self._digest(_attributes(value))}'
        text = repr(value)
        # By convention <...> describes a thing that lives, and anything else is an expression.
        return _origin(value) if text.startswith('<') else _ADDRESS.sub('', text)


def _attributes(thing: Any) -> dict[str, Any]:
    attributes = dict(getattr(thing, '__dict__', {}))
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get('__slots__', ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ('__dict__', '__weakref__') and hasattr(thing, name):
                attributes.setdefault(name, getattr(thing, name))
    return attributes


def _package(kind: type) -> str:
    return kind.__module__.partition('.')[0]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()
