"""What happens is told to TurboGears' hooks and to listeners, and none of these can break anything."""

from __future__ import annotations

import threading
import time

import pytest
import tg
from sqlalchemy import text

import tgext.evolve
from tests import apps
from tests.stores import take_over
from tests.web.conftest import PATIENCE
from tgext.evolve.errors import OptionError
from tgext.evolve.events import What
from tgext.evolve.hooks import NAMES
from tgext.evolve.runner import TICK


class Heard:
    """The events that a listener heard, each with what it could see then."""

    def __init__(self):
        self.events = []
        self.seen = []
        self._more = threading.Condition()

    def __call__(self, event):
        with self._more:
            self.seen.append((tg.config.get('package_name'), threading.current_thread().name))
            self.events.append(event)
            self._more.notify_all()

    def __iter__(self):
        return iter(self.events)

    def __len__(self):
        return len(self.events)

    def clear(self):
        self.events.clear()
        self.seen.clear()

    def waits_for(self, condition):
        with self._more:
            return self._more.wait_for(condition, PATIENCE)

    def names(self, *without):
        return [event.what.value for event in self if event.what.value not in without]

    def until(self, *names):
        """Wait until an event of each of these names was heard; the last of them."""
        assert self.waits_for(lambda: set(names) <= set(self.names())), self.names()
        return next(event for event in reversed(self.events) if event.what.value == names[-1])


@pytest.fixture
def hook():
    """Registers functions with ``tg.hooks``, for as long as the test takes."""
    registered = []

    def register(name, function):
        tg.hooks.register(name, function)
        registered.append((name, function))
        return function

    yield register
    for each in registered:
        tg.hooks.disconnect(*each)


@pytest.fixture
def heard(hook):
    """Hears of everything."""
    heard = Heard()
    for name in NAMES:
        hook(name, heard)
    return heard


@pytest.fixture
def listening(site):
    """Makes sites with listeners of their own."""

    def make(url, evolutions, listeners, *, name='testapp', **options):
        model = apps.Model()
        base_config = apps.configurator(model, name=name)
        tgext.evolve.plugme(base_config, {'evolutions': evolutions, 'watch': 0, 'poll': 0.02, **options})
        for hook, listener in listeners:
            tgext.evolve.listen(base_config, hook, listener)
        made = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url}))
        made.model = model
        return made

    return make


def failing(id='bad', **attributes):
    def work(self):
        raise ValueError('no such page')

    return apps.evolution(id, work, **attributes)


def told(site):
    """All that can happen in it has happened: its thread has ended."""
    assert site.evolver._thread is not None
    site.evolver._thread.join(PATIENCE)
    assert not site.evolver._thread.is_alive()


def test_a_run_is_told_from_closed_to_open(site, url, heard):
    site = site(url, [apps.evolution('one'), apps.evolution('two')])
    assert site.opens()
    told(site)
    assert heard.names() == ['closed', 'started', 'finished', 'started', 'finished', 'opened']
    closed, started, finished, *_, opened = heard
    assert closed.verdict.reason.value == 'pending'
    assert opened.verdict.reason.value == 'complete'
    assert (started.evolution_id, started.attempt, started.namespace) == ('one', 1, 'testapp')
    assert finished.token == started.token >= 1
    assert finished.seconds >= 0
    assert started.error is finished.error is None


def test_an_application_with_nothing_to_do_tells_that_it_is_open_once(site, url, heard):
    first = site(url, [apps.evolution('one')])
    assert first.opens()
    told(first)
    heard.clear()
    again = site(url, [apps.evolution('one')])
    assert heard.names() == []  # it only looked, as a shell or a command does
    for _ in range(3):
        again.get('/')
    assert heard.names() == ['opened']


