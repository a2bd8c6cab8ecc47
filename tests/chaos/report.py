"""The page on reliability, written from the figures of a run: ``python -m tests.chaos.report figures.json page.rst``.

See :mod:`tests.chaos.figures` for where the figures come from, and ``script/chaos`` for a whole run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests import pages
from tests.pages import NAMES, definitions, machine, table, title
from tgext.evolve.options import Options

#: The figures of all stores, as :class:`tests.chaos.figures.Collector` writes them.
Figures = Mapping[str, Mapping[str, Any]]

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
        title('Reliability', '='),
        'Real processes run evolutions on real databases, and are killed, paused, cut off from the database and lied '
        'to by their clocks. Then the database and what the processes noted are held against what is promised. '
        'Nothing on this page is typed by hand: ``script/chaos`` runs it all and writes it again.',
        ''
        if long
        else '**These figures are from the short form**, which each change must pass. ``script/chaos`` runs '
        'the long one, which repeats all of it many times.',
        title('What was survived', '-'),
        _counts(figures, stores, [*SURVIVED, *_others(figures, stores)]),
        title('What went wrong', '-'),
        'Each test ends with the same questions. Every number but the first must be 0, or the run fails.',
        _counts(figures, stores, ['evolutions', *WRONG], zeros=True),
        title('How long users wait', '-'),
        _promise(long),
        _seconds(figures, stores),
        *_mutations(figures),
        title('How each figure is won', '-'),
        definitions({'evolutions': 'Evolutions that were to be done when all was over.', **WRONG}),
        definitions({what: text for what, text in SURVIVED.items() if _total(figures, stores, what)}),
        'A store with fewer kills than another has fewer kinds of evolutions: on MongoDB none is transactional.',
        title('How to repeat it', '-'),
        '::\n\n    script/chaos',
        'It needs what ``script/test`` needs, and takes about an hour on two cores. It fails when anything is '
        'wrong, and writes this page when nothing is. ``script/chaos --help`` says how to run a part of it, '
        'or on database servers of your own.',
        title('The machine', '-'),
        '\n'.join(f'- {line}' for line in machine),
    ]
    return pages.page(parts)


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
    return table(['', *(NAMES.get(store, store) for store in stores)], rows)


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
    return table(['', 'kills', 'median', 'worst'], rows)


def _mutations(figures: Figures) -> list[str]:
    counts = figures.get(MUTATIONS, {}).get('counts', {})
    if not counts.get('mutations'):
        return []
    made, noticed = counts['mutations'], counts.get('noticed', 0)
    return [
        title('Would the tests notice?', '-'),
        f'{made} small mistakes were made in copies of the product, one at a time: the fence removed, the lease no '
        f'longer renewed, the gate opened because the lease is free, the wrong clock asked, and so on '
        f'(``tests/chaos/mutations.py`` has them all). The tests noticed {noticed} of them.',
    ]


def main(arguments: Sequence[str]) -> None:
    if len(arguments) != 2:
        sys.exit('usage: python -m tests.chaos.report figures.json page.rst')
    source, target = map(Path, arguments)
    figures = json.loads(source.read_text('utf-8'))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(figures, machine(), long=os.environ.get('EVOLVE_CHAOS') == 'long'), 'utf-8')


if __name__ == '__main__':
    main(sys.argv[1:])
