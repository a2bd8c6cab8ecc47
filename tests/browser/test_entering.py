"""The operator's form: entering the secret, looking behind the gate, leaving."""

from __future__ import annotations

import pytest
from playwright import sync_api as playwright

from tests.browser.conftest import PATIENCE

expect = playwright.expect

pytestmark = pytest.mark.browser

SECRET = 'a secret of operators, 4711'


@pytest.fixture
def entrance(site, url, serve, browse, puppet):
    def make(**how):
        evolution = puppet()
        address = serve(site(url, [evolution], options={'bypass_secret': SECRET}).app)
        page = browse(address, '/_evolve/enter', **how)
        page.address, page.evolution = address, evolution
        return page

    return make


@pytest.mark.parametrize('javascript', [True, False], ids=['with scripts', 'without scripts'])
def test_the_right_secret_opens_the_application_and_leaving_closes_it(entrance, javascript):
    page = entrance(javascript=javascript)
    page.get_by_label('Secret').fill(SECRET)
    page.get_by_role('button', name='Enter').click()
    expect(page.get_by_role('heading')).to_have_text('You are in')
    page.get_by_role('link', name='Look at the application').click()
    expect(page.locator('body')).to_have_text('served')
    page.go_back()
    page.get_by_role('button', name='Leave').click()
    expect(page.get_by_role('heading')).to_have_text('For operators')
    page.goto(page.address)
    expect(page.get_by_role('heading')).to_have_text('Back in a moment')


def test_a_wrong_secret_opens_nothing_and_costs_a_moment(entrance, accessible):
    page = entrance()
    page.get_by_label('Secret').fill('wrong')
    page.get_by_role('button', name='Enter').click()
    expect(page.get_by_role('alert')).to_have_text('That is not the secret.')
    expect(page.get_by_label('Secret')).to_have_attribute('aria-invalid', 'true')
    expect(page.get_by_label('Secret')).to_have_value('')
    accessible(page)
    page.goto(page.address)
    expect(page.get_by_role('heading')).to_have_text('Back in a moment')


@pytest.mark.parametrize('how', [{}, {'dark': True}, {'mobile': True}], ids=['light', 'dark', 'mobile'])
def test_anybody_can_use_the_form(entrance, accessible, how):
    page = entrance(**how)
    accessible(page)
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
    assert page.evaluate('document.activeElement.id') == 'secret'
    page.keyboard.type(SECRET)
    page.keyboard.press('Enter')
    expect(page.get_by_role('heading')).to_have_text('You are in', timeout=PATIENCE * 1000)
    accessible(page)
    assert page.evaluate('document.documentElement.scrollWidth <= window.innerWidth')
