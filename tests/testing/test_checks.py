"""Each check passes on an evolution that is as it should be, and fails on one that deserves it."""

from __future__ import annotations

import logging
import threading

import pytest

from tests.testing.projects import ROWS, backfill, backfill_in_batches, evolution
from tgext.evolve.points import at_points
from tgext.evolve.testing import CheckFailed, Checks, EvolutionRunner, NotApplicable
from tgext.evolve.testing.deaths import run_with_deaths

ONE_BY_ONE = ('has_description', 'runs', 'runs_twice', 'survives_kills', 'leaves_nothing_open')


def failure(check, *args):
    with pytest.raises(CheckFailed) as caught:
        check(*args)
    error = caught.value
    assert error.thing
    assert error.place
    assert error.remedy
    return error


class TestGoodEvolutions:
    # On the other stores, all at once.
    @pytest.mark.parametrize('project', ['sqlite'], indirect=True)
    @pytest.mark.parametrize('check', ONE_BY_ONE)
    @pytest.mark.parametrize('make', [backfill, backfill_in_batches])
    def test_pass(self, project, make, check):
        checks = Checks(project.has(make(project, 'good')).make)
        getattr(checks, check)('good')

    def test_pass_all_at_once_in_their_order(self, project):
        first = backfill(project, 'first')
        second = backfill_in_batches(project, 'second', depends_on=('first',))
        Checks(project.has(second, first).make).all()

    def test_leave_nothing_behind_in_this_process(self, project):
        before = threading.enumerate()
        Checks(project.has(backfill(project, 'good')).make).survives_kills('good')
        assert at_points(None) is None
        left = [thread for thread in threading.enumerate() if thread not in before]
        assert [thread for thread in left if thread.name.startswith('tgext.evolve')] == []
        runner = EvolutionRunner(project.make())
        assert len(runner.run('good').differences()) > 0  # nobody listens to commits any more
        runner.close()


@pytest.mark.parametrize('project', ['sqlite'], indirect=True)
class TestThePlan:
    def test_is_looked_at_though_evolutions_are_disabled(self, project):
        project.has(backfill(project, 'twice'), backfill(project, 'twice'))
        error = failure(Checks(project.make).plan_is_sound)
        assert "two evolutions have the id 'twice'" in str(error)

    def test_has_no_unknown_dependencies(self, project):
        error = failure(Checks(project.has(backfill(project, depends_on=('gone',))).make).plan_is_sound)
        assert "'backfill' depends on 'gone', which no evolution provides" in str(error)

    def test_has_no_cycle(self, project):
        one, two = backfill(project, 'one', depends_on=('two',)), backfill(project, 'two', depends_on=('one',))
        assert "'one' -> 'two' -> 'one'" in str(failure(Checks(project.has(one, two).make).plan_is_sound))

    def test_holds_nothing_that_nobody_checks(self, project):
        error = failure(Checks(project.has(backfill(project, 'new')).make).plan_is_sound, ['old'])
        assert "no check knows: 'new'" in str(error)


@pytest.mark.parametrize('project', ['mim'], indirect=True)
def test_a_transactional_evolution_on_mongodb_is_found_out(project):
    error = failure(Checks(project.has(backfill(project, transactional=True)).make).plan_is_sound)
    assert 'MongoDB has transactions for batches only' in str(error)


@pytest.mark.parametrize('project', ['sqlite'], indirect=True)
@pytest.mark.parametrize('description', ['', '   '])
def test_an_evolution_without_a_description_is_found_out(project, description):
    error = failure(Checks(project.has(backfill(project, description=description)).make).has_description, 'backfill')
    assert "evolution 'backfill' has no description" in str(error)
    assert error.place == 'tests.testing.projects.Some'


