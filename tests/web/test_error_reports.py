"""A failure is reported as an exception of a request is; a 503 that is meant is not reported at all."""

from __future__ import annotations

import logging
import logging.handlers
import socket
import threading
from email import message_from_bytes
from email.policy import default

import pytest
from aiosmtpd.controller import Controller
from tg import TGController, expose

import tgext.evolve
from tests import apps
from tests.servers import free_port
from tests.web.conftest import PATIENCE
from tgext.evolve.reporting import ErrorReports

SECRET = 'hunter2-cc-4711'


class Inbox:
    """A mail server that keeps what it gets."""

    def __init__(self):
        self.mails = []
        self._arrived = threading.Condition()
        self._controller = Controller(self, hostname='127.0.0.1', port=free_port())
        self._controller.start()

    async def handle_DATA(self, server, session, envelope):
        with self._arrived:
            self.mails.append(message_from_bytes(envelope.content, policy=default))
            self._arrived.notify_all()
        return '250 OK'

    @property
    def ini(self):
        """The options of TurboGears that send errors here."""
        return {
            'trace_errors.error_email': 'oncall@example.com',
            'trace_errors.from_address': 'app@example.com',
            'trace_errors.smtp_server': '127.0.0.1',
            'trace_errors.smtp_port': str(self._controller.port),
        }

    @property
    def address(self):
        return self._controller.hostname, self._controller.port

    def until(self, number):
        """Wait for so many mails."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.mails) >= number, PATIENCE), len(self.mails)
            return self.mails

    def close(self):
        self._controller.stop()


@pytest.fixture
def inbox():
    inbox = Inbox()
    yield inbox
    inbox.close()


def body(mail):
    return mail.get_body().get_content()


def reports_of(site):
    return next(each for each in site.evolver.listeners._listeners if isinstance(each, ErrorReports))


def sent(site):
    """All that is to be reported of what happened so far is on its way, and has arrived."""
    assert reports_of(site).join(PATIENCE)


def failing(id='bad', error=lambda: ValueError('no such page'), **attributes):
    def work(self):
        raise error()

    return apps.evolution(id, work, **attributes)


class Reporter:
    """One of the application's own, in ``trace_errors.reporters``."""

    def __init__(self, error=None):
        self.reported = []
        self.error = error

    def report(self, traceback):
        self.reported.append(traceback)
        if self.error is not None:
            raise self.error('the reporter is broken')


# -- failures


def test_a_failure_is_mailed_with_its_traceback_and_names_the_evolution(site, url, inbox):
    site = site(url, [failing('2026-11-slugs')], ini=inbox.ini)
    site.fails()
    [mail] = inbox.until(1)
    assert mail['To'] == 'oncall@example.com'
    assert mail['Subject'] == 'WebApp Error: ValueError: no such page'
    told = body(mail)
    assert 'Traceback (most recent call last)' in told
    assert 'raise error()' in told
    assert "'id': '2026-11-slugs'" in told
    assert "'namespace': 'testapp'" in told
    assert 'gearbox evolve retry 2026-11-slugs' in told
    sent(site)
    assert len(inbox.mails) == 1


def secrets():
    from sqlalchemy.exc import OperationalError

    def chained():
        try:
            raise ValueError(f'postgresql://user:{SECRET}@host/db')
        except ValueError as error:
            wrapper = RuntimeError('the work failed')
            wrapper.__cause__ = error
            return wrapper

    return {
        'statement parameters': lambda: OperationalError('UPDATE user SET p = ?', (SECRET,), Exception('locked')),
        'a URL': lambda: RuntimeError(f'cannot connect to postgresql://user:{SECRET}@host/db'),
        'a keyword': lambda: RuntimeError(f'password={SECRET}'),
        'the cause': chained,
    }


