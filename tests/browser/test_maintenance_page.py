"""The maintenance page as people see it: what it shows, when it goes away, and what it never does."""

from __future__ import annotations

import json
import threading
import time

import pytest
from playwright import sync_api as playwright

import tgext.evolve
from tests import apps
from tests.web.conftest import PATIENCE
from tgext.evolve.gate import Reason, Serving, Verdict

expect = playwright.expect

pytestmark = pytest.mark.browser


@pytest.fixture
def shown(site, url, serve, browse, puppet):
    """A page of an application whose one evolution the test pulls: ``page.evolution``, ``page.site``."""

    def make(path='/', *, options=None, root=None, **how):
        evolution = puppet()
        each = site(url, [evolution], options=options, **({'root': root} if root else {}))
        page = browse(serve(each.app), path, **how)
        page.evolution, page.site = evolution, each
        return page

    return make


def part(page, name):
    return page.locator(f'[data-evolve="{name}"]')


def status(page, **state):
    """Have the page read this instead of the real status: what would take minutes to happen."""
    given = {
        'serving': 'nothing',
        'reason': 'running',
        'situation': 'updating',
        'heading': 'Back in a moment',
        'text': 'We are updating our data. Everything opens again as soon as that is done.',
        'note': '',
        'progress': None,
        **state,
    }
    page.context.unroute('**/_evolve/status')
    page.context.route(
        '**/_evolve/status',
        lambda route: route.fulfill(status=200, content_type='application/json', body=json.dumps(given)),
    )


def moved(done, remaining=None, late=False):
    return {'done': done, 'total': 100, 'fraction': done / 100, 'elapsed': 60, 'remaining': remaining, 'late': late}


#: Answers at once what ``window.state`` is: for tests that turn the page's clock.
_STUB = """window.asked = 0; window.fetch = () => { window.asked += 1;
return Promise.resolve({status: 200, json: () => Promise.resolve(window.state)}); };"""


def at_once(page, **state):
    given = {'serving': 'nothing', 'situation': 'updating', 'heading': 'Back in a moment', **state}
    page.evaluate(f'() => {{ window.state = {json.dumps(given)}; if (!window.asked) {{ {_STUB} }} }}')


# -- it goes away


def test_the_page_turns_into_the_application_by_itself(shown):
    page = shown()
    bar = page.get_by_role('progressbar')
    page.evolution.report(3, 10)
    expect(bar).to_have_attribute('aria-valuenow', '30')
    page.evolution.report(7, 10)
    expect(bar).to_have_attribute('aria-valuenow', '70')
    expect(part(page, 'percent')).to_have_text('Current step: 70%')
    expect(page).to_have_title('70% · Back in a moment')
    page.evolution.finish()
    expect(page.locator('body')).to_have_text('served')


def test_the_page_that_was_wanted_is_the_one_that_opens(shown):
    page = shown('/write?page=2#part')
    page.evolution.finish()
    expect(page.locator('body')).to_have_text('written')
    assert page.url.endswith('/write?page=2#part')


def test_reads_are_enough_for_who_only_reads(shown):
    page = shown()
    page.evolution.report(1, 10)
    expect(page.get_by_role('progressbar')).to_have_attribute('aria-valuenow', '10')
    page.site.gate.move(Verdict(Serving.READS, Reason.RUNNING))
    expect(page.locator('body')).to_have_text('served')


def test_what_was_sent_is_not_sent_again(shown):
    page = shown()
    sent = []
    page.on('request', lambda request: sent.append(request.url) if request.method == 'POST' else None)
    form = '<form method="post" action="/write"><button>Send</button></form>'
    # As the application would have shown it before its gate was closed.
    page.context.route('**/form', lambda route: route.fulfill(status=200, content_type='text/html', body=form))
    page.goto(page.url + 'form')
    page.get_by_role('button', name='Send').click()
    expect(part(page, 'hint')).to_contain_text('was not received')
    page.evolution.finish()
    expect(part(page, 'hint')).to_contain_text('please go back and send it again')
    expect(part(page, 'spoken')).to_contain_text('please go back and send it again')
    expect(page.get_by_role('progressbar')).to_be_hidden()
    page.get_by_role('button', name='Go back').click()
    expect(page.get_by_role('button', name='Send')).to_be_visible()
    assert len(sent) == 1


def test_a_page_below_a_prefix_asks_there(site, url, serve, browse, puppet):
    evolution = puppet()
    app = site(url, [evolution]).app

    def mounted(environ, start_response):
        assert environ['PATH_INFO'].startswith('/wiki/'), environ['PATH_INFO']
        environ['SCRIPT_NAME'], environ['PATH_INFO'] = '/wiki', environ['PATH_INFO'][len('/wiki') :]
        return app(environ, start_response)

    page = browse(serve(mounted), '/wiki/')
    evolution.finish()
    expect(page.locator('body')).to_have_text('served')


# -- what it shows