def test_what_is_told_stands_in_the_history_already(site, url, hook):
    found = {}

    def note(event):
        store = evolver().store
        found[event.what.value] = [a.state.value for a in store.history().of(event.evolution_id)]

    for name in ('evolve.started', 'evolve.finished', 'evolve.failed'):
        hook(name, note)
    site = site(url, [apps.evolution('one'), failing()])
    evolver = lambda: site.evolver  # noqa: E731
    site.fails()
    told_failed = found['failed']
    assert found == {'started': ['running'], 'finished': ['done'], 'failed': ['failed']}
    assert told_failed == ['failed']


@pytest.mark.parametrize('transactional', [True, False])
def test_no_transaction_of_ours_is_open_when_something_is_told(listening, url, transactional):
    """On SQLite a second writer would find the database locked."""
    wrote = []

    def write(event):
        with site.model.engine.begin() as connection:
            connection.execute(text('INSERT INTO page (title, seen) VALUES (:title, 0)'), {'title': event.what.value})
        wrote.append(event.what.value)

    def work(self):
        site.model.DBSession.execute(text("INSERT INTO page (title, seen) VALUES ('evolved', 0)"))

    hooks = [(f'evolve.{name}', write) for name in ('started', 'finished', 'failed', 'opened', 'closed')]

    def bad(self):
        work(self)
        raise ValueError('after it wrote')

    evolutions = [
        apps.evolution('one', work, transactional=transactional),
        apps.evolution('two', bad, transactional=transactional),
    ]
    site = listening(url, evolutions, hooks, max_attempts=1)
    site.model.metadata.create_all(site.model.engine)
    site.fails()
    assert wrote == ['closed', 'started', 'finished', 'started', 'failed']


def test_a_failure_is_told_with_its_error_and_whether_it_runs_again(site, url, heard):
    site = site(url, [failing(rerunnable=True)], options={'max_attempts': 3, 'retry_delay': 0.01})
    site.fails()
    failed = [event for event in heard if event.what is What.FAILED]
    assert [event.attempt for event in failed] == [1, 2, 3]
    assert [event.repeated for event in failed] == [False, True, True]
    assert [event.final for event in failed] == [False, False, True]
    assert {str(event.error) for event in failed} == {'no such page'}
    assert 'finished' not in heard.names()
    assert 'opened' not in heard.names()


def test_cancelling_is_told(site, url, heard):
    def work(self):
        for done in range(1_000_000):
            self.progress(done)
            self.pause.wait(0.005)

    site = site(url, [apps.evolution('one', work, pause=threading.Event())])
    site.get('/')
    heard.until('progress')
    assert tgext.evolve.cancel(site.conf) == 'one'
    event = heard.until('cancelled')
    assert event.evolution_id == 'one'
    assert event.progress.done > 0
    assert site.becomes('cancelled')
    assert heard.names('progress') == ['closed', 'started', 'cancelled']


def test_a_process_that_leaves_tells_that_its_evolution_was_interrupted(site, url, heard):
    def work(self):
        self.began.set()
        while True:
            self.progress(1)
            self.pause.wait(0.005)

    evolution = apps.evolution('one', work, began=threading.Event(), pause=threading.Event())
    site = site(url, [evolution])
    site.get('/')
    assert evolution.began.wait(PATIENCE)
    site.stop()
    assert heard.until('interrupted').evolution_id == 'one'
    assert site.history() == {'one': 'interrupted'}


def test_a_deposed_holder_tells_nothing_and_its_successor_tells_that_it_was_interrupted(site, url, heard):
    evolution = apps.held('one')
    deposed = site(url, [evolution], options={'lease': 1})
    deposed.get('/')
    assert evolution.began.wait(PATIENCE)
    heard.until('started')
    store = deposed.evolver.store
    held = store.lease_row()
    take_over(store, 1)
    successor = site(url, [apps.evolution('one')], options={'lease': 1})
    assert successor.opens()
    assert heard.until('interrupted').token == held.token
    assert heard.until('finished').token > held.token
    evolution.go_on.set()
    deposed.stop()
    assert heard.names('closed', 'opened') == ['started', 'interrupted', 'started', 'finished']


# -- two applications


