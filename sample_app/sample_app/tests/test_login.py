import pytest

from .conftest import log_in


@pytest.mark.parametrize(('name', 'password'), [('manager', 'managepass'), ('editor', 'editpass')])
def test_who_logs_in_is_welcomed(app, name, password):
    assert f'Welcome, {name}.' in log_in(app, name, password)


def test_login_leads_back_to_where_it_was_asked_for(app):
    form = app.get('/edit/generators').follow().form
    form['login'] = 'editor'
    form['password'] = 'editpass'
    assert form.submit().maybe_follow().request.path == '/edit/generators'


def test_a_wrong_password_is_said_so(app):
    page = log_in(app, 'manager', 'wrong')
    assert 'Wrong user name or password.' in page
    assert 'Log out' not in page


def test_nobody_is_logged_in_after_logging_out(app):
    log_in(app, 'manager', 'managepass')
    page = app.get('/logout_handler').maybe_follow()
    assert page.request.path == '/'
    assert 'Log in' in page


def test_the_manager_finds_the_evolutions(app):
    page = log_in(app, 'manager', 'managepass')
    assert 'Evolutions' in page
    # test.ini switches them off, and the page says so.
    assert 'tgext.evolve is disabled' in page.click('Evolutions')


def test_nobody_else_is_shown_the_evolutions(app):
    assert 'Evolutions' not in app.get('/')
    assert '/login?came_from=%2Fevolve' in app.get('/evolve', status=302).location
    assert 'Evolutions' not in log_in(app, 'editor', 'editpass')
    app.get('/evolve', status=403)