def test_an_evolution_that_reports_nothing_has_a_bar_without_a_number(shown):
    page = shown()
    bar = page.get_by_role('progressbar', name='Progress of the update')
    expect(bar).to_be_visible()
    expect(bar).not_to_have_attribute('aria-valuenow', '0')
    assert bar.get_attribute('aria-valuenow') is None
    expect(part(page, 'scripted')).to_have_text('You need not do anything: this page opens by itself.')


def test_a_failure_is_told_as_one(shown):
    page = shown()
    expect(page.get_by_role('heading')).to_have_text('Back in a moment')
    page.evolution.fail(ValueError('hunter2'))
    expect(page.get_by_role('heading')).to_have_text('Something went wrong')
    expect(part(page, 'text')).to_contain_text('We are looking into it')
    expect(part(page, 'spoken')).to_contain_text('Something went wrong')
    expect(page.get_by_role('progressbar')).to_be_hidden()
    assert 'hunter2' not in page.content()


def test_the_message_of_who_closed_it_shows_and_disappears(site, url, serve, browse):
    each = site(url, [apps.evolution('a')], options={'watch': 0.1})
    assert each.opens()
    tgext.evolve.down(each.conf, 'We are moving.\nBack at 14:00.')
    page = browse(serve(each.app))
    expect(page.get_by_role('heading')).to_have_text('Closed for maintenance')
    expect(part(page, 'text')).to_have_text('We are moving.\nBack at 14:00.')
    tgext.evolve.down(each.conf, 'Back at 15:00.')
    expect(part(page, 'text')).to_have_text('Back at 15:00.')
    expect(part(page, 'spoken')).to_contain_text('Back at 15:00.')
    tgext.evolve.up(each.conf)
    expect(page.locator('body')).to_have_text('served')


def test_an_estimate_falls_at_once_and_rises_only_when_it_stays(shown):
    page = shown()
    left = part(page, 'left')
    status(page, progress=moved(10))
    expect(part(page, 'percent')).to_have_text('Current step: 10%')
    expect(left).to_have_text('')
    seen = []
    page.expose_function('noteLeft', lambda text: seen.append(text))
    page.evaluate(
        """() => new MutationObserver(() => noteLeft(document.querySelector('[data-evolve=left]').textContent))
        .observe(document.querySelector('[data-evolve=left]'), {childList: true})"""
    )
    status(page, progress=moved(20, 170))
    expect(left).to_have_text('about 3 minutes left')
    status(page, progress=moved(30, 55))
    expect(left).to_have_text('about 60 seconds left')
    answers = [61, 55, 61, 61, 55, 38]
    page.context.unroute('**/_evolve/status')

    def waver(route):
        remaining = answers.pop(0) if answers else 38
        body = {'serving': 'nothing', 'situation': 'updating', 'heading': '', 'progress': moved(40, remaining)}
        route.fulfill(status=200, content_type='application/json', body=json.dumps(body))

    page.context.route('**/_evolve/status', waver)
    expect(left).to_have_text('about 40 seconds left')
    assert seen == ['about 3 minutes left', 'about 60 seconds left', 'about 40 seconds left']
    status(page, progress=moved(40, 600))
    expect(left).to_have_text('about 10 minutes left')  # it stays: so it is true


def test_what_takes_longer_than_was_said_says_so(shown):
    page = shown()
    page.clock.install()
    at_once(page, progress=moved(20, 30))
    page.reload()
    at_once(page, progress=moved(20, 30))
    page.clock.run_for(3000)
    expect(part(page, 'left')).to_have_text('about 30 seconds left')
    at_once(page, progress=moved(30, 50))
    page.clock.run_for(100_000)
    expect(part(page, 'left')).to_have_text('longer than expected: about 50 seconds left')
    at_once(page, progress=moved(30, None, late=True))
    page.clock.run_for(10_000)
    expect(part(page, 'left')).to_have_text('taking longer than expected')


def test_who_listens_hears_of_quarters_and_not_of_every_second(shown):
    page = shown()
    heard = []
    page.expose_function('noteHeard', lambda text: heard.append(text))
    page.evaluate(
        """() => new MutationObserver(() => noteHeard(document.querySelector('[role=status]').textContent))
        .observe(document.querySelector('[role=status]'), {childList: true})"""
    )
    for done in (3, 10, 24, 26, 30, 49, 51, 60):
        status(page, progress=moved(done))
        expect(part(page, 'percent')).to_have_text(f'Current step: {done}%')
    assert heard == ['26%', '51%']


# -- how it asks


def test_it_asks_ever_less_where_nothing_changes_and_hardly_where_nobody_looks(shown):
    page = shown()
    page.clock.install()
    page.reload()
    at_once(page, progress=moved(20))

    def asked(seconds):
        before = page.evaluate('window.asked')
        page.clock.run_for(seconds * 1000)
        return page.evaluate('window.asked') - before

    assert 5 <= asked(20) <= 12
    assert 10 <= asked(60) <= 15  # every five seconds, and a fifth more or less
    page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true})")
    asked(20)
    assert 3 <= asked(60) <= 5
    before = page.evaluate('window.asked')
    page.evaluate(
        """() => { Object.defineProperty(document, 'visibilityState', {value: 'visible', configurable: true});
        document.dispatchEvent(new Event('visibilitychange')); }"""
    )
    page.clock.run_for(100)
    assert page.evaluate('window.asked') > before


