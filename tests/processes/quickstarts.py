"""Applications as ``gearbox quickstart`` makes them, with tgext.evolve plugged in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.processes.harness import ROOT, Process, Zygote, program
from tests.servers import free_port

PLUG = """
from tgext.pluggable import plug
plug(base_config, 'tgext.evolve', evolutions=['{package}.evolutions'])
"""

#: What every evolution in these applications does first.
WITNESS = """
import os
from pathlib import Path

from tgext.evolve import Evolution

def note(event):
    with open(os.environ['WITNESS'], 'a') as witness:
        witness.write(f'{event} {os.getpid()}\\n')

"""

ENTRY_POINTS = """
[paste.app_factory]
main = {package}.config.application:make_app

[gearbox.plugins]
turbogears-devtools = tg.devtools
"""


class Project:
    """A generated application with tgext.evolve plugged in.

    :param zygote: what its commands are forked from.
    """

    def __init__(self, directory: Path, package: str, zygote: Zygote):
        self.directory = directory
        self.zygote = zygote
        self.package = package
        self.witness = directory / 'witness'
        path = f'{directory}{os.pathsep}{ROOT}'
        self.environ = {**os.environ, 'WITNESS': str(self.witness), 'PYTHONPATH': path, 'PYTHONUNBUFFERED': '1'}
        self.environ.pop('PYTEST_CURRENT_TEST', None)

    @classmethod
    def generate(cls, directory: Path, package: str, *options: str, evolutions: str, zygote: Zygote) -> Project:
        cls(directory, package, zygote).gearbox('quickstart', *options, package)
        project = cls(directory / package, package, zygote)
        project.install()
        with open(project.directory / package / 'config' / 'app_cfg.py', 'a') as app_cfg:
            app_cfg.write(PLUG.format(package=package))
        (project.directory / package / 'evolutions.py').write_text(WITNESS + evolutions)
        return project

    def install(self) -> None:
        """As an installation would leave it, without one."""
        metadata = self.directory / f'{self.package}-0.1.dist-info'
        metadata.mkdir(exist_ok=True)
        (metadata / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {self.package}\nVersion: 0.1\n')
        (metadata / 'top_level.txt').write_text(f'{self.package}\n')
        (metadata / 'entry_points.txt').write_text(ENTRY_POINTS.format(package=self.package))

    def copy(self, directory: Path) -> Project:
        shutil.copytree(self.directory, directory / self.package)
        return Project(directory / self.package, self.package, self.zygote)

    def configure(self, name: str, old: str, new: str) -> None:
        ini = self.directory / name
        text = ini.read_text()
        assert re.search(old, text, re.M), text
        ini.write_text(re.sub(old, new, text, flags=re.M))

    def run(self, *command: str) -> str:
        """A command to its end; what it printed.

        :param command: the path of a script and its arguments, or ``-m``, a module and its arguments.
        """
        done = self.zygote.run(*command, directory=self.directory, environ=self.environ, timeout=60, errors_apart=False)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def shell(self, command: str) -> str:
        """The same of a line for the shell, where the programs of this environment are found."""
        path = f'{Path(sys.executable).parent}{os.pathsep}{self.environ["PATH"]}'
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.directory,
            env={**self.environ, 'PATH': path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def gearbox(self, *arguments: str) -> str:
        return self.run(program('gearbox'), *arguments)

    def serve(self) -> Process:
        """``gearbox serve``, on a free port."""
        port = free_port()
        self.configure('development.ini', r'^port = \d+', f'port = {port}')
        command = [program('gearbox'), 'serve', '-c', 'development.ini']
        return self.zygote.start(
            *command, directory=self.directory, environ=self.environ, log=self.directory / 'log', port=port
        )

    def begun(self) -> int:
        return len(self.witness.read_text().splitlines()) if self.witness.exists() else 0

    def go(self) -> None:
        Path(f'{self.witness}.go').touch()
