"""Pages in reStructuredText that are written from figures: tables, and the machine in general terms."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from textwrap import fill, indent
from typing import Any

from tests.servers import MariaDB, MongoDB, PostgreSQL, Unavailable

#: What the stores are called on a page, in this order.
NAMES = {
    'sqlite': 'SQLite',
    'postgresql': 'PostgreSQL',
    'mariadb': 'MariaDB',
    'mongodb': 'MongoDB wire',
    'mim': 'mim',
}


def page(parts: Iterable[str]) -> str:
    """The whole of it; empty parts are left out."""
    return '\n\n'.join(wrapped(part) for part in parts if part) + '\n'


def wrapped(part: str) -> str:
    """Prose in lines of a readable length; what has lines of its own keeps them."""
    if '\n' in part:
        return part
    return fill(part, 110, break_long_words=False, break_on_hyphens=False)


def title(text: str, line: str) -> str:
    return f'{text}\n{line * len(text)}'


def definitions(texts: Mapping[str, str]) -> str:
    return '\n\n'.join(f'{what}\n{indent(wrapped(text), "    ")}' for what, text in texts.items())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with its first column to the left and numbers to the right; nothing without any."""
    if not rows or len(head) < 2:
        return ''
    widths = [max(2, *(len(row[column]) for row in [head, *rows])) for column in range(len(head))]
    line = '  '.join('=' * width for width in widths)

    def text(row: Sequence[str]) -> str:
        # The first cell of a row must not be empty, or it continues the row before.
        first = row[0].ljust(widths[0]) if row[0] else '\\'.ljust(widths[0])
        return '  '.join([first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])

    return '\n'.join([line, text(head), line, *map(text, rows), line])


# -- the machine


def machine() -> list[str]:
    """What it ran on, in general terms: no names, no paths."""
    return [
        f'{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}',
        f'SQLite {sqlite3.sqlite_version}',
        _server(PostgreSQL, 'PostgreSQL', lambda: _program(str(PostgreSQL._find() / 'postgres'))),
        _server(MariaDB, 'MariaDB', lambda: _program(MariaDB()._find('mariadbd'))),
        _server(MongoDB, "MongoDB's wire protocol, by SecantusDB", lambda: version('secantusdb')),
        *(f'{name} {found}' for name in ('SQLAlchemy', 'Ming', 'pymongo') if (found := _package(name))),
    ]


def _server(kind: Any, name: str, find: Any) -> str:
    if os.environ.get(kind.variable):
        return f'{name}: a server that ran already ({kind.variable})'
    try:
        return f'{name} {find()}'
    except (Unavailable, PackageNotFoundError, OSError, subprocess.CalledProcessError):
        return f'{name}: not installed'


def _program(path: str) -> str:
    """The version that a program says it has."""
    done = subprocess.run([shutil.which(path) or path, '--version'], stdout=subprocess.PIPE, check=True)
    found = re.search(r'\d+(\.\d+)+', done.stdout.decode())
    return found.group() if found else 'of an unknown version'


def _package(name: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(name)
    return ''
