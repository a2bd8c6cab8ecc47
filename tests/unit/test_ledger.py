"""What version tables of other systems say is laid over the history, wherever it is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgext.evolve.agenda import Agenda, judge
from tgext.evolve.errors import PlanError
from tgext.evolve.history import Applied, History, State
from tgext.evolve.ledger import Ledger
from tgext.evolve.overview import Overview
from tgext.evolve.plan import Plan, planned
from tgext.evolve.policy import RetryPolicy
from tgext.evolve.steps import Step, Versions, VersionTable
from tgext.evolve.stores.base import Snapshot

from .making import at, ids, one

NOW = 100_000


class Table(VersionTable):
    def __init__(self, *applied, unknown=(), refuses=False):
        self.versions = Versions(frozenset(applied), frozenset(unknown))
        self.looks = 0
        self.told = []
        self.refuses = refuses

    def look(self):
        self.looks += 1
        return self.versions

    def _tell(self, verb, ids):
        if self.refuses:
            raise PlanError('no', place='here', remedy='none')
        self.told.append((verb, list(ids)))

    def stamp(self, ids):
        self._tell('stamp', ids)

    def unstamp(self, ids):
        self._tell('unstamp', ids)


class Records:
    """Of a store, what a ledger uses."""

    def __init__(self, *attempts):
        self.attempts = attempts
        self.told = []

    def history(self):
        return History(self.attempts)

    def snapshot(self):
        return Snapshot(self.history(), None, NOW)

    def settle(self, grant, ids, state, contents):
        self.told.append(('settle', list(ids), state))

    def unsettle(self, grant, ids):
        self.told.append(('unsettle', list(ids)))


def ledger(evolutions, *attempts):
    return Ledger(Plan(evolutions), Records(*attempts))


class TestReading:
    def test_the_table_alone_decides_about_its_own(self):
        table = Table('x:2', 'x:3')
        plan = [one(id, table=table) for id in ('x:1', 'x:2', 'x:3')] + [one('data')]
        history = ledger(plan, at('x:1'), at('x:3'), at('data')).history()
        assert history.settled == {'x:2', 'x:3', 'data'}
        assert history.recorded == {'x:1', 'x:3', 'data'}
        assert ids(Plan(plan).pending(history)) == ['x:1']

    def test_it_cannot_decide_about_others(self):
        history = ledger([one('x:1', table=Table('data')), one('data')]).history()
        assert history.settled == frozenset()

    def test_a_snapshot_says_the_same(self):
        made = ledger([one('x:1', table=Table('x:1'))])
        assert made.snapshot().history.settled == made.history().settled == {'x:1'}

    def test_each_table_is_asked_once_and_none_where_there_is_none(self):
        first, second = Table(), Table()
        ledger([one('x:1', table=first), one('x:2', table=first), one('y:1', table=second)]).history()
        assert (first.looks, second.looks) == (1, 1)
        plain = ledger([one('data')], at('data'))
        assert plain.history().applied == Applied()

    def test_what_tables_have_and_the_plan_does_not_is_unknown(self):
        plan = [one('x:1', table=Table(unknown={'x:9'})), one('y:1', table=Table(unknown={'y:9'}))]
        history = ledger(plan, at('x:9'), at('old')).history()
        assert Plan(plan).unknown(history) == ['old', 'x:9', 'y:9']

    def test_what_was_taken_back_was_not_begun_again(self):
        history = ledger([one('x:1', table=Table())], at('x:1')).history()
        assert history.unsettled() == []
        begun = ledger([one('x:1', table=Table())], at('x:1'), at('x:1', 'failed', attempt=2)).history()
        assert [attempt.state for attempt in begun.unsettled()] == [State.FAILED]

    def test_what_failed_here_and_was_done_by_another_tool_is_done(self):
        history = ledger([one('x:1', table=Table('x:1'))], at('x:1', 'failed')).history()
        assert history.settled == {'x:1'}
        assert history.unsettled() == []

    @given(st.sets(st.sampled_from('abcdef')), st.sets(st.sampled_from('abcdef')), st.sets(st.sampled_from('abcdef')))
    def test_whatever_the_history_has(self, decides, applied, recorded):
        plain = History([at(id) for id in recorded])
        seen = plain.with_applied(Applied(frozenset(decides), frozenset(applied)))
        for id in 'abcdef':
            assert (id in seen.settled) == (id in (applied if id in decides else recorded))
        assert plain.settled == recorded  # it stays what it is


class TestSettling:
    def test_the_tables_are_told_first_each_of_its_own(self):
        first, second = Table(), Table()
        plan = [one('x:1', table=first), one('data'), one('y:1', table=second), one('x:2', table=first)]
        made = ledger(plan)
        made.settle('grant', ['y:1', 'x:2', 'data', 'x:1'], State.STAMPED)
        assert first.told == [('stamp', ['x:1', 'x:2'])]
        assert second.told == [('stamp', ['y:1'])]
        assert made._store.told == [('settle', ['y:1', 'x:2', 'data', 'x:1'], State.STAMPED)]

    def test_what_a_table_refuses_is_not_recorded(self):
        made = ledger([one('x:1', table=Table(refuses=True))])
        with pytest.raises(PlanError):
            made.settle('grant', ['x:1'], State.STAMPED)
        with pytest.raises(PlanError):
            made.unsettle('grant', ['x:1'])
        assert made._store.told == []

    def test_taking_back_tells_the_table_too(self):
        table = Table('x:1')
        made = ledger([one('x:1', table=table), one('data')])
        made.unsettle('grant', ['data'])
        assert table.told == []
        made.unsettle('grant', ['x:1'])
        assert table.told == [('unstamp', ['x:1'])]


class TestOverview:
    def _overview(self, plan, *attempts):
        plan = Plan(plan)
        snapshot = Ledger(plan, Records(*attempts)).snapshot()
        policy = RetryPolicy()
        agenda = Agenda.of(plan, snapshot.history, policy, NOW)
        verdict = judge(plan, agenda, snapshot.history, lease_alive=False)
        return Overview.of(plan, snapshot, agenda, verdict, policy)

    def test_what_another_tool_did_is_applied(self):
        seen = self._overview([one('x:1', table=Table('x:1'))])
        [entry] = seen.entries
        assert (entry.state, entry.is_settled, entry.needs_a_person, entry.counts) == ('applied', True, False, None)
        assert seen.pending == ()
        assert seen.verdict.serving.value == 'everything'

    def test_what_we_did_is_done_with_its_attempt(self):
        [entry] = self._overview([one('x:1', table=Table('x:1'))], at('x:1')).entries
        assert (entry.state, entry.changed) == ('done', False)

    def test_what_was_downgraded_is_pending_and_says_why(self):
        seen = self._overview([one('x:1', table=Table())], at('x:1'))
        [entry] = seen.entries
        assert (entry.state, entry.why) == ('pending', 'it was taken back: its version table does not have it any more')
        assert seen.verdict.serving.value == 'nothing'

    def test_what_only_a_table_has_is_unknown(self):
        seen = self._overview([one('x:1', table=Table('x:1', unknown={'x:9'}))])
        [entry] = seen.unknown
        assert (entry.id, entry.state, entry.attempts) == ('x:9', 'applied', ())
        assert 'this release does not know it' in entry.why


class TestSteps:
    def test_its_code_is_its_fingerprint_and_its_file_its_origin(self):
        class Script(Step):
            evolution_id = 'x:1'
            origin = '/some/file.sql'
            table = Table()

            def __init__(self, text):
                self.text = text

            def code(self):
                return self.text

        one, same, other = (planned(Script(text)) for text in ('a', 'a', 'b'))
        assert one.fingerprint == same.fingerprint != other.fingerprint
        assert one.origin == '/some/file.sql'
        assert one.table is Script.table

    def test_there_is_no_way_back_unless_it_says_so(self):
        assert not Step().reversible
        with pytest.raises(NotImplementedError):
            Step().revert()

    def test_an_evolution_has_no_table_whatever_it_has_by_that_name(self):
        from .making import an_evolution

        assert planned(an_evolution(evolution_id='a', table='page')()).table is None
