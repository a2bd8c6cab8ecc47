"""What runs again whenever its content has changed, and what another release does with it meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgext.evolve.agenda import Agenda, judge
from tgext.evolve.gate import Reason
from tgext.evolve.history import History, Repeatable, State
from tgext.evolve.ledger import Ledger
from tgext.evolve.overview import Overview
from tgext.evolve.plan import Plan, planned
from tgext.evolve.policy import Permission, RetryPolicy
from tgext.evolve.steps import Step
from tgext.evolve.stores.base import Snapshot, to_settle

from .making import at, ids, one

NOW = 100_000


class Records:
    """Of a store, what a ledger uses; attempts are added by whoever runs."""

    def __init__(self, *attempts):
        self.attempts = list(attempts)
        self.settled = []

    def history(self):
        return History(self.attempts)

    def snapshot(self):
        return Snapshot(self.history(), None, NOW)

    def settle(self, grant, ids, state, contents):
        self.settled.append((list(ids), dict(contents)))

    def run(self, code, state='done', id='views'):
        token = max((attempt.token for attempt in self.attempts), default=0) + 1
        self.attempts.append(at(id, state, token=token, code=code))


class Process:
    """One process with a content of its own, which looks when it starts."""

    def __init__(self, records, code, **attributes):
        self.plan = Plan([one('views', code=code, repeatable=True, **attributes), one('data')])
        self.records = records
        self.ledger = Ledger(self.plan, records)
        self.look()

    def look(self):
        return self.ledger.snapshot().history

    @property
    def pending(self):
        return 'views' in ids(self.plan.pending(self.look()))

    def agenda(self):
        return Agenda.of(self.plan, self.look(), RetryPolicy(), NOW)

    def entry(self):
        snapshot = self.ledger.snapshot()
        agenda = self.agenda()
        verdict = judge(self.plan, agenda, snapshot.history, lease_alive=False)
        return Overview.of(self.plan, snapshot, agenda, verdict, RetryPolicy()).find('views')


def data():
    return at('data', token=1)


def test_it_is_settled_while_its_content_is_what_ran_last():
    records = Records(data())
    process = Process(records, 'A')
    assert process.pending
    records.run('A', 'failed')
    assert process.pending
    records.run('A')
    assert not process.pending
    assert not Process(records, 'A').pending
    assert Process(records, 'B').pending


def test_what_another_release_ran_later_does_not_count_for_who_was_there_before():
    records = Records(data())
    records.run('A')
    old = Process(records, 'A')
    new = Process(records, 'B')
    records.run('B')
    assert not old.pending
    assert not new.pending
    assert Process(records, 'A').pending  # it starts later: a release that was rolled back


def test_it_need_not_have_looked_in_between():
    """Its own content was done and covered by another one between two looks."""
    records = Records(data())
    records.run('B')
    process = Process(records, 'A')
    records.run('A')
    records.run('C')
    assert not process.pending


def test_what_failed_of_another_content_is_run_over_by_who_starts_later():
    records = Records(data())
    records.run('A')
    old = Process(records, 'A')
    records.run('B', 'failed')
    assert Process(records, 'A').pending
    assert not old.pending


@pytest.mark.parametrize('state', ['running', 'failed', 'interrupted', 'cancelled'])
def test_who_was_there_before_closes_while_another_content_is_begun_and_not_done(state):
    records = Records(data())
    records.run('A')
    old = Process(records, 'A')
    records.run('B', state)
    agenda = old.agenda()
    assert [attempt.fingerprint for attempt in agenda.newer] == ['B']
    verdict = judge(old.plan, agenda, old.look(), lease_alive=True)
    assert (verdict.reason, verdict.serving.value) == (Reason.NEWER_RELEASE, 'nothing')
    records.run('B')
    agenda = old.agenda()
    assert judge(old.plan, agenda, old.look(), lease_alive=False).reason is Reason.COMPLETE


def test_its_own_content_under_way_elsewhere_is_no_newer_release():
    records = Records(data())
    records.run('A')
    old = Process(records, 'A')
    records.run('A', 'running')
    assert old.agenda().newer == ()


def test_a_stamp_counts_with_its_content_only():
    records = Records(data(), at('views', 'stamped', token=2, attempt=0, code=None))
    assert Process(records, 'A').pending
    records.run('A', 'stamped')
    assert not Process(records, 'A').pending
    assert Process(records, 'B').pending


def test_settling_it_tells_its_content():
    records = Records()
    process = Process(records, 'A')
    process.ledger.settle('grant', ['data', 'views'], State.STAMPED)
    process.ledger.settle('grant', ['data'], State.STAMPED)
    assert records.settled == [(['data', 'views'], {'views': 'A'}), (['data'], {})]


def test_what_is_to_be_recorded_when_it_is_settled():
    history = History([at('views', code='A'), at('views', token=2, code='B'), at('data')])
    assert to_settle(history, ['data', 'other', 'views', 'other'], {}) == ['other']
    assert to_settle(history, ['views'], {'views': 'A'}) == ['views']
    assert to_settle(history, ['views'], {'views': 'B'}) == []
    begun = History([*history.attempts, at('views', 'failed', token=3, code='B')])
    assert to_settle(begun, ['views'], {'views': 'B'}) == ['views']


def test_it_is_known_under_its_old_id_too():
    records = Records(data())
    records.run('A', id='old-views')
    process = Process(records, 'A', replaces=('old-views',))
    assert not process.pending
    assert Process(records, 'B', replaces=('old-views',)).pending


def test_an_operator_reads_why_it_is_pending():
    records = Records(data())
    records.run('A')
    entry = Process(records, 'B').entry()
    assert (entry.state, entry.why, entry.changed) == ('pending', 'its content changed since it ran', None)
    assert (Process(records, 'A').entry().state, Process(records, 'A').entry().changed) == ('done', False)
    old = Process(records, 'A')
    records.run('B')
    entry = old.entry()
    assert (entry.state, entry.changed, entry.counts.fingerprint) == ('done', False, 'A')


def test_failures_before_it_was_done_once_do_not_count_any_more():
    policy = RetryPolicy(max_attempts=2)
    planned = one('views', code='A', repeatable=True, transactional=True)
    failed = [at('views', 'failed', token=token, code='A') for token in (1, 4)]
    done = [at('views', token=2, code='A'), at('views', token=3, code='B')]
    assert policy.decide(planned, History([*failed, *done])).permission is Permission.LATER
    assert policy.decide(planned, History(failed)).permission is Permission.NEVER


def test_only_steps_are_repeatable():
    class Views(Step):
        evolution_id = 'views'
        repeatable = True

    assert planned(Views()).repeatable
    assert not planned(Step.__new__(type('Once', (Step,), {'evolution_id': 'x'}))).repeatable


@given(
    st.lists(st.tuples(st.sampled_from('ABC'), st.sampled_from(['done', 'stamped', 'failed'])), max_size=8),
    st.lists(st.tuples(st.sampled_from('ABC'), st.sampled_from(['done', 'stamped', 'failed'])), max_size=8),
)
def test_whatever_was_before_and_comes_after(before, after):
    """Said in another way: it is settled once it was the last thing done at start, or was done since."""
    records = Records()
    for code, state in before:
        records.run(code, state)
    process = Process(records, 'A')
    for code, state in after:
        records.run(code, state)
    done = [('A', 'done'), ('A', 'stamped')]
    expected = (bool(before) and before[-1] in done) or any(each in done for each in after)
    assert process.pending is not expected
    # And whoever runs whenever its own is pending runs once at most.
    if process.pending:
        records.run('A')
        assert not process.pending


@given(st.lists(st.sampled_from('AB'), min_size=1, max_size=10))
def test_releases_side_by_side_run_each_once(looks):
    """Whichever looks when: two processes that run what is pending come to rest."""
    records = Records()
    records.run('A')
    processes = {code: Process(records, code) for code in 'AB'}
    for code in looks:
        if processes[code].pending:
            records.run(code)
    assert len(records.attempts) <= 2


def test_the_plain_history_stays_what_it_is():
    plain = History([at('views', code='A')])
    seen = plain.with_repeatables([Repeatable(('views',), 'B', (1, 1))])
    assert (plain.settled, seen.settled, seen.recorded) == ({'views'}, frozenset(), {'views'})
