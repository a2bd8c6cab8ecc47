"""Does what a page says, as a reader would: types its commands, writes its files, compares what it shows."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

from tests.processes.harness import ROOT, Zygote, program
from tests.processes.quickstarts import Project

PAGES = ROOT / 'docs'

#: What makes of a line more than a program and its arguments.
_SHELL = frozenset('|&;<>()$`*?[~=%{')

#: What is to be typed, and what is to be written where, in the order of the page.
_STEP = re.compile(
    r'(?:``(?P<name>[\w/.]+)``'
    r'(?P<end>, at its end|, in ``class (?P<owner>\w+)``|, in ``(?P<section>\[[\w:]+])``)?:\n\n)?'
    r'^\.\. code-block:: (?P<kind>\w+)\n\n(?P<block>(?:    .*\n|\n)+)',
    re.MULTILINE,
)


@dataclass(frozen=True)
class Step:
    """A block of a page.

    :param kind: ``console``, or the language of a file.
    :param name: of the file.
    :param end: it goes to the end of a file that is there, or into a class or section of it.
    """

    kind: str
    name: str | None
    end: str | None
    owner: str | None
    section: str | None
    block: str

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """Each command, with the lines that the page shows of what it says."""
        typed: list[tuple[str, list[str]]] = []
        for line in self.block.splitlines():
            if line.startswith('$ '):
                typed.append((line[2:], []))
            elif line.strip():
                typed[-1][1].append(line)
        return typed


def steps(text: str) -> list[Step]:
    found = []
    for match in _STEP.finditer(text):
        parts = match.groupdict()
        found.append(Step(**{**parts, 'block': re.sub('^    ', '', parts['block'], flags=re.M).rstrip('\n') + '\n'}))
    return found


@dataclass
class Reader:
    """Somebody who follows a page, beginning in an empty directory.

    Nothing is installed: all that a page installs is in the environment of the tests.

    :param serves: does ``gearbox serve`` when the page says so, until the application is open.
    """

    directory: Path
    zygote: Zygote
    package: str = 'wiki'
    serves: bool = True
    #: Each command that was typed, with all that it said, in order.
    said: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.project = Project(self.directory, self.package, self.zygote)

    def follow(self, steps: list[Step]) -> None:
        for step in steps:
            if step.kind == 'console':
                for command, shown in step.commands:
                    self.type(command, shown)
            else:
                assert step.name, f'where does this go?\n{step.block}'
                self.write(step)

    def output(self, command: str) -> str:
        """What the last such command said."""
        return [said for typed, said in self.said if typed == command][-1]

    def type(self, command: str, shown: list[str]) -> None:
        words = command.split()
        if words[0] == 'cd':
            self.project = Project(self.project.directory / words[1], self.package, self.zygote)
            said = ''
        elif words[0] == 'pip':
            if '-e' in words:
                self.project.install()
            said = ''
        elif command.startswith(('python3 -m venv', '. env/bin/activate')):
            said = ''
        elif words[:2] == ['gearbox', 'serve']:
            said = self.serve() if self.serves else ''
        elif words[0] in ('gearbox', 'pytest') and not _SHELL & set(command):
            said = self.project.run(program(words[0]), *shlex.split(command)[1:])
        else:
            said = self.project.shell(command)
        self.said.append((command, said))
        assert 'Traceback' not in said, said
        missing = not_shown(shown, said)
        assert missing is None, f'{command!r} does not say {missing!r}, but:\n{said}'

    def write(self, step: Step) -> None:
        path = self.project.directory / step.name
        path.parent.mkdir(exist_ok=True)
        if step.owner or step.section:
            text = path.read_text()
            begin = rf'class {step.owner}\(.*?__tablename__ = .*?\n' if step.owner else rf'^{re.escape(step.section)}\n'
            found = re.search(begin, text, re.S | re.M)
            assert found is not None, begin
            block = '    ' + dedent(step.block).strip() if step.owner else step.block.strip()
            path.write_text(text[: found.end()] + f'\n{block}\n' + text[found.end() :])
        elif step.end:
            with open(path, 'a') as file:
                file.write('\n' + step.block)
        else:
            assert not path.exists(), f'{path} is there already'
            path.write_text(step.block)

    def serve(self) -> str:
        """The server of the page, until it serves; its log."""
        server = self.project.serve()
        try:
            server.until_open()
            assert 'TurboGears' in server.fetch()[1]
        finally:
            server.reap()
        assert 'Traceback' not in server.log
        return server.log


def not_shown(shown: list[str], said: str) -> str | None:
    """The first of these lines that a command did not say, in this order; ``...`` stands for anything."""
    lines = iter(' '.join(line.split()) for line in said.splitlines())
    for line in shown:
        pattern = re.escape(' '.join(line.split())).replace(r'\.\.\.', '.*')
        if not any(re.match(pattern, each) for each in lines):
            return line
    return None
