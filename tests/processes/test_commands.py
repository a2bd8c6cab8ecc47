"""``gearbox evolve`` as it is typed: beside servers that run, and where none does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess

import pytest

from tests.processes.harness import ROOT, program, until

pytestmark = pytest.mark.slow

INI = """
[app:main]
use = call:tests.processes.worker:make_app
"""


@pytest.fixture
def make(make_site):
    def made(url=None, **options):
        site = make_site(url, **options)
        (site.directory / 'development.ini').write_text(INI)
        return site

    return made


def gearbox(site, *argv):
    """``gearbox evolve`` to its end."""
    return site.zygote.run(
        program('gearbox'), 'evolve', *argv, directory=site.directory, environ={**os.environ, **site.configure()}
    )


def looked(site, verb='status'):
    done = gearbox(site, verb, '--json')
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_new_python_runs_them_and_ends_without_a_word(make):
    site = make(evolutions=[{'id': 'one', 'transactional': True}])
    for argv in (['run'], ['check'], ['status', '--json']):
        done = subprocess.run(
            [program('gearbox'), 'evolve', *argv],
            cwd=site.directory,
            env={**os.environ, **site.configure()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        # Not of the application's logging, but of a Python that cannot end as it should.
        assert not re.search('Fatal|Exception ignored|Traceback', done.stderr), done.stderr
    assert site.states('one') == ['done']


def start(site, *argv):
    return site.start(program('gearbox'), 'evolve', *argv)


def test_it_is_there_outside_of_a_project_and_explains_each_verb(tmp_path):
    def typed(*argv):
        return subprocess.run(
            [program('gearbox'), *argv],
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert '  evolve ' in typed('--help').stdout
    assert 'exit codes:' in typed('help', 'evolve').stdout
    for helped in (typed('help', 'evolve', 'run'), typed('evolve', 'run', '--help')):
        assert helped.returncode == 0
        assert '--until ID' in helped.stdout
    nowhere = typed('evolve', 'status')
    assert nowhere.returncode == 66
    [line] = nowhere.stderr.splitlines()
    assert "'development.ini'" in line


@pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mongodb'], indirect=True)
def test_beside_a_server_that_runs_it(make, store_url):
    """Looked at, refused, cancelled, retried, watched to its end: all while a server holds the lease."""
    site = make(store_url, evolutions=[{'id': 'one', 'does': 'tell'}])
    server = site.fork()
    site.until_told('half')
    server.first_answer()
    running = until(lambda: (found := looked(site))['evolutions'][0]['progress'] and found)
    assert running['evolutions'][0]['state'] == 'running'
    assert running['lease']['pid'] == server.pid
    assert running['evolutions'][0]['progress']['total'] == 1000

    refused = gearbox(site, 'run')
    assert refused.returncode == 75
    [line] = refused.stderr.splitlines()
    assert f':{server.pid}' in line

    watching = start(site, 'watch', '--interval', '0.1')
    until(lambda: 'running  one' in watching.log)

    assert gearbox(site, 'cancel').returncode == 0
    server.until_reason('cancelled')
    assert 'gearbox evolve retry one' in gearbox(site, 'status').stdout
    assert watching.status is None

    site.go()
    assert gearbox(site, 'retry', 'one').returncode == 0
    server.until_open()
    assert watching.wait() == 0
    assert 'done  one' in watching.log
    assert gearbox(site, 'check').returncode == 0
    assert site.states('one') == ['cancelled', 'done']


def test_down_and_up_move_servers_that_watch(make):
    site = make(evolutions=[], watch=0.2)
    server = site.fork()
    server.until_open()
    assert gearbox(site, 'down', '--message', 'back soon').returncode == 0
    server.until_reason('down')
    assert gearbox(site, 'up').returncode == 0
    server.until_open()


def test_a_paused_server_waits_until_resume(make):
    site = make(evolutions=[{'id': 'one'}])
    assert gearbox(site, 'pause').returncode == 0
    server = site.fork()
    server.until_reason('paused')
    assert site.count('begin') == 0
    assert gearbox(site, 'run').returncode == 75
    assert gearbox(site, 'resume').returncode == 0
    server.until_open()


@pytest.mark.parametrize('mode', ['background', 'blocking', 'wait'])
def test_run_is_what_opens_servers_that_wait(make, mode):
    site = make(evolutions=[{'id': 'one'}], mode=mode)
    waiting = site.fork(options={'mode': 'wait'})
    waiting.until_reason('waiting')
    ran = gearbox(site, 'run')
    assert ran.returncode == 0
    assert ran.stdout.endswith('1 done\n')
    waiting.until_open()
    assert site.seen == [1] * 10


@pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mongodb'], indirect=True)
def test_sigterm_ends_a_run_in_order_and_the_next_goes_on(make, store_url):
    site = make(store_url, evolutions=[{'id': 'one', 'does': 'tell', 'transactional': store_url[:7] != 'mongodb'}])
    running = start(site, 'run')
    site.until_told('half')
    assert running.terminate() == 143
    assert 'Traceback' not in running.log
    assert site.states('one') == ['interrupted']
    assert not site.lease.alive
    site.go()
    assert gearbox(site, 'run').returncode == 0
    assert site.states('one') == ['interrupted', 'done']


def test_ctrl_c_ends_a_run_in_order(make):
    site = make(evolutions=[{'id': 'one', 'does': 'tell'}])
    running = start(site, 'run')
    site.until_told('half')
    running.send(signal.SIGINT)
    assert running.wait() == 130
    assert 'Traceback' not in running.log
    assert site.states('one') == ['interrupted']
    assert not site.lease.alive


def test_a_run_that_was_killed_is_replaced_when_its_lease_expires(make):
    site = make(evolutions=[{'id': 'one', 'does': 'tell'}])
    running = start(site, 'run')
    site.until_told('half')
    running.kill()
    refused = gearbox(site, 'unlock')
    assert refused.returncode in (0, 75)  # its lease may have expired by now
    site.go()
    assert gearbox(site, 'run', '--wait', '30').returncode == 0
    assert site.states('one') == ['interrupted', 'done']
    assert 'nobody holds the lease' in gearbox(site, 'unlock').stdout


def test_a_failure_is_one_line_on_stderr(make):
    site = make(evolutions=[{'id': 'one', 'does': 'fail'}])
    failed = gearbox(site, 'run')
    assert failed.returncode == 1
    [line] = failed.stderr.splitlines()
    assert 'gearbox evolve retry one' in line
    assert 'Traceback' in gearbox(site, 'history', 'one').stdout
