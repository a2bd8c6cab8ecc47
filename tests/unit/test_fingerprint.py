"""The fingerprint: the same code is the same everywhere, other code or parameters are another."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import importlib
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgext.evolve.evolution import Evolution
from tgext.evolve.plan import planned


class Parametrised(Evolution):
    evolution_id = 'parametrised'

    def __init__(self, **parameters):
        vars(self).update(parameters)


class Slotted(Evolution):
    evolution_id = 'slotted'
    __slots__ = ('value',)

    def __init__(self, value):
        self.value = value


class Rule:
    """A value of the application's own."""

    def __init__(self, *values):
        self.values = values


@dataclasses.dataclass
class Point:
    x: int
    y: object = None


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def fingerprint(value):
    return planned(Parametrised(value=value)).fingerprint


def function():
    pass


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.builds(Rule, inner, inner)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=8,
)


class TestParameters:
    @given(st.data())
    def test_equal_ones_have_the_same(self, data):
        value = data.draw(values)
        copy = another(value)
        assert fingerprint(value) == fingerprint(copy)

    @pytest.mark.parametrize(
        ('one', 'other'),
        [
            (1, 2),
            (1, True),
            (1, 1.0),
            (1, '1'),
            ('a', b'a'),
            ('', None),
            ([1, 2], [2, 1]),
            ([1, [2]], [[1], 2]),
            ({'a': 1}, {'a': 2}),
            ({'a': 1}, {'b': 1}),
            ({1, 2}, {1, 3}),
            ({'a': {1: [2]}}, {'a': {1: [3]}}),
            (Rule(1), Rule(2)),
            ([Rule(Rule(1))], [Rule(Rule(2))]),
            (Point(1), Point(2)),
            (Point(1, Rule(1)), Point(1, Rule(2))),
            (Colour.RED, Colour.BLUE),
            (function, Rule),
            (functools.partial(function, 1), functools.partial(function, 2)),
            (datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)),
            (decimal.Decimal('1.0'), decimal.Decimal('1.00')),
            (re.compile('a'), re.compile('b')),
            (pathlib.PurePath('a'), pathlib.PurePath('b')),
            ('\ud800', '?'),
            ('\ud800', '\ud801'),
        ],
    )
    def test_different_ones_have_different_ones(self, one, other):
        assert fingerprint(one) != fingerprint(other)

    def test_names_count(self):
        assert planned(Parametrised(old='a')).fingerprint != planned(Parametrised(new='a')).fingerprint

    def test_slots_count(self):
        assert planned(Slotted(1)).fingerprint != planned(Slotted(2)).fingerprint

    def test_order_does_not_count_where_there_is_none(self):
        assert fingerprint({'a': 1, 'b': 2}) == fingerprint({'b': 2, 'a': 1})
        assert fingerprint(set('abc')) == fingerprint(set('cba'))

    def test_addresses_do_not_count(self):
        assert fingerprint(object()) == fingerprint(object())
        assert fingerprint(functools.partial(print, object())) == fingerprint(functools.partial(print, object()))
        assert fingerprint(Rule(object())) == fingerprint(Rule(object()))

    def test_what_happens_inside_of_something_alive_does_not_count(self):
        logger = logging.getLogger('tests.fingerprint')
        before = fingerprint({'log': logger, 'lock': threading.local()})
        logger.setLevel(logging.ERROR)
        local = threading.local()
        local.session = 'begun'
        assert fingerprint({'log': logger, 'lock': local}) == before
        logger.setLevel(logging.NOTSET)

    def test_an_engine_and_a_session_may_be_parameters_before_and_after_use(self):
        sqlalchemy = pytest.importorskip('sqlalchemy')
        from sqlalchemy.orm import scoped_session, sessionmaker

        engine = sqlalchemy.create_engine('sqlite://')
        session = scoped_session(sessionmaker(bind=engine))
        table = sqlalchemy.Table('t', sqlalchemy.MetaData(), sqlalchemy.Column('a', sqlalchemy.Integer))
        before = fingerprint([engine, session, table, table.c.a])
        session.execute(sqlalchemy.select(sqlalchemy.literal(1)))
        str(sqlalchemy.select(table).where(table.c.a == 1))
        assert fingerprint([engine, session, table, table.c.a]) == before
        session.remove()
        engine.dispose()

    def test_what_refers_to_itself_comes_to_an_end(self):
        ring: list = [1]
        ring.append(ring)
        rule = Rule()
        rule.values = {'self': rule}
        assert fingerprint(ring) == fingerprint(ring)
        assert fingerprint(rule) == fingerprint(rule)

    def test_what_is_referred_to_often_is_looked_at_once(self):
        many = [1]
        for _ in range(60):
            many = [many, many]
        fingerprint(many)

    def test_deep_nesting_comes_to_an_end(self):
        deep: list = []
        for _ in range(5000):
            deep = [deep]
        fingerprint(deep)

    def test_hostile_parameters_do_not_raise(self):
        class Hostile:
            def __getattr__(self, name):
                raise RuntimeError(name)

            def __repr__(self):
                raise RuntimeError('repr')

        assert fingerprint(Hostile()) == fingerprint(Hostile())
        assert fingerprint([1, Hostile()]) != fingerprint([2, Hostile()])


