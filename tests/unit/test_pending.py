"""Every set of applied evolutions is legal: what a history leaves to be done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgext.evolve.history import History
from tgext.evolve.plan import Plan

from .making import at, ids, naive_order, one, plans, written


def applied(names, state='done'):
    return History(at(name, state, token=number) for number, name in enumerate(names, 1))


class TestWhatIsLeft:
    @given(written(), st.data())
    def test_is_all_that_is_not_done_in_the_order_in_which_it_runs(self, evolutions, data):
        done = data.draw(st.sets(st.sampled_from(ids(evolutions)))) if evolutions else set()
        assert ids(Plan(evolutions).pending(applied(done))) == ids(naive_order(evolutions, done))

    def test_what_waited_for_something_lax_that_is_done_comes_before_what_is_laxer(self):
        plan = Plan([one('lax', serving='everything'), one('reads', serving='reads'), one('n', depends_on=('lax',))])
        assert ids(plan) == ['reads', 'lax', 'n']
        assert ids(plan.pending(applied(['lax']))) == ['n', 'reads']

    @given(plans())
    def test_is_the_plan_when_nothing_was_recorded(self, plan):
        assert ids(plan.pending(History())) == ids(plan)

    @given(plans())
    def test_is_nothing_when_all_is_done(self, plan):
        assert plan.pending(applied(ids(plan))) == []

    @pytest.mark.parametrize('state', ['done', 'stamped', 'imported'])
    def test_does_not_have_what_is_settled(self, state):
        assert Plan([one('a')]).pending(applied(['a'], state)) == []

    @pytest.mark.parametrize('state', ['running', 'failed', 'interrupted', 'cancelled'])
    def test_has_what_was_only_begun(self, state):
        assert ids(Plan([one('a')]).pending(applied(['a'], state))) == ['a']

    def test_done_stays_done_whatever_was_recorded_later(self):
        history = History([at('a', 'done', token=1), at('a', 'failed', token=2)])
        assert Plan([one('a')]).pending(history) == []


class TestReleases:
    """A release is a list of ids; a database has seen some of them. Model: run what it has not seen."""

    releases = st.lists(st.lists(st.sampled_from('abcdefgh'), unique=True, max_size=8), max_size=5)

    @given(releases)
    def test_late_removed_and_reordered_ones(self, releases):
        seen = []
        for release in releases:
            plan = Plan([one(id) for id in release])
            history = applied(seen)
            assert ids(plan.pending(history)) == [id for id in release if id not in seen]
            assert plan.unknown(history) == sorted(set(seen) - set(release))
            seen += ids(plan.pending(history))
        assert len(seen) == len(set(seen))

    @given(releases, st.data())
    def test_a_renamed_one_does_not_run_again_and_is_not_unknown(self, releases, data):
        for release in releases:
            done = data.draw(st.sets(st.sampled_from(release))) if release else set()
            renamed = data.draw(st.sets(st.sampled_from(release))) if release else set()
            plan = Plan(one(f'new-{id}', replaces=(id,)) if id in renamed else one(id) for id in release)
            wanted = [f'new-{id}' if id in renamed else id for id in release if id not in done]
            assert ids(plan.pending(applied(done))) == wanted
            assert plan.unknown(applied(done)) == []

    def test_renamed_twice_is_still_the_same(self):
        plan = Plan([one('newest', replaces=('newer', 'old'))])
        for name in ('newest', 'newer', 'old'):
            assert plan.pending(applied([name])) == []
