"""When an evolution that was begun and is not done may run again by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgext.evolve.history import History
from tgext.evolve.policy import Permission, RetryPolicy

from .making import CODE, at, one

POLICY = RetryPolicy(max_attempts=5, retry_delay=5)


def story(*states, code=CODE, id='a', **columns):
    """Attempts one after another; ``left`` is an interruption in good order."""
    columns = {'finished': 1_000_000, **columns}
    made = []
    for number, state in enumerate(states, 1):
        killed = state == 'interrupted'
        state = 'interrupted' if state == 'left' else state
        ends = {**columns, 'finished': None} if killed else columns
        made.append(at(id, state, token=number, attempt=number, code=code, **ends))
    return made


def decide(evolution, *states, policy=POLICY, **columns):
    return policy.decide(evolution, History(story(*states, **columns)))


class TestRaised:
    @pytest.mark.parametrize(
        ('transactional', 'rerunnable', 'again'),
        [
            (False, None, False),
            (False, True, True),
            (False, False, False),
            (True, None, True),
            (True, True, True),
            (True, False, False),
        ],
    )
    def test_again_by_itself_only_where_that_is_safe(self, transactional, rerunnable, again):
        decision = decide(one('a', transactional=transactional, rerunnable=rerunnable), 'failed')
        assert decision.permission is (Permission.LATER if again else Permission.NEVER)

    @pytest.mark.parametrize(('failures', 'pause'), [(1, 5), (2, 10), (3, 20), (4, 40)])
    def test_pauses_double(self, failures, pause):
        decision = decide(one('a', transactional=True), *['failed'] * failures)
        assert decision.after == 1_000_000 + pause * 1000

    def test_five_attempts_are_enough(self):
        assert decide(one('a', transactional=True), *['failed'] * 5).permission is Permission.NEVER

    @pytest.mark.parametrize('delay', [0, 5, 86_400])
    def test_any_number_of_attempts_can_be_allowed(self, delay):
        policy = RetryPolicy(max_attempts=10**6, retry_delay=delay)
        decision = decide(one('a', transactional=True), *['failed'] * 3000, policy=policy)
        assert decision.permission is Permission.LATER

    def test_interruptions_in_between_do_not_count_as_failures(self):
        evolution = one('a', transactional=True)
        assert decide(evolution, *['failed', 'interrupted'] * 4).permission is Permission.NOW
        assert decide(evolution, *['failed', 'interrupted'] * 4, 'failed').permission is Permission.NEVER


class TestInterrupted:
    @pytest.mark.parametrize('how', ['interrupted', 'left'])
    @pytest.mark.parametrize(('rerunnable', 'again'), [(None, True), (True, True), (False, False)])
    def test_runs_again_at_once_unless_it_says_no(self, rerunnable, again, how):
        decision = decide(one('a', rerunnable=rerunnable), how)
        assert decision.permission is (Permission.NOW if again else Permission.NEVER)

    def test_what_kills_its_process_is_stopped_after_five(self):
        assert decide(one('a'), *['interrupted'] * 4).permission is Permission.NOW
        decision = decide(one('a'), *['interrupted'] * 5)
        assert decision.permission is Permission.NEVER
        assert '5 times in a row' in decision.why

    def test_a_restart_in_good_order_is_not_counted(self):
        assert decide(one('a'), *['left'] * 50).permission is Permission.NOW
        assert decide(one('a'), *['interrupted', 'left'] * 4).permission is Permission.NOW
        assert decide(one('a'), *['interrupted', 'left'] * 5).permission is Permission.NEVER

    def test_in_a_row_means_in_a_row(self):
        evolution = one('a', rerunnable=True)
        states = ['interrupted'] * 4 + ['failed'] + ['interrupted'] * 4
        assert decide(evolution, *states).permission is Permission.NOW

    def test_one_that_runs_may_be_taken_over(self):
        assert decide(one('a', rerunnable=False), 'running').permission is Permission.NOW


class TestCancelled:
    def test_stays_so(self):
        assert decide(one('a', rerunnable=True), 'failed', 'cancelled').permission is Permission.NEVER

    def test_stays_so_for_another_release_with_other_code(self):
        assert decide(one('a', code='mended'), 'cancelled').permission is Permission.NEVER

    def test_until_a_person_asks(self):
        assert decide(one('a'), 'cancelled', code=None).permission is Permission.NOW


class TestAtOnce:
    @pytest.mark.parametrize('states', [['failed'], ['failed'] * 9, ['interrupted'] * 9])
    def test_when_its_code_changed(self, states):
        assert decide(one('a', rerunnable=False, code='mended'), *states).permission is Permission.NOW

    @pytest.mark.parametrize('states', [['failed'], ['failed'] * 9, ['interrupted'] * 9])
    def test_when_a_person_asks(self, states):
        assert decide(one('a', rerunnable=False), *states, code=None).permission is Permission.NOW

    def test_when_it_never_ran(self):
        assert decide(one('a', rerunnable=False)).permission is Permission.NOW

    def test_two_releases_side_by_side_cannot_provoke_each_other(self):
        rows = [
            at('a', 'failed', token=number, attempt=number, code=code, finished=number)
            for number, code in enumerate(['old', 'new'] * 5, 1)
        ]
        for code in ('old', 'new'):
            evolution = one('a', transactional=True, code=code)
            assert POLICY.decide(evolution, History(rows)).permission is Permission.NEVER
            assert POLICY.decide(evolution, History(rows[:8])).permission is Permission.LATER

    def test_a_fingerprint_is_not_computed_where_nothing_is_to_be_compared(self):
        evolution = one('a')
        del vars(evolution)['fingerprint']  # it would be computed from here, of no evolution at all
        vars(evolution)['evolution'] = property  # whose source cannot be had
        assert POLICY.decide(evolution, History()).permission is Permission.NOW
        assert POLICY.decide(evolution, History(story('failed', code=None))).permission is Permission.NOW
        assert 'fingerprint' not in vars(evolution)


class TestUnderAnOldId:
    def test_attempts_count_where_the_code_is_the_same(self):
        evolution = one('new', replaces=('a',))
        assert decide(evolution, 'failed').permission is Permission.NEVER

    def test_cancelled_counts_too(self):
        assert decide(one('new', replaces=('a',), code='other'), 'cancelled').permission is Permission.NEVER


def model(evolution, rows, most, delay):
    """The promise again, in other words: what happened to this code since a person last asked."""
    told = [row for row in rows if row.fingerprint is not None]
    if told and told[-1].state.value == 'cancelled':
        return 'never', None
    mine = [row for row in told if row.fingerprint == evolution.fingerprint]
    last = mine[-1].state.value if mine else 'nothing'
    if last == 'failed':
        safe = evolution.transactional if evolution.rerunnable is None else evolution.rerunnable
        failures = len([row for row in mine if row.state.value == 'failed'])
        if not safe or failures >= most:
            return 'never', None
        pause = delay
        for _ in range(failures - 1):
            pause *= 2
        return 'later', mine[-1].finished + pause * 1000
    if last == 'interrupted':
        letters = ''.join(
            {'interrupted': 'k' if row.finished is None else 'l'}.get(row.state.value, ' ') for row in mine
        )
        row = letters.rpartition(' ')[2]
        return ('never', None) if evolution.rerunnable is False or row.count('k') >= most else ('now', None)
    return 'now', None


@given(
    st.builds(one, st.just('a'), transactional=st.booleans(), rerunnable=st.sampled_from([True, False, None])),
    st.lists(
        st.tuples(
            st.sampled_from(['failed', 'interrupted', 'left', 'running', 'cancelled']),
            st.sampled_from([CODE, CODE, CODE, 'other', None]),
        ),
        max_size=14,
    ),
    st.integers(1, 6),
    st.integers(0, 60),
)
def test_it_decides_as_the_model_does(evolution, told, most, delay):
    rows = [story(state, code=code)[0] for state, code in told]
    rows = [
        at('a', r.state.value, token=n, attempt=n, code=r.fingerprint, finished=r.finished) for n, r in enumerate(rows)
    ]
    decision = RetryPolicy(most, delay).decide(evolution, History(rows))
    assert (decision.permission.value, decision.after) == model(evolution, rows, most, delay)
