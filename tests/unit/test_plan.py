"""The order of a plan, and what makes none."""

from __future__ import annotations

import enum
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgext.evolve import PlanError
from tgext.evolve.evolution import Evolution
from tgext.evolve.gate import Serving
from tgext.evolve.plan import Plan, planned

from .making import an_evolution, ids, naive_order, one, plans, written


class TestOrder:
    @given(plans())
    def test_dependencies_come_first(self, plan):
        place = {id: number for number, id in enumerate(ids(plan))}
        assert all(place[needed] < place[each.id] for each in plan for needed in each.depends_on)

    @given(plans())
    def test_every_evolution_is_there_once(self, plan):
        assert sorted(ids(plan)) == sorted(ids(plan.written))
        assert len(plan) == len(plan.written)

    @given(written())
    def test_among_those_that_may_run_the_strictest_is_first_then_as_written(self, evolutions):
        assert ids(Plan(evolutions)) == ids(naive_order(evolutions))

    @given(st.lists(st.sampled_from(Serving), max_size=12))
    def test_without_dependencies_it_is_a_stable_sort_by_level(self, levels):
        evolutions = [one(f'e{number}', serving=level) for number, level in enumerate(levels)]
        assert ids(Plan(evolutions)) == ids(sorted(evolutions, key=lambda each: each.serving.rank))

    @given(st.integers(0, 12))
    def test_one_level_without_dependencies_is_as_written(self, number):
        evolutions = [one(f'e{number}') for number in range(number)]
        assert ids(Plan(evolutions)) == ids(evolutions)

    @given(written(), written(ids=['x', 'y', 'z']))
    def test_evolutions_that_have_nothing_to_do_with_each_other_keep_their_own_orders(self, some, others):
        together = ids(Plan([*some, *others]))
        assert [id for id in together if id not in ('x', 'y', 'z')] == ids(Plan(some))
        assert [id for id in together if id in ('x', 'y', 'z')] == ids(Plan(others))

    @given(written())
    def test_it_is_the_same_every_time(self, evolutions):
        assert ids(Plan(evolutions)) == ids(Plan(evolutions)) == ids(Plan(Plan(evolutions).written))

    def test_a_dependency_may_be_written_after_what_needs_it(self):
        assert ids(Plan([one('b', depends_on=('a',)), one('a')])) == ['a', 'b']

    def test_a_dependency_on_an_id_that_was_replaced_is_one_on_its_successor(self):
        plan = Plan([one('b', depends_on=('old', 'new')), one('new', replaces=('old',))])
        assert ids(plan) == ['new', 'b']
        assert plan.dependencies['b'] == ('new',)

    def test_an_empty_plan_is_a_plan(self):
        assert ids(Plan()) == []


class TestMistakes:
    def test_two_evolutions_of_one_id_are_named_with_their_places(self):
        with pytest.raises(PlanError, match="two evolutions have the id 'a'") as raised:
            Plan([one('a'), one('b'), one('a')])
        assert 'module_of.a' in raised.value.place

    def test_the_very_same_evolution_twice_is_a_mistake_too(self):
        a = one('a')
        with pytest.raises(PlanError, match="two evolutions have the id 'a'"):
            Plan([a, a])

    def test_ids_that_differ_in_case_only_are_two(self):
        assert ids(Plan([one('a'), one('A')])) == ['a', 'A']

    def test_unknown_dependencies_are_all_named(self):
        with pytest.raises(PlanError, match="'a' depends on 'x', 'y', which no evolution provides"):
            Plan([one('b'), one('a', depends_on=('x', 'b', 'y'))])

    @given(written(), st.integers(1, 5))
    def test_a_cycle_is_named_from_an_id_to_itself(self, sound, length):
        ring = [one(f'c{n}', depends_on=(f'c{(n + 1) % length}',)) for n in range(length)]
        with pytest.raises(PlanError) as raised:
            Plan([*sound, *ring, one('behind', depends_on=('c0',))])
        named = [word.strip("'") for word in raised.value.thing.partition(': ')[2].split(' -> ')]
        assert named[0] == named[-1]
        assert sorted(named[:-1]) == sorted(ids(ring))
        needs = {each.id: each.depends_on[0] for each in ring}
        assert all(needs[a] == b for a, b in itertools.pairwise(named))

    def test_an_evolution_that_depends_on_itself_is_a_cycle(self):
        with pytest.raises(PlanError, match="'a' -> 'a'"):
            Plan([one('a', depends_on=('a',))])

    def test_depending_on_what_it_replaces_is_a_cycle(self):
        with pytest.raises(PlanError, match="'a' -> 'a'"):
            Plan([one('a', depends_on=('old',), replaces=('old',))])

    def test_an_id_is_replaced_once(self):
        with pytest.raises(PlanError, match="'b' replaces 'old', but 'a' stands for that id too"):
            Plan([one('a', replaces=('old',)), one('b', replaces=('old',))])

    def test_what_is_in_the_plan_is_not_replaced(self):
        with pytest.raises(PlanError, match="'b' replaces 'a'"):
            Plan([one('a'), one('b', replaces=('a',))])

    def test_strict_behind_lax_is_warned_of(self):
        plan = Plan([one('n', depends_on=('e', 'r')), one('e', serving='everything'), one('r', serving='reads')])
        (warning,) = plan.warnings
        assert "'n' keeps users out and depends on 'e'" in warning

    @given(plans())
    def test_that_warning_is_given_once_for_each_such_dependency_and_never_else(self, plan):
        level = {each.id: each.serving.value for each in plan}
        bad = [(e.id, d) for e in plan for d in e.depends_on if (level[e.id], level[d]) == ('nothing', 'everything')]
        assert len(plan.warnings) == len(bad)


