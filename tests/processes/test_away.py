"""The database is away, at the start or in mid-run: nothing crashes, and all goes on when it is back."""

from __future__ import annotations

import time

import pytest

from tests.processes.harness import until
from tests.processes.worker import ROWS
from tests.servers import SERVERS

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.servers, getattr(pytest.mark, name)]


@pytest.fixture(params=[pytest.param(name, marks=marks(name)) for name in SERVERS])
def server(request):
    """A server that the test may stop and start."""
    server = request.getfixturevalue(f'{request.param}_server')
    yield server
    # Other tests use it as well.
    server.start()


def new_database(server) -> str:
    url = server.new_database()
    # The driver's own patience is 30 s, in which an evolution of a MongoDB application waits for its server.
    return url + '?serverSelectionTimeoutMS=1000' if url.startswith('mongodb') else url


def closings(log: str, reason: str) -> int:
    return log.count(f'may serve nothing: {reason}')


def test_a_process_starts_without_its_database_and_opens_when_it_is_back(make_site, server):
    site = make_site(new_database(server), evolutions=[{'id': 'one'}])
    server.stop()
    process = site.fork()
    assert process.first_answer()[0] == 503
    process.until_reason('database-away')
    # It goes on trying without saying so again.
    away = time.monotonic()
    until(lambda: time.monotonic() - away > 2)
    assert process.reason() == 'database-away'
    server.start()
    process.until_open(15)
    assert closings(process.log, 'database-away') == 1
    assert 'Traceback' not in process.log
    assert site.states('one') == ['done']
    assert site.seen == [1] * ROWS


@pytest.mark.parametrize(
    ('server', 'transactional'),
    [
        pytest.param(name, transactional, marks=marks(name))
        for name in SERVERS
        for transactional in ([False] if name == 'mongodb' else [False, True])
    ],
    indirect=['server'],
)
def test_an_evolution_whose_database_goes_away_is_done_when_it_is_back(make_site, server, transactional):
    url = new_database(server)
    site = make_site(url, evolutions=[{'id': 'one', 'does': 'hold', 'transactional': transactional}, {'id': 'two'}])
    process = site.fork()
    site.until_told('half')
    server.kill()
    site.go()
    process.until_reason('database-away')
    server.start()
    process.until_open(20)
    assert closings(process.log, 'database-away') == 1
    states = site.states('one')
    assert states[-1] == 'done'
    assert set(states[:-1]) <= {'interrupted', 'failed'}
    assert site.states('two') == ['done']
    if transactional:
        assert site.seen == [2] * ROWS
    else:
        assert min(site.seen) >= 2


def test_an_open_process_stays_open_while_its_database_is_away(make_site, server):
    site = make_site(new_database(server), evolutions=[{'id': 'one'}], watch=0.2)
    process = site.fork()
    process.until_open()
    server.stop()
    away = time.monotonic()
    until(lambda: process.first_answer()[0] == 200 and time.monotonic() - away > 1)
    server.start()
    assert process.first_answer()[0] == 200
    assert 'Traceback' not in process.log