def test_tg_config_is_that_of_the_application_in_which_it_happens(site, tmp_path, heard):
    one = site(f'sqlite:///{tmp_path}/one.db', [apps.evolution('one')], name='first', package_name='first')
    site(f'sqlite:///{tmp_path}/two.db', [apps.evolution('two')], name='second', package_name='second')
    assert one.opens()
    told(one)
    assert heard.names() == ['closed', 'started', 'finished', 'opened']
    assert {namespace for namespace, _ in heard.seen} == {'first'}
    assert {event.namespace for event in heard} == {'first'}
    assert tg.config.get('package_name') == 'second'


def test_a_listener_of_one_application_does_not_hear_another(listening, tmp_path):
    first, second = Heard(), Heard()
    one = listening(f'sqlite:///{tmp_path}/one.db', [apps.evolution('one')], [('evolve.finished', first)], name='first')
    two = listening(
        f'sqlite:///{tmp_path}/two.db', [apps.evolution('two')], [('evolve.finished', second)], name='second'
    )
    for each in (one, two):
        assert each.opens()
        told(each)
    assert [event.evolution_id for event in first] == ['one']
    assert [event.evolution_id for event in second] == ['two']


def test_a_hook_that_there_is_not_is_named(site):
    with pytest.raises(OptionError, match=r"'evolve\.fail'.*evolve\.failed"):
        tgext.evolve.listen(apps.configurator(), 'evolve.fail', print)


# -- registering


def test_hooks_registered_before_and_after_the_configuration_are_told(url, hook, site):
    before, after, gone = Heard(), Heard(), Heard()
    hook('evolve.finished', before)
    site = site(url, [apps.evolution('one')])
    hook('evolve.finished', after)
    hook('evolve.finished', gone)
    tg.hooks.disconnect('evolve.finished', gone)
    assert site.opens()
    told(site)
    assert (len(before), len(after), len(gone)) == (1, 1, 0)


# -- listeners that misbehave


@pytest.mark.parametrize('error', [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, tgext.evolve.LeaseLost])
@pytest.mark.parametrize('way', ['hook', 'own'])
def test_a_listener_that_raises_breaks_nothing(listening, url, hook, error, way, caplog):
    def raises(event):
        raise error('from a listener')

    if way == 'hook':
        for name in NAMES:
            hook(name, raises)
    own = [(name, raises) for name in NAMES] if way == 'own' else []
    heard = Heard()

    def work(self):
        self.progress(1, 2)

    site = listening(url, [apps.evolution('one', work), failing()], [*own, ('evolve.failed', heard)])
    site.fails()
    assert site.history() == {'one': 'done', 'bad': 'failed'}
    assert len(heard) == 1
    assert site.get('/').status_int == 503
    # Not in the main thread, where Ctrl-C is a person's.
    stamping = threading.Thread(target=tgext.evolve.stamp, args=(site.conf, ['bad']))
    stamping.start()
    stamping.join()
    assert site.gate.wait(PATIENCE)
    assert site.get('/').status_int == 200
    assert 'from a listener' in caplog.text


def test_what_a_listener_leaves_open_in_the_session_is_rolled_back(listening, url):
    def leave_open(event):
        site.model.DBSession.add(site.model.Page(title='left open'))
        site.model.DBSession.flush()

    def work(self):
        site.model.DBSession.add(site.model.Page(title='evolved'))

    names = ('closed', 'started', 'progress', 'finished', 'opened')
    site = listening(
        url, [apps.evolution('one', work, transactional=True)], [(f'evolve.{name}', leave_open) for name in names]
    )
    site.model.metadata.create_all(site.model.engine)
    assert site.opens()
    told(site)
    with site.model.engine.connect() as connection:
        titles = list(connection.execute(text('SELECT title FROM page')).scalars())
    assert titles == ['evolved']


