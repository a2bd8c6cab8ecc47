"""The maintenance page's words: by option, by a file, by who closed the gate; the same in JSON and text."""

from __future__ import annotations

import json
import os
import re

import pytest

import tgext.evolve
from tests import apps
from tests.web.conftest import PATIENCE
from tgext.evolve import OptionError
from tgext.evolve.component import GateMiddleware
from tgext.evolve.gate import Progress, Reason, Serving, Verdict

OWN = """<!DOCTYPE html><html lang="de"><head><title>{{title}}</title>{{script}}</head>
<body class="{{situation}}"><h1 data-evolve="title">{{title}}</h1><p>{{text}}</p><p>{{note}}</p>{{progress}}
<p>{{hint}}</p><p>{{message}}</p><p>{{details}}</p><p>{{ofmyown}} {{{ braces }}} {title}</p></body></html>"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / 'own.html'
    path.write_text(OWN, 'utf-8')
    return str(path)


def forms(site):
    """The same 503 as page, problem and text."""
    page = site.get('/').text
    problem = json.loads(site.get('/', accept='application/problem+json').body)
    return page, problem, site.get('/', accept='text/plain').text


def test_title_and_text_are_options_and_are_escaped(closed):
    site = closed(options={'page_title': 'Tom & <Jerry>', 'page_text': 'Back <soon>\n"really"'})
    page, problem, text = forms(site)
    assert '<title data-evolve="tab">Tom &amp; &lt;Jerry&gt;</title>' in page
    assert 'Back &lt;soon&gt;\n&quot;really&quot;</p>' in page
    assert '<Jerry>' not in page
    assert (problem['heading'], problem['text']) == ('Tom & <Jerry>', 'Back <soon>\n"really"')
    assert problem['title'] == 'Service Unavailable'  # of the status: the problem has no type of its own
    assert 'Tom & <Jerry>. Back <soon>' in text
    assert site.status()['heading'] == 'Tom & <Jerry>'


def test_all_forms_say_the_same_of_a_failure(site, url):
    def fail(evolution):
        raise ValueError('no')

    site = site(url, [apps.evolution('a', fail)])
    site.fails()
    page, problem, text = forms(site)
    for said in (page, problem['detail'], text, site.status()['text']):
        assert 'We are looking into it' in said
        assert 'moment' not in said.partition('<script')[0]
    assert 'data-situation="failed"' in page
    assert problem['situation'] == site.status()['situation'] == 'failed'


def test_the_message_of_who_closed_it_shows_and_disappears(site, url):
    site = site(url, [apps.evolution('a')], options={'watch': 0.1})
    assert site.opens()
    tgext.evolve.down(site.conf, 'Back at <14:00>.')
    page, problem, text = forms(site)
    assert 'data-evolve="text">Back at &lt;14:00&gt;.</p>' in page
    assert problem['text'] == site.status()['text'] == 'Back at <14:00>.'
    assert 'Back at <14:00>.' in text
    assert problem['reason'] == 'down'
    tgext.evolve.up(site.conf)
    assert site.gate.wait(PATIENCE)
    assert site.get('/').text == 'served'
    assert 'text' not in site.status()


def test_progress_stands_in_the_page_for_who_has_no_scripts(closed):
    site = closed()
    site.gate.move(Verdict(Serving.NOTHING, Reason.RUNNING, Progress(29, 100, elapsed=1)))
    page, problem, text = forms(site)
    assert 'aria-valuenow="29"' in page
    assert 'Current step: 29%' in page
    assert problem['progress']['fraction'] == 0.29
    assert 'Current step: 29%' in text


def test_nothing_is_estimated_from_one_report(closed):
    site = closed()
    site.gate.move(Verdict(Serving.NOTHING, Reason.RUNNING, Progress(50, 100, elapsed=1)))
    assert site.status()['progress']['remaining'] is None
    assert 'left' not in site.get('/', accept='text/plain').text


def test_a_page_is_rendered_once_until_something_changes(closed, monkeypatch):
    site = closed()
    maintenance = gate_of(site).maintenance
    rendered = []
    render = maintenance._render
    monkeypatch.setattr(maintenance, '_render', lambda *given: rendered.append(given) or render(*given))
    site.gate.move(Verdict(Serving.NOTHING, Reason.RUNNING, Progress(10, 100)))
    first = site.get('/').body
    for done in (10, 10.1, 10.9):
        site.gate.move(Verdict(Serving.NOTHING, Reason.RUNNING, Progress(done, 100)))
        assert site.get('/').body == first
    assert len(rendered) == 1
    site.gate.move(Verdict(Serving.NOTHING, Reason.RUNNING, Progress(11, 100)))
    assert site.get('/').body != first
    assert len(rendered) == 2


def gate_of(site):
    inner = site.app
    while not isinstance(inner, GateMiddleware):
        inner = inner.app if hasattr(inner, 'app') else inner.application
    return inner


def test_our_page_may_ask_nobody_else_for_anything(closed):
    policy = closed().get('/').headers['Content-Security-Policy']
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "script-src 'sha256-" in policy


def test_the_page_loads_nothing(closed):
    site = closed()
    for method in ('GET', 'POST'):
        text = site.request('/', method, HTTP_ACCEPT='text/html').text
        assert not re.search(r'https?:|\b(src|href)=|url\(|@import', text)


# -- a page of the application's own


def test_an_own_page_has_its_places_filled(closed, own):
    site = closed(options={'page_file': own, 'page_title': 'Acme <1>', 'page_text': 'Tee?'})
    page = site.get('/').text
    assert '<title>Acme &lt;1&gt;</title>' in page
    assert '<p>Tee?</p>' in page
    assert 'role="progressbar"' in page
    assert 'data-status="/_evolve/status"' in page
    assert 'data-again="yes"' in page
    assert '{{ofmyown}} {{{ braces }}} {title}' in page
    assert 'Content-Security-Policy' not in site.get('/').headers  # what it may load is its own business


def test_an_own_page_says_the_message_too(site, url, own):
    site = site(url, [apps.evolution('a')], options={'page_file': own, 'watch': 0.1})
    assert site.opens()
    tgext.evolve.down(site.conf, 'Bis <gleich>')
    assert site.get('/').text.count('<p>Bis &lt;gleich&gt;</p>') == 2
    assert '<body class="down">' in site.get('/').text


def test_an_own_page_without_the_script_is_reloaded_by_a_header(closed, tmp_path):
    (tmp_path / 'plain.html').write_text('<h1>{{title}}</h1>')
    site = closed(options={'page_file': str(tmp_path / 'plain.html')})
    response = site.get('/')
    assert response.text == '<h1>Back in a moment</h1>'
    assert response.headers['Refresh'] == '10'
    assert 'Refresh' not in site.request('/', 'POST', HTTP_ACCEPT='text/html').headers


def test_an_own_page_may_lie_in_a_package(closed):
    site = closed(options={'page_file': 'tgext.evolve:templates/maintenance.html'})
    assert 'Back in a moment' in site.get('/').text


def test_an_own_page_that_is_missing_stops_the_application(site, url, tmp_path):
    with pytest.raises(OptionError, match=r'tgext\.evolve\.page_file'):
        site(url, [], options={'page_file': str(tmp_path / 'none.html')})


def test_an_own_page_that_goes_away_later_is_still_served(closed, own):
    site = closed(options={'page_file': own})
    os.unlink(own)
    assert site.get('/').status_int == 503
    assert 'Back in a moment' in site.get('/').text


# -- details


def test_details_are_shown_only_where_the_option_says_so(site, url):
    def fail(evolution):
        evolution.progress(1, 2, 'half way')
        raise ValueError('hunter2')

    each = site(url, [apps.evolution('2026-slugs', fail)])
    each.fails()
    assert '2026-slugs' not in ''.join(map(str, (*forms(each), each.status())))
    shown = site(url, [apps.evolution('2026-slugs', fail)], options={'page_details': True})
    shown.fails()
    for said in (*map(str, forms(shown)), shown.status()['details']):
        assert '2026-slugs' in said
        assert 'hunter2' not in said
