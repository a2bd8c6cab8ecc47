"""An application with an ini file, and the command typed beside it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from tests.commands import application
from tgext.evolve.commands import EvolveCommand
from tgext.evolve.databases import Databases
from tgext.evolve.options import Options
from tgext.evolve.stores.base import Owner, Report

NAMESPACE = 'testapp'

#: Where nobody listens.
NOWHERE = {
    'sql': 'postgresql+psycopg://nobody:secret@127.0.0.1:1/none',
    'mongodb': 'mongodb://127.0.0.1:1/none?serverSelectionTimeoutMS=200',
}


@dataclass
class Typed:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """Its one document."""
        [line] = self.out.splitlines()
        document = json.loads(line)
        assert document['version'] == 1
        return document

    @property
    def rows(self):
        """The columns of each line of plain text."""
        return [[cell.strip() for cell in line.split('  ') if cell.strip()] for line in self.out.splitlines()]

    @property
    def error(self):
        """The one line that says what is wrong."""
        [line] = [line for line in self.err.splitlines() if line.startswith('gearbox evolve')]
        assert 'Traceback' not in self.err
        return line


@pytest.fixture(autouse=True)
def _forget():
    yield
    application.forget()


@pytest.fixture
def type_in(capsys):
    """Types ``gearbox evolve`` with these arguments, in this process."""

    def typed(*argv):
        # As gearbox makes it; its main() would add a handler to the root logger at each call.
        command = EvolveCommand(SimpleNamespace(), argparse.Namespace(verbose_level=1, debug=False))
        capsys.readouterr()
        try:
            code = command.run(command.get_parser('gearbox evolve').parse_args(list(argv)))
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return Typed(int(code), captured.out, captured.err)

    return typed


class Site:
    """An ini file in the current directory, and the store behind it."""

    def __init__(self, directory, url, type_in):
        self.directory = directory
        self.url = url
        self.type = type_in
        self.options = {'watch': 0, 'poll': 0.02, 'retry_delay': 0}
        self.write()
        self.store = Databases({}, Options(store=url, namespace=NAMESPACE)).store()

    def write(self, name='development.ini', factory='make_app', url=None, **options):
        url = url or self.url
        key = 'ming.url' if url.startswith('mongodb') else 'sqlalchemy.url'
        lines = ['[app:main]', f'use = call:tests.commands.application:{factory}', f'{key} = {url}']
        lines += [f'tgext.evolve.{name} = {value}' for name, value in {**self.options, **options}.items()]
        (self.directory / name).write_text('\n'.join(lines).replace('%', '%%'))

    @property
    def nowhere(self):
        return NOWHERE['mongodb' if self.url.startswith('mongodb') else 'sql']

    def has(self, *evolutions):
        application.evolutions[:] = evolutions
        return self

    def states(self):
        history = self.store.history()
        return {id: history.latest(id).state.value for id in history.ids}

    def hold(self, running=None, ttl=60, **progress):
        """Another process holds the lease and runs this one."""
        self.store.prepare()
        grant = self.store.acquire(Owner(host='elsewhere', pid=4711), ttl)
        if running is not None:
            from tgext.evolve.plan import planned

            attempt = self.store.begin(grant, planned(running()), 1, 'code')
            report = Report(attempt.evolution_id, since=attempt.started, **progress)
            self.store.renew(grant, ttl, report)
        return grant


@pytest.fixture
def site(store_url, tmp_path, monkeypatch, type_in):
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path, store_url, type_in)
    yield site
    site.store.close()


@pytest.fixture
def at_a_terminal(monkeypatch):
    """stdout and stdin are a terminal."""
    monkeypatch.setenv('TERM', 'xterm-256color')
    monkeypatch.setenv('COLUMNS', '160')

    def now(answer=''):
        monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
        monkeypatch.setattr(sys, 'stdin', SimpleNamespace(isatty=lambda: True, readline=lambda: answer))

    return now