@pytest.mark.parametrize('name', secrets())
def test_no_secret_of_an_error_is_reported(site, url, inbox, name):
    own = Reporter()
    site = site(url, [failing(error=secrets()[name])], ini=inbox.ini, **{'trace_errors.reporters': [own]})
    site.fails()
    [mail] = inbox.until(1)
    assert SECRET not in mail.as_string()
    assert SECRET not in body(mail)
    sent(site)
    [traceback] = own.reported
    assert traceback.exc_value.__cause__ is None or SECRET not in str(traceback.exc_value.__cause__)
    assert SECRET not in str(traceback.exc_value)
    assert type(traceback.exc_value).__name__ == traceback.exc_type.__name__
    # Where it was raised is what a reporter groups by.
    frames = [frame.function_name for frame in traceback.frames]
    assert frames[-1] == 'work'


def test_the_first_failure_and_the_last_one_are_reported_of_five(site, url, inbox):
    own = Reporter()
    options = {'max_attempts': 5, 'retry_delay': 0.01}
    site = site(url, [failing(rerunnable=True)], options=options, ini=inbox.ini, **{'trace_errors.reporters': [own]})
    site.fails()
    sent(site)
    told = [traceback.context['evolution'] for traceback in own.reported]
    assert [each['attempt'] for each in told] == [1, 5]
    assert [each['runs again by itself'] for each in told] == [True, False]
    assert len(inbox.until(2)) == 2


def test_a_retry_by_hand_that_fails_is_reported_again(site, url):
    own = Reporter()
    site = site(url, [failing()], **{'trace_errors.reporters': [own]})
    site.fails()
    tgext.evolve.retry(site.conf, ['bad'])
    while len(site.evolver.store.history().of('bad')) < 2:
        threading.Event().wait(0.01)
    site.fails()
    sent(site)
    assert [each.context['evolution']['attempt'] for each in own.reported] == [1, 2]


def test_an_evolution_that_exits_is_reported(site, url):
    own = Reporter()
    site = site(url, [failing(error=lambda: SystemExit(3))], **{'trace_errors.reporters': [own]})
    site.fails()
    sent(site)
    assert own.reported[0].exception == 'SystemExit: 3'


def test_an_evolution_that_killed_its_processes_too_often_is_reported_once(site, url):
    from tgext.evolve.stores.base import Owner

    own = Reporter()
    evolution = apps.evolution('one')
    site = site(url, [evolution], options={'max_attempts': 1, 'lease': 1}, **{'trace_errors.reporters': [own]})
    store, [planned] = site.evolver.store, site.evolver.plan
    store.prepare()
    grant = store.acquire(Owner(), 1)
    store.begin(grant, planned, 1, planned.fingerprint)
    store.release(grant)  # and its process is gone
    site.fails()
    sent(site)
    [traceback] = own.reported
    assert "'one' was interrupted again and again" in traceback.exception
    assert evolution.runs == 0


@pytest.mark.parametrize('how', ['no reporter', 'disabled', 'debug'])
def test_nothing_is_reported_where_turbogears_would_not(site, url, inbox, how):
    ini = {} if how == 'no reporter' else dict(inbox.ini)
    if how == 'disabled':
        ini['trace_errors.enable'] = 'false'
    if how == 'debug':
        ini['debug'] = 'true'
    site = site(url, [failing()], ini=ini)
    site.fails()
    sent(site)
    assert inbox.mails == []


@pytest.mark.parametrize('error', [ValueError, SystemExit])
def test_a_reporter_that_raises_keeps_neither_the_run_nor_the_next_reporter(site, url, error, caplog):
    broken, own = Reporter(error), Reporter()
    site = site(
        url,
        [failing(rerunnable=True)],
        options={'max_attempts': 2, 'retry_delay': 0.01},
        **{'trace_errors.reporters': [broken, own]},
    )
    site.fails()
    sent(site)
    assert len(broken.reported) == len(own.reported) == 2
    assert 'could not be reported by Reporter' in caplog.text


