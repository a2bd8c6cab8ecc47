"""Whatever loads the application without serving it runs nothing, and does not even make tables."""

from __future__ import annotations

import sys
import textwrap

import pytest

from tests.processes.harness import program, until

pytestmark = pytest.mark.slow

INI = """
[app:main]
use = call:tests.processes.worker:make_app
"""

#: Long enough after the application was made for a thread to have begun, if there were one.
LINGER = 'import time; time.sleep(0.5)'


@pytest.fixture
def site(make_site):
    site = make_site(evolutions=[{'id': 'one'}])
    (site.directory / 'app.ini').write_text(INI)
    return site


def nothing_ran(site) -> bool:
    return site.count('begin') == 0 and site.tables == {'page'}


def ended_well(process) -> bool:
    assert process.wait() == 0, process.log
    return True


SCRIPTS = {
    'loadapp': f"""
        from paste.deploy import loadapp
        loadapp('config:app.ini', relative_to='.')
        {LINGER}
    """,
    'is_open': """
        import tg, tgext.evolve
        from paste.deploy import loadapp
        loadapp('config:app.ini', relative_to='.')
        assert tgext.evolve.is_open(tg.config) is False
        assert tgext.evolve.wait(tg.config, 0.5) is False
    """,
    'threads': f"""
        import threading
        from paste.deploy import loadapp
        thread = threading.Thread(target=loadapp, args=('config:app.ini',), kwargs=dict(relative_to='.'))
        thread.start()
        thread.join()
        {LINGER}
    """,
    'fork': f"""
        import os
        from paste.deploy import loadapp
        loadapp('config:app.ini', relative_to='.')
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        {LINGER}
    """,
    'multiprocessing': """
        import multiprocessing, time
        from paste.deploy import loadapp
        loadapp('config:app.ini', relative_to='.')
        with multiprocessing.get_context('fork').Pool(2) as pool:
            pool.map(time.sleep, [0.3, 0.3])
    """,
}


@pytest.mark.parametrize('name', SCRIPTS)
def test_a_script_that_loads_the_application_runs_nothing(site, name):
    script = site.directory / 'script.py'
    script.write_text(textwrap.dedent(SCRIPTS[name]))
    assert ended_well(site.start(sys.executable, str(script)))
    assert site.count('made') == 1
    assert nothing_ran(site)


def test_a_test_suite_that_makes_the_application_runs_nothing(site):
    (site.directory / 'test_app.py').write_text(
        textwrap.dedent(f"""
            from paste.deploy import loadapp

            def test_it():
                assert loadapp('config:app.ini', relative_to='.')
                {LINGER}
        """)
    )
    process = site.start(
        sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-c', '/dev/null', 'test_app.py'
    )
    assert ended_well(process)
    assert site.count('made') == 1
    assert nothing_ran(site)


def test_a_master_that_is_only_asked_to_check_the_application_runs_nothing(site):
    process = site.start(program('gunicorn'), '--check-config', 'tests.processes.wsgi')
    assert ended_well(process)
    assert nothing_ran(site)


def test_a_preloading_master_runs_nothing_itself(site):
    site.evolutions = [{'id': 'one', 'does': 'hold'}]
    command = f'{program("gunicorn")} --no-control-socket --preload -w 1 -b 127.0.0.1:PORT tests.processes.wsgi'
    process = site.start(*command.split())
    [begin] = site.until_told('half')
    assert begin.pid != process.pid
    site.go()
    until(lambda: (answer := process.fetch()) and answer[0] == 200)


def test_mode_wait_never_runs_in_a_server(make_site):
    site = make_site(evolutions=[{'id': 'one'}])
    server = site.fork(options={'mode': 'wait'})
    server.until_reason('waiting')
    assert nothing_ran(site)
    assert site.fork(http=False).wait() == 0
    server.until_open()
    assert not site.lines('begin', pid=server.pid)
