"""Evolutions that misbehave, once each: the second time that one of them is tried, it does what it should.

A process runs them when its ``evolutions`` are ``['tests.chaos.deeds']``; which ones, its setting ``deeds`` says.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from sqlalchemy import text

from tests.processes import worker
from tests.processes.worker import Step, note, settings, wait_for_file

PASSWORD = 'correct-horse'


class _Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError('this exception has no text')

    __repr__ = __str__


class Deed(Step):
    """Does something bad between its two halves, when it is tried for the first time."""

    def __init__(self, id, does='count', **attributes):
        super().__init__(id, does='_once', deed=does, **attributes)

    def _once(self):
        did = Path(settings()['directory'], f'did-{self.evolution_id}')
        if not did.exists():
            did.touch()
            note('deed', self.evolution_id)
            getattr(self, self.deed)()

    @property
    def _session(self):
        return worker.rows.model.DBSession

    # -- how an evolution ends that should not

    def system_exit(self):
        sys.exit(3)

    def keyboard_interrupt(self):
        raise KeyboardInterrupt

    def generator_exit(self):
        raise GeneratorExit('as if a generator were closed')

    def stop_iteration(self):
        next(iter(()))

    def cancelled(self):
        """What the engine raises when the process leaves; this one does not leave."""
        raise worker.tgext.evolve.Cancelled('said by the evolution itself')

    def recurse(self):
        self.recurse()

    def exit_at_once(self):
        os._exit(3)

    # -- what it leaves behind

    def leak(self):
        """A transaction of its own on a connection of the pool, and work in the session that nobody commits."""
        session = self._session()
        worker.leaked = session.get_bind().connect()
        worker.leaked.execute(text('SELECT count(*) FROM page'))
        worker.rows.count([1])
        raise ValueError('after a leak')

    def close_session(self):
        self._session.close()
        self._session.remove()
        raise ValueError('after the session was closed')

    def commit(self):
        worker.rows.commit()

    def write_on(self):
        """By a thread that nobody waits for."""

        def go_on():
            path = Path(settings()['directory'], 'stop-writing')
            while not path.exists():
                with self._session().get_bind().begin() as connection:
                    connection.execute(text("UPDATE page SET title = 'from a thread' WHERE id = 1"))
                note('thread', self.evolution_id)
                time.sleep(0.2)

        self._session.remove()  # its row locks would keep the thread waiting
        threading.Thread(target=go_on, daemon=True).start()
        raise ValueError('while a thread goes on')

    # -- what it says

    def say_much(self):
        sys.stdout.write('x' * 1_000_000 + '\n')
        sys.stderr.write('y' * 1_000_000 + '\n')
        raise ValueError('after a megabyte')

    def unspeakable(self):
        raise _Unspeakable

    def nul(self):
        raise ValueError('a NUL \0 in it')

    def surrogate(self):
        raise ValueError('half a pair \ud800 of surrogates')

    def password(self):
        raise ValueError(f'postgresql://somebody:{PASSWORD}@example.org/db does not answer')

    def long_text(self):
        raise ValueError('begin ' + 'z' * 100_000 + ' end')

    # -- what never ends

    def sleep_in_python(self):
        """With a timeout the next word to the engine ends it."""
        wait_for_file(f'wake-{self.evolution_id}')
        self.progress(1)

    def sleep_in_a_transaction(self):
        """Nothing is executed when the time is out, but the session has a connection."""
        self._session.execute(text('SELECT 1'))
        wait_for_file(f'wake-{self.evolution_id}')

    def _endless(self) -> str:
        kind = self._session().get_bind().dialect.name
        if kind == 'postgresql':
            return 'SELECT pg_sleep(300)'
        if kind == 'sqlite':
            return (
                'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000000)'
                ' SELECT count(*) FROM n'
            )
        return 'SELECT SLEEP(300)'

    def hang(self):
        """In a statement."""
        self._session.execute(text(self._endless()))
        self._session.execute(text('SELECT 1'))

    def hang_and_swallow(self):
        """An evolution that thinks it knows better: it goes on as if nothing had happened."""
        session = self._session
        try:
            with session.begin_nested():
                session.execute(text(self._endless()))
        except Exception:
            note('swallowed', self.evolution_id)

    # -- a database that refuses

    def grow(self):
        """A megabyte of data."""
        for row in range(100):
            self._session.execute(
                text('INSERT INTO page (id, title, slug) VALUES (:id, :title, :title)'),
                {'id': 1000 + row, 'title': 'x' * 10_000},
            )


evolutions = [Deed(**each) for each in settings()['deeds']]
