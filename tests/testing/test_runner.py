"""The runner for tests of a project's own."""

from __future__ import annotations

import pytest
import tg
from webtest import TestApp

import tgext.evolve
from tests import apps
from tests.testing.projects import ROWS, backfill, backfill_in_batches, evolution
from tgext.evolve.errors import EvolutionFailed, NotPlugged, PlanError
from tgext.evolve.stores.base import Owner
from tgext.evolve.testing import EvolutionRunner


@pytest.fixture
def three(project):
    """A runner of three evolutions, each with what it needs done before."""

    def add(self):
        project.add_to_all(1)

    second = backfill_in_batches(project, 'second', depends_on=('first',))
    runner = EvolutionRunner(
        project.has(evolution('first', add), second, evolution('third', add, depends_on=('second',))).make()
    )
    yield runner
    runner.close()


class TestRunning:
    def test_goes_up_to_an_evolution_and_then_on(self, three):
        assert three.ids == three.pending == ['first', 'second', 'third']
        three.run_before('second')
        assert three.pending == ['second', 'third']
        assert {row['slug'] for row in three.rows('page')} == {None}
        three.run_until('second')
        assert three.pending == ['third']
        assert None not in {row['slug'] for row in three.rows('page')}
        three.run_all()
        assert three.pending == []
        assert [row['seen'] for row in three.rows('page')] == [2] * ROWS

    def test_of_one_alone_tells_what_was_before_and_after(self, three):
        change = three.run('second')
        assert {row['slug'] for row in change.before['page']} == {None}
        assert change.after['page'][0]['slug'] == 'page 1'
        assert change.after['page'][0]['seen'] == 0  # the first one has not run
        assert len(change.differences()) == 4
        assert change.differences()[0].endswith("= 1): slug is 'page 1' instead of None")
        assert three.pending == ['first', 'third']
        assert three.run('second').differences() == []

    def test_again_forgets_no_record(self, three):
        three.run('first')
        assert [row['seen'] for row in three.run_again('first').after['page']] == [2] * ROWS
        assert [row['seen'] for row in three.run_again('first').after['page']] == [3] * ROWS
        assert three.pending == ['second', 'third']

    def test_rows_are_put_in(self, three):
        key = next(name for name in three.rows('page')[0] if name in ('id', '_id'))
        three.insert('page', {key: 77, 'title': 'ONE MORE', 'seen': 0, 'slug': None})
        three.run('second')
        assert three.rows('page')[-1]['slug'] == 'one more'


SQLITE = pytest.mark.parametrize('project', ['sqlite'], indirect=True)


@SQLITE
def test_a_failure_names_the_evolution_and_keeps_what_it_raised(project):
    def evolve(self):
        raise ZeroDivisionError('of pages')

    runner = EvolutionRunner(project.has(evolution('bad', evolve)).make())
    with pytest.raises(EvolutionFailed, match="evolution 'bad' raised ZeroDivisionError: of pages") as caught:
        runner.run_all()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.place == 'tests.testing.projects.Some'


@SQLITE
def test_an_id_that_is_not_there_is_named(project):
    runner = EvolutionRunner(project.has(backfill(project)).make())
    for act in (runner.run, runner.run_again, runner.run_before, runner.run_until):
        with pytest.raises(PlanError, match="there is no evolution 'nonsense'"):
            act('nonsense')


@SQLITE
def test_a_lock_of_somebody_else_is_not_waited_for_for_ever(project):
    runner = EvolutionRunner(project.has(backfill(project)).make(), timeout=0.1)
    runner.store.prepare()

    runner.store.acquire(Owner(), 60)
    with pytest.raises(EvolutionFailed, match=r'waiting|pending|taken'):
        runner.run_all()


@SQLITE
def test_a_project_may_be_given_in_whatever_form(project):
    project.has(backfill(project)).make()
    conf = tg.config._current_obj()
    app, _ = apps.make('sqlite://', [backfill(project)], options={'enabled': False}, model=project.model)
    project.model.metadata.create_all(project.model.engine)
    for given in (conf, tg.config, app, TestApp(app)):
        assert EvolutionRunner(given).ids == ['backfill']


@SQLITE
def test_an_application_that_is_enabled_is_no_other_one(project):
    runner = EvolutionRunner(project.has(backfill(project), enabled=True, watch=0).make())
    assert not tgext.evolve.is_open(tg.config)
    runner.run_all()
    assert tgext.evolve.is_open(tg.config)


@pytest.mark.parametrize('given', [{}, None, 'an application'])
def test_what_is_no_application_of_ours_is_refused(given):
    with pytest.raises(NotPlugged, match='what was given to the test kit'):
        EvolutionRunner(given)


@SQLITE
def test_what_an_evolution_notes_on_itself_is_forgotten_with_its_process(project):
    seen = []

    def evolve(self):
        seen.append(list(self.noted))
        self.noted.append(1)

    def remember(self):
        self.noted = []

    runner = EvolutionRunner(project.has(evolution('notes', evolve, __init__=remember)()).make())
    runner.run('notes')
    runner.run_again('notes')
    runner.close()
    assert seen == [[], []]
    assert runner.find('notes').evolution.noted == []


@SQLITE
def test_evolutions_find_the_configuration_of_their_own_application(project):
    found = []

    def evolve(self):
        found.append(tg.config['sqlalchemy.url'])

    project.has(evolution('looks', evolve))
    runner = EvolutionRunner(project.make())
    project.make()
    runner.run_all()
    assert found[0] != tg.config['sqlalchemy.url']
