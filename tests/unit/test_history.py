"""The history as values: what is latest goes by the token, never by a clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tgext.evolve.history import SETTLED, History, State

from .making import at

attempts = st.lists(
    st.builds(
        at,
        st.sampled_from('abc'),
        st.sampled_from([state.value for state in State]),
        token=st.integers(1, 20),
        attempt=st.integers(1, 5),
        started=st.integers(0, 9),
    ),
    max_size=20,
    unique_by=lambda a: (a.evolution_id, a.token, a.attempt),
)


class TestOrder:
    @given(attempts, st.randoms())
    def test_does_not_depend_on_the_order_of_rows(self, rows, random):
        shuffled = random.sample(rows, len(rows))
        for id in 'abc':
            assert History(shuffled).of(id) == History(rows).of(id)

    @given(attempts)
    def test_later_tokens_are_later_then_later_attempts(self, rows):
        for id in 'abc':
            places = [(a.token, a.attempt) for a in History(rows).of(id)]
            assert places == sorted(places)

    def test_a_clock_that_jumped_back_changes_nothing(self):
        history = History([at('a', 'failed', token=2, started=5), at('a', 'running', token=1, started=900)])
        assert history.latest('a').state is State.FAILED

    @given(attempts)
    def test_several_ids_of_one_evolution_are_one_story(self, rows):
        story = History(rows).under(('a', 'b'))
        assert [a.order for a in story] == sorted(a.order for a in rows if a.evolution_id in 'ab')


class TestSettled:
    @given(attempts)
    def test_is_what_was_ever_done(self, rows):
        assert History(rows).settled == {a.evolution_id for a in rows if a.state in SETTLED}

    @given(attempts)
    def test_what_was_begun_is_settled_or_has_a_latest_attempt_that_is_not(self, rows):
        history = History(rows)
        unsettled = {a.evolution_id: a for a in history.unsettled()}
        assert history.settled | set(unsettled) == history.ids
        assert not history.settled & set(unsettled)
        assert all(history.latest(id) is a for id, a in unsettled.items())


def test_an_empty_history_is_false_and_knows_nothing():
    history = History()
    assert not history
    assert (history.of('a'), history.latest('a'), history.unsettled(), history.ids) == ([], None, [], frozenset())


def test_only_an_interrupted_attempt_with_an_end_left_in_order():
    assert at('a', 'interrupted', finished=1).left_in_order
    assert not at('a', 'interrupted').left_in_order
    assert not at('a', 'failed', finished=1).left_in_order
