"""What users get while evolutions run: the right 503, in the right form, and nothing private in it."""

from __future__ import annotations

import json

import pytest
import tg
from webtest import TestApp

from tests import apps
from tests.web.conftest import PATIENCE

SECRET = 'hunter2-cc-4711'

METHODS = ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']


def charset_free(response):
    return response.headers['Content-Type'].partition(';')[0]


@pytest.mark.parametrize('method', METHODS)
def test_every_method_is_answered_503(closed, method):
    response = closed().request('/', method)
    assert response.status == '503 Service Unavailable'
    assert response.body


def test_head_has_the_headers_of_get_and_no_body(closed):
    site = closed()
    get, head = site.get('/'), site.request('/', 'HEAD', HTTP_ACCEPT='text/html')
    assert head.status_int == 503
    assert head.body == b''
    names = ['Content-Type', 'Content-Length', 'Retry-After', 'Cache-Control']
    assert [head.headers[name] for name in names] == [get.headers[name] for name in names]


@pytest.mark.parametrize('path', ['/', '/write', '/nowhere', '/error/document', '/favicon.ico', '/%00', '/caf%C3%A9'])
def test_no_page_is_served_and_none_is_missing(closed, path):
    assert closed().get(path).status_int == 503


def test_a_503_is_never_stored_and_says_when_to_come_again(closed):
    site = closed()
    for method in [*METHODS, 'HEAD']:
        headers = site.request('/', method).headers
        assert headers['Cache-Control'] == 'no-store'
        assert int(headers['Retry-After']) > 0
        assert headers['Vary'] == 'Accept'


def test_retry_after_is_ten_seconds_when_nobody_knows(closed):
    assert closed().get('/').headers['Retry-After'] == '10'


def test_retry_after_is_the_option(closed):
    assert closed(options={'retry_after': 77}).get('/').headers['Retry-After'] == '77'


def test_retry_after_is_measured_from_progress(site, url):
    evolution = apps.held()

    def evolve(self):
        self.progress(1, 100)
        self.began.set()
        assert self.go_on.wait(30)

    evolution.evolve = evolve
    site = site(url, [evolution])
    site.get('/')
    assert evolution.began.wait(PATIENCE)
    progress = site.gate.verdict.progress
    assert (progress.done, progress.total) == (1, 100)
    expected = max(1, round(progress.elapsed * 99 + 0.5))
    assert site.get('/').headers['Retry-After'] == str(expected)
    assert site.status()['progress']['fraction'] == 0.01


@pytest.mark.parametrize(
    ('accept', 'kind'),
    [
        (None, 'text/html'),
        ('', 'text/html'),
        ('*/*', 'text/html'),
        ('text/*', 'text/html'),
        ('text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', 'text/html'),
        ('application/json', 'application/json'),
        ('application/json, text/plain, */*', 'application/json'),
        ('application/problem+json', 'application/problem+json'),
        ('application/json, application/problem+json', 'application/problem+json'),
        ('application/problem+json;q=0.5, application/json', 'application/json'),
        ('text/html;q=0.2, application/json;q=0.9', 'application/json'),
        ('text/html;q=0.9, application/json;q=0.2', 'text/html'),
        ('text/html;q=0, */*', 'application/problem+json'),
        ('text/plain', 'text/plain'),
        ('text/plain;q=0.5, application/json;q=0.4', 'text/plain'),
        ('image/png', 'text/plain'),
        ('image/avif,image/webp,*/*', 'text/html'),
        ('application/*', 'application/problem+json'),
        ('this is ; no = header,,', 'text/html'),
        ('text/html;q=two', 'text/html'),
        (';;;', 'text/html'),
        ('\xff\xfe', 'text/html'),
    ],
)
def test_the_form_is_the_one_that_the_client_accepts(closed, accept, kind):
    response = closed().get('/', accept=accept)
    assert response.status_int == 503
    assert charset_free(response) == kind


def test_each_form_says_what_it_is(closed):
    site = closed()
    html = site.get('/', accept='text/html')
    assert html.charset == 'utf-8'
    assert html.text.startswith('<!DOCTYPE html>')
    for accept in ('application/json', 'application/problem+json'):
        problem = json.loads(site.get('/', accept=accept).body)
        assert problem['status'] == 503
        assert problem['title'] == 'Service Unavailable'
        assert problem['type'] == 'about:blank'
        assert problem['reason'] in ('pending', 'running')
    assert site.get('/', accept='text/plain').text.startswith('Service Unavailable')


def test_the_length_is_the_length(closed):
    site = closed()
    for accept in ('text/html', 'application/json', 'text/plain'):
        response = site.get('/', accept=accept)
        assert int(response.headers['Content-Length']) == len(response.body)


# -- the page


def test_the_page_asks_the_status_below_the_prefix_where_the_application_is_mounted(closed):
    site = closed()
    assert 'data-status="/_evolve/status"' in site.get('/').text
    assert 'data-status="/wiki/_evolve/status"' in site.get('/', SCRIPT_NAME='/wiki').text


def test_a_prefix_cannot_break_out_of_the_page(closed):
    text = closed().get('/', SCRIPT_NAME='/"><script>alert(1)</script>').text
    assert '<script>alert' not in text


def test_the_page_loads_itself_again(closed):
    text = closed().get('/').text
    assert 'data-again="yes"' in text
    assert 'http-equiv="refresh"' in text