class TestRunning:
    def test_an_evolution_that_raises_is_found_out(self, project):
        def evolve(self):
            raise ZeroDivisionError('no pages')

        error = failure(Checks(project.has(evolution('bad', evolve)).make).runs, 'bad')
        assert "evolution 'bad' raised ZeroDivisionError: no pages" in str(error)
        assert isinstance(error.__cause__, ZeroDivisionError)

    def test_what_is_tried_again_by_itself_elsewhere_is_not_waited_for(self, project):
        calls = []

        def evolve(self):
            calls.append(1)
            raise ZeroDivisionError

        failure(Checks(project.has(evolution('bad', evolve, rerunnable=True)).make).runs, 'bad')
        assert len(calls) == 1

    def test_one_that_needs_what_stands_before_it_finds_it_done(self, project):
        def evolve(self):
            assert project.unslugged() == []

        needs = evolution('needs', evolve, depends_on=('backfill',))
        Checks(project.has(needs, backfill(project)).make).runs('needs')

    def test_one_whose_predecessor_fails_is_not_to_blame(self, project):
        def evolve(self):
            raise ZeroDivisionError

        second = backfill(project, 'second', depends_on=('first',))
        checks = Checks(project.has(evolution('first', evolve), second).make)
        with pytest.raises(NotApplicable, match=r"'first' raised ZeroDivisionError.*which runs before 'second'"):
            checks.runs('second')


class TestRunningTwice:
    def test_an_evolution_that_adds_again_is_found_out(self, project):
        def evolve(self):
            project.add_to_all(1)

        error = failure(Checks(project.has(evolution('adds', evolve)).make).runs_twice, 'adds')
        assert 'changes data when it runs a second time' in str(error)
        assert '= 1): seen is 2 instead of 1' in str(error)
        assert f'... and {ROWS - 3} more' in str(error)

    def test_batches_that_add_again_are_found_out(self, project):
        def process(self, page):
            page.seen += 1

        adds = project.batched('adds', process, where=None)
        assert 'seen is 2 instead of 1' in str(failure(Checks(project.has(adds).make).runs_twice, 'adds'))

    def test_an_evolution_that_fails_on_its_own_result_is_found_out(self, project):
        def evolve(self):
            assert project.unslugged()
            for page in project.unslugged():
                project.set(page, slug='x')

        error = failure(Checks(project.has(evolution('once', evolve)).make).runs_twice, 'once')
        assert "evolution 'once' raised AssertionError" in str(error)
        assert 'when it ran a second time on its own result' in str(error)

    def test_what_comes_from_the_clock_can_be_ignored(self, project):
        def evolve(self):
            project.add_to_all(1)

        project.has(evolution('adds', evolve))
        for ignored in ('page.seen', '*.seen', 'page'):
            Checks(project.make, ignore=[ignored]).runs_twice('adds')
        failure(Checks(project.make, ignore=['other.seen']).runs_twice, 'adds')


def in_two_steps(project):
    """Runs twice with the same result; but what is killed between its steps is never completed."""

    def evolve(self):
        titles, pages = project.titles(), project.unslugged()
        for page in pages:
            project.set(page, slug='')
        project.save()
        for page in pages:
            project.set(page, slug=titles[page].lower())
        project.save()

    return evolution('steps', evolve)


def numbering(project):
    """Notes on itself how far it is: the next process does not know."""

    def process(self, page):
        self.number = getattr(self, 'number', 0) + 1
        page.slug = f'{self.number}'

    return project.batched('numbers', process)


