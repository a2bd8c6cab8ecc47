"""The benchmark runs, and makes a page of its figures: with tiny numbers, which mean nothing."""

from __future__ import annotations

import copy
import json
import os
import socket

import pytest

import benchmarks.__main__ as bench
from benchmarks import page
from benchmarks.spread import spread
from benchmarks.stacks import Stack, stacks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope='module')
def figures(tmp_path_factory):
    """Of all parts, on SQLite alone and without 0.0.5, for which there may be no Python here."""
    path = tmp_path_factory.mktemp('bench')
    bench.main(['--quick', '--without-servers', '--json', str(path / 'figures.json'), '--page', str(path / 'page.rst')])
    figures = json.loads((path / 'figures.json').read_text())
    assert (path / 'page.rst').read_text() == page.page(figures)
    return figures


@pytest.fixture
def whole(figures):
    """The same as a whole run has them: beside 0.0.5, and no quick form."""
    whole = copy.deepcopy(figures)
    whole['quick'] = False
    whole['versions']['predecessor'] = {'tgext.evolve': '0.0.5'}
    for by_stack in [*whole['requests'].values(), whole['weight']]:
        by_stack['predecessor'] = by_stack['ours']
    whole['crowd'] = {'postgresql': {'8': {'seconds': 1.0, 'errors': 0, 'statements': 80, 'connections': 40}}}
    whole['load']['postgresql'] = {'10': {'statements': 2.0, 'connections': 2.0, 'cpu': 0.005}}
    return whole


def goals(figures):
    return {goal.name: goal for goal in page.goals(figures)}


def test_every_part_has_figures(figures):
    assert set(bench.PARTS) <= set(figures)
    assert set(figures['took']) == set(bench.PARTS)
    assert set(page.SECTIONS) | {'profiles'} == set(bench.PARTS)


def test_what_is_counted_and_not_timed_is_right_also_with_tiny_numbers(figures):
    for state in figures['requests'].values():
        assert state['ours']['statements'] == 0
    assert {each['statements'] for each in figures['starting']['sqlite ours'].values()} == {1}
    assert figures['weight']['ours']['unused'] == []
    assert figures['load']['sqlite']['10']['statements'] > 0
    assert figures['opening']['sqlite']['2']['count'] == 2
    assert all(share > 0 for shares in figures['profiles'].values() for _, share in shares)
    assert any(name.startswith('tgext.evolve') for name, _ in figures['profiles']['starting'])


def test_the_page_is_good_restructuredtext(figures, whole):
    from docutils import core

    for each in (figures, whole):
        settings = {'report_level': 2, 'halt_level': 2, 'raw_enabled': False}
        html = core.publish_string(page.page(each), writer='html', settings_overrides=settings).decode()
        assert html.count('<table') == 1 + sum(bool(each[name]) for name in page.SECTIONS)


def test_the_page_tells_the_quick_form_from_a_whole_run(figures, whole):
    assert 'mean nothing' in page.page(figures)
    assert 'mean nothing' not in page.page(whole)


def test_the_page_names_neither_this_machine_nor_its_paths(figures):
    told = page.page(figures)
    assert socket.gethostname() not in told
    assert os.path.expanduser('~') + os.sep not in told
    assert 'cores' in told


def test_a_goal_that_is_missed_says_what_stands_in_the_way_and_one_that_is_met_does_not(whole):
    trapped = whole['requests']['closed and trapped']['ours']['ratio']
    trapped['median'] = 0.5
    assert '**no**' in page.page(whole)
    assert "TurboGears' ErrorPage" in page.page(whole)
    assert 'Its profile' in page.page(whole)
    trapped['median'] = 0.9
    assert "TurboGears' ErrorPage" not in page.page(whole)


@pytest.mark.parametrize(
    ('added', 'met'), [((5, 20, 150), False), ((5, 15, 100), True), ((5, 15, 140), False), ((5, 4, 100), True)]
)
def test_growth_is_linear_and_the_last_is_below_the_goal(whole, added, met):
    figures = dict(zip(('10', '1000', '10000'), added, strict=True))
    whole['starting'] = {
        'sqlite ours': {size: {'added': spread([value]), 'statements': 1} for size, value in figures.items()}
    }
    found = goals(whole)
    names = ('... and with 10,000 evolutions, on SQLite', '... a thousand more cost what a thousand did')
    assert all(found[name].met for name in names) is met


def test_a_recovery_that_takes_longer_than_promised_is_a_goal_that_is_missed(whole):
    whole['recovery'] = {'sqlite': {'2': spread([2.5, 3.4]), '10': spread([11.0])}}
    assert goals(whole)['A killed holder is replaced, after its lease, within'].met
    whole['recovery']['mariadb'] = {'10': spread([11.6])}
    assert not goals(whole)['A killed holder is replaced, after its lease, within'].met


def test_an_error_in_a_crowd_is_a_goal_that_is_missed(whole):
    name = 'A crowd that starts at once sees no errors'
    assert goals(whole)[name].met
    whole['crowd']['postgresql']['8']['errors'] = 1
    assert not goals(whole)[name].met


def test_what_five_thousand_would_do_is_worked_out_from_the_largest_crowd(whole):
    told = ' '.join(page.page(whole).split())
    assert 'PostgreSQL would see 50,000 statements' in told
    assert '10,000 statements on 10,000 short connections per second' in told


def test_a_spread_is_the_median_with_bounds_inside_of_the_extremes():
    found = spread(range(101))
    assert (found['median'], found['smallest'], found['largest'], found['count']) == (50, 0, 100, 101)
    assert 35 <= found['low'] < 45 < 55 < found['high'] <= 65
    assert spread([3.0])['low'] == spread([3.0])['high'] == 3.0
    few = spread([1, 2, 3])
    assert (few['low'], few['high']) == (1, 3)


def test_a_database_of_the_predecessor_says_which_evolution_was_last(tmp_path):
    import sqlite3

    Stack('predecessor', 'python').database(tmp_path / 'old.db', 10, pending=True)
    with sqlite3.connect(tmp_path / 'old.db') as database:
        rows = dict(database.execute('SELECT type, value FROM tgext_evolve').fetchall())
    assert rows == {'version': '2026-00009-what-it-does', 'lock': '1'}


def test_without_a_python_for_the_predecessor_ours_is_measured_alone():
    assert [stack.name for stack in stacks(None)] == ['ours']
    assert [stack.name for stack in stacks('python3')] == ['ours', 'predecessor']


def test_a_worker_that_fails_says_why():
    with stacks(None)[0].worker() as worker, pytest.raises(RuntimeError, match='Traceback'):
        worker.ask('serve', url='no url', plugged_url='no url', closed=False, traps=False)
