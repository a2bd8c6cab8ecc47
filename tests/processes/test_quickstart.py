"""Applications as ``gearbox quickstart`` makes them: one line plugs it in, and no command runs anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.processes.harness import ROOT, Process, free_port, program, until

pytestmark = pytest.mark.slow

PLUG = """
from tgext.pluggable import plug
plug(base_config, 'tgext.evolve', evolutions=['{package}.evolutions'])
"""

#: What every evolution in these applications does first.
WITNESS = """
import os
from pathlib import Path

from tgext.evolve import Evolution

def note(event):
    with open(os.environ['WITNESS'], 'a') as witness:
        witness.write(f'{event} {os.getpid()}\\n')

"""

SQL = """
from sqlalchemy import text
from sqlapp.model import DBSession, User

class Shout(Evolution):
    evolution_id = 'shout'
    transactional = True

    def evolve(self):
        note('begin')
        while not Path(os.environ['WITNESS'] + '.go').exists():
            self.progress(0)
        for user in DBSession.query(User):
            user.display_name = user.display_name.upper()
"""

MING = """
from mingapp.model import DBSession, User

class Shout(Evolution):
    evolution_id = 'shout'

    def evolve(self):
        note('begin')
        while not Path(os.environ['WITNESS'] + '.go').exists():
            self.progress(0)
        for user in User.query.find():
            user.display_name = user.display_name.upper()
        DBSession.flush_all()
"""

ENTRY_POINTS = """
[paste.app_factory]
main = {package}.config.application:make_app