def test_a_mail_server_that_does_not_answer_keeps_nobody_waiting(site, url):
    with socket.create_server(('127.0.0.1', 0)) as silent:
        ini = {
            'trace_errors.error_email': 'oncall@example.com',
            'trace_errors.from_address': 'app@example.com',
            'trace_errors.smtp_server': '127.0.0.1',
            'trace_errors.smtp_port': str(silent.getsockname()[1]),
        }
        site = site(url, [failing()], ini=ini)
        site.fails()
        until = threading.Event()
        while site.evolver.store.snapshot().lease.alive:
            assert not until.wait(0.01)
        assert not reports_of(site).join(0)
        silent.accept()[0].close()
        sent(site)


def test_cancelled_and_interrupted_evolutions_are_not_reported(site, url):
    own = Reporter()

    def work(self):
        while True:
            self.progress(1)
            self.pause.wait(0.005)

    evolution = apps.evolution('one', work, pause=threading.Event())
    first = site(url, [evolution], **{'trace_errors.reporters': [own]})
    first.get('/')
    first.becomes('running')
    first.stop()
    second = site(url, [evolution], **{'trace_errors.reporters': [own]})
    second.get('/')
    while second.evolver.overview().find('one').state != 'running':
        threading.Event().wait(0.01)
    tgext.evolve.cancel(second.conf)
    second.becomes('cancelled')
    for each in (first, second):
        sent(each)
    assert own.reported == []


# -- what is meant


class Error(TGController):
    @expose(content_type='text/html')
    def document(self, *args, **kwargs):
        return 'our own page'


class BrokenError(TGController):
    @expose(content_type='text/html')
    def document(self, *args, **kwargs):
        raise RuntimeError('the error page is broken')


def with_error_controller(controller):
    class Root(apps.Root):
        error = controller()

    return Root()


@pytest.mark.parametrize('controller', [Error, BrokenError])
@pytest.mark.parametrize('why', ['running', 'down'])
def test_a_closed_gate_under_load_mails_nobody(site, url, inbox, why, controller):
    """Neither by TurboGears' error or slow request reports, nor by a handler of logging for errors."""
    handler = logging.handlers.SMTPHandler(inbox.address, 'app@example.com', ['oncall@example.com'], 'logged')
    handler.setLevel(logging.ERROR)
    logging.getLogger().addHandler(handler)
    evolution = apps.held()
    ini = {**inbox.ini, 'trace_slowreqs.enable': 'true', 'trace_slowreqs.interval': '1'}
    try:
        site = site(
            url,
            [evolution],
            options={'lease': 2},
            ini=ini,
            root=with_error_controller(controller),
            **{'errorpage.enabled': True, 'errorpage.status_codes': [403, 404, 503], 'error_controller': None},
        )
        if why == 'down':
            tgext.evolve.down(site.conf, 'We are moving house')
        site.get('/')
        assert evolution.began.wait(PATIENCE)

        def load():
            for path in ('/', '/write', '/nowhere', '/_evolve/ready', '/error/document'):
                for method in ('GET', 'POST', 'HEAD', 'PUT'):
                    for accept in ('text/html', 'application/json', 'text/plain', '*/*'):
                        assert site.request(path, method, HTTP_ACCEPT=accept).status_int == 503

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        evolution.go_on.set()
        if why == 'down':
            tgext.evolve.up(site.conf)
        assert site.gate.wait(PATIENCE)
        sent(site)
        expected = 1 if controller is BrokenError else 0  # that it is broken is said, once
        assert [mail['Subject'] for mail in inbox.mails] == ['logged'] * expected
    finally:
        logging.getLogger().removeHandler(handler)


def test_an_exception_of_a_request_is_still_mailed(site, url, inbox):
    """What the tests above find silent does speak."""

    class Root(apps.Root):
        @expose()
        def broken(self):
            raise RuntimeError('a real error')

    site = site(url, [apps.evolution('one')], ini=inbox.ini, root=Root())
    assert site.opens()
    site.get('/broken')
    [mail] = inbox.until(1)
    assert 'a real error' in mail['Subject']
