"""The entries of the evolutions option: what stands for which evolutions."""

from __future__ import annotations

import importlib
import itertools

import pytest

from tgext.evolve import Evolution, PlanError, SourceError
from tgext.evolve.sources import Place, entries, evolutions_of, offered

from .making import an_evolution, ids

#: What these entries do not ask.
NOWHERE = Place(connect=None)

names = map('pkg_of_evolutions_{}'.format, itertools.count())

EVO = """
from tgext.evolve import Evolution
class {0}(Evolution):
    evolution_id = '{0}'
    def evolve(self): pass
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes an importable package of the given modules; returns its name."""

    def make(**modules):
        name = next(names)
        folder = tmp_path / name
        folder.mkdir()
        for module, source in {'__init__': '', **modules}.items():
            (folder / f'{module}.py').write_text(source)
        importlib.invalidate_caches()
        return name

    monkeypatch.syspath_prepend(tmp_path)
    return make


def found(*given, listed=True):
    return ids(evolutions_of(given, listed=listed, place=NOWHERE))


class TestEntries:
    def test_a_class_and_an_instance(self):
        kind = an_evolution(evolution_id='a')
        assert found(kind, an_evolution(evolution_id='b')()) == ['a', 'b']

    def test_what_needs_no_base_class(self):
        class Old:
            evolution_id = 'old'

            def evolve(self):
                pass

        assert found(Old, Old()) == ['old', 'old']

    def test_a_source(self):
        class Source:
            def evolutions(self):
                return iter([an_evolution(evolution_id='a'), an_evolution(evolution_id='b')()])

        assert found(Source()) == ['a', 'b']

    def test_lists_within_lists(self):
        assert found([an_evolution(evolution_id='a'), (an_evolution(evolution_id='b'),)]) == ['a', 'b']

    @pytest.mark.parametrize('entry', [5, None, object(), int, Evolution.evolve, {}])
    def test_anything_else_is_named(self, entry):
        with pytest.raises(SourceError) as raised:
            found(entry)
        assert repr(entry) in raised.value.thing

    def test_a_class_that_takes_parameters_says_how(self):
        def init(self, old):
            pass

        with pytest.raises(SourceError, match=r'Register an instance: Made\(\.\.\.\)'):
            found(an_evolution(evolution_id='a', __init__=init))

    def test_only_evolutions_that_stand_there_themselves_are_listed(self, package):
        name = package(one=EVO.format('a'))

        class Source:
            def evolutions(self):
                return [an_evolution(evolution_id='b')]

        all_of_them = evolutions_of([name, Source(), an_evolution(evolution_id='c')], listed=True, place=NOWHERE)
        assert [(each.id, each.listed) for each in all_of_them] == [('a', False), ('b', False), ('c', True)]


class TestDottedNames:
    def test_a_module_in_the_order_of_its_text(self, package):
        name = package(one=EVO.format('z') + EVO.format('a'))
        assert found(f'{name}.one') == ['z', 'a']

    def test_a_package_in_the_order_of_its_modules(self, package):
        name = package(__init__=EVO.format('first'), m10=EVO.format('b'), m01=EVO.format('a'))
        assert found(name) == ['first', 'a', 'b']

    def test_a_module_itself(self, package):
        assert found(importlib.import_module(package(one=EVO.format('a')))) == ['a']

    def test_a_class_of_a_module(self, package):
        assert found(package(one=EVO.format('a')) + '.one.a') == ['a']

    def test_an_explicit_list_wins(self, package):
        name = package(one=EVO.format('a') + EVO.format('b') + 'evolutions = [b]\n')
        assert found(f'{name}.one') == ['b']

    def test_what_was_imported_into_a_module_is_not_its_own(self, package):
        name = package(one=EVO.format('a'))
        other = package(two=f'from {name}.one import a\n' + EVO.format('b'))
        assert found(f'{other}.two') == ['b']

    def test_an_alias_is_no_second_one(self, package):
        assert found(package(one=EVO.format('a') + 'Old = a\n') + '.one') == ['a']

    def test_a_base_class_without_an_id_is_none(self, package):
        source = EVO.format('a').replace('evolution_id', 'unused') + "class b(a):\n    evolution_id = 'b'\n"
        assert found(package(one=source) + '.one') == ['b']

    @pytest.mark.parametrize('name', ['no_such_package', 'tgext.evolve.no_such_module', 'tgext.evolve.gate.NoSuch', ''])
    def test_one_that_cannot_be_imported_is_named(self, name):
        with pytest.raises(SourceError) as raised:
            found(name)
        assert repr(name) in raised.value.thing

    @pytest.mark.parametrize(
        ('source', 'told'),
        [('import no_such_thing', 'no_such_thing'), ('1/0', 'ZeroDivisionError'), ('class', 'SyntaxError')],
    )
    def test_a_broken_module_is_named_with_what_is_wrong(self, package, source, told):
        name = package(one=source) + '.one'
        with pytest.raises(SourceError, match=told) as raised:
            found(name)
        assert repr(name) in raised.value.thing
        assert raised.value.__cause__ is not None

    def test_a_bad_id_is_named_with_its_class(self, package):
        name = package(one=EVO.format('a').replace("= 'a'", "= ' a'"))
        with pytest.raises(PlanError) as raised:
            found(name)
        assert raised.value.place == f'{name}.one.a'


class Point:
    def __init__(self, name, thing):
        self.name, self.value, self._thing = name, f'somewhere:{name}', thing

    def load(self):
        if isinstance(self._thing, Exception):
            raise self._thing
        return self._thing


class TestOffered:
    def offer(self, monkeypatch, *points):
        monkeypatch.setattr(entries, 'entry_points', lambda group: list(points))

    def test_by_name(self, monkeypatch):
        self.offer(
            monkeypatch, Point('y', an_evolution(evolution_id='b')), Point('x', [an_evolution(evolution_id='a')])
        )
        assert ids(offered(NOWHERE)) == ['a', 'b']

    def test_one_that_cannot_be_loaded_says_how_to_do_without(self, monkeypatch):
        self.offer(monkeypatch, Point('x', ImportError('gone')))
        with pytest.raises(
            SourceError, match=r'x = somewhere:x cannot be loaded: gone.*tgext\.evolve\.discover = false'
        ):
            offered(NOWHERE)
