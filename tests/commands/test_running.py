"""``gearbox evolve run``, on each kind of database."""

from __future__ import annotations

import os
import signal

import pytest

from tests import apps
from tgext.evolve.stores.base import Owner

pytestmark = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mongodb'], indirect=True)


def boom(evolution):
    raise ValueError('it is broken')


def test_it_runs_what_is_pending_and_says_so(site):
    site.has(apps.evolution('one'), apps.evolution('two'))
    ran = site.type('run')
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert [line.rpartition(' in ')[0] or line for line in lines] == [
        'one: started',
        'one: done',
        'two: started',
        'two: done',
        '2 done',
    ]
    assert site.states() == {'one': 'done', 'two': 'done'}
    assert site.type('run').out == 'nothing is pending\n'


@pytest.mark.parametrize('mode', ['background', 'blocking', 'wait'])
def test_it_runs_whatever_the_mode(site, mode):
    one = apps.evolution('one')
    site.write(mode=mode)
    site.has(one)
    assert site.type('run').code == 0
    assert one.runs == 1


def test_as_json_there_is_one_document_also_when_an_evolution_prints(site):
    site.has(apps.evolution('one', lambda evolution: print('hello')))
    document = site.type('run', '--json').json
    assert document['ended'] == 'done'
    [ran] = document['ran']
    assert set(ran) == {'id', 'attempt', 'outcome', 'seconds', 'error'}
    assert (ran['id'], ran['outcome']) == ('one', 'finished')
    assert document['pending'] == []


def test_a_failure_is_one_line_with_what_to_type(site):
    site.has(apps.evolution('it is', boom), apps.evolution('two'))
    ran = site.type('run')
    assert ran.code == 1
    assert "'it is' failed: ValueError: it is broken" in ran.error
    for verb in ('retry', 'stamp', 'history'):
        assert f"gearbox evolve {verb} 'it is'" in ran.error
    again = site.type('run')
    assert again.code == 1
    assert 'ValueError: it is broken' in again.error  # from the history
    document = site.type('run', '--json').json
    assert document['error']['kind'] == 'failed'
    assert document['ended'] == 'stuck'


def test_what_may_be_tried_again_is_tried_again(site):
    failures = iter([True, True, False])

    def work(evolution):
        if next(failures):
            raise ValueError('not yet')

    site.has(apps.evolution('one', work, rerunnable=True))
    ran = site.type('run')
    assert ran.code == 0
    assert 'one: started, attempt 3' in ran.out


def test_until_runs_a_part_of_the_plan(site):
    site.has(*(apps.evolution(id) for id in ('one', 'two', 'three')))
    ran = site.type('run', '--until', 'two')
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "2 done up to 'two'; 1 still pending")
    assert site.states() == {'one': 'done', 'two': 'done'}


def test_until_an_id_that_is_unknown_runs_nothing(site):
    one = apps.evolution('one')
    site.has(one)
    ran = site.type('run', '--until', 'onee')
    assert ran.code == 65
    assert "Did you mean 'one'?" in ran.error
    assert one.runs == 0


def test_a_lease_that_is_held_is_75_and_names_the_holder(site):
    one = apps.evolution('one')
    site.has(one)
    site.hold(one)
    ran = site.type('run')
    assert ran.code == 75
    assert 'elsewhere:4711' in ran.error
    assert 'gearbox evolve watch' in ran.error
    assert site.type('run', '--json').json['error']['kind'] == 'lease-held'
    assert one.runs == 0


def test_a_holder_that_dies_is_waited_for_and_replaced(site):
    one = apps.evolution('one')
    site.has(one)
    site.hold(one, ttl=1.5)
    ran = site.type('run', '--wait', '30')
    assert ran.code == 0
    assert "waiting at most 30 s for elsewhere:4711, which runs 'one'" in ran.out
    assert '\n1 done\n' in ran.out
    assert one.runs == 1
    assert [attempt.state.value for attempt in site.store.history().of('one')] == ['interrupted', 'done']


def test_sigterm_ends_it_at_the_next_report(site):
    def work(evolution):
        evolution.progress(0)
        os.kill(os.getpid(), signal.SIGTERM)
        evolution.progress(1)
        raise AssertionError('it went on')

    before = signal.getsignal(signal.SIGTERM)
    site.has(apps.evolution('one', work), apps.evolution('two'))
    ran = site.type('run')
    assert ran.code == 143
    assert 'gearbox evolve run' in ran.error
    assert site.states() == {'one': 'interrupted'}
    assert signal.getsignal(signal.SIGTERM) is before
    assert not site.store.snapshot().lease.alive


def test_ctrl_c_ends_it_and_gives_the_lease_back(site):
    def work(evolution):
        raise KeyboardInterrupt

    site.has(apps.evolution('one', work))
    ran = site.type('run')
    assert ran.code == 130
    assert site.states() == {'one': 'interrupted'}
    assert not site.store.snapshot().lease.alive


def test_what_a_person_cancels_is_1_and_says_what_to_type(site):
    def work(evolution):
        site.store.ask(Owner(), cancel='one')
        while True:
            evolution.progress(0)

    site.write(lease=1)
    site.has(apps.evolution('one', work))
    ran = site.type('run')
    assert ran.code == 1
    assert "'one' was cancelled" in ran.error
    assert 'gearbox evolve retry one' in ran.error