def another(value):
    """An equal value made of other objects, its mappings in another order."""
    if isinstance(value, dict):
        return {another(key): another(each) for key, each in reversed(value.items())}
    if isinstance(value, list | tuple):
        return type(value)(another(each) for each in value)
    if isinstance(value, Rule):
        return Rule(*map(another, value.values))
    if isinstance(value, Point):
        return Point(another(value.x), another(value.y))
    return value


MODULE = """
import dataclasses, enum, functools, logging, threading
from tgext.evolve.evolution import Evolution

class Kind(enum.Flag):
    A = 1
    B = 2

@dataclasses.dataclass(frozen=True)
class Rule:
    names: frozenset
    other: object = None

class One(Evolution):
    evolution_id = 'one'
    def __init__(self, **parameters):
        vars(self).update(parameters)

letters = 'abcdefghijklmnop'
everything = [
    One(),
    One(value={letter: {letter} for letter in letters}, names=set(letters)),
    One(rules={Rule(frozenset(letters)), Rule(frozenset('xyz'), One)}),
    One(kind=Kind.A | Kind.B, log=logging.getLogger('x'), lock=threading.Lock(), call=lambda: None),
    One(function=functools.partial(print, object()), thing=object(), method=One().evolve, types=[int, Rule]),
]
"""

TELL = """
import json
from tgext.evolve.plan import planned
import module_of_evolutions as m
print(json.dumps([planned(each).fingerprint for each in m.everything]))
"""


def told(folder, seed):
    """The fingerprints as another process computes them."""
    environment = {**os.environ, 'PYTHONHASHSEED': str(seed), 'PYTHONPATH': os.pathsep.join([str(folder), *sys.path])}
    process = subprocess.run(
        [sys.executable, '-c', TELL], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(process.stdout)


def test_processes_agree_whatever_their_hash_seed(tmp_path):
    (tmp_path / 'module_of_evolutions.py').write_text(MODULE)
    first, *others = (told(tmp_path, seed) for seed in (0, 1))
    assert others == [first]
    assert len(set(first)) == len(first)
    assert all(re.fullmatch('[0-9a-f]{64}', each) for each in first)


def test_the_source_of_the_module_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = (
        'from tgext.evolve.evolution import Evolution\n'
        'def helper(): return {}\n'
        'class One(Evolution):\n'
        "    evolution_id = 'one'\n"
        '    def evolve(self): helper()\n'
    )
    made = []
    for name, number in (('evo_one', 1), ('evo_same', 1), ('evo_other', 2)):
        (tmp_path / f'{name}.py').write_text(source.format(number))
        importlib.invalidate_caches()
        made.append(planned(importlib.import_module(name).One()).fingerprint)
    assert made[0] == made[1] != made[2]


def test_code_without_a_source_has_one_too():
    space = {'__name__': 'typed_at_a_prompt', 'Evolution': Evolution}
    exec("class One(Evolution):\n    evolution_id = 'one'", space)
    assert planned(space['One']()).fingerprint == planned(space['One']()).fingerprint


def test_it_is_computed_once_and_not_before_it_is_needed():
    evolution = Parametrised(value=1)
    made = planned(evolution)
    before = made.fingerprint
    evolution.value = 2  # as evolve() may do
    assert made.fingerprint == before
