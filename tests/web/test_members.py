"""While the gate is closed nobody asks the database who a user is, and nobody is logged out by that."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import create_engine, text

from tests import apps
from tests.web import members
from tests.web.conftest import PATIENCE

TRAPPED = {'errorpage.status_codes': [403, 404, 503]}
UNTRAPPED = {'errorpage.status_codes': [403, 404]}

ini_trap = pytest.mark.parametrize('codes', ['503', '403 404 503', '403\n404\n503'])


@pytest.fixture
def model(url):
    model = members.Model()
    engine = create_engine(url)
    model.create(engine)
    engine.dispose()
    return model


@pytest.fixture
def member(site, url, model, tmp_path):
    """A user logs in and has a session; then a new release renames the user table for a while."""

    def make(**rest):
        before = site(url, [], **members.blueprint(model, tmp_path))
        response = before.browser.post('/login_handler', {'login': 'manager', 'password': 'managepass'})
        assert response.status_int == 302
        assert before.get('/me').text == 'manager, visit 1'

        evolution = apps.held('rename-users')

        def evolve(self):
            engine = create_engine(url)
            with engine.begin() as connection:
                connection.execute(text('ALTER TABLE tg_user RENAME TO tg_user_old'))
            self.began.set()
            assert self.go_on.wait(30)
            with engine.begin() as connection:
                connection.execute(text('ALTER TABLE tg_user_old RENAME TO tg_user'))
            engine.dispose()

        evolution.evolve = evolve
        after = site(url, [evolution], **{**members.blueprint(model, tmp_path), **rest})
        after.evolution = evolution
        after.browser.cookiejar = before.browser.cookiejar
        assert after.get('/').status_int == 503
        assert evolution.began.wait(PATIENCE)
        return after

    return make


REQUESTS = [
    ('GET', '/'),
    ('HEAD', '/'),
    ('GET', '/me'),
    ('POST', '/me'),
    ('GET', '/login'),
    ('POST', '/login_handler'),
    ('GET', '/login_handler'),
    ('GET', '/logout_handler'),
    ('POST', '/logout_handler'),
    ('GET', '/error/document'),
    ('GET', '/nowhere'),
]


@pytest.mark.parametrize('trap', [TRAPPED, UNTRAPPED], ids=['trapped', 'not trapped'])
def test_no_request_of_a_logged_in_user_runs_any_sql(member, trap):
    site = member(**trap)
    with apps.statements(thread=threading.get_ident()) as statements:
        for method, path in REQUESTS:
            for accept in ('text/html', 'application/json'):
                body = b'login=manager&password=managepass' if method == 'POST' else b''
                response = site.browser.request(
                    path,
                    method=method,
                    body=body,
                    content_type='application/x-www-form-urlencoded',
                    expect_errors=True,
                    environ={'HTTP_ACCEPT': accept},
                )
                assert response.status_int == 503, (method, path)
                assert int(response.headers['Retry-After']) > 0
                assert 'Set-Cookie' not in response.headers, (method, path)
    assert statements == []


def test_the_applications_own_page_is_for_nobody(member):
    site = member(**TRAPPED)
    assert site.get('/me').text == 'our own page for None'


def test_no_session_is_opened_while_closed(member, tmp_path):
    def files():
        return sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / 'sessions').rglob('*'))

    site = member(**TRAPPED)
    before = files()
    assert before
    for path in ('/', '/me', '/logout_handler'):
        site.get(path)
    assert files() == before


@pytest.mark.parametrize('trap', [TRAPPED, UNTRAPPED], ids=['trapped', 'not trapped'])
def test_the_login_and_the_session_survive(member, trap):
    site = member(**trap)
    for path in ('/me', '/logout_handler', '/login_handler'):
        assert site.get(path).status_int == 503
    site.evolution.go_on.set()
    assert site.opens()
    assert site.get('/me').text == 'manager, visit 2'
    assert site.get('/logout_handler').status_int == 302
    assert site.get('/me').text.startswith('nobody')
    site.browser.post('/login_handler', {'login': 'manager', 'password': 'managepass'})
    assert site.get('/me').text.startswith('manager')


@ini_trap
def test_the_status_codes_may_be_written_in_the_ini(member, codes):
    site = member(ini={'errorpage.status_codes': codes})
    response = site.get('/me')
    assert response.text == 'our own page for None'
    assert response.status_int == 503
    assert int(response.headers['Retry-After']) > 0
    assert response.headers['Cache-Control'] == 'no-store'


@pytest.mark.parametrize('remote_user', ['manager', 'nobody-at-all'])
def test_a_user_that_the_web_server_authenticated_is_not_looked_up(member, remote_user):
    site = member(**TRAPPED)
    with apps.statements(thread=threading.get_ident()) as statements:
        assert site.get('/me', REMOTE_USER=remote_user).status_int == 503
    assert statements == []


def test_reads_are_served_to_logged_in_users_while_writes_are_not(site, url, model, tmp_path):
    evolution = apps.held('slow-reads', serving='reads')
    site = site(url, [evolution], **members.blueprint(model, tmp_path))
    site.get('/')
    assert evolution.began.wait(PATIENCE)
    assert site.get('/me').text == 'nobody, visit 1'
    assert site.request('/write', 'POST').status_int == 503
    assert site.request('/login_handler', 'POST').status_int == 503
    assert site.request('/', 'HEAD').status_int == 200
    evolution.go_on.set()
    assert site.opens()
    assert site.request('/write', 'POST').status_int == 200


# -- static files


def test_static_files_are_served_while_closed(closed, tmp_path):
    public = tmp_path / 'public'
    public.mkdir()
    (public / 'style.css').write_text('h1 { color: green }')
    paths = {'static_files': str(public), 'root': '.', 'controllers': '.', 'templates': ['.']}
    site = closed(serve_static=True, paths=paths)
    assert site.get('/style.css').text == 'h1 { color: green }'
    assert site.get('/missing.css').status_int == 503


def test_pluggables_static_files_are_served_while_closed(site, url, tmp_path, monkeypatch):
    from tgext.pluggable import plug

    package = tmp_path / 'pluggable_with_statics'
    (package / 'public').mkdir(parents=True)
    (package / '__init__.py').write_text("def plugme(configurator, options):\n    return {'appid': 'statics'}\n")
    (package / 'public' / '__init__.py').write_text('')
    (package / 'public' / 'script.js').write_text('alert()')
    monkeypatch.syspath_prepend(str(tmp_path))
    evolution = apps.held()
    model = apps.Model()
    base_config = apps.configurator(model)
    plug(base_config, 'tgext.evolve', evolutions=[evolution], watch=0, poll=0.02)
    plug(base_config, 'pluggable_with_statics')
    site = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url}))
    try:
        site.get('/')
        assert evolution.began.wait(PATIENCE)
        assert site.get('/_pluggable/pluggable_with_statics/script.js').text == 'alert()'
        assert site.get('/_pluggable/other/script.js').status_int == 503
    finally:
        evolution.go_on.set()
