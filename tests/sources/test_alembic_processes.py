"""Revisions in real processes: two at once, and killed at each boundary."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from tests.processes.harness import until
from tests.sources.projects import contents
from tests.sources.repositories import Project

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SQL = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql'], indirect=True)

#: Tells the test that it began, and waits until it may go on.
WITNESS = 'from tests.processes import worker\nworker.note("revision", {name!r})\nworker.wait_for_file({file!r})\n'

NOTHING = "op.create_table('first', {id})"
HALF = "op.create_table('one', {id})\n" + WITNESS.format(name='half', file='go') + "op.create_table('two', {id})"


@pytest.fixture
def make(make_site, store_url, tmp_path, request):
    """Sites whose one evolution is a repository with two revisions."""
    made = []

    def make(second=HALF, **options):
        url = store_url
        if made:
            url = (
                f'sqlite:///{tmp_path}/evolve{len(made)}.db'
                if url.startswith('sqlite')
                else request.getfixturevalue('postgresql_server').new_database()
            )
        site = make_site(url, evolutions=['revisions_of_site'], **{'lease': 1, **options})
        made.append(site)
        project = Project(site.directory, url, ())
        project.write('a1', up=NOTHING, down="op.drop_table('first')")
        project.write('b2', ('a1',), up=second, down="op.drop_table('one')\nop.drop_table('two')")
        (site.directory / 'revisions_of_site.py').write_text(
            'from tgext.evolve.sources.alembic import AlembicRevisions\n'
            f'evolutions = [AlembicRevisions({str(project.folder)!r})]\n'
        )
        site.project = project
        return site

    return make


def versions(site):
    with create_engine(site.url, poolclass=NullPool).connect() as connection:
        return sorted(connection.exec_driver_sql('SELECT version_num FROM migrate_version').scalars())


@SQL
def test_of_processes_that_start_at_once_one_runs_the_revisions(make):
    site = make()
    servers = [site.fork() for _ in range(3)]
    site.until_told('revision', 'half')
    assert {server.first_answer()[0] for server in servers} == {503}
    site.go()
    for server in servers:
        server.until_open()
    assert site.count('revision') == 1
    assert versions(site) == ['b2']
    assert site.states('alembic:a1') == site.states('alembic:b2') == ['done']


@SQL
def test_whoever_is_killed_between_revisions_is_replaced(make):
    points = ['after-take', 'before-attempt', 'after-attempt', 'before-evolve', 'after-evolve', 'after-record']
    sites = {point: make("op.create_table('one', {id})\nop.create_table('two', {id})") for point in points}
    victims = {point: site.fork(points={point: 'kill'}) for point, site in sites.items()}
    for point, site in sites.items():
        site.until_told('point', point)
        assert victims[point].wait() == -9
    after = {point: site.fork(http=False) for point, site in sites.items()}
    for point, site in sites.items():
        assert after[point].wait() == 0, after[point].log
        assert versions(site) == ['b2'], point
        assert {'first', 'one', 'two'} <= site.tables
        # Alembic's own transaction was over after evolve(): it was not run a second time, only told.
        states = site.states('alembic:a1')
        assert states == (
            ['interrupted']
            if point == 'after-evolve'
            else ['interrupted', 'done']
            if point in ('after-attempt', 'before-evolve')
            else ['done']
        ), point
        assert 'Traceback' not in after[point].log


def test_killed_in_the_middle_of_a_revision_postgresql_rolls_back_and_it_runs_again(make_site, postgresql_server):
    site = _killed_half(make_site, postgresql_server.new_database())
    assert 'one' not in site.tables
    site.go()
    successor = site.fork(http=False)
    assert successor.wait() == 0, successor.log
    assert site.states('alembic:b2') == ['interrupted', 'done']
    assert versions(site) == ['b2']


def test_killed_in_the_middle_of_a_revision_sqlite_keeps_half_of_it_and_a_person_is_asked(make_site):
    """No transactional DDL: it runs again, fails at once at what is there already, and stays."""
    site = _killed_half(make_site, None)
    assert 'one' in site.tables
    site.go()
    successor = site.fork()
    successor.until_reason('failed')
    until(lambda: 'table one already exists' in successor.log)
    assert site.states('alembic:b2') == ['interrupted', 'failed']
    assert versions(site) == ['a1']


def test_killed_in_the_middle_one_that_is_not_rerunnable_waits_for_a_person(make_site):
    site = _killed_half(make_site, None, extra="tgext_evolve = {'rerunnable': False}")
    site.go()
    successor = site.fork()
    until(lambda: site.states('alembic:b2') == ['interrupted'])
    successor.until_reason('failed')
    assert site.count('revision') == 1


def _killed_half(make_site, url, extra=''):
    site = make_site(url, evolutions=['revisions_of_site'], lease=1)
    project = Project(site.directory, site.url, ())
    project.write('a1', up=NOTHING)
    project.write('b2', ('a1',), up=HALF, extra=extra)
    (site.directory / 'revisions_of_site.py').write_text(
        'from tgext.evolve.sources.alembic import AlembicRevisions\n'
        f'evolutions = [AlembicRevisions({str(project.folder)!r})]\n'
    )
    victim = site.fork()
    site.until_told('revision', 'half')
    victim.kill()
    assert contents(site.url)['migrate_version'][1] == [('a1',)]
    return site