class TestKills:
    def test_an_evolution_that_cannot_be_completed_is_found_out(self, project):
        checks = Checks(project.has(in_two_steps(project)).make)
        checks.runs_twice('steps')
        error = failure(checks.survives_kills, 'steps')
        assert "slug is '' instead of 'page 1'" in str(error)

    def test_batches_that_need_what_the_dead_one_knew_are_found_out(self, project):
        checks = Checks(project.has(numbering(project)).make)
        checks.runs_twice('numbers')
        assert "slug is '1' instead of '" in str(failure(checks.survives_kills, 'numbers'))

    def test_an_evolution_that_fails_on_what_the_dead_one_left_is_found_out(self, project):
        def evolve(self):
            pages = project.unslugged()
            assert len(pages) in (0, ROWS), 'somebody was here'
            for page in pages:
                project.set(page, slug='x')
                project.save()

        checks = Checks(project.has(evolution('proud', evolve)).make)
        checks.runs_twice('proud')
        error = failure(checks.survives_kills, 'proud')
        assert 'somebody was here' in str(error)
        assert 'after it was killed' in str(error)

    def test_each_boundary_of_each_batch_is_one(self, project):
        runner = EvolutionRunner(project.has(backfill_in_batches(project)).make())
        # Five batches of two, the end of the pass, the pass that finds nothing, each before and after its commit; and
        # the record. On MongoDB the checkpoint is one more. On mim, without transactions, the work of a batch is
        # there before its checkpoint, so that three batches fall out.
        deaths = {'sql': 7 * 2, 'mongodb': 7 * 3, 'mim': 4 * 3}[project.database] + 1
        assert run_with_deaths(runner, 'in-batches') == deaths
        assert runner.pending == []
        states = [attempt.state.value for attempt in runner.store.history().attempts]
        assert states == ['interrupted'] * deaths + ['done']
        assert {row['slug'] for row in runner.rows('page')} == {f'page {n}' for n in range(1, ROWS + 1)}
        runner.close()

    def test_every_life_gets_further_where_there_are_no_checkpoints(self, project):
        left = []

        def evolve(self):
            left.append(len(project.unslugged()))
            backfill(project).evolve(self)

        runner = EvolutionRunner(project.has(evolution('backfill', evolve)).make())
        assert run_with_deaths(runner, 'backfill') >= 5
        assert left[:4] == [10, 10, 9, 7]
        assert runner.pending == []
        runner.close()

    @pytest.mark.parametrize('project', ['sqlite', 'sqlite in memory', 'postgresql', 'mariadb'], indirect=True)
    def test_a_transactional_evolution_dies_before_and_after_its_commit(self, project):
        seen = []

        def evolve(self):
            seen.append(len(project.unslugged()))
            for page in project.unslugged():
                project.set(page, slug='x')

        project.has(evolution('whole', evolve, transactional=True))
        Checks(project.make).survives_kills('whole')
        assert seen == [ROWS, ROWS, ROWS]  # never killed; killed before its commit; killed after it

    def test_the_dead_save_nothing_whatever_they_catch(self, project):
        def evolve(self):
            for page in project.unslugged():
                try:
                    project.set(page, slug='x', seen=1)
                    project.save()
                except BaseException:
                    project.set(page, slug='x', seen=13)
                finally:
                    project.save()

        Checks(project.has(evolution('stubborn', evolve)).make).survives_kills('stubborn')

    @pytest.mark.parametrize('project', ['sqlite', 'mim'], indirect=True)
    def test_one_that_swallows_its_death_is_not_recorded_as_done(self, project):
        lives = []

        def evolve(self):
            lives.append(1)
            try:
                for page in project.unslugged():
                    project.set(page, slug='x')
                    project.save()
            except BaseException:
                pass

        runner = EvolutionRunner(project.has(evolution('deaf', evolve)).make())
        number = run_with_deaths(runner, 'deaf')
        assert number > 3
        assert len(lives) >= number
        assert {row['slug'] for row in runner.rows('page')} == {'x'}
        runner.close()

    @pytest.mark.parametrize('project', ['sqlite', 'mim'], indirect=True)
    def test_one_that_begins_anew_each_time_is_given_up(self, project, monkeypatch):
        monkeypatch.setattr('tgext.evolve.testing.deaths._MOST_DEATHS', 10)

        def evolve(self):
            while True:
                project.add_to_all(1)
                project.save()

        runner = EvolutionRunner(project.has(evolution('endless', evolve)).make())
        with pytest.raises(Exception, match="'endless' is not done after 10 kills"):
            run_with_deaths(runner, 'endless')
        runner.close()

    @pytest.mark.parametrize('project', ['sqlite', 'mim'], indirect=True)
    @pytest.mark.parametrize('check', ['runs_twice', 'survives_kills'])
    def test_one_that_says_it_does_not_bear_it_is_taken_at_its_word(self, project, check):
        checks = Checks(project.has(backfill(project, rerunnable=False)).make)
        with pytest.raises(NotApplicable, match='rerunnable = False'):
            getattr(checks, check)('backfill')

    @pytest.mark.parametrize('project', ['sqlite', 'mim'], indirect=True)
    def test_old_data_that_is_other_data_each_time_is_found_out(self, project):
        made = []

        def make():
            conf = project.make()
            made.append(1)
            key = 'id' if project.kind == 'sql' else '_id'
            EvolutionRunner(conf).insert(
                'page', *({key: 100 + n, 'title': 'More', 'seen': 0} for n in range(len(made)))
            )
            return conf

        project.has(backfill(project))
        error = failure(Checks(make).survives_kills, 'backfill')
        assert 'two databases made one after the other have different data' in str(error)
        Checks(make, ignore=['page']).survives_kills('backfill')

    @pytest.mark.parametrize('project', ['sqlite', 'mim'], indirect=True)
    def test_a_salt_that_differs_from_one_database_to_the_next_does_no_harm(self, project):
        made = []

        def make():
            conf = project.make()
            made.append(1)
            for page in project.titles():
                project.set(page, seen=100 * len(made) + page)  # a salt: another one in each database
            project.save()
            return conf

        Checks(project.has(backfill(project)) and make).survives_kills('backfill')
        assert len(made) == 2


