"""What probes and balancers get, and which paths are never closed."""

from __future__ import annotations

import threading

import pytest
import tg
from tg import TGController, expose

from tests import apps
from tests.web.conftest import PATIENCE


class Root(apps.Root):
    @expose(content_type='text/plain')
    def _default(self, *args):
        return f'the application has {tg.request.path}'


def broken(evolution):
    raise ValueError('no')


def test_a_closed_process_lives_and_is_not_ready(closed):
    site = closed()
    live, ready, status = (site.get(f'/_evolve/{what}') for what in ('live', 'ready', 'status'))
    assert (live.status_int, live.json) == (200, {'live': True})
    assert (ready.status_int, ready.json) == (503, {'ready': False, 'reason': 'running'})
    assert int(ready.headers['Retry-After']) > 0
    assert status.status_int == 200
    assert status.json['serving'] == 'nothing'
    assert status.json['reason'] == 'running'
    assert status.json['retry_after'] == 10
    for response in (live, ready, status):
        assert response.content_type == 'application/json'
        assert response.headers['Cache-Control'] == 'no-store'


def test_an_open_process_is_ready(site, url):
    site = site(url, [apps.evolution('a')])
    assert site.opens()
    live, ready, status = (site.get(f'/_evolve/{what}') for what in ('live', 'ready', 'status'))
    assert (live.status_int, live.json) == (200, {'live': True})
    assert (ready.status_int, ready.json) == (200, {'ready': True, 'reason': 'complete'})
    assert 'Retry-After' not in ready.headers
    assert (status.json['serving'], status.json['retry_after']) == ('everything', None)
    for response in (live, ready, status):
        assert response.headers['Cache-Control'] == 'no-store'


def test_a_failed_process_lives_so_that_nobody_kills_it(site, url):
    site = site(url, [apps.evolution('a', broken)])
    site.fails()
    assert site.get('/_evolve/live').status_int == 200
    ready = site.get('/_evolve/ready')
    assert (ready.status_int, ready.json) == (503, {'ready': False, 'reason': 'failed'})
    assert site.status()['reason'] == 'failed'


@pytest.mark.parametrize('what', ['live', 'ready', 'status'])
def test_a_probe_with_head_gets_no_body(closed, what):
    site = closed()
    get, head = site.get(f'/_evolve/{what}'), site.request(f'/_evolve/{what}', 'HEAD')
    assert head.status_int == get.status_int
    assert head.body == b''
    assert head.headers['Content-Length'] == get.headers['Content-Length']


def test_a_probe_is_answered_from_memory(closed):
    site = closed()
    with apps.statements(thread=threading.get_ident()) as statements:
        for what in ('live', 'ready', 'status'):
            site.get(f'/_evolve/{what}')
    assert statements == []


def test_a_probe_alone_starts_the_evolutions(site, url):
    evolution = apps.evolution('a')
    site = site(url, [evolution])
    assert site.get('/_evolve/ready').status_int == 503
    assert site.gate.wait(PATIENCE)
    assert evolution.runs == 1


def test_the_health_path_can_be_moved(closed):
    site = closed(options={'health_path': '/internal/evolve'}, root=Root())
    assert site.get('/internal/evolve/live').json == {'live': True}
    assert site.get('/_evolve/live').status_int == 503
    assert 'data-status="/internal/evolve/status"' in site.get('/').text


def test_without_a_health_path_those_paths_are_the_applications(closed):
    site = closed(options={'health_path': ''}, root=Root())
    for path in ('/_evolve/live', '/live', '/ready', '/status'):
        assert site.get(path).status_int == 503
        assert site.get(path).content_type == 'text/html'
    site.evolution.go_on.set()
    assert site.opens()
    for path in ('/_evolve/live', '/live', '/ready', '/status'):
        assert site.get(path).text == f'the application has {path}'


@pytest.mark.parametrize(
    'path',
    ['/_evolve', '/_evolve/', '/_evolve/other', '/_evolve/live/', '/_evolve/live/x', '/_evolveX/live', '/x/live'],
)
def test_every_other_path_is_the_applications(closed, path):
    site = closed(root=Root())
    assert site.get(path).status_int == 503
    assert site.get(path).content_type == 'text/html'
    site.evolution.go_on.set()
    assert site.opens()
    assert site.get(path).text.startswith('the application has ')


def test_a_missing_page_below_the_health_path_is_missing(site, url):
    site = site(url, [])
    assert site.opens()
    assert site.get('/_evolve/other').status_int == 404


# -- bypass


class Hooks(TGController):
    @expose(content_type='text/plain')
    def _default(self, *args):
        return f'hook {"/".join(args)}'

    index = _default


class HooksRoot(Root):
    hooks = Hooks()


