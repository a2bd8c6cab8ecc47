"""Applications as ``gearbox quickstart`` makes them: one line plugs it in, and no command runs anything."""

from __future__ import annotations

import re
import textwrap

import pytest

from tests.processes.harness import until
from tests.processes.quickstarts import Project

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope='session')
def generated_sql(tmp_path_factory, zygote) -> Project:
    directory = tmp_path_factory.mktemp('quickstart')
    return Project.generate(directory, 'sqlapp', '--sqlalchemy', '--auth', evolutions=SQL, zygote=zygote)


@pytest.fixture(scope='session')
def generated_ming(tmp_path_factory, zygote) -> Project:
    directory = tmp_path_factory.mktemp('quickstart')
    return Project.generate(directory, 'mingapp', '--ming', '--auth', evolutions=MING, zygote=zygote)


@pytest.fixture
def sql_project(generated_sql, tmp_path) -> Project:
    return generated_sql.copy(tmp_path)


@pytest.fixture
def ming_project(generated_ming, tmp_path) -> Project:
    return generated_ming.copy(tmp_path)


def serve(project: Project) -> None:
    """Its server answers 503 until the evolution is done, and then its own page."""
    server = project.serve()
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
    output = project.run('-m', 'pytest', '-q', '-o', 'addopts=', '-p', 'no:cacheprovider', '-W', 'ignore')
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
