"""Never an early 200, never a false 503."""

from __future__ import annotations

import shutil
import threading

import pytest
import sqlalchemy
from sqlalchemy import event, text
from webtest import TestApp

import tgext.evolve
from tests import apps

STARTS = 100


@pytest.fixture
def connections():
    """How many DBAPI connections are open, of all engines."""
    open_now = []

    def connected(dbapi_connection, record):
        open_now.append(dbapi_connection)

    def closed(dbapi_connection, record):
        open_now.remove(dbapi_connection)

    event.listen(sqlalchemy.pool.Pool, 'connect', connected)
    event.listen(sqlalchemy.pool.Pool, 'close', closed)
    yield open_now
    event.remove(sqlalchemy.pool.Pool, 'connect', connected)
    event.remove(sqlalchemy.pool.Pool, 'close', closed)


def rows(url):
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        return connection.execute(text('SELECT title, seen FROM page')).all()


@pytest.mark.parametrize('existing', [False, True], ids=['fresh', 'existing'])
def test_no_request_is_served_before_the_evolutions_are_done(tmp_path, site, existing):
    before = apps.evolution('before')
    template = tmp_path / 'template.db'
    engine = sqlalchemy.create_engine(f'sqlite:///{template}', poolclass=sqlalchemy.NullPool)
    apps.Model().metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO page (title, seen) VALUES ('one', 0)"))
    if existing:
        first = site(f'sqlite:///{template}', [before])
        assert first.opens()
        assert first.evolver.join(10)
    for number in range(STARTS):
        url = f'sqlite:///{tmp_path}/{number}.db'
        shutil.copy(template, tmp_path / f'{number}.db')
        model = apps.Model()
        finished = threading.Event()

        def work(evolution, model=model, finished=finished):
            model.DBSession.execute(text('UPDATE page SET seen = seen + 1'))
            finished.set()

        started = site(url, [before, apps.evolution('new', work, transactional=True)], model=model)
        while True:
            done = finished.is_set()
            status = started.get('/').status_int
            if status == 200:
                break
            assert status == 503
            started.gate.wait(0.005)
        assert done or finished.is_set()
        assert rows(url) == [('one', 1)]
        assert started.history() == {'before': 'done', 'new': 'done'}


def test_no_restart_with_nothing_pending_answers_503_or_takes_the_lease(site, url, connections):
    evolutions = [apps.evolution('a'), apps.evolution('b', transactional=True)]
    first = site(url, evolutions)
    assert first.opens()
    assert first.evolver.join(10)  # it has given the lease back
    store = site(url, evolutions).evolver.store
    lease = store.snapshot().lease
    for _ in range(STARTS):
        before = list(connections)
        with apps.statements() as seen:
            app, _ = apps.make(url, evolutions, options={'watch': 0})
            assert connections == before, 'a connection is still open when the application is returned'
            assert TestApp(app).get('/').text == 'served'
        assert [statement.split()[0] for statement in seen] == ['SELECT']
    assert store.snapshot().lease.token == lease.token
    assert [evolution.runs for evolution in evolutions] == [1, 1]


def test_creating_an_application_runs_nothing_and_makes_no_table(site, url):
    evolution = apps.evolution('it')
    created = site(url, [evolution])
    assert evolution.runs == 0
    assert sqlalchemy.inspect(sqlalchemy.create_engine(url)).get_table_names() == []
    assert not tgext.evolve.is_open(created.conf)
    assert not tgext.evolve.wait(created.conf, 0.05)
    assert evolution.runs == 0
    assert created.opens()
    assert tgext.evolve.is_open(created.conf)


def test_after_opening_a_request_passes_by_one_attribute(site, url):
    opened = site(url, [apps.evolution('it')])
    assert opened.opens()
    assert opened.gate.passing
    opened.evolver.ensure_started = None  # whoever called it would crash
    with apps.statements() as seen:
        assert opened.get('/').status_int == 200
    assert seen == []
