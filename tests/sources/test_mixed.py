"""One plan of alembic, data, alembic, a stucco package and SQL scripts, in real processes."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tests.sources.projects import contents
from tests.sources.repositories import Project as Repository

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SQL = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql'], indirect=True)

#: In the order of the plan: each needs what the one before it made.
STEPS = [
    'alembic:a1',
    'nicks',
    'alembic:b2',
    'stucco:mixed_log:create',
    'sql:1',
    'sql:R__members',
]

EVOLUTIONS = """
from sqlalchemy import text
from tests.processes import worker
from tgext.evolve import Evolution
from tgext.evolve.sources.alembic import AlembicRevisions
from tgext.evolve.sources.sql import SQLScripts
from tgext.evolve.sources.stucco import StuccoPackages


class Nicks(Evolution):
    evolution_id = 'nicks'
    depends_on = ('alembic:a1',)
    transactional = True

    def evolve(self):
        worker.note('begin', self.evolution_id)
        session = worker.rows.model.DBSession
        session.execute(text("INSERT INTO member (id, name) VALUES (1, 'Ada'), (2, 'Alan')"))
        session.execute(text('UPDATE member SET nick = lower(name)'))


revisions = AlembicRevisions({migration!r}, depends_on={{'b2': ('nicks',)}})
packages = StuccoPackages('mixed_log', depends_on={{'mixed_log:create': ('alembic:b2',)}})
scripts = SQLScripts({scripts!r}, depends_on={{'1': ('stucco:mixed_log:create',)}})
"""

CREATE = """
def create(connection):
    connection.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, line VARCHAR(80))")
    connection.execute("INSERT INTO log (id, line) SELECT id, nick FROM member")
"""

SCRIPT = """
ALTER TABLE log ADD COLUMN level INTEGER;
UPDATE log SET level = id; -- each; its own
"""

MEMBERS = """
DROP VIEW IF EXISTS members;
CREATE VIEW members AS SELECT nick, level FROM member JOIN log ON log.id = member.id;
"""


class Mixed:
    """A site with the first ``steps`` of the plan; later releases have more of them."""

    def __init__(self, site):
        self.site = site
        self.repository = Repository(site.directory, site.url, ())
        self.scripts = site.directory / 'sql'
        self.scripts.mkdir()
        package = site.directory / 'mixed_log'
        (package / 'evolve').mkdir(parents=True)
        (package / '__init__.py').touch()
        constants = "NAME = 'mixed_log'\nVERSION = 0\nDEPENDS = []\n"
        (package / 'evolve' / '__init__.py').write_text(constants)
        (package / 'evolve' / 'create.py').write_text(dedent(CREATE))

    def release(self, steps):
        """Write the release that has so many steps."""
        columns = "{id}, sa.Column('name', sa.String(80)), sa.Column('nick', sa.String(80))"
        if steps > 0:
            self.repository.write('a1', up=f"op.create_table('member', {columns})")
        if steps > 2:
            self.repository.write('b2', ('a1',), up="op.create_index('one_nick_each', 'member', ['nick'], unique=True)")
        if steps > 4:
            (self.scripts / 'V1__levels.sql').write_text(SCRIPT)
        if steps > 5:
            (self.scripts / 'R__members.sql').write_text(MEMBERS)
        entries = ['revisions', 'Nicks', 'packages', 'scripts']
        # Some have a place in the plan only when what they depend on is there.
        there = [entry for entry, since in zip(entries, (1, 2, 4, 5), strict=True) if steps >= since]
        text = EVOLUTIONS.format(migration=str(self.repository.folder), scripts=str(self.scripts))
        if steps < 3:
            text = text.replace(", depends_on={'b2': ('nicks',)}", '')
        if steps < 4:
            text = text.replace('packages = ', '# ')
        if steps < 5:
            text = text.replace('scripts = ', '# ')
        # Modules are compiled once: each release is one of its own.
        name = f'mixed_release_{steps}'
        (self.site.directory / f'{name}.py').write_text(f'{text}\nevolutions = [{", ".join(there)}]\n')
        self.site.evolutions = [name]
        return self

    def check(self):
        """All of it is done, once."""
        site = self.site
        history = site.store.history()
        assert set(STEPS) <= history.ids
        found = contents(site.url)
        assert found['member'][1] == [(1, 'Ada', 'ada'), (2, 'Alan', 'alan')]
        assert found['log'][1] == [(1, 1, 'ada'), (2, 2, 'alan')]
        assert found['stucco_evolution'][1] == [('mixed_log', 0), ('stucco_evolution', 2)]
        [versions] = [rows for table, (_, rows) in found.items() if 'version' in table or 'migrate' in table]
        assert versions == [('b2',)]
        with site._database() as database:
            rows = database.exec_driver_sql('SELECT nick, level FROM members ORDER BY level').all()
        assert [tuple(row) for row in rows] == [('ada', 1), ('alan', 2)]


@pytest.fixture
def make(make_site, store_url, tmp_path, request):
    """Sites of the same kind of database, one after the other."""
    made = []

    def make(**options):
        url = store_url
        if made and url.startswith('sqlite'):
            url = f'sqlite:///{tmp_path}/mixed{len(made)}.db'
        elif made:
            url = request.getfixturevalue('postgresql_server').new_database()
        made.append(Mixed(make_site(url, **{'lease': 1, **options})))
        return made[-1]

    return make


@SQL
@pytest.mark.parametrize('before', range(len(STEPS)))
def test_from_each_state_two_processes_that_start_at_once_finish_it(make, before):
    mixed = make()
    site = mixed.site
    if before:
        mixed.release(before)
        first = site.fork(http=False)
        assert first.wait() == 0, first.log
        assert [site.states(id) for id in STEPS[:before]] == [['done']] * before
        assert not site.store.history().ids - set(STEPS[:before])
    mixed.release(len(STEPS))
    processes = [site.fork() for _ in range(2)]
    for process in processes:
        process.until_open()
        assert 'Traceback' not in process.log
    assert [site.states(id) for id in STEPS] == [['done']] * len(STEPS)
    assert site.count('begin', 'nicks') == 1
    mixed.check()


#: Each is reached first in the step that is told; the steps before it are done when the process is killed.
POINTS = ['before-attempt', 'after-attempt', 'before-evolve', 'after-evolve', 'after-record']


@SQL
@pytest.mark.parametrize('point', POINTS)
def test_killed_at_each_boundary_it_continues(make, point):
    """One site for each step that is killed, side by side."""
    sites = {}
    for steps in range(len(STEPS)):
        mixed = make()
        if steps:
            mixed.release(steps)
            first = mixed.site.fork(http=False)
            assert first.wait() == 0, first.log
        sites[STEPS[steps]] = mixed.release(len(STEPS))
    victims = {id: mixed.site.fork(http=False, points={point: 'kill'}) for id, mixed in sites.items()}
    for id, mixed in sites.items():
        mixed.site.until_told('point', point, victims[id].pid)
        assert victims[id].wait() == -9
    successors = {id: mixed.site.fork(http=False) for id, mixed in sites.items()}
    for id, mixed in sites.items():
        process = successors[id]
        assert process.wait() == 0, process.log
        assert 'Traceback' not in process.log, id
        states = mixed.site.states(id)
        if point in ('before-attempt', 'after-record'):
            assert states == ['done'], id
        elif point == 'after-evolve' and id.startswith('alembic:'):
            assert states == ['interrupted'], id  # alembic's own transaction was over: its table tells
        else:
            assert states == ['interrupted', 'done'], id
        mixed.check()
