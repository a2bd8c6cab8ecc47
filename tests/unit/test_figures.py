"""The figures of the chaos tests come together from all tests and processes, and make a page."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.figures import Collector, Figures, long_or_short

pytest_plugins = ['pytester']

ROOT = Path(__file__).resolve().parents[2]

TEST = """
    import pytest

    @pytest.mark.parametrize('store_url', ['sqlite', 'mariadb'])
    def test_some(figures, store_url):
        figures.count('kills', 2)
        figures.measure('recovery', 1.23456)

    def test_others(make_figures):
        make_figures('mariadb').count('pauses')

    def test_that_fails(figures):
        figures.count('kills')
        assert False
"""


def run_tests(pytester, *options):
    pytester.makepyfile(TEST)
    pytester.runpytest_subprocess('-p', 'tests.chaos.figures', *options).assert_outcomes(passed=3, failed=1)


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.setenv('PYTHONPATH', str(ROOT))


@pytest.mark.parametrize('processes', ['0', '2'])
def test_figures_of_all_tests_are_added_up_also_of_those_that_fail(pytester, monkeypatch, processes):
    path = pytester.path / 'figures.json'
    monkeypatch.setenv('EVOLVE_FIGURES', str(path))
    run_tests(pytester, '-n', processes)
    assert json.loads(path.read_text()) == {
        'sqlite': {'counts': {'kills': 3}, 'seconds': {'recovery': [1.235]}},
        'mariadb': {'counts': {'kills': 2, 'pauses': 1}, 'seconds': {'recovery': [1.235]}},
    }


def test_nothing_is_written_where_nobody_asks(pytester, monkeypatch):
    monkeypatch.delenv('EVOLVE_FIGURES', raising=False)
    run_tests(pytester, '-n', '0')
    assert not list(pytester.path.glob('*.json'))


def test_a_collector_that_heard_of_nothing_writes_nothing_wrong(tmp_path):
    Collector(tmp_path / 'figures.json').pytest_sessionfinish()
    assert json.loads((tmp_path / 'figures.json').read_text()) == {}


def test_counting_and_measuring():
    figures = Figures('sqlite')
    figures.count('kills')
    figures.count('kills', 3)
    figures.count('stuck', 0)
    figures.measure('recovery', 2)
    assert dict(figures.counts) == {'kills': 4, 'stuck': 0}
    assert figures.seconds == {'recovery': [2]}


def test_the_two_forms(monkeypatch):
    monkeypatch.setattr('tests.chaos.figures.LONG', True)
    assert long_or_short(long=10, short=1) == 10
    monkeypatch.setattr('tests.chaos.figures.LONG', False)
    assert long_or_short(long=10, short=1) == 1


FIGURES = {
    'mariadb': {'counts': {'kills': 12, 'evolutions': 30, 'stuck': 0}, 'seconds': {'recovery by default': [10.9]}},
    'sqlite': {
        'counts': {'kills': 7, 'evolutions': 1200, 'lost records': 1, 'earthquakes': 2},
        'seconds': {'recovery by default': [11.25, 9.5, 10.1], 'recovery': [99.0]},
    },
    'mutations': {'counts': {'mutations': 20, 'noticed': 19}, 'seconds': {}},
}


@pytest.fixture
def page():
    return report.page(FIGURES, ['2 cores', 'Python 3'], long=True)


def prose(page):
    return ' '.join(page.split())


def row(page, name):
    [line] = [
        line for line in page.splitlines() if line.startswith(name + ' ') and line.split()[-1].strip('.').isdigit()
    ]
    return line[len(name) :].split()


def test_the_page_has_a_column_for_each_store_in_the_usual_order(page):
    head = next(line for line in page.splitlines() if line.startswith('\\'))
    assert head.split() == ['\\', 'SQLite', 'MariaDB']


def test_the_page_has_each_count_of_each_store(page):
    assert row(page, 'kills') == ['7', '12']
    assert row(page, 'evolutions') == ['1200', '30']


def test_what_went_wrong_is_there_also_when_nothing_did(page):
    assert row(page, 'lost records') == ['1', '0']
    for what in ('double runs', 'stuck', 'early 200s'):
        assert row(page, what) == ['0', '0']


def test_what_has_no_explanation_is_counted_all_the_same_and_what_did_not_happen_is_not(page):
    assert row(page, 'earthquakes') == ['2', '0']
    assert 'pauses' not in page


def test_recovery_is_median_and_worst(page):
    lines = [line.split() for line in page.splitlines()]
    assert ['SQLite', '3', '10.1', '11.2'] in lines
    assert ['MariaDB', '1', '10.9', '10.9'] in lines
    assert '99' not in page


def test_mutations_are_told_and_are_no_store(page):
    assert '20 small mistakes' in prose(page)
    assert 'noticed 19 of them' in prose(page)
    assert 'mutations ' not in page


def test_without_mutations_nothing_is_said_of_them():
    page = report.page({'sqlite': FIGURES['sqlite']}, [], long=True)
    assert 'mistakes' not in page


def test_the_page_says_which_form_it_was():
    assert 'the short form' in prose(report.page(FIGURES, [], long=False))
    assert 'the short form' not in prose(report.page(FIGURES, [], long=True))
    assert 'default lease of 10 s' in prose(report.page(FIGURES, [], long=True))


@pytest.mark.parametrize('figures', [FIGURES, {}])
def test_the_page_is_good_restructuredtext(figures):
    from docutils import core

    page = report.page(figures, ['2 cores'], long=True)
    settings = {'report_level': 2, 'halt_level': 2, 'raw_enabled': False}
    html = core.publish_string(page, writer='html', settings_overrides=settings).decode()
    assert html.count('<table') == (3 if figures else 0)


def test_the_machine_is_told_in_general_terms_only():
    told = '\n'.join(report.machine())
    assert 'cores' in told
    assert 'SQLite 3.' in told
    assert socket.gethostname() not in told
    assert os.sep + 'usr' not in told
    assert 'PostgreSQL' in told


def test_a_server_that_is_not_this_machines_own_is_not_named(monkeypatch):
    monkeypatch.setenv('POSTGRESQL_URL', 'postgresql://me:secret@elsewhere/')
    told = '\n'.join(report.machine())
    assert 'ran already' in told
    assert 'elsewhere' not in told
    assert 'secret' not in told


def test_it_writes_the_page_from_the_file(tmp_path):
    (tmp_path / 'figures.json').write_text(json.dumps(FIGURES))
    report.main([str(tmp_path / 'figures.json'), str(tmp_path / 'docs' / 'page.rst')])
    assert 'Reliability\n===========' in (tmp_path / 'docs' / 'page.rst').read_text()


def test_it_says_how_it_is_called():
    with pytest.raises(SystemExit, match='usage'):
        report.main([])
