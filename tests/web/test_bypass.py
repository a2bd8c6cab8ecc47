"""The operator's way through a closed gate: who has the secret, for eight hours, and nobody else."""

from __future__ import annotations

import re
import threading
import time
from urllib.parse import urlencode

import pytest
import tg
from tg import TGController, expose

from tests import apps
from tests.web.conftest import PATIENCE
from tgext.evolve import bypass
from tgext.evolve.bypass import COOKIE, LIFETIME, Throttle

SECRET = 'a secret of operators, 4711'


class Root(apps.Root):
    @expose(content_type='text/plain')
    def who(self):
        tg.response.headers['Cache-Control'] = 'public, max-age=3600'
        tg.response.headers['ETag'] = '"x"'
        return f'operator: {tg.request.environ.get("tgext.evolve.operator")}'

    @expose(content_type='text/plain')
    def _default(self, *args, **kw):
        return f'the application has {tg.request.path}'


@pytest.fixture
def guarded(closed):
    """A closed site with a ``bypass_secret``."""

    def make(**rest):
        options = {'bypass_secret': SECRET, **rest.pop('options', {})}
        return closed(options=options, root=Root(), **rest)

    return make


def form(site, **environ):
    """The form, opened: what its token is."""
    page = site.get('/_evolve/enter', **environ)
    assert page.status_int == 200
    return re.search('name="token" value="([^"]+)"', page.text)[1]


def send(site, path='/_evolve/enter', *, token=None, body=None, secret=SECRET, **environ):
    if body is None:
        fields = {'secret': secret, 'token': form(site) if token is None else token}
        body = urlencode(fields).encode()
    environ = {'CONTENT_TYPE': 'application/x-www-form-urlencoded', 'REMOTE_ADDR': '203.0.113.9', **environ}
    return site.browser.request(path, method='POST', body=body, expect_errors=True, environ=environ)


def cookie_of(response):
    [line] = [line for line in response.headers.getall('Set-Cookie') if line.startswith(COOKIE)]
    return line


# -- the right secret


def test_who_enters_the_secret_gets_behind_the_gate(guarded):
    site = guarded()
    assert site.get('/who').status_int == 503
    response = send(site)
    assert response.status_int == 303
    assert response.location.endswith('/_evolve/enter')
    behind = site.get('/who')
    assert (behind.status_int, behind.text) == (200, 'operator: True')
    assert site.request('/write', 'POST').text == 'written'
    assert 'You are in' in site.get('/_evolve/enter').text


def test_the_cookie_is_out_of_reach_for_scripts_and_for_other_sites(guarded):
    line = cookie_of(send(guarded())).lower()
    assert 'httponly' in line
    assert 'samesite=strict' in line
    assert 'path=/;' in line + ';'
    assert f'max-age={LIFETIME}' in line
    assert 'secure' not in line.split('; ')
    assert 'domain' not in line
    assert SECRET.lower() not in line


@pytest.mark.parametrize('environ', [{'wsgi.url_scheme': 'https'}, {'HTTP_X_FORWARDED_PROTO': 'https'}], ids=str)
def test_the_cookie_is_kept_to_https_where_it_came_by_https(guarded, environ):
    site = guarded()
    response = send(site, token=form(site), **environ)
    assert 'secure' in cookie_of(response).lower().split('; ')


def test_the_cookie_is_for_where_the_application_is_mounted(guarded):
    site = guarded()
    form(site, SCRIPT_NAME='/wiki')
    page = site.get('/_evolve/enter', SCRIPT_NAME='/wiki')
    assert 'action="/wiki/_evolve/enter"' in page.text
    assert 'Path=/wiki/_evolve' in page.headers['Set-Cookie']


def test_what_an_operator_sees_is_kept_by_nobody(guarded):
    site = guarded()
    send(site)
    headers = site.get('/who').headers
    assert headers.getall('Cache-Control') == ['no-store']
    assert 'ETag' not in headers