def test_the_page_of_a_post_does_not_repeat_it(closed):
    site = closed()
    site.get('/')
    for method in ('POST', 'PUT', 'DELETE', 'PATCH'):
        text = site.request('/', method, HTTP_ACCEPT='text/html').text
        assert 'data-again="no"' in text
        assert 'http-equiv="refresh"' not in text


def test_without_health_pages_the_page_reloads_without_a_script(closed):
    response = closed(options={'health_path': ''}).get('/')
    assert '<script' not in response.text
    assert '_evolve' not in response.text
    assert 'http-equiv="refresh"' in response.text or response.headers.get('Refresh')
    assert '<noscript>' not in response.text


def test_the_body_of_a_post_need_not_be_read(closed):
    response = closed().browser.post('/write', b'x' * 1_000_000, expect_errors=True)
    assert response.status_int == 503


# -- nothing private


def private(evolution_id):
    """An evolution whose failure, message, and SQL all hold a secret."""

    def work(evolution):
        from sqlalchemy import text

        evolution.progress(1, 2, f'user {SECRET}')
        session = tg.config['DBSession']
        session.execute(text('SELECT :secret FROM no_such_table'), {'secret': SECRET})

    return apps.evolution(evolution_id, work)


def everything_public(site):
    for accept in ('text/html', 'application/json', 'application/problem+json', 'text/plain'):
        for method in ('GET', 'POST'):
            yield site.request('/', method, HTTP_ACCEPT=accept)
    for what in ('live', 'ready', 'status'):
        yield site.get(f'/_evolve/{what}')


def assert_nothing_private(site, *secrets):
    for response in everything_public(site):
        said = response.text + str(response.headers)
        for secret in secrets:
            assert secret not in said


def test_the_public_learns_nothing_of_a_failure(site, url):
    site = site(url, [private(f'2026-{SECRET}')])
    site.fails()
    assert SECRET in site.gate.verdict.detail  # who operates it does
    assert_nothing_private(site, SECRET, 'no_such_table', 'SELECT', 'Error', 'Traceback', 'retry(')
    assert site.status()['reason'] == 'failed'
    assert site.get('/').status_int == 503


def test_the_public_learns_nothing_of_a_run(site, url):
    evolution = apps.held(f'id-{SECRET}', description=f'about {SECRET}')

    def evolve(self):
        self.progress(1, 2, f'message {SECRET}')
        self.began.set()
        assert self.go_on.wait(30)

    evolution.evolve = evolve
    site = site(url, [evolution])
    site.get('/')
    assert evolution.began.wait(PATIENCE)
    assert site.status()['reason'] == 'running'
    assert_nothing_private(site, SECRET, 'message')


def test_the_public_learns_nothing_of_the_database(site, tmp_path):
    site = site(f'sqlite:///{tmp_path}/{SECRET}/none.db', [apps.evolution('a')])
    site.get('/')
    assert site.gate.verdict.reason.value.startswith('database-')
    assert_nothing_private(site, SECRET, 'sqlite', 'unable to open')


def test_a_failure_in_the_history_hides_parameters(site, url):
    site = site(url, [private('private')])
    site.fails()
    [attempt] = site.evolver.store.history().attempts
    error = site.evolver.store.error_of(attempt)
    assert 'no_such_table' in error
    assert 'Traceback' in error
    assert SECRET not in error


def test_the_page_needs_no_framework(closed):
    """The gate answers before any application code is entered, whatever state that is in."""
    site = closed()
    inner = site.app
    while type(inner).__name__ != 'GateMiddleware':
        inner = inner.app if hasattr(inner, 'app') else inner.application

    def broken(environ, start_response):
        raise AssertionError('the application was called')

    inner.app = inner.bare = broken
    assert TestApp(inner).get('/', expect_errors=True).status_int == 503


# -- progress that makes no sense


@pytest.mark.parametrize(
    ('done', 'total'),
    [
        (float('nan'), 100),
        (float('inf'), 100),
        (1, float('nan')),
        (1, float('inf')),
        (0, 0),
        (5, 0),
        (-1, 10),
        (11, 10),
        (5, -1),
        (1e308, 1e-308),
        (1, 1e308),
        (0, 10),
        (10, 10),
    ],
)
def test_whatever_an_evolution_reports_the_503_is_a_503(site, url, done, total):
    evolution = apps.held()

    def evolve(self):
        self.progress(done, total)
        self.began.set()
        assert self.go_on.wait(30)

    evolution.evolve = evolve
    site = site(url, [evolution])
    site.get('/')
    assert evolution.began.wait(PATIENCE)
    response = site.get('/')
    assert response.status_int == 503
    assert 1 <= int(response.headers['Retry-After']) <= 3600

    def no_number(word):
        raise AssertionError(f'{word} is not JSON')

    status = json.loads(site.get('/_evolve/status').body, parse_constant=no_number)
    fraction = status['progress'] and status['progress']['fraction']
    assert fraction is None or 0 <= fraction <= 1
    evolution.go_on.set()
    assert site.opens()


def test_the_page_finds_its_status_below_a_prefix_that_is_not_ascii(closed):
    assert 'data-status="/caf%C3%A9/_evolve/status"' in closed().get('/', SCRIPT_NAME='/caf\xc3\xa9').text


def test_a_prefix_that_is_an_address_elsewhere_is_not_asked(closed):
    """``//elsewhere`` as a URL is another host."""
    assert 'data-status="//' not in closed().get('/', SCRIPT_NAME='//elsewhere').text
