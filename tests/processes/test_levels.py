"""What an evolution lets the application serve, in every process: also in those that started later."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from tests.processes.harness import PATIENCE, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mongodb'], indirect=True),
]


def post(process) -> int:
    """The status of a POST."""
    try:
        with urllib.request.urlopen(f'http://127.0.0.1:{process.port}/', data=b'', timeout=PATIENCE) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_process_that_starts_later_serves_what_the_evolution_allows(make_site, store_url):
    plan = [
        {'id': 'all', 'serving': 'everything', 'does': 'hold', 'go': 'go-all'},
        {'id': 'reads', 'serving': 'reads', 'does': 'hold', 'go': 'go-reads'},
        {'id': 'nothing', 'does': 'hold', 'go': 'go-nothing'},
    ]
    site = make_site(store_url, evolutions=plan, lease=1, watch=0.5)
    holder = site.fork()
    site.until_told('half', 'nothing', holder.pid)
    second = site.fork()
    assert (second.first_answer()[0], post(second)) == (503, 503)
    site.go('go-nothing')

    site.until_told('half', 'reads', holder.pid)
    third = site.fork()
    assert (third.first_answer()[0], post(third)) == (200, 503)
    for process in (holder, second):
        until(lambda process=process: process.fetch()[0] == 200, what='it serves reads')
        assert post(process) == 503
    site.go('go-reads')

    site.until_told('half', 'all', holder.pid)
    fourth = site.fork()
    assert (fourth.first_answer()[0], post(fourth)) == (200, 200)
    for process in (holder, second, third):
        until(lambda process=process: post(process) == 200, what='it serves everything')

    site.go('go-all')
    until(lambda: site.states('all')[-1:] == ['done'], what='all is done')
    for process in site.processes:
        assert (process.fetch()[0], post(process)) == (200, 200)


def test_a_holder_that_is_killed_behind_an_open_gate_closes_nobody(make_site, store_url):
    plan = [{'id': 'all', 'serving': 'everything', 'does': 'hold'}]
    site = make_site(store_url, evolutions=plan, lease=1, watch=0.5)
    holder = site.fork()
    site.until_told('half', 'all', holder.pid)
    other = site.fork()
    assert (other.first_answer()[0], post(other)) == (200, 200)
    holder.kill()
    later = site.fork()
    assert (later.first_answer()[0], post(later)) == (200, 200)
    site.go()
    until(lambda: site.states('all') == ['interrupted', 'done'], what='another process has done it')
    for process in (other, later):
        assert 'may serve nothing' not in process.log
        assert 'may serve reads' not in process.log