@pytest.fixture
def bypassed(closed):
    def make(prefixes, **rest):
        return closed(options={'bypass': prefixes}, root=HooksRoot(), **rest)

    return make


@pytest.mark.parametrize('path', ['/hooks', '/hooks/', '/hooks/github', '/hooks/a/b', '/hooks/%20'])
def test_a_bypassed_path_is_served_while_closed(bypassed, path):
    response = bypassed('/hooks').get(path)
    assert response.status_int == 200
    assert response.text.startswith('hook')


@pytest.mark.parametrize(
    'path',
    [
        '/',
        '/hooksmith',
        '/hook',
        '/Hooks',
        '/x/hooks',
        '//hooks',
        '/hooks//x',
        '/hooks/../admin',
        '/hooks/..',
        '/hooks/./x',
        '/./hooks',
        '/x/../hooks',
        '/hooks/%2e%2e/admin',
        '/hooks/..%2fadmin',
        '/hooks.json',
        '/hooks;x',
    ],
)
def test_nothing_else_is_bypassed(bypassed, path):
    assert bypassed('/hooks').get(path).status_int == 503


@pytest.mark.parametrize('path', ['/hooks\\..\\admin', '/hooks/..\\admin', '/hooks/\\../admin'])
def test_a_backslash_is_no_way_around(bypassed, path):
    site = bypassed('/hooks')
    response = site.get('/', PATH_INFO=path)
    assert response.status_int == 503 or response.text.startswith('hook')


@pytest.mark.parametrize(
    ('prefixes', 'served'),
    [
        ('/hooks /write', ['/hooks', '/write']),
        (['/hooks', '/write'], ['/hooks', '/write']),
        ('  /hooks\n  /write\n', ['/hooks', '/write']),
        ('hooks', ['/hooks']),
        ('/hooks/', ['/hooks', '/hooks/x']),
        (('/hooks/github',), ['/hooks/github', '/hooks/github/x']),
    ],
)
def test_prefixes_are_separated_by_white_space_or_a_list(bypassed, prefixes, served):
    site = bypassed(prefixes)
    for path in served:
        assert site.get(path).status_int == 200
    assert site.get('/').status_int == 503
    assert site.get('/hooks/other').status_int == (200 if '/hooks' in served else 503)


def test_a_bypassed_path_is_relative_to_where_the_application_is_mounted(bypassed):
    site = bypassed('/hooks')
    assert site.get('/hooks', SCRIPT_NAME='/wiki').status_int == 200
    assert site.get('/x', SCRIPT_NAME='/hooks').status_int == 503


def test_a_bypassed_request_starts_the_evolutions_too(site, url):
    site = site(url, [apps.evolution('a')], options={'bypass': '/hooks'}, root=HooksRoot())
    assert site.get('/hooks').status_int == 200
    assert site.gate.wait(PATIENCE)


# -- reads


@pytest.fixture
def reading(site, url):
    evolution = apps.held('reads-only', serving='reads')
    site = site(url, [evolution], root=Root())
    site.get('/')
    assert evolution.began.wait(PATIENCE)
    site.evolution = evolution
    return site


@pytest.mark.parametrize('method', ['GET', 'HEAD', 'OPTIONS'])
def test_reads_are_served_where_an_evolution_allows_them(reading, method):
    assert reading.request('/', method).status_int == 200


@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'PATCH', 'get', 'TRACE', 'PROPFIND'])
def test_writes_are_not_served_where_an_evolution_allows_reads(reading, method):
    response = reading.request('/write', method)
    assert response.status_int == 503
    assert int(response.headers['Retry-After']) > 0


def test_a_method_override_does_not_make_a_write_of_a_read(reading):
    for name in ('HTTP_X_HTTP_METHOD_OVERRIDE', 'HTTP_X_METHOD_OVERRIDE'):
        assert reading.request('/write', 'POST', **{name: 'GET'}).status_int == 503


def test_who_serves_only_reads_says_so(reading):
    assert reading.get('/_evolve/ready').status_int == 503
    assert reading.status()['serving'] == 'reads'
    reading.evolution.go_on.set()
    assert reading.gate.wait(PATIENCE)
    assert reading.get('/_evolve/ready').status_int == 200


def test_an_evolution_behind_an_open_gate_closes_nothing(site, url):
    evolution = apps.held('behind', serving='everything')
    site = site(url, [evolution])
    assert site.get('/').text == 'served'
    assert evolution.began.wait(PATIENCE)
    assert site.request('/write', 'POST').text == 'written'
    assert site.get('/_evolve/ready').status_int == 200
    assert site.status()['reason'] == 'running'
    evolution.go_on.set()
    site.becomes('complete')
    assert site.history() == {'behind': 'done'}
