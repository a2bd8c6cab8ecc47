"""What is to be done now, and what may be served meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgext.evolve.agenda import Agenda, judge
from tgext.evolve.gate import Progress, Reason, Serving
from tgext.evolve.history import History
from tgext.evolve.plan import Plan
from tgext.evolve.policy import RetryPolicy

from .making import at, ids, naive_order, one, plans, written

POLICY = RetryPolicy(max_attempts=5, retry_delay=5)
LEVELS = ['nothing', 'reads', 'everything']


def agenda_of(plan, *rows, now=0):
    return Agenda.of(plan, History(rows), POLICY, now)


def verdict_of(plan, *rows, now=0, lease_alive=False, **options):
    plan = plan if isinstance(plan, Plan) else Plan(plan)
    history = History(rows)
    return judge(plan, Agenda.of(plan, history, POLICY, now), history, lease_alive=lease_alive, **options)


def failed(id, *, times=1, finished=1000, **columns):
    return [at(id, 'failed', token=n, attempt=n, finished=finished, **columns) for n in range(1, times + 1)]


class TestNext:
    def test_is_the_first_of_the_plan_in_a_new_database(self):
        assert agenda_of(Plan([one('r', serving='reads'), one('n')])).next.id == 'n'

    def test_is_nothing_when_all_is_done(self):
        agenda = agenda_of(Plan([one('a')]), at('a'))
        assert (agenda.next, agenda.pending, agenda.stopped, agenda.wake_at) == (None, (), (), None)

    def test_does_not_pass_a_failed_one_of_its_own_level(self):
        agenda = agenda_of(Plan([one('a'), one('b'), one('r', serving='reads')]), *failed('a'))
        assert agenda.next.id == 'r'
        assert agenda.held == {'a', 'b'}

    def test_does_not_depend_on_a_failed_one_not_even_through_others(self):
        plan = Plan(
            [one('r', serving='reads'), one('n', depends_on=('r',)), one('e', serving='everything', depends_on=('n',))]
        )
        agenda = agenda_of(plan, *failed('r'))
        assert agenda.next is None
        assert agenda.held == {'r', 'n', 'e'}

    def test_may_be_of_the_same_level_as_one_that_is_only_held(self):
        plan = Plan([one('r', serving='reads'), one('n', depends_on=('r',)), one('other')])
        assert agenda_of(plan, at('other'), *failed('r')).next is None
        plan = Plan(
            [
                one('r', serving='reads'),
                one('n', depends_on=('r',)),
                one('late', depends_on=('x',)),
                one('x', serving='everything'),
            ]
        )
        assert agenda_of(plan, at('x'), *failed('r')).next.id == 'late'

    def test_is_a_failed_one_when_its_pause_is_over(self):
        plan = Plan([one('a', transactional=True)])
        early = agenda_of(plan, *failed('a'), now=5999)
        assert (early.next, early.wake_at) == (None, 6000)
        assert agenda_of(plan, *failed('a'), now=6000).next.id == 'a'

    def test_a_pause_that_a_clock_began_which_has_jumped_back_is_no_pause(self):
        plan = Plan([one('a', rerunnable=True)])
        assert agenda_of(plan, *failed('a', finished=1_000_000), now=0).next.id == 'a'

    def test_wakes_at_the_earliest_of_several_pauses(self):
        plan = Plan([one('a', rerunnable=True), one('r', serving='reads', rerunnable=True)])
        agenda = agenda_of(plan, *failed('a', finished=9000), *failed('r', finished=2000), now=5000)
        assert agenda.wake_at == 7000
        assert not agenda.given_up

    def test_what_is_left_is_given_up_when_only_a_person_can_go_on(self):
        assert agenda_of(Plan([one('a')]), *failed('a')).given_up
        assert not agenda_of(Plan([one('a'), one('r', serving='reads')]), *failed('a')).given_up
        assert not agenda_of(Plan([one('a')])).given_up

    @given(plans(), st.data())
    def test_an_agenda_keeps_the_rules_whatever_happened(self, plan, data):
        states = ['done', 'stamped', 'failed', 'interrupted', 'running', 'cancelled']
        happened = data.draw(st.dictionaries(st.sampled_from(ids(plan)), st.sampled_from(states))) if len(plan) else {}
        agenda = agenda_of(plan, *(at(id, state, finished=0) for id, state in happened.items()))
        done = {id for id, state in happened.items() if state in ('done', 'stamped')}
        stopped = [s.planned for s in agenda.stopped]

        assert ids(agenda.pending) == ids(naive_order(plan.written, done))
        if agenda.next is None:
            assert agenda.held == set(ids(agenda.pending))
        else:
            assert set(agenda.next.depends_on) <= done
            assert agenda.next.serving not in {each.serving for each in stopped}
            before = ids(agenda.pending)[: ids(agenda.pending).index(agenda.next.id)]
            assert agenda.held == set(before)
        for each in stopped:
            assert happened[each.id] in ('failed', 'interrupted', 'cancelled')

    @given(written(), st.data())
    def test_a_whole_run_does_each_once_in_order_and_stops_only_where_it_must(self, evolutions, data):
        plan = Plan(evolutions)
        hopeless = data.draw(st.sets(st.sampled_from(ids(plan)), max_size=2)) if evolutions else set()
        rows, ran, done = [], [], set()
        while (agenda := agenda_of(plan, *rows)).next is not None:
            id = agenda.next.id
            assert id not in ran
            assert set(agenda.next.depends_on) <= done
            ran.append(id)
            if id in hopeless:
                rows += failed(id, times=5)
            else:
                rows.append(at(id, token=len(ran)))
                done.add(id)
        # The model: what failed, what needs it, and what stands behind it at its level.
        broken = set(ran) & hopeless
        level = {each.id: each.serving for each in evolutions}
        needs = {each.id: set(each.depends_on) for each in evolutions}
        for id in set(ids(plan)) - set(ran):
            assert broken
            assert level[id] in {level[b] for b in broken} or needs[id] - done
        left = set(ids(plan)) - done
        strictest = min((LEVELS.index(level[id]) for id in left), default=2)
        verdict = verdict_of(plan, *rows)
        assert verdict.serving.value == LEVELS[strictest]
        assert verdict.reason is (Reason.FAILED if left else Reason.COMPLETE)
        assert agenda.given_up is bool(left)


class TestServing:
    def test_everything_when_all_is_done(self):
        verdict = verdict_of([one('a')], at('a'))
        assert (verdict.serving, verdict.reason) == (Serving.EVERYTHING, Reason.COMPLETE)

    def test_everything_without_any_evolutions(self):
        assert verdict_of([]).reason is Reason.COMPLETE

    @given(st.lists(st.tuples(st.sampled_from(LEVELS), st.booleans()), max_size=8), st.booleans())
    def test_is_what_the_strictest_of_all_that_is_not_done_allows(self, levels, lease_alive):
        evolutions = [one(f'e{n}', serving=level) for n, (level, _) in enumerate(levels)]
        rows = [at(f'e{n}') for n, (_, done) in enumerate(levels) if done]
        left = [LEVELS.index(level) for level, done in levels if not done]
        assert verdict_of(evolutions, *rows, lease_alive=lease_alive).serving.value == LEVELS[min(left, default=2)]

    @pytest.mark.parametrize('state', ['running', 'failed', 'interrupted', 'cancelled'])
    @pytest.mark.parametrize('lease_alive', [True, False])
    def test_no_state_but_done_opens(self, state, lease_alive):
        assert verdict_of([one('a')], at('a', state, finished=0), lease_alive=lease_alive).serving is Serving.NOTHING


class TestReason:
    def test_pending_while_nobody_runs_it(self):
        assert verdict_of([one('a')]).reason is Reason.PENDING
        assert verdict_of([one('a')], at('a', 'running')).reason is Reason.PENDING

    def test_running_while_its_holder_lives(self):
        assert verdict_of([one('a')], at('a', 'running'), lease_alive=True).reason is Reason.RUNNING

    def test_running_under_its_old_id_by_an_older_release(self):
        verdict = verdict_of([one('new', replaces=('a',))], at('a', 'running'), lease_alive=True)
        assert verdict.reason is Reason.RUNNING

    def test_failed_says_what_to_type(self):
        verdict = verdict_of([one('a')], *failed('a'))
        assert verdict.reason is Reason.FAILED
        assert 'gearbox evolve retry a' in verdict.detail
        assert 'gearbox evolve stamp a' in verdict.detail

    def test_cancelled_does_not_ask_to_mend_the_code(self):
        verdict = verdict_of([one('a')], at('a', 'cancelled', finished=1))
        assert verdict.reason is Reason.CANCELLED
        assert 'gearbox evolve retry a' in verdict.detail
        assert 'Mend' not in verdict.detail

    def test_retrying_while_it_will_be_tried_again(self):
        assert verdict_of([one('a', transactional=True)], *failed('a')).reason is Reason.RETRYING

    def test_interrupted_too_often_is_a_failure(self):
        rows = [at('a', 'interrupted', token=n, attempt=n) for n in range(5)]
        verdict = verdict_of([one('a')], *rows)
        assert verdict.reason is Reason.FAILED
        assert '5 times in a row' in verdict.detail

    def test_a_lax_failure_is_loud_when_a_strict_one_needs_it(self):
        verdict = verdict_of([one('r', serving='reads'), one('n', depends_on=('r',))], *failed('r'))
        assert (verdict.serving, verdict.reason) == (Serving.NOTHING, Reason.FAILED)
        assert 'gearbox evolve retry r' in verdict.detail

    def test_a_lax_failure_is_not_the_reason_while_a_strict_one_waits_for_something_else(self):
        plan = [one('r', serving='reads'), one('e', serving='everything'), one('n', depends_on=('e',))]
        verdict = verdict_of(plan, *failed('r'))
        assert (verdict.serving, verdict.reason) == (Serving.NOTHING, Reason.PENDING)

    def test_long_plans_make_short_messages(self):
        verdict = verdict_of([one(f'e{n}') for n in range(1000)])
        assert 'and 995 more' in verdict.detail
        assert len(verdict.detail) < 200

    def test_progress_is_passed_on(self):
        progress = Progress(1, 2)
        assert verdict_of([one('a')], at('a', 'running'), lease_alive=True, progress=progress).progress is progress


class TestOpenOnFailure:
    def test_serves_in_spite_of_a_failure(self):
        verdict = verdict_of([one('a')], *failed('a'), open_on_failure=True)
        assert (verdict.serving, verdict.reason) == (Serving.EVERYTHING, Reason.FAILURE_IGNORED)
        assert 'gearbox evolve retry a' in verdict.detail

    def test_not_while_something_else_may_still_run(self):
        verdict = verdict_of([one('a'), one('r', serving='reads')], *failed('a'), open_on_failure=True)
        assert verdict.serving is Serving.NOTHING

    def test_not_between_two_tries(self):
        verdict = verdict_of([one('a', transactional=True)], *failed('a'), open_on_failure=True)
        assert (verdict.serving, verdict.reason) == (Serving.NOTHING, Reason.RETRYING)
        verdict = verdict_of([one('a', transactional=True)], *failed('a', times=5), open_on_failure=True)
        assert verdict.serving is Serving.EVERYTHING

    def test_not_while_a_newer_release_runs_something(self):
        verdict = verdict_of([one('a')], *failed('a'), at('new', 'running'), open_on_failure=True)
        assert (verdict.serving, verdict.reason) == (Serving.NOTHING, Reason.NEWER_RELEASE)

    def test_serves_in_spite_of_a_newer_release_that_failed(self):
        verdict = verdict_of([one('a')], at('a'), *failed('new'), open_on_failure=True)
        assert verdict.serving is Serving.EVERYTHING

    def test_changes_nothing_where_nothing_failed(self):
        assert verdict_of([one('a')], open_on_failure=True).reason is Reason.PENDING
        assert verdict_of([one('a')], at('a'), open_on_failure=True).reason is Reason.COMPLETE


class TestNewerRelease:
    @pytest.mark.parametrize('state', ['running', 'failed', 'interrupted'])
    @pytest.mark.parametrize(('serving', 'served'), [('nothing', 'nothing'), ('reads', 'reads')])
    def test_an_old_process_closes_to_the_level_of_what_it_began(self, state, serving, served):
        verdict = verdict_of([one('a')], at('a'), at('new', state, serving=serving))
        assert (verdict.serving.value, verdict.reason) == (served, Reason.NEWER_RELEASE)
        assert "'new'" in verdict.detail

    def test_what_may_run_while_serving_closes_nothing(self):
        assert verdict_of([one('a')], at('a'), at('new', 'running', serving='everything')).reason is Reason.COMPLETE

    def test_what_it_has_done_closes_nothing(self):
        assert verdict_of([one('a')], at('a'), at('new')).reason is Reason.COMPLETE

    def test_a_level_that_only_it_knows_closes_all(self):
        assert verdict_of([one('a')], at('a'), at('new', 'running', serving='some')).serving is Serving.NOTHING

    def test_what_is_pending_here_is_the_reason_where_that_is_as_strict(self):
        assert verdict_of([one('a')], at('new', 'running')).reason is Reason.PENDING

    def test_what_this_release_renamed_is_not_new(self):
        verdict = verdict_of([one('new', replaces=('a',), serving='everything')], at('a', 'running'), lease_alive=True)
        assert verdict.reason is Reason.RUNNING


class TestRefusingTheUnknown:
    def test_names_what_the_history_knows_more(self):
        verdict = verdict_of([one('a')], at('a'), at('y'), at('x'), refuse_unknown=True)
        assert (verdict.serving, verdict.reason) == (Serving.NOTHING, Reason.UNKNOWN_EVOLUTIONS)
        assert "'x', 'y'" in verdict.detail

    def test_is_no_reason_where_all_is_known(self):
        assert verdict_of([one('a')], at('a'), refuse_unknown=True).reason is Reason.COMPLETE
