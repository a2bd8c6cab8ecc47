"""What people see between the release before and this one. These use tgext.evolve for real, on a database file."""

import pytest
import tg
from sqlalchemy import event

import tgext.evolve

from .conftest import log_in

BROWSER = {'Accept': 'text/html'}


@pytest.fixture
def old(tmp_path):
    """Options: a database as the release before left it, and the plan of this release."""
    return {
        'sqlalchemy.url': f'sqlite:///{tmp_path / "wiki.db"}',
        'sample_app.setup': 'old',
        'tgext.evolve.enabled': 'true',
        'tgext.evolve.watch': '0',  # no thread is left behind
    }


@pytest.fixture
def closed(make_app, old):
    """An application that waits for somebody else to evolve its database."""
    return make_app({**old, 'tgext.evolve.mode': 'wait'})


def test_visitors_are_told_to_wait_by_a_page_of_ours(closed):
    page = closed.get('/', headers=BROWSER, status=503)
    assert 'Back in a moment' in page
    assert 'data-status="/_evolve/status"' in page
    assert 'Sample wiki' in page
    assert int(page.headers['Retry-After']) > 0
    assert page.headers['Cache-Control'] == 'no-store'


def test_the_page_of_a_form_that_was_sent_does_not_send_it_again(closed):
    page = closed.post('/edit/generators', {'body': 'lost'}, headers=BROWSER, status=503)
    assert 'was not saved' in page
    assert 'data-sent="yes"' in page
    assert 'http-equiv="refresh"' not in page


def test_what_the_page_needs_is_served(closed):
    closed.get('/style.css', status=200)
    closed.get('/maintenance.js', status=200)
    assert closed.get('/_evolve/status').json['serving'] == 'nothing'


def test_the_page_asks_no_table_and_no_session(make_app, old):
    make_app({**old, 'tgext.evolve.enabled': 'false'})  # fills the database
    app = make_app({**old, 'tgext.evolve.enabled': 'false'}, fill=False)
    assert 'Welcome, manager.' in log_in(app, 'manager', 'managepass')
    closed = make_app({**old, 'tgext.evolve.mode': 'wait'}, fill=False)
    closed.cookies.update(app.cookies)

    statements = []
    engine = tg.config['tg.app_globals'].sa_engine
    event.listen(engine, 'before_cursor_execute', lambda *args: statements.append(args[2]))
    page = closed.get('/', headers=BROWSER, status=503)

    assert 'Back in a moment' in page
    assert 'Set-Cookie' not in page.headers
    assert statements == []


def test_old_pages_are_served_when_they_have_evolved(make_app, old):
    app = make_app(old)
    tgext.evolve.start(tg.config)
    assert tgext.evolve.wait(tg.config, timeout=30)
    page = app.get('/')
    assert '40 pages' in page
    assert '<a href="/page/sorting-2">Sorting</a>' in page
    assert '<span class="tag">python</span>' in page
    assert '<span class="tag">py</span>' not in page
    assert 'not counted' not in page


def test_the_progress_that_visitors_see_is_that_of_the_pages(make_app, old):
    app = make_app({**old, 'sample_app.demo_pause': '0.05'})
    tgext.evolve.start(tg.config)
    seen = set()
    while not tgext.evolve.wait(tg.config, timeout=0.05):
        progress = app.get('/_evolve/status').json.get('progress')
        if progress and progress.get('total') == 40:
            seen.add(progress['done'])
    # Told each half second, for at least two: the last of what gave pages a slug, and several of what counts words.
    assert len(seen) >= 4
    assert max(seen) <= 40


def test_a_new_database_has_nothing_to_evolve(make_app, old):
    make_app({**old, 'sample_app.setup': 'new'})
    app = make_app({**old, 'tgext.evolve.mode': 'wait'}, fill=False)
    assert '40 pages' in app.get('/')


def test_setting_up_twice_changes_nothing(make_app, old):
    make_app({**old, 'sample_app.setup': 'old'})
    # Were it to stamp now, the evolutions would never run.
    app = make_app({**old, 'sample_app.setup': 'new', 'tgext.evolve.mode': 'wait'})
    app.get('/', headers=BROWSER, status=503)


def test_the_dashboard_shows_the_manager_what_ran(make_app, old):
    app = make_app(old)
    tgext.evolve.start(tg.config)
    assert tgext.evolve.wait(tg.config, timeout=30)
    page = log_in(app, 'manager', 'managepass').click('Evolutions')
    assert 'data-base="/evolve"' in page
    state = app.get('/evolve/state').json
    assert (state['total'], state['left'], state['counts']) == (3, 0, {'done': 3})
