"""The fence holds whatever isolation the application has set: real processes at every level, paused and killed."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from tests.chaos.checker import check
from tests.chaos.figures import LONG
from tests.chaos.sites import DEPOSED, IN_TIME, LEASE, POLL, pause, pause_between_writes, until_expired
from tests.processes.harness import Process, Site, until
from tests.processes.worker import ROWS

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600 if LONG else 180)]

LEVELS = ('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE')
SQL = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb'], indirect=True)


@dataclass
class Isolation:
    """One way to keep transactions apart.

    :param level: of the application's engine; None: the database has only one.
    :param journal: of SQLite.
    :param snapshot: MariaDB's ``innodb_snapshot_isolation``.
    """

    level: str | None = None
    journal: str | None = None
    snapshot: str | None = None
    ini: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.level:
            self.ini['sqlalchemy.isolation_level'] = self.level

    def prepare(self, url: str) -> str:
        """The URL that processes and the test use."""
        if self.journal:
            with create_engine(url, poolclass=NullPool).connect() as connection:
                assert connection.exec_driver_sql(f'PRAGMA journal_mode = {self.journal}').scalar() == self.journal
        if self.snapshot:
            command = f'SET SESSION innodb_snapshot_isolation = {self.snapshot}'
            with_command = make_url(url).update_query_dict({'init_command': command})
            return with_command.render_as_string(hide_password=False)
        return url

    @property
    def expected_level(self) -> str:
        return (self.level or 'SERIALIZABLE').replace(' ', '-')


def isolations(url: str, few: bool = False) -> list[Isolation]:
    """:param few: only those that differ most."""
    if url.startswith('sqlite'):
        return [Isolation(journal=journal) for journal in ('wal', 'delete')]
    if url.startswith('postgresql'):
        return [Isolation(level) for level in LEVELS]
    if few:
        return [Isolation(LEVELS[-1], snapshot='ON'), Isolation(LEVELS[0], snapshot='OFF')]
    return [Isolation(level, snapshot=snapshot) for level in LEVELS for snapshot in ('ON', 'OFF')]


@dataclass
class Story:
    """One site at one isolation."""

    isolation: Isolation
    site: Site
    processes: list[Process] = field(default_factory=list)

    def fork(self, **settings: Any) -> Process:
        process = self.site.fork(ini=self.isolation.ini, **settings)
        self.processes.append(process)
        return process


@pytest.fixture
def stories(make_site, store_url, new_url):
    """Makes a site for each isolation, side by side."""

    def make(evolutions: list[dict], few: bool = False) -> list[Story]:
        return [
            Story(isolation, make_site(isolation.prepare(new_url()), evolutions=evolutions, **OPTIONS))
            for isolation in isolations(store_url, few)
        ]

    return make


OPTIONS = {'lease': LEASE, 'poll': POLL, 'max_attempts': 1}


def resume_deposed(store_url: str, stories: list[Story]) -> None:
    """On SQLite nobody can take over from who is paused in a transaction: it has lost its lease and goes on."""
    if store_url.startswith('sqlite'):
        for story in stories:
            until_expired(story.site)
            story.processes[0].send(signal.SIGCONT)


@SQL
def test_transactional_evolutions_are_done_exactly_once_at_every_isolation(stories, store_url, figures):
    """One process is paused in a transaction that holds row locks, the one that takes over is killed in another."""
    evolutions = [
        {'id': 'paused', 'does': 'lock', 'transactional': True},
        {'id': 'killed', 'does': 'hold', 'transactional': True, 'go': 'go-killed'},
        {'id': 'last', 'transactional': True},
    ]
    told = stories(evolutions)
    for story in told:
        # More than one interruption is part of the story.
        story.site.options['max_attempts'] = 5
        story.fork()
    for story in told:
        story.site.until_told('locked', 'paused')
        assert {line.about for line in story.site.lines('level')} == {story.isolation.expected_level}
        story.fork()
    for story in told:
        assert story.processes[1].first_answer()[0] == 503
        pause(story.processes[0], figures)
        story.site.go()
    resume_deposed(store_url, told)
    for story in told:
        first, second = story.processes
        site = story.site
        runs = site.until_told('half', 'killed')[0].pid
        if not store_url.startswith('sqlite'):
            assert runs == second.pid
            first.send(signal.SIGCONT)
            until(lambda log=first: any(words in log.log for words in DEPOSED), what='the first says it was deposed')
            assert site.states('paused') == ['interrupted', 'done']
            assert site.store.history().of('paused')[-1].pid == second.pid
        assert first.first_answer()[0] == second.first_answer()[0] == 503
        victim, left = (first, second) if runs == first.pid else (second, first)
        victim.kill()
        figures.count('kills')
        site.go('go-killed')
        story.processes = [left]
    for story in told:
        [left] = story.processes
        left.until_open(IN_TIME + 2)
        site = story.site
        assert site.states('killed') == ['interrupted', 'done'], story.isolation
        assert site.states('last') == ['done'], story.isolation
        assert site.seen == [3] * ROWS, story.isolation
        check(site, figures)


@SQL
def test_what_is_not_transactional_is_found_out_at_every_isolation(stories, store_url, figures):
    """A plain evolution whose holder was deposed, DDL, and an evolution that commits by itself and must not."""
    evolutions = [
        {'id': 'plain', 'does': 'hold'},
        {
            'id': 'ddl',
            'does': 'statement',
            'sql': 'ALTER TABLE page ADD COLUMN extra INTEGER',
            'transactional': True,
            'serving': 'reads',
        },
        {'id': 'own', 'does': 'statement', 'sql': 'COMMIT', 'transactional': True, 'serving': 'everything'},
    ]
    rolls_back_ddl = not store_url.startswith('mariadb')
    told = stories(evolutions, few=not LONG)
    for story in told:
        story.site.options['max_attempts'] = 2
        story.fork()
    for story in told:
        story.site.until_told('half', 'plain')
        # It never comes to that where DDL commits.
        story.fork(points={'before-commit': 'kill'})
    for story in told:
        first, second = story.processes
        assert second.first_answer()[0] == 503
        pause_between_writes(story.site, first, figures)
        story.site.go()
    for story in told:
        first, second = story.processes
        site = story.site
        if rolls_back_ddl:
            site.until_told('point', 'before-commit', second.pid)
            assert second.wait() == -9
            figures.count('kills')
            assert 'extra' not in columns(site)
        else:
            until(lambda site=site: site.states('ddl')[-1:] == ['failed'], what='DDL has failed')
            # Before the first goes on: what it still writes may be a deadlock with this one.
            until(lambda site=site: site.states('own')[-1:] == ['failed'], what='its COMMIT was found out')
        assert site.states('plain') == ['interrupted', 'done']
        assert site.store.history().of('plain')[-1].pid == second.pid
        first.send(signal.SIGCONT)
    for story in told:
        site = story.site
        first = story.processes[0]
        site.until_told('end', 'plain', first.pid)
        first.until_open()
        until(lambda site=site: site.states('own')[-1:] == ['failed'], what='the COMMIT of its own was found out')
        assert any(words in first.log for words in DEPOSED)
        assert site.states('plain') == ['interrupted', 'done'], story.isolation
        assert 'extra' in columns(site)
        assert 'transactional = False' in error(site, 'own')
        if rolls_back_ddl:
            assert site.states('ddl') == ['interrupted', 'done'], story.isolation
        else:
            assert 'DDL' in error(site, 'ddl')
        check(site, figures, undone=['own'] if rolls_back_ddl else ['own', 'ddl'])


def columns(site: Site) -> set[str]:
    engine = create_engine(site.url, poolclass=NullPool)
    return {column['name'] for column in inspect(engine).get_columns('page')}


def error(site: Site, id: str) -> str:
    return site.store.error_of(site.store.history().of(id)[0]) or ''
