"""Repositories of alembic as their users have them, and the tools that users had before."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from textwrap import dedent, indent

import devtools
import tg
from alembic import command
from alembic.config import Config

from tests import apps
from tgext.evolve.component import EVOLVER
from tgext.evolve.sources.alembic import AlembicRevisions

#: As quickstart writes it, without the model.
ENV = (
    Path(devtools.__file__, '../gearbox/quickstart/template/migration/env.py_tmpl')
    .resolve()
    .read_text()
    .replace('from {{package}} import model\n', '')
    .replace('model.metadata', 'None')
)

#: A revision each: what is below it, what alembic's own depends_on says, upgrade() and downgrade().
REVISIONS = {
    'a1': ((), (), "op.create_table('page', {id}, sa.Column('title', sa.String(80)))", "op.drop_table('page')"),
    'b2': (
        ('a1',),
        (),
        """
        op.add_column('page', sa.Column('slug', sa.String(80)))
        op.execute("INSERT INTO page (id, title) VALUES (1, 'One'), (2, 'Two')")
        """,
        """
        op.execute('DELETE FROM page')
        op.drop_column('page', 'slug')
        """,
    ),
    'left': (
        ('b2',),
        (),
        "op.create_table('tag', {id}, sa.Column('name', sa.String(80)))",
        "op.drop_table('tag')",
    ),
    'right': (('b2',), (), 'op.execute("UPDATE page SET slug = title")', 'op.execute("UPDATE page SET slug = NULL")'),
    'merge': (('left', 'right'), (), 'pass', 'pass'),
    # A second base, on which the first branch depends without being above it.
    'log0': ((), (), "op.create_table('log', {id}, sa.Column('line', sa.String(80)))", "op.drop_table('log')"),
    'c3': (
        ('merge',),
        ('log0',),
        'op.execute("INSERT INTO log (id, line) SELECT id, slug FROM page")',
        "op.execute('DELETE FROM log')",
    ),
    'log1': (
        ('log0',),
        (),
        "op.add_column('log', sa.Column('level', sa.Integer))",
        "op.drop_column('log', 'level')",
    ),
}

#: A release each: the revisions that it has.
OLD = ('a1', 'b2')
ALL = tuple(REVISIONS)

ID = "sa.Column('id', sa.Integer, primary_key=True)"


class Project:
    """A directory with an ini file and an alembic repository."""

    def __init__(self, directory: Path, url: str, revisions=ALL, env: str = ENV, folder: str = 'migration'):
        self.directory = directory
        self.url = url
        self.folder = directory / folder
        versions = self.folder / 'versions'
        versions.mkdir(parents=True, exist_ok=True)
        (self.folder / 'env.py').write_text(env)
        for name in revisions:
            self.write(name, *REVISIONS[name])
        self.ini = directory / 'development.ini'
        self.ini.write_text(f'[app:main]\nsqlalchemy.url = {url}\n')

    def write(self, name, below=(), needs=(), up='pass', down='pass', *, extra=''):
        text = f'"""The revision {name}\n\nand more about it."""\n'
        text += f'from alembic import op\nimport sqlalchemy as sa\nrevision = {name!r}\n'
        text += f'down_revision = {below or None!r}\ndepends_on = {needs or None!r}\n{extra}\n'
        for function, body in (('upgrade', up), ('downgrade', down)):
            if body is not None:
                text += f'\ndef {function}():\n{indent(dedent(body.replace("{id}", ID)).strip(), "    ")}\n'
        path = self.folder / 'versions' / f'{name}.py'
        path.write_text(text)
        return path

    def migrate(self, *arguments: str) -> None:
        """``gearbox migrate``."""
        from devtools.gearbox.alembic_migrate import MigrateCommand

        typed = (
            MigrateCommand(None, argparse.Namespace())
            .get_parser('gearbox migrate')
            .parse_args(['-c', 'development.ini', '-l', str(self.folder), *arguments])
        )
        before = os.getcwd()
        os.chdir(self.directory)
        try:
            MigrateCommand(None, argparse.Namespace()).take_action(typed)
        finally:
            os.chdir(before)

    def stamp_head(self, revision: str = 'heads') -> None:
        """As ``websetup`` of a quickstart does it."""
        config = Config()
        config.set_main_option('script_location', str(self.folder))
        config.set_main_option('sqlalchemy.url', self.url)
        command.stamp(config, revision)

    def application(self, *others, ini=None, options=None, model=None, **parameters):
        """The configuration of an application of TurboGears with these revisions, and ``others`` after them."""
        apps.make(
            self.url,
            [AlembicRevisions(self.folder.name, **parameters), *others],
            model=model,
            options={'watch': 0, 'poll': 0.02, 'retry_delay': 0, **(options or {})},
            ini={'here': str(self.directory), '__file__': str(self.ini), **(ini or {})},
        )
        return tg.config._current_obj()

    def evolver(self, *others, **options):
        return self.application(*others, **options)[EVOLVER]