[gearbox.plugins]
turbogears-devtools = tg.devtools
"""


class Project:
    """A generated application with tgext.evolve plugged in."""

    def __init__(self, directory: Path, package: str):
        self.directory = directory
        self.package = package
        self.witness = directory / 'witness'
        path = f'{directory}{os.pathsep}{ROOT}'
        self.environ = {**os.environ, 'WITNESS': str(self.witness), 'PYTHONPATH': path, 'PYTHONUNBUFFERED': '1'}
        self.environ.pop('PYTEST_CURRENT_TEST', None)

    @classmethod
    def generate(cls, directory: Path, package: str, *options: str, evolutions: str) -> Project:
        subprocess.run(
            [program('gearbox'), 'quickstart', *options, package],
            cwd=directory,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        project = cls(directory / package, package)
        project.install()
        with open(project.directory / package / 'config' / 'app_cfg.py', 'a') as app_cfg:
            app_cfg.write(PLUG.format(package=package))
        (project.directory / package / 'evolutions.py').write_text(WITNESS + evolutions)
        return project

    def install(self) -> None:
        """As an installation would leave it, without one."""
        metadata = self.directory / f'{self.package}-0.1.dist-info'
        metadata.mkdir(exist_ok=True)
        (metadata / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {self.package}\nVersion: 0.1\n')
        (metadata / 'top_level.txt').write_text(f'{self.package}\n')
        (metadata / 'entry_points.txt').write_text(ENTRY_POINTS.format(package=self.package))

    def copy(self, directory: Path) -> Project:
        shutil.copytree(self.directory, directory / self.package)
        return Project(directory / self.package, self.package)

    def configure(self, name: str, old: str, new: str) -> None:
        ini = self.directory / name
        text = ini.read_text()
        assert re.search(old, text, re.M), text
        ini.write_text(re.sub(old, new, text, flags=re.M))

    def run(self, *command: str, **options) -> str:
        """A command to its end; what it printed."""
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            **options,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def gearbox(self, *arguments: str) -> str:
        return self.run(program('gearbox'), *arguments)

    def begun(self) -> int:
        return len(self.witness.read_text().splitlines()) if self.witness.exists() else 0

    def go(self) -> None:
        Path(f'{self.witness}.go').touch()


@pytest.fixture(scope='session')
def generated_sql(tmp_path_factory) -> Project:
    return Project.generate(tmp_path_factory.mktemp('quickstart'), 'sqlapp', '--sqlalchemy', '--auth', evolutions=SQL)


@pytest.fixture(scope='session')
def generated_ming(tmp_path_factory) -> Project:
    return Project.generate(tmp_path_factory.mktemp('quickstart'), 'mingapp', '--ming', '--auth', evolutions=MING)


@pytest.fixture
def sql_project(generated_sql, tmp_path) -> Project:
    return generated_sql.copy(tmp_path)


@pytest.fixture
def ming_project(generated_ming, tmp_path) -> Project:
    return generated_ming.copy(tmp_path)


def serving(project: Project) -> Process:
    """``gearbox serve``, on a free port."""
    port = free_port()
    project.configure('development.ini', r'^port = \d+', f'port = {port}')
    log = project.directory / 'log'
    with open(log, 'ab') as output:
        popen = subprocess.Popen(
            [program('gearbox'), 'serve', '-c', 'development.ini'],
            cwd=project.directory,
            env=project.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(popen.pid, log, port, popen=popen)


def serve(project: Project) -> None:
    """Its server answers 503 until the evolution is done, and then its own page."""
    server = serving(project)
    try:
        until(lambda: project.begun() or server.status is not None)
        assert server.status is None, server.log
        status, page = server.first_answer()
        assert status == 503
        assert 'We are updating our data' in page
        assert server.fetch('/login_handler')[0] == 503
        # The style sheet of the application's own error pages.
        assert server.fetch('/css/style.css')[0] == 200
        project.go()
        server.until_open()
        assert 'TurboGears' in server.fetch()[1]
        assert project.begun() == 1
        assert 'Traceback' not in server.log
    finally:
        server.reap()
    assert f'[{project.package}] may serve everything: complete' in server.log


def test_sqlalchemy_is_set_up_evolves_and_serves(sql_project):
    sql_project.gearbox('setup-app', '-c', 'development.ini')
    assert sql_project.begun() == 0
    serve(sql_project)
    assert names(sql_project) == ['EXAMPLE EDITOR', 'EXAMPLE MANAGER']


def names(project: Project) -> list[str]:
    import sqlite3

    with sqlite3.connect(project.directory / 'devdata.db') as connection:
        return [name for (name,) in connection.execute('SELECT display_name FROM tg_user ORDER BY 1')]


def test_ming_is_set_up_evolves_and_serves(ming_project, mongodb_server):
    from pymongo import MongoClient

    url = mongodb_server.new_database()
    address, _, database = url.rpartition('/')
    ming_project.configure('development.ini', r'^ming.url = .*', f'ming.url = {address}/')
    ming_project.configure('development.ini', r'^ming.db = .*', f'ming.db = {database}')
    ming_project.gearbox('setup-app', '-c', 'development.ini')
    assert ming_project.begun() == 0
    serve(ming_project)
    with MongoClient(url) as client:
        shouted = sorted(user['display_name'] for user in client[database].tg_user.find())
    assert shouted == ['EXAMPLE EDITOR', 'EXAMPLE MANAGER']


@pytest.mark.parametrize('kind', ['sql', 'ming'])
def test_its_own_tests_pass_where_it_is_disabled(request, kind):
    project = request.getfixturevalue(f'{kind}_project')
    project.configure('test.ini', r'^\[app:main\]$', '[app:main]\ntgext.evolve.enabled = false')
    output = project.run(
        *(sys.executable, '-m', 'pytest', '-q', '-o', 'addopts=', '-p', 'no:cacheprovider', '-W', 'ignore'),
    )
    assert re.search(r'\d+ passed', output)
    assert 'failed' not in output
    assert project.begun() == 0


LOOK = """
import time
time.sleep(0.5)
assert 'TGApp' in repr(wsgiapp) or callable(wsgiapp)
assert model.DBSession.query(model.User).count() == 2
print('looked')
"""

COMMANDS = {
    'setup-app': ['setup-app', '-c', 'development.ini'],
    'tgshell': ['tgshell', '-c', 'development.ini', 'look.py'],
    'migrate db_version': ['migrate', '-c', 'development.ini', 'db_version'],
    'migrate autogenerate': ['migrate', '-c', 'development.ini', 'autogenerate', 'nothing'],
    'migrate upgrade': ['migrate', '-c', 'development.ini', 'upgrade'],
}


def test_no_command_of_gearbox_runs_anything(sql_project):
    (sql_project.directory / 'look.py').write_text(textwrap.dedent(LOOK))
    sql_project.go()
    for name, command in COMMANDS.items():
        output = sql_project.gearbox(*command)
        assert sql_project.begun() == 0, name
        assert not evolve_tables(sql_project), name
        assert 'Traceback' not in output, name


def test_gearbox_evolve_works_inside_of_it(sql_project):
    sql_project.gearbox('setup-app', '-c', 'development.ini')
    sql_project.go()
    assert re.search('^pending +shout ', sql_project.gearbox('evolve', 'status'), re.M)
    assert not evolve_tables(sql_project)
    assert '1 done' in sql_project.gearbox('evolve', 'run')
    assert names(sql_project) == ['EXAMPLE EDITOR', 'EXAMPLE MANAGER']
    created = sql_project.gearbox('evolve', 'create', 'lower names')
    assert list((sql_project.directory / 'sqlapp' / 'tests').glob('test_*_lower_names.py'))
    assert "'sqlapp.evolution_e" in created
    assert 'nothing is pending' in sql_project.gearbox('evolve', 'check')


def evolve_tables(project: Project) -> list[str]:
    import sqlite3

    with sqlite3.connect(project.directory / 'devdata.db') as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'tgext%'")
        return [name for (name,) in found]