def test_a_listener_within_a_request_leaves_the_sessions_of_the_request_alone(site, url):
    """The dashboard stamps: the gate opens in the middle of a request that has a session of its own."""
    heard = []

    class Root(apps.Root):
        @tg.expose(content_type='text/plain')
        def index(self):
            model = self.model
            model.DBSession.add(model.Page(title='of the request'))
            model.DBSession.flush()
            site.evolver.gate.move(closed)
            site.evolver._tell_gate()
            tgext.evolve.is_open(tg.config._current_obj())
            site.evolver.look()
            return 'served'

    model = apps.Model()
    Root.model = model
    base_config = apps.configurator(model, root=Root())
    tgext.evolve.plugme(base_config, {'evolutions': [apps.evolution('one')], 'watch': 0, 'poll': 0.02})
    tgext.evolve.listen(base_config, 'evolve.opened', heard.append)
    site = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url}))
    closed = site.gate.verdict
    model.metadata.create_all(model.engine)
    assert site.opens()
    told(site)
    assert site.get('/').text == 'served'
    assert len(heard) == 2
    with model.engine.connect() as connection:
        assert list(connection.execute(text('SELECT title FROM page')).scalars()) == ['of the request']


# -- progress


def test_a_million_reports_cost_little_more_than_none(site, url, heard):
    """What is measured is a ratio: an evolution that reports each row against one that only counts."""
    took = {}
    rounds = 200_000

    def count(self):
        start = time.process_time()
        done = 0
        for _ in range(rounds):
            done = (done * 31 + 7) % 1_000_003
            str(done)
        took['counting'] = time.process_time() - start

    def report(self):
        start, began = time.process_time(), time.monotonic()
        for done in range(rounds):
            self.progress(done, rounds, 'rows')
        took['reporting'] = time.process_time() - start
        took['seconds'] = time.monotonic() - began

    site = site(url, [apps.evolution('count', count), apps.evolution('report', report)])
    assert site.opens()
    told(site)
    progress = [event for event in heard if event.what is What.PROGRESS]
    assert 1 <= len(progress) <= took['seconds'] / TICK + 2
    assert took['reporting'] < took['counting'] * 15, took
    print(
        f'{took["reporting"] / rounds * 1e6:.2f} µs a report, {took["reporting"] / took["counting"]:.1f} times counting'
    )


def test_the_last_of_many_quick_reports_is_told(site, url, heard):
    def work(self):
        for done in range(1, 1001):
            self.progress(done, 1000)
        self.began.set()
        assert self.go_on.wait(PATIENCE)

    evolution = apps.evolution('one', work, began=threading.Event(), go_on=threading.Event())
    site = site(url, [evolution])
    site.get('/')
    assert evolution.began.wait(PATIENCE)
    assert heard.waits_for(lambda: any(event.progress and event.progress.done == 1000 for event in heard))
    assert site.gate.verdict.progress.done == 1000
    evolution.go_on.set()
    assert site.gate.wait(PATIENCE)
    assert heard.until('finished').progress.done == 1000
    assert site.gate.verdict.progress is None


def test_a_slow_listener_to_progress_does_not_hold_the_evolution_up(site, url, hook):
    asleep, wake = threading.Event(), threading.Event()

    def slow(event):
        asleep.set()
        wake.wait(PATIENCE)

    hook('evolve.progress', slow)
    reached = threading.Event()

    def work(self):
        self.progress(1)
        assert asleep.wait(PATIENCE)
        for done in range(2, 1000):
            self.progress(done)
        reached.set()

    site = site(url, [apps.evolution('one', work)])
    site.get('/')
    assert reached.wait(PATIENCE)
    assert not wake.is_set()
    wake.set()
    assert site.gate.wait(PATIENCE)


def test_progress_is_told_before_the_outcome_and_never_after_it(site, url, heard):
    def work(self):
        for done in range(100):
            self.progress(done)

    site = site(url, [apps.evolution(f'e{number}', work) for number in range(20)])
    assert site.opens()
    told(site)
    running = None
    for event in heard:
        if event.what is What.STARTED:
            running = event.evolution_id
        elif event.what is What.PROGRESS:
            assert event.evolution_id == running
        elif event.what is What.FINISHED:
            running = None
    assert heard.names('progress') == ['closed', *['started', 'finished'] * 20, 'opened']