class TestLeavingThingsOpen:
    def test_an_evolution_that_does_is_found_out(self, project):
        def evolve(self):
            project.open_something(self)

        error = failure(Checks(project.has(evolution('leaks', evolve)).make).leaves_nothing_open, 'leaks')
        assert "evolution 'leaks' leaves something open" in str(error)
        told = 'projects.py' if project.kind == 'sql' else 'changes that were never flushed (Page)'
        assert told in str(error)

    def test_batches_that_do_are_found_out(self, project):
        def process(self, page):
            page.slug = page.title
            if page.title == 'Page 1':
                project.open_something(self)

        leaks = project.batched('leaks', process)
        failure(Checks(project.has(leaks).make).leaves_nothing_open, 'leaks')

    @pytest.mark.parametrize('project', ['sqlite', 'postgresql', 'mariadb'], indirect=True)
    def test_a_lock_that_is_left_is_not_waited_for(self, project):
        def evolve(self):
            self.connection = project.model.engine.connect()
            self.connection.execute(project.model.Page.__table__.update().values(seen=1))

        failure(Checks(project.has(evolution('locks', evolve)).make).leaves_nothing_open, 'locks')

    @pytest.mark.parametrize('project', ['sqlite', 'sqlite in memory', 'mim'], indirect=True)
    def test_what_it_leaves_in_the_session_of_the_application_is_saved_by_us(self, project):
        def evolve(self):
            project.add_to_all(1)

        Checks(project.has(evolution('leaves', evolve)).make).leaves_nothing_open('leaves')


@pytest.mark.parametrize('project', ['mongodb'], indirect=True)
def test_a_transaction_of_pymongo_that_is_left_open_is_found_out(project):
    def evolve(self):
        self.session = project._session.db.client.start_session()
        self.session.start_transaction()

    error = failure(Checks(project.has(evolution('leaks', evolve)).make).leaves_nothing_open, 'leaks')
    assert 'a transaction of pymongo is open' in str(error)


@pytest.mark.parametrize('project', ['sqlite', 'mim'], indirect=True)
@pytest.mark.parametrize('check', [check for check in ONE_BY_ONE if check != 'has_description'])
def test_what_the_scratch_database_has_had_is_not_checked(project, check):
    def make():
        conf = project.make()
        EvolutionRunner(conf).run_all()
        return conf

    with pytest.raises(NotApplicable, match="'backfill' is recorded as done in the database"):
        getattr(Checks(project.has(backfill(project)) and make), check)('backfill')


@pytest.mark.parametrize('project', ['sqlite'], indirect=True)
def test_nobody_is_told_of_what_a_check_does(project, caplog):
    told = []
    import tg

    tg.hooks.register('evolve.failed', told.append)

    def evolve(self):
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        failure(Checks(project.has(evolution('bad', evolve)).make).runs, 'bad')
    assert told == []


def test_every_check_says_why():
    for name in ('plan_is_sound', *ONE_BY_ONE):
        assert len(getattr(Checks, name).__doc__.split('\n\n')) >= 2, name