def test_the_form_asks_no_database_and_the_cookie_neither(guarded):
    site = guarded()
    with apps.statements(thread=threading.get_ident()) as statements:
        send(site)
        site.get('/_evolve/enter')
        assert site.get('/who').status_int == 200
    assert statements == []


def test_white_space_around_the_secret_is_nobodys_fault(guarded):
    assert send(guarded(), secret=f' {SECRET}\n').status_int == 303


def test_a_secret_need_not_be_ascii(guarded):
    secret = 'zwölf Boxkämpfer jagen Viktor'
    site = guarded(options={'bypass_secret': secret})
    assert send(site, secret=secret.replace('ö', 'o')).status_int == 403
    bypass_of(site)._throttle = Throttle(longest=0)
    assert send(site, secret=secret).status_int == 303
    assert site.get('/who').status_int == 200


# -- while the gate is open


def test_while_the_gate_is_open_the_cookie_gives_nothing(guarded):
    site = guarded()
    send(site)
    site.evolution.go_on.set()
    assert site.gate.wait(PATIENCE)
    response = site.get('/who')
    assert response.text == 'operator: None'
    assert response.headers['Cache-Control'] == 'public, max-age=3600'


def test_a_request_cannot_call_itself_an_operator(guarded):
    assert guarded().get('/who', HTTP_TGEXT_EVOLVE_OPERATOR='True').status_int == 503


# -- what is no secret, no cookie, no form


@pytest.mark.parametrize(
    'secret', ['', 'wrong', SECRET[:-1], SECRET + 'x', SECRET.upper(), '\x00', '\udcff', 'ü' * 100]
)
def test_a_wrong_secret_gives_nothing_and_is_not_repeated(guarded, secret, caplog):
    site = guarded()
    body = urlencode({'secret': secret, 'token': form(site)}, errors='surrogateescape').encode()
    response = send(site, body=body)
    assert response.status_int == 403
    assert 'That is not the secret' in response.text
    assert COOKIE not in str(response.headers)
    assert site.get('/who').status_int == 503
    if len(secret) > 5:
        assert secret not in response.text
        assert secret not in caplog.text
    assert 'wrong bypass_secret was entered, from 203.0.113.9' in caplog.text


@pytest.mark.parametrize('token', ['', 'x', 'ü', 'A' * 200])
def test_a_form_of_somebody_elses_lets_nobody_in(guarded, token):
    site = guarded()
    form(site)
    assert send(site, token=token).status_int == 403
    assert site.get('/who').status_int == 503


def test_a_form_in_another_tab_stays_good(guarded):
    site = guarded()
    token = form(site)
    form(site)
    assert send(site, token=token).status_int == 303


def test_a_token_without_its_cookie_lets_nobody_in(guarded):
    site = guarded()
    token = form(site)
    site.browser.reset()
    assert send(site, token=token).status_int == 403


@pytest.mark.parametrize('whence', ['cross-site', 'same-site'])
def test_a_browser_that_says_it_came_from_elsewhere_is_believed(guarded, whence):
    site = guarded()
    token = form(site)
    assert send(site, token=token, HTTP_SEC_FETCH_SITE=whence).status_int == 403
    assert send(site, token=token, HTTP_SEC_FETCH_SITE='same-origin').status_int == 303


def forged(site, value=None, secret=SECRET, namespace='testapp'):
    options = type(site.evolver.options)(bypass_secret=secret, namespace=namespace)
    value = {'since': int(time.time())} if value is None else value
    return bypass.Bypass(options)._profile.serializer.dumps(value).decode()


