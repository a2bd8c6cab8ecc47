"""Starting: never served early, never closed for nothing. And what an open gate costs: nothing."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, create_engine, event, text

from tests import apps
from tests.web.conftest import PATIENCE
from tgext.evolve.component import GateMiddleware
from tgext.evolve.finding import evolver_in


@contextmanager
def no_connection_left():
    """Every connection that is opened inside of it is closed again at its end, on any engine."""
    opened = []

    def connect(dbapi_connection, record):
        opened.append(dbapi_connection)

    event.listen(Engine, 'connect', connect)
    try:
        yield
    finally:
        event.remove(Engine, 'connect', connect)
    assert opened
    for connection in opened:
        with pytest.raises(sqlite3.ProgrammingError):
            connection.total_changes  # noqa: B018


def existing(site, url):
    """A database with rows, in which an earlier release has run its evolutions."""
    model = apps.Model()
    before = site(url, [apps.evolution('2025-a'), apps.evolution('2025-b')], model=model)
    model.metadata.create_all(model.engine)
    with model.engine.begin() as connection:
        connection.execute(text("INSERT INTO page (title, seen) VALUES ('one', 0), ('two', 0)"))
    assert before.opens()
    before.stop()
    model.engine.dispose()
    return before


def gate_of(app):
    """The gate's middleware inside of an application."""
    evolver = evolver_in(app)
    while not (isinstance(app, GateMiddleware) and app.evolver is evolver):
        app = app.app if hasattr(app, 'app') else app.application
    return app


# -- starting


def test_the_first_request_of_a_cold_start_is_a_503(closed):
    site = closed()
    assert site.get('/').status_int == 503
    site.evolution.go_on.set()
    assert site.opens()
    assert site.get('/').status_int == 200


def test_a_restart_with_nothing_pending_is_one_select_and_takes_no_lease(site, url):
    before = existing(site, url)
    token = before.evolver.store.snapshot().lease.token
    with apps.statements() as statements, no_connection_left():
        after = site(url, [apps.evolution('2025-a'), apps.evolution('2025-b')])
    assert len(statements) == 1
    assert statements[0].startswith('SELECT')
    assert after.gate.is_open
    assert after.get('/').status_int == 200
    assert after.evolver.store.snapshot().lease.token == token


def test_a_start_with_something_pending_writes_nothing_before_a_request(site, url):
    existing(site, url)
    with apps.statements() as statements, no_connection_left():
        after = site(url, [apps.evolution('2026-c')])
    assert all(statement.startswith('SELECT') for statement in statements)
    assert not after.gate.is_open
    assert '2026-c' not in after.history()


def test_a_start_on_an_empty_database_makes_no_table(site, url):
    site(url, [apps.evolution('a')])
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text('SELECT count(*) FROM sqlite_master')).scalar() == 0
    engine.dispose()


def test_an_application_without_evolutions_opens_at_once(site, url):
    each = site(url, [])
    assert each.gate.is_open
    assert each.get('/').status_int == 200


def test_the_gate_is_not_open_because_the_lease_is_free(site, url):
    """The evolution failed and its process gave the lease back; the next process must not serve."""

    def broken(evolution):
        raise ValueError('half done')

    first = site(url, [apps.evolution('a', broken)])
    first.fails()
    first.stop()
    assert not first.evolver.store.snapshot().lease.alive
    second = site(url, [apps.evolution('a', broken)])
    assert second.get('/').status_int == 503
    assert not second.gate.is_open


def test_many_requests_at_once_start_one_evolver(site, url):
    evolution = apps.held()
    each = site(url, [evolution])
    begin = threading.Barrier(8)
    statuses = []

    def request():
        begin.wait()
        statuses.append(each.get('/').status_int)

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [503] * 8
    assert evolution.began.wait(PATIENCE)
    evolution.go_on.set()
    assert each.opens()
    assert evolution.runs == 1


def test_ten_applications_on_one_database_run_each_evolution_once(site, url):
    log = []
    sites = []
    for _ in range(10):
        evolutions = [apps.evolution(id, lambda evolution: log.append(evolution.evolution_id)) for id in 'abc']
        sites.append(site(url, evolutions))
    for each in sites:
        assert each.get('/').status_int in (200, 503)
    for each in sites:
        assert each.gate.wait(PATIENCE)
    assert log == ['a', 'b', 'c']


# -- being open


def test_an_open_gate_passes_a_request_on_as_it_is(closed):
    site = closed()
    assert not site.gate.passing
    site.evolution.go_on.set()
    assert site.opens()
    site.get('/')
    assert site.gate.passing
    middleware = gate_of(site.app)
    seen = []

    def application(environ, start_response):
        seen.append((environ, start_response))
        return [b'']

    middleware.app = application
    environ = {'PATH_INFO': '/', 'REQUEST_METHOD': 'GET'}
    before = dict(environ)
    assert middleware(environ, len) == [b'']
    assert seen == [(environ, len)]
    assert environ == before


def test_an_open_gate_asks_the_database_for_nothing(closed):
    site = closed(options={'watch': 60})
    site.evolution.go_on.set()
    assert site.opens()
    site.get('/')
    with apps.statements(thread=threading.get_ident()) as statements:
        for _ in range(20):
            assert site.get('/').status_int == 200
            assert site.request('/write', 'POST').status_int == 200
    assert statements == []


def test_an_open_gate_needs_no_body_of_the_request(closed):
    site = closed()
    site.evolution.go_on.set()
    assert site.opens()
    assert site.browser.post('/write', {'a': 'b'}).text == 'written'


def test_without_watching_no_thread_is_left_after_opening(closed):
    site = closed()
    site.evolution.go_on.set()
    assert site.opens()
    assert site.evolver.join(PATIENCE)
    assert site.get('/').status_int == 200


def test_a_restart_with_nothing_pending_and_no_watching_starts_no_thread(site, url):
    existing(site, url)
    before = threading.active_count()
    each = site(url, [apps.evolution('2025-a')])
    assert each.get('/').status_int == 200
    assert threading.active_count() == before
