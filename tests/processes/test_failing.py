"""A failure stays: no second process and no restart tries it again, until its code is mended."""

from __future__ import annotations

import textwrap

import pytest

from tests.processes.harness import until
from tests.processes.worker import ROWS

pytestmark = pytest.mark.slow

STORES = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb', 'mongodb'], indirect=True)


@STORES
def test_a_failed_evolution_is_not_run_again_by_a_second_process(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'fail'}, {'id': 'two'}])
    first = site.fork()
    first.until_reason('failed')
    second = site.fork()
    second.until_reason('failed')
    again = site.fork()
    again.until_reason('failed')
    for process in site.processes:
        assert process.first_answer()[0] == 503
    assert site.count('begin', 'one') == 1
    assert site.count('begin', 'two') == 0
    assert site.states('one') == ['failed']
    assert 'ValueError: this evolution fails' in first.log
    assert 'gearbox evolve retry one' in second.log
    assert not site.lease.alive


def test_a_failed_transactional_evolution_leaves_no_row_changed(make_site):
    site = make_site(evolutions=[{'id': 'one', 'does': 'fail', 'transactional': True}], max_attempts=2, retry_delay=0.5)
    process = site.fork()
    process.until_reason('failed')
    assert site.states('one') == ['failed', 'failed']
    assert site.seen == [0] * ROWS


MENDED = """
    from tests.processes.worker import Step, note

    class Mended(Step):
        def __init__(self):
            super().__init__('mended', {does!r})

    evolutions = [Mended()]
"""


def test_a_mended_evolution_runs_at_once_after_a_restart(make_site):
    site = make_site(evolutions=['mended'])
    source = site.directory / 'mended.py'
    source.write_text(textwrap.dedent(MENDED.format(does='fail')))
    broken = site.fork()
    broken.until_reason('failed')
    broken.terminate()
    source.write_text(textwrap.dedent(MENDED.format(does='count')))
    mended = site.fork()
    mended.until_open(5)
    assert site.states('mended') == ['failed', 'done']


def test_retry_by_hand_is_noticed_by_processes_that_wait(make_site):
    site = make_site(evolutions=[{'id': 'one', 'does': 'fail'}])
    process = site.fork()
    process.until_reason('failed')
    assert site.store.forgive(['one']) == 1
    until(lambda: site.states('one') == ['failed', 'failed'])