def test_a_forged_cookie_gives_nothing(guarded):
    site = guarded()
    good = forged(site)

    def get(cookie):
        return site.get('/who', HTTP_COOKIE=f'{COOKIE}={cookie}').status_int

    assert get(good) == 200
    now = int(time.time())
    assert get(forged(site, {'since': now - LIFETIME + 60})) == 200
    for cookie in (
        '',
        'x',
        '"',
        '%00',
        good[:-2],
        good[:-1] + ('A' if good[-1] != 'A' else 'B'),
        'A' + good,
        SECRET,
        forged(site, secret=SECRET + '!'),  # after the secret was changed
        forged(site, namespace='another'),  # of another application that has the same one
        forged(site, {'since': now - LIFETIME - 1}),
        forged(site, {'since': now + 600}),
        forged(site, {'since': 'x'}),
        forged(site, {'since': None}),
        forged(site, {'since': float('nan')}),
        forged(site, {'since': float('-inf')}),
        forged(site, {}),
        forged(site, []),
        forged(site, 4711),
        bypass_of(site)._tokens.make('enter'),  # signed with the same secret, for something else
        bypass_of(site)._tokens.make('operator'),
    ):
        assert get(cookie) == 503, cookie


def test_a_cookie_of_an_application_above_this_one_is_not_in_the_way(guarded):
    site = guarded()
    for pair in (('x', forged(site)), (forged(site), 'x')):
        assert site.get('/who', HTTP_COOKIE='; '.join(f'{COOKIE}={each}' for each in pair)).status_int == 200


def test_the_cookie_ends_after_eight_hours_by_the_clock_of_the_server(guarded, monkeypatch):
    site = guarded()
    send(site)
    now = time.time()
    monkeypatch.setattr(bypass.time, 'time', lambda: now + LIFETIME - 60)
    assert site.get('/who').status_int == 200
    monkeypatch.setattr(bypass.time, 'time', lambda: now + LIFETIME + 60)
    assert site.get('/who').status_int == 503


# -- what is sent


@pytest.mark.parametrize(
    ('environ', 'body', 'status'),
    [
        ({'CONTENT_TYPE': 'application/json'}, b'{}', 415),
        ({'CONTENT_TYPE': ''}, b'a=b', 415),
        ({'CONTENT_LENGTH': ''}, b'', 411),
        ({'CONTENT_LENGTH': '-1'}, b'', 411),
        ({}, b'secret=' + b'x' * 5000, 413),
        ({'CONTENT_LENGTH': '9' * 30}, b'', 413),
        ({}, b'&'.join(b'a=b' for _ in range(100)), 400),
        ({}, b'\xff\xfe\x00', 403),
        ({}, b'', 403),
        ({}, b'secret=%FF%FE&token=%00', 403),
    ],
)
def test_whatever_is_sent_is_refused_and_not_read_beyond_a_form(guarded, environ, body, status):
    site = guarded()
    environ = {
        'REQUEST_METHOD': 'POST',
        'PATH_INFO': '/_evolve/enter',
        'SCRIPT_NAME': '',
        'CONTENT_TYPE': 'application/x-www-form-urlencoded',
        'CONTENT_LENGTH': str(len(body)),
        'wsgi.url_scheme': 'http',
        **environ,
    }
    read = []

    class Input:
        def read(self, size):
            assert 0 <= size <= 4096
            read.append(size)
            return body[:size]

    environ['wsgi.input'] = Input()
    started = []
    b''.join(bypass_of(site)(environ, lambda status, headers: started.append(int(status[:3]))))
    assert started == [status]
    assert bool(read) is (status in (400, 403))


@pytest.mark.parametrize(
    ('path', 'method'), [('enter', 'PUT'), ('enter', 'DELETE'), ('leave', 'GET'), ('leave', 'HEAD')]
)
def test_it_is_sent_by_post(guarded, path, method):
    response = guarded().request(f'/_evolve/{path}', method)
    assert response.status_int == 405
    assert response.headers['Allow'] == 'POST'


def test_the_form_cannot_be_framed_or_kept(guarded):
    headers = guarded().get('/_evolve/enter').headers
    assert "frame-ancestors 'none'" in headers['Content-Security-Policy']
    assert headers['X-Frame-Options'] == 'DENY'
    assert headers['Cache-Control'] == 'no-store'


def test_the_public_finds_no_way_to_the_form(guarded):
    site = guarded()
    for accept in ('text/html', 'application/problem+json', 'text/plain'):
        text = site.get('/', accept=accept).text
        assert '/enter' not in text
        assert 'secret' not in text.lower()
    assert '/enter' not in str(site.status())


