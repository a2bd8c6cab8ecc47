"""The dashboard without a browser: who may look, what is answered, what is done, and what it needs of the database."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest
import tg
from sqlalchemy import create_engine, inspect, text
from webtest import TestApp

import tgext.evolve
from tests import apps
from tests.web import members
from tests.web.conftest import PATIENCE
from tgext.evolve import desk
from tgext.evolve.controllers import EvolveController
from tgext.evolve.tokens import COOKIE, HEADER, LIFETIME, Tokens

SECRET = 'only-operators-know-this-one'

PASSWORDS = {'manager': 'managepass', 'editor': 'editpass', 'pilot': 'pilotpass'}

#: Everything that reads.
VIEWS = ['', '/', '/state', '/plan', '/evolution?id=a', '/static/dashboard.js', '/static/dashboard.css']


class Metadata(members.AuthMetadata):
    """The manager may manage; others are users as well."""

    def get_permissions(self, identity, userid):
        return ['manage'] if userid == 'manager' else ['operate'] if userid == 'pilot' else []


class Root(members.Root):
    evolve = EvolveController()


class Plain(apps.Root):
    evolve = EvolveController()


def broken(evolution):
    raise ValueError('<script>alert(1)</script> broken')


class Dashboard:
    """Asks as the page does."""

    def __init__(self, browser, path='/evolve'):
        self.browser = browser
        self.path = path

    def get(self, path='', **rest):
        return self.browser.get(self.path + path, expect_errors=True, **rest)

    def state(self):
        return self.get('/state').json

    def act(self, action, id='', *, token=None, **fields):
        headers = {HEADER: self.state()['token'] if token is None else token}
        return self.browser.post(
            f'{self.path}/act', {'action': action, 'id': id, **fields}, headers=headers, expect_errors=True
        )

    def enter(self):
        """Through the closed gate."""
        form = self.browser.get('/_evolve/enter').form
        form['secret'] = SECRET
        assert form.submit().status_int == 303


@pytest.fixture
def model(url):
    model = members.Model()
    engine = create_engine(url)
    model.create(engine)
    with engine.begin() as connection:
        for name in ('editor', 'pilot'):
            values = {'name': name, 'password': PASSWORDS[name]}
            connection.execute(text('INSERT INTO tg_user (user_name, password) VALUES (:name, :password)'), values)
    engine.dispose()
    return model


@pytest.fixture
def member_site(site, url, model, tmp_path):
    """A site with users; ``as_user`` logs one in."""

    def make(evolutions=(), **rest):
        blueprint = members.blueprint(model, tmp_path)
        blueprint.update({'root': Root(), 'sa_auth.authmetadata': Metadata(model), **rest})
        return site(url, list(evolutions), **blueprint)

    return make


def as_user(site, name):
    browser = TestApp(site.app)
    if name:
        assert browser.post('/login_handler', {'login': name, 'password': PASSWORDS[name]}).status_int == 302
    return Dashboard(browser)


@pytest.fixture
def open_site(member_site):
    """A site whose one evolution is done."""
    made = member_site([apps.evolution('a')])
    assert made.opens()
    return made


@pytest.fixture
def operated(site, url):
    """A closed site, and its dashboard for an operator who entered the secret."""

    def make(evolutions=(), *, settled=None, options=None, **rest):
        made = site(url, list(evolutions), options={'bypass_secret': SECRET, **(options or {})}, root=Plain(), **rest)
        made.get('/')
        if settled:
            made.becomes(settled)
        dashboard = Dashboard(made.browser)
        dashboard.enter()
        return made, dashboard

    return make


# -- who may look


@pytest.mark.parametrize('view', VIEWS)
def test_the_manager_sees_every_view(open_site, view):
    assert as_user(open_site, 'manager').get(view).status_int == 200


@pytest.mark.parametrize('view', [*VIEWS, '/act'])
def test_an_anonymous_visitor_is_sent_to_the_login_and_learns_nothing(open_site, view):
    response = as_user(open_site, None).get(view)
    assert response.status_int == 302
    assert '/login?came_from=' in response.location
    assert 'testapp' not in response.text
    assert COOKIE not in response.headers.get('Set-Cookie', '')


@pytest.mark.parametrize('view', [*VIEWS, '/act'])
def test_a_user_without_the_permission_gets_403(open_site, view):
    response = as_user(open_site, 'editor').get(view)
    assert response.status_int == 403
    assert COOKIE not in response.headers.get('Set-Cookie', '')


def test_the_permission_is_an_option(member_site):
    site = member_site([], options={'permission': 'operate'})
    assert site.opens()
    assert as_user(site, 'pilot').get().status_int == 200
    assert as_user(site, 'manager').get().status_int == 403


def test_an_application_without_users_shows_it_to_nobody(site, url):
    site = site(url, [], root=Plain())
    assert site.opens()
    assert site.get('/evolve').status_int == 401
    assert site.get('/evolve/state').status_int == 401


def test_the_environ_of_a_client_cannot_say_that_it_is_an_operators(open_site):
    visitor = as_user(open_site, None)
    assert visitor.get(headers={'tgext.evolve.operator': 'True', 'Tgext-Evolve-Operator': 'True'}).status_int == 302


def test_the_secret_does_not_replace_the_permission_while_the_gate_is_open(member_site):
    evolution = apps.held('a')
    site = member_site([evolution], options={'bypass_secret': SECRET})
    assert site.get('/').status_int == 503
    operator = Dashboard(TestApp(site.app))
    operator.enter()
    assert operator.get().status_int == 200
    evolution.go_on.set()
    assert site.gate.wait(PATIENCE)
    assert operator.get().status_int == 302


# -- while the gate is closed


def test_visitors_of_the_closed_gate_get_the_503(operated):
    site, _ = operated([apps.evolution('a', broken)], settled='failed')
    for view in VIEWS:
        response = Dashboard(TestApp(site.app)).get(view)
        assert response.status_int == 503
        assert 'broken' not in response.text


def test_a_wrong_secret_opens_nothing(operated):
    site, _ = operated([apps.evolution('a', broken)], settled='failed')
    stranger = Dashboard(TestApp(site.app))
    form = stranger.browser.get('/_evolve/enter').form
    form['secret'] = SECRET + 'x'
    assert form.submit(expect_errors=True).status_int == 403
    assert stranger.get('/state').status_int == 503


@pytest.mark.parametrize('view', VIEWS)
def test_an_operator_sees_every_view(operated, view):
    _, dashboard = operated([apps.evolution('a', broken)], settled='failed')
    assert dashboard.get(view).status_int == 200


def test_behind_the_closed_gate_only_the_history_is_asked(member_site, url):
    """Also for somebody who is logged in, and whose user table is gone in the meantime."""
    before = member_site()
    assert before.opens()
    manager = as_user(before, 'manager')
    before.stop()

    def rename(evolution):
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text('ALTER TABLE tg_user RENAME TO tg_user_old'))
        engine.dispose()
        raise ValueError('and then it failed')

    class Nosy(Root):
        """What applications do at each request."""

        def _before(self, *args, **kw):
            tg.config['model'].DBSession.query(tg.config['model'].User).all()

    site = member_site([apps.evolution('a', rename)], root=Nosy(), options={'bypass_secret': SECRET})
    site.fails()
    browser = TestApp(site.app, cookiejar=manager.browser.cookiejar)
    operator = Dashboard(browser)
    operator.enter()
    with apps.statements(thread=threading.get_ident()) as statements:
        for view in VIEWS:
            assert operator.get(view).status_int == 200
        for action, id in [('pause', ''), ('resume', ''), ('down', ''), ('up', ''), ('retry', 'a'), ('stamp', 'a')]:
            assert operator.act(action, id).status_int == 200, action
    assert statements
    tables = {name for statement in statements for name in re.findall(r'\b(?:tg_user|page|tgext_\w+)\b', statement)}
    assert tables == {'tgext_evolve_history', 'tgext_evolve_lease', 'tgext_evolve_checkpoint'}
    others = [each for each in statements if 'tgext_evolve' not in each]
    # The clock, and pragmas of the connection.
    assert all(re.match(r'(?i)SELECT (?!.* FROM )|PRAGMA|BEGIN|COMMIT|ROLLBACK', each) for each in others), others


def test_the_closed_dashboard_sets_no_session_and_logs_nobody_out(operated):
    _, dashboard = operated([apps.evolution('a', broken)], settled='failed')
    cookies = [dashboard.get(view).headers.getall('Set-Cookie') for view in VIEWS]
    assert {each.split('=')[0] for found in cookies for each in found} <= {COOKIE}


# -- what it shows


def test_an_open_application_shows_what_ran(open_site):
    manager = as_user(open_site, 'manager')
    # The gate opens before the lease is given back.
    until_true(lambda: not manager.state()['lease']['alive'])
    state = manager.state()
    assert (state['gate']['serving'], state['gate']['reason']) == ('everything', 'complete')
    assert (state['total'], state['left'], state['counts']) == (1, 0, {'done': 1})
    assert (state['stuck'], state['pending'], state['running']) == ([], [], None)
    (run,) = state['runs']
    assert [(each['id'], each['state']) for each in run['attempts']] == [('a', 'done')]
    assert run['finished'] >= run['started'] > 0


def test_a_running_evolution_has_progress_an_estimate_and_a_holder(operated, monkeypatch):
    reported = threading.Event()

    def evolve(evolution):
        evolution.progress(25, 100, 'page 25')
        reported.set()
        evolution.began.set()
        assert evolution.go_on.wait(30)

    evolution = apps.held('slow', evolve=evolve, description='Slow work')
    site, dashboard = operated([evolution, apps.evolution('next', depends_on=('slow',))])
    assert reported.wait(PATIENCE)
    until_true(lambda: (dashboard.state()['running'] or {}).get('progress'))
    state = dashboard.state()
    running = state['running']
    assert (running['id'], running['description'], running['state']) == ('slow', 'Slow work', 'running')
    progress = running['progress']
    assert (progress['done'], progress['total'], progress['fraction']) == (25, 100, 0.25)
    assert progress['message'] == 'page 25'
    assert progress['remaining'] is None, 'one report tells nothing of the end'
    monkeypatch.setattr(site.gate.pace, 'remaining', lambda: 42.0)
    assert dashboard.state()['running']['progress']['remaining'] == 42.0
    assert state['lease']['alive'] is True
    assert 0 < state['lease']['left'] <= state['lease']['seconds'] == 10
    assert [(each['id'], each['why']) for each in state['pending']] == [('next', "depends on 'slow'")]


def test_a_failure_is_shown_with_its_traceback(operated):
    _, dashboard = operated([apps.evolution('a', broken), apps.evolution('b')], settled='failed')
    state = dashboard.state()
    assert [(each['id'], each['state']) for each in state['stuck']] == [('a', 'failed')]
    assert 'ValueError' not in str(state), 'tracebacks are not asked for at each look'
    found = dashboard.get('/evolution', params={'id': 'a'}).json
    assert 'ValueError: <script>alert(1)</script> broken' in found['attempts'][0]['error']
    assert 'Traceback' in found['attempts'][0]['error']


def test_an_evolution_that_there_is_not_is_404(operated):
    _, dashboard = operated([apps.evolution('a', broken)], settled='failed')
    response = dashboard.get('/evolution?id=%3Cb%3E')
    assert (response.status_int, response.json['error']) == (404, "There is no evolution '<b>' here.")
    assert dashboard.get('/nothing').status_int == 404


def test_what_only_the_history_knows_is_named(site, url):
    first = site(url, [apps.evolution('old'), apps.evolution('a')])
    assert first.opens()
    first.stop()
    second = site(url, [apps.evolution('a')])
    found = desk.Desk(second.evolver).state().body
    assert [each['id'] for each in found['unknown']] == ['old']
    assert found['unknown_total'] == 1


def test_ten_thousand_evolutions_are_shown_a_page_at_a_time(site, url):
    site = site(url, [apps.evolution(f'e{number:05}') for number in range(10_000)], options={'mode': 'wait'})
    tgext.evolve.stamp(site.conf, [f'e{number:05}' for number in range(9_000)])
    looking = desk.Desk(site.evolver)
    state = looking.state().json
    assert (state['total'], state['left'], state['pending_total']) == (10_000, 1_000, 1_000)
    assert len(state['pending']) == desk.PENDING
    assert len(json.dumps(state)) < 40_000
    page = looking.plan().json
    assert [each['id'] for each in page['entries'][:2]] == ['e09000', 'e09001']
    assert (len(page['entries']), page['found'], page['more']) == (desk.PAGE, 10_000, desk.PAGE)
    last = looking.plan(start=9_990).json
    assert (len(last['entries']), last['more']) == (10, None)
    assert looking.plan(text='E00042').json['found'] == 1
    assert looking.plan(state='stamped').json['found'] == 9_000
    assert looking.plan(text='nothing like it').json['entries'] == []


def test_several_who_look_at_once_cost_one_look(site, url, monkeypatch):
    site = site(url, [apps.evolution('a')])
    looks = []
    overview = site.evolver.overview
    monkeypatch.setattr(site.evolver, 'overview', lambda: looks.append(1) or overview())
    looking = desk.Desk(site.evolver)
    for _ in range(5):
        looking.state()
    assert len(looks) == 1


def test_a_database_that_is_away_is_said_so(operated, monkeypatch):
    from tgext.evolve.errors import StoreAway

    site, dashboard = operated([apps.evolution('a', broken)], settled='failed')

    def away():
        raise StoreAway('the database is gone', place='it', remedy='Start it.')

    monkeypatch.setattr(site.evolver.store, 'snapshot', away)
    monkeypatch.setattr(desk, '_FRESH', 0)
    response = dashboard.get('/state')
    assert response.status_int == 503
    assert response.json['error']['thing'] == 'the database is gone'
    assert response.json['gate']['serving'] == 'nothing'
    assert dashboard.get('/plan').status_int == 503
    assert dashboard.get('/plan').json['ok'] is False


# -- the page


def test_the_page_may_not_be_framed_kept_or_made_to_run_anything_else(open_site, operated, site):
    for dashboard in (as_user(open_site, 'manager'), operated([apps.evolution('b', broken)], settled='failed')[1]):
        page = dashboard.get()
        assert page.headers['Cache-Control'] == 'no-store'
        assert page.headers['X-Frame-Options'] == 'DENY'
        policy = page.headers['Content-Security-Policy']
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert 'unsafe' not in policy
        assert not re.search(r'<script(?![^>]* src=)|\son\w+=|\sstyle=|<style', page.text)
        assert 'src="/evolve/static/dashboard.js' in page.text
        assert dashboard.get('/state').headers['Cache-Control'] == 'no-store'


@pytest.mark.parametrize('path', ['/evolve', '/evolve/', '/evolve/index', '//evolve', '/evolve//'])
def test_the_page_finds_its_parts_whatever_it_was_called_by(open_site, path):
    manager = as_user(open_site, 'manager')
    page = manager.browser.get('/', extra_environ={'PATH_INFO': path}, expect_errors=True)
    if page.status_int == 200 and 'data-base' in page.text:
        assert 'data-base="/evolve"' in page.text
    assert 'data-base="//' not in page.text


def test_hostile_names_are_text(site, url):
    site = site(url, [], options={'namespace': '"><script>alert(1)</script>', 'bypass_secret': SECRET, 'mode': 'wait'})
    tgext.evolve.down(site.conf)
    dashboard = Dashboard(site.browser)
    dashboard.enter()
    page = dashboard.get()
    assert '<script>alert' not in page.text
    assert '&lt;script&gt;alert(1)' in page.text


@pytest.mark.parametrize('extensions', [False, True])
def test_static_files_are_served_with_and_without_request_extensions(member_site, extensions):
    site = member_site([], disable_request_extensions=extensions)
    assert site.opens()
    manager = as_user(site, 'manager')
    for name, kind in [('dashboard.js', 'text/javascript'), ('dashboard.css', 'text/css')]:
        response = manager.get(f'/static/{name}?v=1')
        assert (response.status_int, response.content_type) == (200, kind)
    for name in ('__init__.py', 'nothing.js', '../controllers.py', '%2e%2e/controllers.py'):
        assert manager.get(f'/static/{name}').status_int == 404


def test_an_application_that_is_disabled_says_so(member_site):
    site = member_site([apps.evolution('a')], options={'enabled': False})
    manager = as_user(site, 'manager')
    assert 'tgext.evolve is disabled' in manager.get()
    assert 'dashboard.js' not in manager.get()
    response = manager.get('/state')
    assert (response.status_int, response.json['ok']) == (409, False)
    assert 'disabled' in manager.act('pause').json['error']
    assert as_user(site, 'editor').get().status_int == 403


def test_without_kajiki_the_page_says_what_to_install(open_site, monkeypatch):
    monkeypatch.delitem(open_site.conf['render_functions'], 'kajiki')
    manager = as_user(open_site, 'manager')
    page = manager.get()
    assert (page.status_int, page.content_type) == (501, 'text/plain')
    assert "pip install 'tgext.evolve[dashboard]'" in page.text
    assert manager.get('/state').status_int == 200


def test_kajiki_is_added_to_the_applications_own_engines(open_site):
    assert open_site.conf['renderers'] == ['json', 'kajiki']
    assert open_site.conf['default_renderer'] == 'json'


# -- actions


def test_retry_runs_what_failed_again(operated):
    evolution = apps.evolution('a', broken)
    site, dashboard = operated([evolution], settled='failed')
    answer = dashboard.act('retry', 'a')
    assert (answer.status_int, answer.json['ok']) == (200, True)
    assert answer.json['message'] == 'a may run again at once (1 attempt no longer counted).'
    until_true(lambda: evolution.runs == 2)
    site.becomes('failed')
    attempts = dashboard.get('/evolution?id=a').json['attempts']
    assert [each['forgiven'] for each in attempts][-1] is True


def test_retry_of_what_did_not_fail_says_that_nothing_changed(operated):
    _, dashboard = operated([apps.evolution('a', broken), apps.evolution('b')], settled='failed')
    assert 'nothing was changed' in dashboard.act('retry', 'b').json['message']
    answer = dashboard.act('retry', 'no-such')
    assert (answer.status_int, answer.json['ok']) == (404, False)
    assert "no evolution 'no-such'" in answer.json['error']
    assert dashboard.act('retry').status_int == 400


def test_stamp_records_as_done_and_opens_the_gate(operated):
    site, dashboard = operated([apps.evolution('a', broken)], settled='failed')
    answer = dashboard.act('stamp', 'a')
    assert answer.json['message'] == 'a is recorded as done. It was not run.'
    assert site.gate.is_open
    assert site.get('/').text == 'served'


def test_stamp_is_refused_while_somebody_holds_the_lease(operated, monkeypatch):
    monkeypatch.setattr(desk, '_PATIENCE', 0.1)
    evolution = apps.held('a')
    site, dashboard = operated([evolution, apps.evolution('b')])
    assert evolution.began.wait(PATIENCE)
    answer = dashboard.act('stamp', 'b')
    assert answer.status_int == 409
    assert 'is held by' in answer.json['error']
    assert answer.json['remedy']
    assert 'b' not in site.history()


def test_cancel_ends_the_one_that_was_named(operated):
    stepped = threading.Event()

    def evolve(evolution):
        evolution.began.set()
        while not evolution.go_on.wait(0.02):
            evolution.progress(1, 2)
            stepped.set()

    evolution = apps.held('a', evolve=evolve)
    site, dashboard = operated([evolution], options={'lease': 1})
    assert stepped.wait(PATIENCE)
    until_true(lambda: dashboard.state()['running'])
    other = dashboard.act('cancel', 'b')
    assert (other.status_int, other.json['error']) == (409, "'b' does not run now, 'a' does.")
    answer = dashboard.act('cancel', 'a')
    assert (answer.status_int, answer.json['ok']) == (200, True)
    site.becomes('cancelled')
    assert site.history() == {'a': 'cancelled'}


def test_cancel_is_refused_when_nothing_runs(operated):
    _, dashboard = operated([apps.evolution('a', broken)], settled='failed')
    answer = dashboard.act('cancel', 'a')
    assert (answer.status_int, answer.json['error']) == (409, "'a' does not run now.")


def test_pause_and_resume(operated):
    site, dashboard = operated([apps.evolution('a', broken), apps.evolution('b')], settled='failed')
    assert 'Paused' in dashboard.act('pause').json['message']
    assert dashboard.state()['paused'] > 0
    dashboard.act('stamp', 'a')
    site.becomes('paused')
    assert 'Resumed' in dashboard.act('resume').json['message']
    assert site.gate.wait(PATIENCE)
    assert site.history() == {'a': 'stamped', 'b': 'done'}


def test_down_closes_the_gate_with_a_message_and_up_opens_it(member_site):
    site = member_site([apps.evolution('a')], options={'bypass_secret': SECRET})
    assert site.opens()
    manager = as_user(site, 'manager')
    assert manager.act('down', message='  Back at noon  ').status_int == 200
    assert site.gate.verdict.reason.value == 'down'
    assert site.get('/').status_int == 503
    # The door is closed for the manager as well, until the secret is entered.
    assert manager.get('/state').status_int == 503
    manager.enter()
    down = manager.state()['down']
    assert (down['message'], down['since'] > 0) == ('Back at noon', True)
    assert manager.act('up').json['message'] == 'The gate is no longer closed by hand.'
    assert site.gate.is_open
    assert as_user(site, 'manager').act('up').json['message'].endswith('nothing was changed.')


def test_an_action_that_there_is_not_is_refused(operated):
    _, dashboard = operated([apps.evolution('a', broken)], settled='failed')
    assert dashboard.act('drop').status_int == 400


# -- forged requests


def unchanged(site):
    return site.evolver.store.requests().paused is None


@pytest.mark.parametrize('closed', [True, False])
def test_an_action_needs_the_token_of_the_page(open_site, operated, closed):
    if closed:
        site, dashboard = operated([apps.evolution('b', broken)], settled='failed')
    else:
        site, dashboard = open_site, as_user(open_site, 'manager')
    good = dashboard.state()['token']
    for token in ('', 'nonsense', good[:-2] + 'xx', 'ünïcode'.encode().decode('latin-1')):
        answer = dashboard.act('pause', token=token)
        assert (answer.status_int, answer.json['ok']) == (403, False)
    answer = dashboard.browser.post('/evolve/act', {'action': 'pause', 'token': good}, expect_errors=True)
    assert answer.status_int == 403
    assert unchanged(site)
    assert dashboard.act('pause').status_int == 200
    assert not unchanged(site)


def test_the_cookie_must_say_the_same(open_site):
    manager = as_user(open_site, 'manager')
    token = manager.state()['token']
    again = Tokens.of(open_site.conf).make('user manager')
    assert manager.act('pause', token=again).status_int == 403
    manager.browser.set_cookie(COOKIE, again)
    assert manager.act('pause', token=token).status_int == 403
    assert unchanged(open_site)


def test_the_token_of_somebody_else_is_not_taken(open_site):
    manager = as_user(open_site, 'manager')
    forged = Tokens.of(open_site.conf).make('user editor')
    manager.browser.set_cookie(COOKIE, forged)
    headers = {HEADER: forged}
    answer = manager.browser.post('/evolve/act', {'action': 'pause'}, headers=headers, expect_errors=True)
    assert answer.status_int == 403
    assert unchanged(open_site)


def test_an_action_is_a_post(open_site):
    manager = as_user(open_site, 'manager')
    headers = {HEADER: manager.state()['token']}
    answer = manager.browser.get('/evolve/act?action=pause', headers=headers, expect_errors=True)
    assert (answer.status_int, answer.headers['Allow']) == (405, 'POST')
    assert unchanged(open_site)


def test_who_may_not_look_may_not_act(open_site):
    token = as_user(open_site, 'manager').state()['token']
    for name, status in [('editor', 403), (None, 302)]:
        dashboard = as_user(open_site, name)
        dashboard.browser.set_cookie(COOKIE, token)
        assert dashboard.act('pause', token=token).status_int == status
    assert unchanged(open_site)


def test_a_token_expires(monkeypatch):
    tokens = Tokens('secret')
    token = tokens.make('me')
    assert tokens.agree(token, token, 'me')
    real = time.time
    monkeypatch.setattr(time, 'time', lambda: real() + LIFETIME + 1)
    assert not tokens.agree(token, token, 'me')


def test_the_cookie_is_for_this_site_and_not_for_scripts(open_site):
    response = as_user(open_site, 'manager').get('/state', extra_environ={'wsgi.url_scheme': 'https'})
    cookie = response.headers['Set-Cookie']
    assert 'HttpOnly' in cookie
    assert 'SameSite=Strict' in cookie
    assert 'secure' in cookie.lower()


@pytest.mark.parametrize(
    ('conf', 'signs'),
    [
        ({'tgext.evolve.bypass_secret': 'a', 'sa_auth.cookie_secret': 'b'}, 'a'),
        ({'tgext.evolve.bypass_secret': '', 'sa_auth.cookie_secret': 'b', 'session.secret': 'c'}, 'b'),
        ({'beaker.session.secret': 'c', 'session.secret': 'd'}, 'c'),
        ({'session.secret': 'd'}, 'd'),
    ],
)
def test_tokens_are_signed_with_a_secret_that_the_application_has(conf, signs):
    token = Tokens.of(conf).make('me')
    assert Tokens(signs).left(token, 'me') > 0
    assert Tokens('another').left(token, 'me') == 0


def test_without_any_secret_actions_are_off_and_say_what_to_set(site, url, monkeypatch):
    # Nobody has a way in without a secret but who was given the permission in some other way.
    monkeypatch.setattr(EvolveController, 'allow_only', None)
    site = site(url, [apps.evolution('a')], root=Plain())
    assert site.opens()
    dashboard = Dashboard(site.browser)
    state = dashboard.state()
    assert state['token'] is None
    assert 'tgext.evolve.bypass_secret' in state['why_no_actions']
    answer = dashboard.act('pause', token='x')
    assert (answer.status_int, 'tgext.evolve.bypass_secret' in answer.json['error']) == (403, True)
    assert unchanged(site)


# -- where it is mounted


def test_the_dashboard_can_be_mounted_elsewhere_by_hand(site, url):
    class Admin(tg.TGController):
        things = EvolveController()

    class Elsewhere(apps.Root):
        admin = Admin()

    options = {'appid': 'admin.things', 'bypass_secret': SECRET}
    site = site(url, [apps.evolution('a', broken)], options=options, root=Elsewhere())
    site.fails()
    dashboard = Dashboard(site.browser, '/admin/things')
    dashboard.enter()
    assert 'data-base="/admin/things"' in dashboard.get()
    assert dashboard.act('stamp', 'a').status_int == 200


def test_below_a_prefix_all_addresses_have_it(operated):
    _, dashboard = operated([apps.evolution('a', broken)], settled='failed')
    page = dashboard.get(extra_environ={'SCRIPT_NAME': '/wiki'})
    assert 'data-base="/wiki/evolve"' in page.text
    assert 'data-enter="/wiki/_evolve/enter"' in page.text


def test_the_tables_stay_the_same_for_who_only_looks(site, url):
    site = site(url, [apps.evolution('a')], options={'mode': 'wait'})
    looking = desk.Desk(site.evolver)
    assert looking.state().json['pending_total'] == 1
    assert inspect(create_engine(url)).get_table_names() == []


def until_true(condition):
    deadline = threading.Event()
    for _ in range(int(PATIENCE / 0.02)):
        if condition():
            return
        deadline.wait(0.02)
    raise AssertionError('it never became true')
