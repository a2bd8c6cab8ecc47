"""The page on reliability, written from the figures of a run: ``python -m tests.chaos.report figures.json page.rst``.

See :mod:`tests.chaos.figures` for where the figures come from, and ``script/chaos`` for a whole run.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from textwrap import fill, indent
from typing import Any

from tests.servers import MariaDB, MongoDB, PostgreSQL, Unavailable
from tgext.evolve.options import Options

#: The figures of all stores, as :class:`tests.chaos.figures.Collector` writes them.
Figures = Mapping[str, Mapping[str, Any]]

NAMES = {
    'sqlite': 'SQLite',
    'postgresql': 'PostgreSQL',
    'mariadb': 'MariaDB',
    'mongodb': 'MongoDB wire',
    'mim': 'mim',
}

#: What must be 0, and what it means.
WRONG = {
    'double runs': 'A transactional evolution whose work is there twice; an evolution that is recorded as done twice, '
    'or came to its end more often than there are attempts on record.',
    'lost records': 'Work that was done and is not there or not recorded; an attempt that nothing recorded; a record '
    'of what never came to its end.',
    'stuck': 'An evolution that is not done when all is over, or one that is recorded as running while nobody runs it.',
    'early 200s': 'A request that was served before everything that keeps users out was done.',
}

#: How each figure is won. What is not explained is counted all the same.
SURVIVED = {
    'kills': 'kill -9 of a process: in the middle of an evolution, or at any named point between its start and the '
    'release of the lease.',
    'pauses': 'A process was stopped (SIGSTOP) for longer than its lease, and went on when another one had taken over.',
    'partitions': 'The connection to the database was cut, stalled, or delayed by a proxy in between; answers to '
    'commits were lost.',
    'restarts': 'The database server was ended or killed in the middle of something, and started again.',
    'clock changes': 'The clock of a process or of its database was hours ahead or behind, or jumped.',
    'forks': 'A process forked in the middle of an evolution, or the application was loaded before a fork.',
    'edits': 'Somebody edited, deleted or restored rows of the lease or the history by hand.',
    'refusals': 'The database refused something: a right, a table, space, a connection.',
    'misbehaviours': 'An evolution did what it must not: it ended its process or its transaction, closed its session, '
    'raised what nobody expects, left threads behind, and the like.',
    'timeouts': 'A statement was cancelled because its evolution had no more time.',
}

#: Measured by tests/chaos/test_recovery.py, with the default lease in the long form.
RECOVERY = 'recovery by default'

MUTATIONS = 'mutations'


def page(figures: Figures, machine: Sequence[str], *, long: bool) -> str:
    """The whole page, in reStructuredText."""
    stores = [store for store in [*NAMES, *sorted(figures)] if store in figures and store != MUTATIONS]
    stores = list(dict.fromkeys(stores))
    parts = [
        _title('Reliability', '='),
        'Real processes run evolutions on real databases, and are killed, paused, cut off from the database and lied '
        'to by their clocks. Then the database and what the processes noted are held against what is promised. '
        'Nothing on this page is typed by hand: ``script/chaos`` runs it all and writes it again.',
        ''
        if long
        else '**These figures are from the short form**, which each change must pass. ``script/chaos`` runs '
        'the long one, which repeats all of it many times.',
        _title('What was survived', '-'),
        _counts(figures, stores, [*SURVIVED, *_others(figures, stores)]),
        _title('What went wrong', '-'),
        'Each test ends with the same questions. Every number but the first must be 0, or the run fails.',
        _counts(figures, stores, ['evolutions', *WRONG], zeros=True),
        _title('How long users wait', '-'),
        _promise(long),
        _seconds(figures, stores),
        *_mutations(figures),
        _title('How each figure is won', '-'),
        _definitions({'evolutions': 'Evolutions that were to be done when all was over.', **WRONG}),
        _definitions({what: text for what, text in SURVIVED.items() if _total(figures, stores, what)}),
        'A store with fewer kills than another has fewer kinds of evolutions: on MongoDB none is transactional.',
        _title('How to repeat it', '-'),
        '::\n\n    script/chaos',
        'It needs what ``script/test`` needs, and takes about an hour on two cores. It fails when anything is '
        'wrong, and writes this page when nothing is. ``script/chaos --help`` says how to run a part of it, '
        'or on database servers of your own.',
        _title('The machine', '-'),
        '\n'.join(f'- {line}' for line in machine),
    ]
    return '\n\n'.join(_wrapped(part) for part in parts if part) + '\n'


def _wrapped(part: str) -> str:
    """Prose in lines of a readable length; what has lines of its own keeps them."""
    if '\n' in part:
        return part
    return fill(part, 110, break_long_words=False, break_on_hyphens=False)


def _title(text: str, line: str) -> str:
    return f'{text}\n{line * len(text)}'


def _count(figures: Figures, store: str, what: str) -> int:
    return int(figures[store].get('counts', {}).get(what, 0))


def _total(figures: Figures, stores: Sequence[str], what: str) -> int:
    return sum(_count(figures, store, what) for store in stores)


def _others(figures: Figures, stores: Sequence[str]) -> list[str]:
    """What was counted and has no explanation here."""
    counted = {what for store in stores for what in figures[store].get('counts', {})}
    return sorted(counted - {'evolutions', *WRONG, *SURVIVED})


def _counts(figures: Figures, stores: Sequence[str], kinds: Sequence[str], *, zeros: bool = False) -> str:
    rows = [
        [what, *(str(_count(figures, store, what)) for store in stores)]
        for what in kinds
        if zeros or _total(figures, stores, what)
    ]
    return _table(['', *(NAMES.get(store, store) for store in stores)], rows)


def _promise(long: bool) -> str:
    options = Options()
    lease = f'the default lease of {options.lease:g} s' if long else 'a lease of 2 s, for a short test'
    return (
        f'A process that runs an evolution is killed by kill -9. Until another process that waits answers its first '
        f'200 it takes so many seconds, with {lease}, and the default poll of {options.poll:g} s; the killed evolution '
        f'has run again by then. What is promised is lease + poll + 1 s.'
    )


def _seconds(figures: Figures, stores: Sequence[str]) -> str:
    rows = []
    for store in stores:
        measured = figures[store].get('seconds', {}).get(RECOVERY, [])
        if measured:
            numbers = [str(len(measured)), f'{median(measured):.1f}', f'{max(measured):.1f}']
            rows.append([NAMES.get(store, store), *numbers])
    return _table(['', 'kills', 'median', 'worst'], rows)


def _mutations(figures: Figures) -> list[str]:
    counts = figures.get(MUTATIONS, {}).get('counts', {})
    if not counts.get('mutations'):
        return []
    made, noticed = counts['mutations'], counts.get('noticed', 0)
    return [
        _title('Would the tests notice?', '-'),
        f'{made} small mistakes were made in copies of the product, one at a time: the fence removed, the lease no '
        f'longer renewed, the gate opened because the lease is free, the wrong clock asked, and so on '
        f'(``tests/chaos/mutations.py`` has them all). The tests noticed {noticed} of them.',
    ]


def _definitions(texts: Mapping[str, str]) -> str:
    return '\n\n'.join(f'{what}\n{indent(_wrapped(text), "    ")}' for what, text in texts.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
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


def main(arguments: Sequence[str]) -> None:
    if len(arguments) != 2:
        sys.exit('usage: python -m tests.chaos.report figures.json page.rst')
    source, target = map(Path, arguments)
    figures = json.loads(source.read_text('utf-8'))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(figures, machine(), long=os.environ.get('EVOLVE_CHAOS') == 'long'), 'utf-8')


if __name__ == '__main__':
    main(sys.argv[1:])
