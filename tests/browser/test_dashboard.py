"""The dashboard in a real browser."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect

from tests import apps
from tests.web.test_dashboard import SECRET, Plain, Root, as_user, broken, member_site, model  # noqa: F401
from tgext.evolve.tokens import COOKIE

pytestmark = pytest.mark.browser

OPTIONS = {'bypass_secret': SECRET}


@pytest.fixture
def operate(browse):
    """``operate(address)``: the dashboard of a closed application, for who enters the secret."""

    def operate(address, **rest):
        page = browse(address, '/_evolve/enter', **rest)
        page.get_by_role('textbox').or_(page.locator('input[type=password]')).first.fill(SECRET)
        page.locator('form button').first.click()
        page.get_by_role('link', name='Dashboard').click()
        expect(page.locator('#main')).to_have_attribute('aria-busy', 'false')
        return page

    return operate


def confirm(page, name):
    page.get_by_role('dialog').get_by_role('button', name=name).click()


def serious(site, url, serve, evolutions, **options):
    return serve(site(url, evolutions, options={**OPTIONS, **options}, root=Plain()).app)


@contextmanager
def ticking(evolution, steps):
    """An evolution that reports twice a second."""
    over = threading.Event()

    def tick():
        for step in steps:
            evolution.report(step, 100)
            if over.wait(0.5):
                return

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_progress_moves_by_itself_and_the_end_is_seen(site, url, serve, operate, puppet):
    evolution = puppet('count-words', description='Count the words of every page')
    page = operate(serious(site, url, serve, [evolution, apps.evolution('next')]))
    running = page.locator('#running')
    expect(running).to_contain_text('Count the words of every page')
    bar = running.get_by_role('progressbar')
    for done in (30, 60):
        evolution.report(done, 100, f'page {done}')
        expect(bar).to_have_attribute('aria-valuenow', str(done))
        expect(running).to_contain_text(f'page {done}')
    # The pace shows when it was seen for a while.
    with ticking(evolution, range(60, 100)):
        expect(running).to_contain_text('per second')
        expect(running).to_contain_text('left')
    expect(page.locator('#lease')).to_contain_text('Held')
    expect(page.locator('#pending')).to_contain_text('next')
    evolution.finish()
    # The secret is for the closed gate: this page has no permission when it is open.
    expect(page.get_by_role('alert')).to_contain_text('not logged in')


def test_retry_asks_first_and_then_runs_it_again(site, url, serve, operate):
    evolution = apps.evolution('fix-titles', broken)
    page = operate(serious(site, url, serve, [evolution]))
    stuck = page.locator('#stuck')
    expect(stuck.locator('pre')).to_contain_text('ValueError: <script>alert(1)</script> broken')
    retry = stuck.get_by_role('button', name='Retry')
    retry.click()
    dialog = page.get_by_role('dialog')
    expect(dialog).to_contain_text('fix-titles')
    expect(dialog).to_contain_text('runs again at once')
    confirm(page, 'Not now')
    expect(dialog).to_be_hidden()
    assert evolution.runs == 1
    retry.click()
    confirm(page, 'Retry')
    expect(page.locator('#said')).to_contain_text('fix-titles may run again at once')
    expect(stuck).to_contain_text('2 attempts')
    assert evolution.runs == 2


def test_retry_is_refused_without_the_token_and_with_a_forged_one(site, url, serve, operate):
    evolution = apps.evolution('fix-titles', broken)
    page = operate(serious(site, url, serve, [evolution]))
    sent = "token => fetch('/evolve/act', {method: 'POST', headers: token ? {'X-Evolve-Token': token} : {}, " + (
        "body: new URLSearchParams({action: 'retry', id: 'fix-titles'})}).then(answer => answer.status)"
    )
    assert page.evaluate(sent, '') == 403
    assert page.evaluate(sent, 'forged') == 403
    page.context.clear_cookies(name=COOKIE)
    page.route('**/evolve/act', lambda route: route.continue_(headers={**route.request.headers, 'x-evolve-token': 'x'}))
    page.locator('#stuck').get_by_role('button', name='Retry').click()
    confirm(page, 'Retry')
    expect(page.locator('#said')).to_contain_text('did not come from the dashboard')
    assert evolution.runs == 1


def test_with_a_wrong_secret_there_is_no_dashboard(site, url, serve, browse):
    address = serious(site, url, serve, [apps.evolution('fix-titles', broken)])
    page = browse(address, '/_evolve/enter')
    page.locator('input[type=password]').fill(SECRET + 'x')
    page.locator('form button').first.click()
    expect(page.locator('body')).to_contain_text('not the secret')
    assert page.goto(f'{address}/evolve').status == 503
    expect(page.locator('body')).not_to_contain_text('fix-titles')


def test_without_the_permission_there_is_no_dashboard(member_site, serve, browse):  # noqa: F811
    site = member_site([apps.evolution('a')], root=Root())
    assert site.opens()
    address = serve(site.app)
    for name, status in (('editor', 403), ('manager', 200)):
        cookies = [
            {'name': each.name, 'value': each.value, 'url': address} for each in as_user(site, name).browser.cookiejar
        ]
        page = browse(address)
        page.context.add_cookies(cookies)
        assert page.goto(f'{address}/evolve').status == status


def test_a_manager_closes_the_gate_enters_and_opens_it_again(member_site, serve, browse):  # noqa: F811
    site = member_site([apps.evolution('a')], options={**OPTIONS, 'watch': 0.2}, root=Root())
    assert site.opens()
    address = serve(site.app)
    page = browse(address)
    cookies = as_user(site, 'manager').browser.cookiejar
    page.context.add_cookies([{'name': each.name, 'value': each.value, 'url': address} for each in cookies])
    page.goto(f'{address}/evolve')
    expect(page.locator('#verdict')).to_contain_text('Open: everything is served')
    page.get_by_role('button', name='Close the gate').click()
    expect(page.get_by_role('dialog')).to_contain_text('with the bypass secret, entered at /_evolve/enter')
    page.get_by_label('What visitors read meanwhile').fill('Back <b>at noon</b>')
    confirm(page, 'Close the gate')
    page.get_by_role('link', name='Enter the bypass secret').click()
    page.locator('input[type=password]').fill(SECRET)
    page.locator('form button').first.click()
    page.get_by_role('link', name='Dashboard').click()
    expect(page.locator('#verdict')).to_contain_text('Closed: visitors get a 503')
    expect(page.locator('#verdict blockquote')).to_have_text('Back <b>at noon</b>')
    page.get_by_role('button', name='Open the gate').click()
    confirm(page, 'Open the gate')
    expect(page.locator('#verdict')).to_contain_text('Open: everything is served')


def test_all_evolutions_are_searched_and_shown_in_detail(site, url, serve, operate):
    evolutions = [apps.evolution(f'e{number:03}', serving='reads') for number in range(250)]
    page = operate(serious(site, url, serve, [apps.evolution('fix-titles', broken), *evolutions], mode='wait'))
    page.get_by_role('heading', name='All evolutions').click()
    rows = page.locator('#all-list .row')
    expect(rows).to_have_count(100)
    page.get_by_role('button', name='Show more').click()
    expect(rows).to_have_count(200)
    page.get_by_label('Search').fill('E042')
    expect(rows).to_have_count(1)
    rows.first.click()
    expect(rows.first).to_contain_text('It never ran.')
    page.get_by_label('Search').fill('no such thing')
    expect(page.locator('#all-found')).to_have_text('0 evolutions')


def test_hostile_text_is_only_text(site, url, serve, operate):
    hostile = '<img src=x onerror="window.hacked=1">'

    def work(evolution):
        raise ValueError(f'</pre>{hostile}')

    page = operate(serious(site, url, serve, [apps.evolution(hostile, work, description=hostile)]))
    expect(page.locator('#stuck pre')).to_contain_text(f'</pre>{hostile}')
    page.get_by_role('heading', name='All evolutions').click()
    expect(page.locator('#all-list .id').first).to_have_text(hostile)
    assert page.evaluate('window.hacked') is None
    assert page.locator('img').count() == 0


def world(site, url, serve, puppet, *, fails=False):
    """A deployment in the middle of its work, on top of one that is done."""
    first = [
        apps.evolution('2026-08-import-users', description='Users come from the old directory'),
        apps.evolution('2026-09-split-names'),
        apps.evolution('2026-10-backfill-slugs', transactional=True, description='Give every page an address'),
    ]
    before = site(url, first)
    assert before.opens()
    before.stop()
    evolution = puppet('2026-11-count-words', description='Count the words of every page')
    tail = [
        apps.evolution('2026-11-drop-old-columns', depends_on=('2026-11-count-words',)),
        apps.evolution('2026-11-search-index', serving='reads', depends_on=('2026-11-count-words',)),
    ]
    address = serious(site, url, serve, [*first, evolution, *tail])
    if fails:
        evolution.fail(ValueError("the page 'Sorting' has no text"))
    else:
        evolution.report(1240, 5000, 'page 1,240: Generators')
    return address


@pytest.mark.parametrize('fails', [False, True], ids=['running', 'failed'])
@pytest.mark.parametrize('look', ['light', 'dark', 'mobile'])
def test_it_is_accessible_and_looks_well(site, url, serve, operate, puppet, accessible, picture, look, fails):
    address = world(site, url, serve, puppet, fails=fails)
    options = {'dark': look == 'dark', 'mobile': look == 'mobile'}
    page = operate(address, **options)
    if fails:
        expect(page.locator('#stuck pre')).to_contain_text('has no text')
    else:
        expect(page.locator('#progress')).to_contain_text('1,240')
    # Nothing is cut off: it can be read without scrolling sideways.
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    accessible(page)
    picture(page, f'dashboard-{"failed" if fails else "running"}-{look}')
    page.get_by_role('heading', name='All evolutions').click()
    page.locator('#all-list .row').first.click()
    expect(page.locator('#all-list .row .rows').first).to_be_visible()
    accessible(page)
    page.get_by_role('button', name='Pause').click()
    expect(page.get_by_role('dialog')).to_be_visible()
    accessible(page)


def test_the_keyboard_is_enough(site, url, serve, operate):
    evolution = apps.evolution('fix-titles', broken)
    page = operate(serious(site, url, serve, [evolution]))
    retry = page.locator('#stuck').get_by_role('button', name='Retry')
    retry.focus()
    page.keyboard.press('Enter')
    expect(page.get_by_role('button', name='Not now')).to_be_focused()
    page.keyboard.press('Escape')
    expect(page.get_by_role('dialog')).to_be_hidden()
    expect(retry).to_be_focused()


def test_it_says_when_nobody_answers(site, url, serve, operate):
    page = operate(serious(site, url, serve, [apps.evolution('fix-titles', broken)]))
    expect(page.locator('#pulse')).to_have_text('live')
    page.context.set_offline(True)
    expect(page.get_by_role('alert')).to_contain_text('does not answer')
    expect(page.locator('#pulse')).to_have_text('not live')
    page.context.set_offline(False)
    expect(page.locator('#pulse')).to_have_text('live')
    expect(page.get_by_role('alert')).to_have_count(0)


def test_without_scripts_it_names_the_command(site, url, serve, browse):
    address = serious(site, url, serve, [apps.evolution('fix-titles', broken)])
    page = browse(address, '/_evolve/enter', javascript=False)
    page.locator('input[type=password]').fill(SECRET)
    page.locator('form button').first.click()
    page.get_by_role('link', name='Dashboard').click()
    expect(page.locator('body')).to_contain_text(re.compile('needs JavaScript.*gearbox evolve status', re.DOTALL))
