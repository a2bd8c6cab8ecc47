"""Applications whose ErrorController wants the 503: their own page, with our headers."""

from __future__ import annotations

import pytest
import tg
from tg import TGController, expose

from tests import apps

#: What a quickstart has, and a 503.
TRAPPED = {'errorpage.enabled': True, 'errorpage.status_codes': [403, 404, 503]}


class ErrorController(TGController):
    @expose(content_type='text/html')
    def document(self, *args, **kwargs):
        response = tg.request.environ.get('tg.original_response')
        status = response.status_int if response is not None else 'direct'
        who = getattr(tg.request, 'identity', None)
        return f'<h1>our own page, {status}, {tg.request.method}, {who}</h1>'


class CrashingErrorController(TGController):
    @expose(content_type='text/html')
    def document(self, *args, **kwargs):
        raise RuntimeError('the page needs a table that is not there now')


class Root(apps.Root):
    error = ErrorController()


class CrashingRoot(apps.Root):
    error = CrashingErrorController()


class NoErrorRoot(apps.Root):
    """It has no ``error`` at all, though the options say so."""


class RedirectingErrorController(TGController):
    @expose()
    def document(self, *args, **kwargs):
        tg.redirect('/login')


class RedirectingRoot(apps.Root):
    error = RedirectingErrorController()


@pytest.fixture
def trapped(closed):
    def make(root=None, **rest):
        return closed(root=root or Root(), **{**TRAPPED, **rest})

    return make


def assert_our_headers(response):
    assert response.status_int == 503
    assert int(response.headers['Retry-After']) > 0
    assert response.headers['Cache-Control'] == 'no-store'


@pytest.mark.parametrize(
    'trap',
    [
        {'errorpage.status_codes': [403, 404, 503]},
        {'errorpage.status_codes': ['503']},
        {'errorpage.status_codes': (404, '503')},
        {'errorpage.enabled': False, 'ini': {'errorpage.enabled': 'true'}},
        {'ini': {'debug': 'true'}},
    ],
    ids=str,
)
def test_the_applications_own_page_is_served_with_our_headers(trapped, trap):
    response = trapped(**trap).get('/')
    assert 'our own page, 503' in response.text
    assert response.content_type == 'text/html'
    assert_our_headers(response)


def test_head_of_the_applications_own_page_has_no_body(trapped):
    response = trapped().request('/', 'HEAD', HTTP_ACCEPT='text/html')
    assert_our_headers(response)
    assert response.body == b''


def test_a_post_gets_the_applications_own_page(trapped):
    response = trapped().request('/write', 'POST', HTTP_ACCEPT='text/html')
    assert 'our own page, 503' in response.text
    assert_our_headers(response)


class CheerfulErrorController(TGController):
    @expose(content_type='text/html')
    def document(self, *args, **kwargs):
        tg.response.status = 200
        return 'our own page, all is well'


class CheerfulRoot(apps.Root):
    error = CheerfulErrorController()


def test_an_error_page_that_says_all_is_well_is_a_503_all_the_same(trapped):
    response = trapped(root=CheerfulRoot()).get('/')
    assert 'our own page, all is well' in response.text
    assert_our_headers(response)


@pytest.mark.parametrize('accept', ['application/json', 'application/problem+json', 'text/plain'])
def test_who_does_not_want_html_does_not_get_the_applications_page(trapped, accept):
    response = trapped().get('/', accept=accept)
    assert response.content_type == accept
    assert 'our own page' not in response.text
    assert_our_headers(response)


def test_asking_for_the_error_page_itself_is_a_503_too(trapped):
    site = trapped()
    response = site.get('/error/document')
    assert 'our own page, 503' in response.text
    assert_our_headers(response)


@pytest.mark.parametrize('path', ['/error/document?original_response=1', '/error', '/error/', '/error/document/x'])
def test_a_request_cannot_pretend_to_be_the_second_pass(trapped, path):
    response = trapped().get(path)
    assert_our_headers(response)
    assert 'direct' not in response.text


@pytest.mark.parametrize('debug', ['false', 'true'])
@pytest.mark.parametrize('root', [CrashingRoot, NoErrorRoot, RedirectingRoot])
def test_our_page_is_served_where_the_applications_one_cannot_be_rendered(trapped, root, debug):
    response = trapped(root=root(), ini={'debug': debug}).get('/')
    assert 'Back in a moment' in response.text
    assert 'data-status="/_evolve/status"' in response.text
    assert_our_headers(response)


@pytest.mark.parametrize(
    'untrapped',
    [
        {'errorpage.status_codes': [403, 404]},
        {'errorpage.enabled': False},
        {'errorpage.status_codes': [403, 404], 'ini': {'debug': 'true'}},
    ],
    ids=str,
)
def test_without_503_among_the_status_codes_our_page_is_served(trapped, untrapped):
    response = trapped(**untrapped).get('/')
    assert 'Back in a moment' in response.text
    assert 'our own page' not in response.text
    assert_our_headers(response)


def test_an_application_in_debug_mode_is_closed_as_well(closed):
    response = closed(ini={'debug': 'true'}).get('/')
    assert 'Back in a moment' in response.text
    assert_our_headers(response)


@pytest.mark.parametrize('debug', ['false', 'true'])
def test_after_opening_nothing_of_ours_is_left_in_the_applications_pages(trapped, debug):
    site = trapped(ini={'debug': debug})
    site.evolution.go_on.set()
    assert site.opens()
    assert site.get('/').text == 'served'
    missing = site.get('/nowhere')
    assert 'our own page, 404' in missing.text
    assert 'Retry-After' not in missing.headers
    assert missing.headers.get('Cache-Control') != 'no-store'


def test_a_503_of_the_applications_own_is_its_own(site, url):
    class Busy(Root):
        @expose(content_type='text/html')
        def busy(self):
            tg.response.status = 503
            return 'my own reasons'

    site = site(url, [], root=Busy(), **TRAPPED)
    assert site.opens()
    response = site.get('/busy')
    assert 'our own page, 503' in response.text
    assert 'Retry-After' not in response.headers


def test_the_path_is_the_users_again_after_a_page_that_crashed(trapped):
    seen = []
    site = trapped(root=CrashingRoot())
    inner = site.app
    while not hasattr(inner, 'maintenance'):
        inner = inner.app if hasattr(inner, 'app') else inner.application
    maintenance = inner.maintenance
    original = maintenance.unavailable

    def unavailable(environ, start_response, verdict):
        seen.append((environ['PATH_INFO'], environ['REQUEST_METHOD']))
        return original(environ, start_response, verdict)

    maintenance.unavailable = unavailable
    site.get('/somewhere')
    assert seen == [('/somewhere', 'GET')]