def test_a_server_that_is_away_for_a_while_is_no_reason_to_stop(shown):
    page = shown()
    page.evolution.report(3, 10)
    expect(page.get_by_role('progressbar')).to_have_attribute('aria-valuenow', '30')
    page.context.route('**/_evolve/status', lambda route: route.abort())
    with page.expect_event('requestfailed'):
        pass
    with page.expect_event('requestfailed'):
        pass
    page.context.unroute('**/_evolve/status')
    page.evolution.finish()
    expect(page.locator('body')).to_have_text('served')


def test_a_page_that_comes_back_closed_is_not_asked_for_ever_faster(shown):
    """Its status may be that of another application, above this one."""
    page = shown()
    page.clock.install()
    loaded = []
    page.on('request', lambda request: loaded.append(request.url) if request.is_navigation_request() else None)
    page.add_init_script(_STUB + "window.state = {serving: 'everything'};")
    page.reload()
    for _ in range(30):
        page.clock.run_for(4000)
        page.wait_for_load_state('load')
    assert 3 <= len(loaded) <= 8


def test_an_answer_that_is_no_status_is_not_taken_for_one(shown):
    page = shown()
    asked = threading.Event()

    def answer(route):
        asked.set()
        route.fulfill(status=200, content_type='text/html', body='<h1>a login of the proxy</h1>')

    page.context.route('**/_evolve/status', answer)
    deadline = time.monotonic() + PATIENCE
    while not asked.is_set() and time.monotonic() < deadline:
        page.wait_for_event('requestfinished')
    assert asked.is_set()
    expect(page.get_by_role('heading')).to_have_text('Back in a moment')


# -- without scripts, without motion


def test_without_scripts_the_page_says_what_it_does_and_shows_progress(site, url, serve, browse, puppet):
    evolution = puppet()
    evolution.report(40, 100)
    page = browse(serve(site(url, [evolution]).app), javascript=False)
    expect(part(page, 'hint')).to_have_text('This page is tried again every 10 seconds.', use_inner_text=True)
    expect(page.get_by_role('progressbar')).to_have_attribute('aria-valuenow', '40')
    evolution.finish()
    expect(page.locator('body')).to_have_text('served')  # by itself


def test_nothing_moves_for_who_does_not_want_it(shown):
    still = shown(reduced_motion='reduce')
    assert still.evaluate('document.getAnimations().length') == 0
    moving = shown(reduced_motion='no-preference')
    assert moving.evaluate('document.getAnimations().length') > 0


# -- a page of the application's own

OWN = """<!DOCTYPE html><html lang="de"><head><meta charset="utf-8"><title>Acme</title>{{script}}</head>
<body><main><h1>Gleich zurück</h1><p data-evolve="text">{{text}}</p>{{progress}}</main></body></html>"""


def test_an_own_page_has_progress_and_goes_away_by_itself(shown, tmp_path, accessible):
    (tmp_path / 'own.html').write_text(OWN, 'utf-8')
    page = shown(options={'page_file': str(tmp_path / 'own.html')})
    expect(page.get_by_role('heading')).to_have_text('Gleich zurück')
    page.evolution.report(3, 10)
    expect(page.get_by_role('progressbar')).to_have_attribute('aria-valuenow', '30')
    status(page, text='Wir ziehen um.', progress=moved(20, 170))
    expect(part(page, 'left')).to_have_text('about 3 Minuten left')  # in the language of the page, words are its own
    expect(part(page, 'text')).to_have_text('Wir ziehen um.')
    accessible(page)
    page.context.unroute('**/_evolve/status')
    page.evolution.finish()
    expect(page.locator('body')).to_have_text('served')


# -- as it looks


@pytest.mark.parametrize(
    ('name', 'how'),
    [('light', {}), ('dark', {'dark': True}), ('mobile', {'mobile': True})],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_it_looks_right_and_anybody_can_use_it(shown, accessible, picture, name, how):
    page = shown(**how, **({} if how.get('mobile') else {'viewport': {'width': 800, 'height': 480}}))
    status(page, progress=moved(72, 25))
    expect(part(page, 'left')).to_have_text('about 30 seconds left')
    # Nothing stands out of the screen.
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
    accessible(page)
    picture(page, f'maintenance-{name}')


@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
@pytest.mark.parametrize('situation', ['reading', 'waiting', 'paused', 'failed', 'unreachable', 'down'])
def test_every_situation_can_be_read_by_anybody(shown, accessible, situation, dark):
    page = shown(dark=dark, mobile=True)
    long = 'a-word-that-is-much-longer-than-any-screen-of-a-telephone-is-wide'
    status(page, situation=situation, heading=f'Heading {long}', text=long, note='A note.', details=f"'{long}'")
    expect(part(page, 'situation')).to_have_attribute('data-situation', situation)
    expect(part(page, 'details')).to_contain_text(long)
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
    accessible(page)
