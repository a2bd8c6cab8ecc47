"""A process that an evolution forks is not the holder: it renews nothing, releases nothing and runs nothing."""

from __future__ import annotations

import pytest

from tests.processes.harness import alive, until
from tests.processes.worker import ROWS

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

STORES = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb', 'mongodb'], indirect=True)


@STORES
@pytest.mark.parametrize('does', ['fork', 'spawn'])
def test_a_child_of_an_evolution_does_its_work_and_nothing_else(make_site, store_url, does):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': does}, {'id': 'two'}], lease=1)
    holder = site.fork(http=False, stay=True)
    [child] = site.until_told('child')
    token = site.lease.token
    before = site.lease.expires_at
    # The parent renews it for longer than the child could by what it knew when it began.
    until(lambda: site.lease.expires_at > before + 1500)
    site.go()
    site.until_told('open', pid=holder.pid)
    assert site.lines('child-end', pid=child.pid)
    assert {line.pid for line in site.lines('begin')} == {holder.pid}
    assert site.states('one') == site.states('two') == ['done']
    assert site.lease.token == token
    assert site.seen == [2] * ROWS
    assert 'Traceback' not in holder.log


@pytest.mark.parametrize('store_url', ['postgresql', 'mongodb'], indirect=True)
def test_a_child_whose_parent_was_killed_does_not_keep_the_lease(make_site, store_url):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': 'fork', 'go_child': 'child'}, {'id': 'two'}])
    holder = site.fork(http=False)
    [child] = site.until_told('child')
    holder.kill()
    successor = site.fork(http=False)
    site.until_told('child', pid=None, times=2)
    # The first child lives on; nothing that it does now is recorded, and it runs nothing.
    site.go('child')
    assert successor.wait() == 0
    until(lambda: not alive(child.pid), what='the child has ended')
    assert site.states('one') == ['interrupted', 'done']
    assert not site.lines('begin', pid=child.pid)
    assert site.lease.token == 2


@STORES
@pytest.mark.parametrize('does', ['fork_and_exit', 'fork_and_return'])
def test_a_child_that_leaves_the_evolution_records_nothing(make_site, store_url, does):
    site = make_site(store_url, evolutions=[{'id': 'one', 'does': does}, {'id': 'two'}])
    holder = site.fork(http=False, stay=True)
    [child] = site.until_told('child')
    site.go()
    site.until_told('open', pid=holder.pid)
    assert not site.lines('begin', 'two', child.pid)
    assert site.states('one') == site.states('two') == ['done']
    assert site.lease.pid == holder.pid


def test_a_child_can_be_terminated(make_site):
    """It has inherited a handler of SIGTERM that is not for it."""
    site = make_site(evolutions=[{'id': 'one', 'does': 'terminate', 'go_child': 'never'}])
    holder = site.fork(http=False)
    site.until_told('child')
    site.go()
    assert holder.wait() == 0
    assert site.count('exitcode-15') == 1