class TestFinding:
    plan = Plan([one('new', replaces=('old', 'older')), one('b')])

    @pytest.mark.parametrize('name', ['new', 'old', 'older'])
    def test_by_any_of_its_ids(self, name):
        assert name in self.plan
        assert self.plan.find(name).id == 'new'

    def test_what_is_not_there_is_not_found(self):
        assert 'x' not in self.plan
        assert self.plan.find('x') is None


class TestAVersionOf005:
    def test_is_that_entry_and_all_before_it_as_written(self):
        plan = Plan(
            [
                one('e', serving='everything', listed=True),
                one('of-a-package'),
                one('b', depends_on=('c',), listed=True),
                one('c', listed=True),
            ]
        )
        assert ids(plan.up_to('b')) == ['e', 'b']
        assert ids(plan.up_to('c')) == ['e', 'b', 'c']

    def test_may_be_an_id_that_was_replaced(self):
        assert ids(Plan([one('new', replaces=('old',), listed=True)]).up_to('old')) == ['new']

    def test_is_nothing_when_no_entry_has_it(self):
        assert Plan([one('a')]).up_to('a') is None
        assert Plan([one('a', listed=True)]).up_to('x') is None


class TestReadingAttributes:
    def test_defaults_are_those_of_evolution(self):
        made = planned(an_evolution(evolution_id='a')())
        assert (made.depends_on, made.replaces, made.serving) == ((), (), Serving.NOTHING)
        assert (made.transactional, made.rerunnable, made.timeout, made.description) == (False, None, None, '')

    def test_what_only_looks_like_an_evolution_has_them_too(self):
        class Old:
            evolution_id = 'a'

            def evolve(self):
                pass

        assert planned(Old()).serving is Serving.NOTHING

    @pytest.mark.parametrize(
        ('given_id', 'id'), [(3, '3'), (0, '0'), ('x y', 'x y'), ('é', 'é'), ('a' * 200, 'a' * 200)]
    )
    def test_good_ids(self, given_id, id):
        assert planned(an_evolution(evolution_id=given_id)()).id == id

    @pytest.mark.parametrize(
        'bad', ['', ' a', 'a ', 'a\n', 'a\nb', 'a\0', '\ud800', 'a' * 201, None, True, 1.5, b'a', ['a'], object()]
    )
    def test_bad_ids_are_refused_with_the_class_named(self, bad):
        with pytest.raises(PlanError) as raised:
            planned(an_evolution(evolution_id=bad)())
        assert raised.value.place.endswith('making.Made')
        str(raised.value).encode('utf-8')

    def test_a_member_of_an_enum_is_its_value(self):
        class Id(str, enum.Enum):
            A = 'a'

        class Number(enum.IntEnum):
            ONE = 1

        made = planned(an_evolution(evolution_id=Id.A, depends_on=[Number.ONE])())
        assert (type(made.id), made.id, made.depends_on) == (str, 'a', ('1',))

    def test_an_evolution_without_an_id_is_refused(self):
        with pytest.raises(PlanError, match='evolution_id is None'):
            planned(an_evolution()())

    @pytest.mark.parametrize('name', ['depends_on', 'replaces'])
    def test_ids_of_others_are_taken_in_any_collection(self, name):
        for value in (['b', 1, 'b'], ('b', 1), {'b', 1}, frozenset({'b', 1})):
            assert sorted(getattr(planned(an_evolution(evolution_id='a', **{name: value})()), name)) == ['1', 'b']

    @pytest.mark.parametrize('name', ['depends_on', 'replaces'])
    def test_one_string_is_not_taken_for_its_letters(self, name):
        with pytest.raises(PlanError, match=f"{name} = 'b'.*Write a tuple"):
            planned(an_evolution(evolution_id='a', **{name: 'b'})())

    @pytest.mark.parametrize(
        ('name', 'value'),
        [
            ('serving', 'all'),
            ('serving', None),
            ('serving', ['reads']),
            ('transactional', 1),
            ('transactional', None),
            ('rerunnable', 'yes'),
            ('timeout', 0),
            ('timeout', -1),
            ('timeout', True),
            ('timeout', '10'),
            ('timeout', float('nan')),
        ],
    )
    def test_a_bad_value_is_named_with_its_attribute_and_id(self, name, value):
        with pytest.raises(PlanError, match=f"evolution 'a' has {name} = "):
            planned(an_evolution(evolution_id='a', **{name: value})())

    def test_outside_of_a_run_progress_does_nothing(self):
        assert an_evolution(evolution_id='a')().progress(1, 2, 'half') is None

    def test_an_evolution_that_does_nothing_says_so(self):
        with pytest.raises(NotImplementedError, match='has no evolve'):
            Evolution().evolve()
