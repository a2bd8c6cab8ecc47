"""What the errors of drivers mean: the database is away, busy, or refuses."""

from __future__ import annotations

import socket

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from tests.stores import open_store
from tgext.evolve.errors import StoreAway
from tgext.evolve.stores.sqlalchemy.dialects import PostgreSQL, Trouble


def wrapped(error):
    return OperationalError('SELECT 1', {}, error)


@pytest.mark.parametrize('error', [psycopg.OperationalError('gone'), psycopg.errors.ConnectionTimeout('too late')])
def test_what_the_driver_says_of_the_connection_means_that_the_database_is_away(error):
    assert PostgreSQL().trouble(wrapped(error)) is Trouble.AWAY


def test_what_the_server_refuses_is_no_absence():
    assert PostgreSQL().trouble(wrapped(psycopg.errors.InsufficientPrivilege('no'))) is Trouble.OTHER
    assert PostgreSQL().trouble(wrapped(psycopg.DataError('no state'))) is Trouble.OTHER


def test_a_server_that_takes_too_long_to_answer_is_away():
    """It listens, and is too busy to say anything: when many processes start at once."""
    with socket.create_server(('127.0.0.1', 0)) as silent:
        store = open_store(f'postgresql+psycopg://nobody@127.0.0.1:{silent.getsockname()[1]}/none?connect_timeout=2')
        with pytest.raises(StoreAway, match='timeout'):
            store.history()
