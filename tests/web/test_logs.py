"""What collectors of logs index: every record about a run names its evolution, attempt and token."""

from __future__ import annotations

import json
import logging
import threading

import pytest

import tgext.evolve
from tests import apps
from tests.web.conftest import PATIENCE
from tgext.evolve.events import fields
from tgext.evolve.logs import MARKER, NoMaintenance, WithEvolution

FIELDS = set(fields())
#: What every record has that nobody gave anything extra.
PLAIN = set(vars(logging.makeLogRecord({}))) | {'message', 'asctime'}


class JSONLines(logging.Handler):
    """As a formatter of JSON does it: everything that is extra becomes a key."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        extra = {name: value for name, value in vars(record).items() if name not in PLAIN}
        line = {'level': record.levelname, 'logger': record.name, 'message': record.getMessage(), **extra}
        self.lines.append(json.loads(json.dumps(line)))

    def of(self, event):
        return [line for line in self.lines if line.get('evolution_event') == event]


@pytest.fixture
def logged():
    handler = JSONLines()
    logger = logging.getLogger('tgext.evolve')
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def failing(id='bad'):
    def work(self):
        raise ValueError('no such page')

    return apps.evolution(id, work)


def test_every_record_about_a_run_has_all_fields(site, url, logged):
    site = site(url, [apps.evolution('one'), failing()])
    site.fails()
    for line in logged.lines:
        assert set(line) >= FIELDS, line
    [started, _] = logged.of('started')
    [finished] = logged.of('finished')
    [failed] = logged.of('failed')
    assert (started['evolution_id'], started['evolution_attempt']) == ('one', 1)
    assert started['evolution_namespace'] == 'testapp'
    assert finished['evolution_duration'] >= 0
    assert finished['evolution_token'] == started['evolution_token']
    assert failed['evolution_id'] == 'bad'
    assert failed['level'] == 'ERROR'
    assert [line['evolution_reason'] for line in logged.of('gate')] == ['pending', 'running', 'failed']


def test_a_cancelled_and_an_interrupted_one_are_named(site, url, logged):
    def work(self):
        while True:
            self.progress(1)
            self.pause.wait(0.005)

    evolution = apps.evolution('one', work, pause=threading.Event())
    leaving = site(url, [evolution])
    leaving.get('/')
    leaving.becomes('running')
    while leaving.gate.verdict.progress is None:
        evolution.pause.wait(0.005)
    leaving.stop()
    [interrupted] = logged.of('interrupted')
    assert (interrupted['evolution_id'], interrupted['evolution_attempt']) == ('one', 1)
    second = site(url, [evolution])
    second.get('/')
    while second.gate.verdict.progress is None:
        evolution.pause.wait(0.005)
    tgext.evolve.cancel(second.conf)
    second.becomes('cancelled')
    [cancelled] = logged.of('cancelled')
    assert (cancelled['evolution_id'], cancelled['evolution_attempt']) == ('one', 2)
    assert cancelled['level'] == 'WARNING'


def test_the_traceback_is_logged_once_for_the_same_code(site, url, caplog):
    def work(self):
        raise ValueError('no such page')

    evolution = apps.evolution('one', work, rerunnable=True)
    site = site(url, [evolution], options={'max_attempts': 3, 'retry_delay': 0.01})
    site.fails()
    failed = [record for record in caplog.records if getattr(record, 'evolution_event', None) == 'failed']
    assert [bool(record.exc_info) for record in failed] == [True, False, False]


@pytest.mark.parametrize('how', ['down', 'paused', 'cancelled'])
def test_what_a_person_did_is_no_error(site, url, logged, how):
    def work(self):
        while True:
            self.progress(1)
            self.pause.wait(0.005)

    site = site(url, [apps.evolution('one', work, pause=threading.Event())])
    if how == 'down':
        tgext.evolve.down(site.conf, 'We are moving house')
    elif how == 'paused':
        tgext.evolve.pause(site.conf)
    site.get('/')
    if how == 'cancelled':
        while site.gate.verdict.progress is None:
            threading.Event().wait(0.005)
        tgext.evolve.cancel(site.conf)
    site.becomes(how)
    [line] = [line for line in logged.of('gate') if line['evolution_reason'] == how]
    assert line['level'] == 'WARNING'
    assert not [line for line in logged.lines if line['level'] == 'ERROR']


class TestWithEvolution:
    FORMAT = '%(evolution_id)s/%(evolution_attempt)s %(message)s'

    @pytest.fixture
    def lines(self):
        lines = []

        class Handler(logging.Handler):
            def emit(self, record):
                lines.append(self.format(record))

        handler = Handler()
        handler.setFormatter(logging.Formatter(self.FORMAT))
        handler.addFilter(WithEvolution())
        logger = logging.getLogger('of.a.library')
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        yield lines
        logger.removeHandler(handler)

    def test_names_the_evolution_in_what_any_library_logs_inside_of_it(self, site, url, lines):
        def work(self):
            logging.getLogger('of.a.library').info('inside')

        assert site(url, [apps.evolution('one', work)]).opens()
        logging.getLogger('of.a.library').info('outside')
        assert lines == ['one/1 inside', 'None/None outside']

    def test_leaves_what_a_record_says_itself(self):
        record = logging.makeLogRecord({'evolution_id': 'one'})
        assert WithEvolution().filter(record)
        assert (record.evolution_id, record.evolution_token) == ('one', None)


class TestNoMaintenance:
    def record(self, atoms):
        """As gunicorn's access log makes one."""
        logger = logging.getLogger('gunicorn.access')
        return logger.makeRecord(logger.name, logging.INFO, '', 0, '%(s)s', (atoms,), None)

    @pytest.mark.parametrize(
        ('atoms', 'stays'),
        [
            ({'s': '503', '{x-evolve}o': 'running'}, False),
            ({'s': '503'}, True),
            ({'s': '503', '{x-evolve}o': '-'}, True),
            ({'s': '200', '{x-evolve}o': 'running'}, True),
            ({'s': '500'}, True),
        ],
        ids=['ours', "the application's own", 'without the header', 'not a 503', 'an error'],
    )
    def test_drops_the_503s_of_the_gate_alone(self, atoms, stays):
        assert NoMaintenance().filter(self.record(atoms)) is stays

    def test_what_is_no_access_log_stays(self):
        assert NoMaintenance().filter(logging.makeLogRecord({'msg': 'hello %s', 'args': ('you',)}))


@pytest.mark.parametrize('accept', ['text/html', 'application/json', 'text/plain'])
def test_a_503_of_the_gate_can_be_told_from_others(closed, accept):
    site = closed()
    assert site.get('/', accept).headers[MARKER] == 'running'
    assert site.get('/_evolve/ready', accept).headers[MARKER] == 'running'
    site.evolution.go_on.set()
    assert site.gate.wait(PATIENCE)
    assert MARKER not in site.get('/', accept).headers
    assert MARKER not in site.get('/_evolve/ready', accept).headers