# -- leaving


def test_who_leaves_is_outside_again(guarded):
    site = guarded()
    send(site)
    assert site.get('/who').status_int == 200
    response = send(site, '/_evolve/leave', secret='')
    assert response.status_int == 303
    assert 'max-age=0' in cookie_of(response).lower()
    assert site.get('/who').status_int == 503


def test_nobody_elses_page_can_send_an_operator_away(guarded):
    site = guarded()
    send(site)
    assert send(site, '/_evolve/leave', body=b'').status_int == 403
    assert site.get('/who').status_int == 200


# -- guessing


def bypass_of(site):
    inner = site.app
    while type(inner).__name__ != 'GateMiddleware':
        inner = inner.app if hasattr(inner, 'app') else inner.application
    return inner.bypass


def test_after_a_wrong_guess_the_next_one_has_to_wait(guarded):
    site = guarded()
    assert send(site, secret='wrong').status_int == 403
    response = send(site)
    assert response.status_int == 429
    assert int(response.headers['Retry-After']) >= 1
    assert site.get('/who').status_int == 503
    assert send(site, REMOTE_ADDR='203.0.113.10').status_int == 303  # somebody else need not wait


def test_guesses_wait_longer_and_longer_but_not_for_ever():
    throttle = Throttle(longest=30, forgets=600)
    now, waits = 100.0, []
    for _ in range(8):
        assert throttle.wait('a', now) == 0
        throttle.wrong('a', now)
        waits.append(throttle.wait('a', now))
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert throttle.wait('b', now) == 0
    throttle.wrong('a', now + 601)
    assert throttle.wait('a', now + 601) == 1
    throttle.right('a')
    assert throttle.wait('a', now + 601) == 0


def test_a_million_addresses_fill_no_memory():
    throttle = Throttle(most=10)
    for number in range(100):
        throttle.wrong(str(number), 0.0)
    assert len(throttle._wrong) == 10
    assert throttle.wait('99', 0.0) == 1


# -- where there is none


@pytest.mark.parametrize('path', ['/_evolve/enter', '/_evolve/leave'])
def test_without_a_secret_those_paths_are_the_applications(closed, path):
    site = closed(root=Root())
    assert site.get(path).status_int == 503
    assert site.get('/', HTTP_COOKIE=f'{COOKIE}={forged(site, secret="")}').status_int == 503
    site.evolution.go_on.set()
    assert site.opens()
    assert site.get(path).text == f'the application has {path}'


# -- with the dashboard, and with members


class Mounted(TGController):
    @expose(content_type='text/plain')
    def _default(self, *args):
        return 'the application itself'

    index = _default


class WithDashboard(Root):
    evolve = Mounted()


def test_the_dashboard_is_served_without_the_application(closed):
    """Its mount path is where tgext.pluggable puts it, whatever the application has there."""
    site = closed(options={'bypass_secret': SECRET}, root=WithDashboard())
    assert site.get('/evolve/').status_int == 503
    send(site)
    with apps.statements(thread=threading.get_ident()):
        page = site.get('/evolve/')
    assert page.status_int == 200
    assert 'the application itself' not in page.text
    assert page.headers['Cache-Control'] == 'no-store'
    assert 'href="/evolve"' in site.get('/_evolve/enter').text


def test_an_operator_may_write_where_the_public_may_read(site, url):
    evolution = apps.held('reads-only', serving='reads')
    site = site(url, [evolution], root=Root(), options={'bypass_secret': SECRET})
    site.get('/')
    assert evolution.began.wait(PATIENCE)
    assert site.request('/write', 'POST').status_int == 503
    send(site)
    assert site.request('/write', 'POST').text == 'written'


def test_an_error_controller_that_traps_503_is_not_in_the_way(guarded):
    site = guarded(**{'errorpage.enabled': True, 'errorpage.status_codes': [404, 503]})
    assert 'For operators' in site.get('/_evolve/enter').text
    send(site)
    assert site.get('/who').text == 'operator: True'
