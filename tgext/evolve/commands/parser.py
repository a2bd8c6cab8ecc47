"""What can be typed."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

#: Each verb with one line about it, in the order in which people look for them.
VERBS = {
    'status': 'every evolution with its state, who holds the lease, and why the gate is closed',
    'plan': 'what would run now, in which order, and how much of it there is',
    'check': 'is anything pending? exit 0: no, 1: yes, 69: the database is away',
    'run': 'run what is pending here and now',
    'dry-run': 'process one batch of a batched evolution and roll it back',
    'watch': 'look at whoever runs, until nothing is left',
    'history': 'every attempt, the newest last, with its error',
    'stamp': 'record evolutions as done without running them',
    'unstamp': 'take stamp back, or an import from 0.0.5',
    'retry': 'let what failed, was cancelled or interrupted too often run again',
    'pause': 'nothing begins any more, in whatever process',
    'resume': 'take pause back',
    'cancel': 'end the evolution that runs, at its next report of progress',
    'down': 'close the gate of every process by hand',
    'up': 'take down back',
    'unlock': 'who holds the lease, and what to do about a lock of 0.0.5',
    'adopt': 'take over by hand what 0.0.5 recorded',
    'claim': 'begin a history here though another namespace has the same evolutions',
    'graph': 'what depends on what, as mermaid or dot',
    'create': 'write a new evolution and its test',
    'test': 'run what is pending on a scratch database: up, again, and down and up where there is a way down',
}

EPILOG = """\
exit codes:
  0 done (check: nothing is pending)   1 failed, or only a person can go on (check: something is pending)
  2 bad command line   65 no such id   66 no such ini   69 database away or refusing   73 would overwrite
  75 somebody else holds the lease, or paused: try later   78 ini, application, not plugged, disabled
  130 Ctrl-C   143 SIGTERM

gearbox help evolve VERB tells more about one of them.
"""


class Parser(argparse.ArgumentParser):
    """One line when it cannot understand, instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        print(f'{self.prog}: {message}. For help: gearbox help evolve', file=sys.stderr)
        sys.exit(2)


def add_verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The verbs below ``parser``, with what each of them takes."""
    _common(parser, default=True)
    verbs = parser.add_subparsers(dest='verb', metavar='VERB', required=True, parser_class=Parser)
    made: dict[str, argparse.ArgumentParser] = {}
    for name, description in VERBS.items():
        made[name] = verbs.add_parser(name, help=description, description=_sentence(description), add_help=False)
        _common(made[name], default=False)

    made['run'].add_argument(
        '--wait', type=_seconds, default=0.0, metavar='S', help='seconds to wait for who holds the lease (default: 0)'
    )
    made['run'].add_argument('--until', metavar='ID', help='run the plan up to and with this one only')
    made['watch'].add_argument(
        '--interval', type=_interval, default=1.0, metavar='S', help='seconds between looks (default: 1)'
    )
    made['history'].add_argument('id', nargs='?', metavar='ID', help='of this one only, with whole tracebacks')
    made['stamp'].add_argument('ids', nargs='*', metavar='ID')
    made['stamp'].add_argument('--all', action='store_true', help='everything that is pending')
    for verb in ('unstamp', 'retry'):
        made[verb].add_argument('ids', nargs='+', metavar='ID')
    made['retry'].add_argument('--restart', action='store_true', help='batched ones begin anew, not where they stopped')
    made['dry-run'].add_argument('id', metavar='ID')
    for verb in ('stamp', 'unstamp', 'retry', 'adopt', 'claim'):
        made[verb].add_argument(
            '--wait', type=_seconds, default=0.0, metavar='S', help='seconds to wait for the lease (default: 0)'
        )
    made['down'].add_argument('--message', default='', metavar='M', help='for the public, at most 1,000 characters')
    for verb in ('unlock', 'adopt'):
        made[verb].add_argument('--yes', action='store_true', help='do not ask')
    made['adopt'].add_argument('id', nargs='?', metavar='ID', help='the last that ran (default: what 0.0.5 recorded)')
    made['graph'].add_argument('--format', choices=('mermaid', 'dot'), default='mermaid')
    made['create'].add_argument('name', nargs='?', metavar='NAME', help='a few words: backfill slugs')
    made['create'].add_argument('--into', metavar='PACKAGE', help='the dotted name of the package to write it to')
    made['test'].add_argument(
        '--url',
        metavar='URL',
        help="the scratch database, which is changed (default: a copy of the application's, SQLite)",
    )
    made['create'].add_argument(
        '--package',
        nargs='?',
        const='',
        metavar='PACKAGE',
        help='instead: the module evolve of a package (default: the application), or its next script where it is there',
    )
    return made


def _common(parser: argparse.ArgumentParser, *, default: bool) -> None:
    """Options that may stand before the verb and after it."""
    parser.add_argument(
        *('-c', '--config'),
        dest='config_file',
        metavar='FILE',
        default='development.ini' if default else argparse.SUPPRESS,
        help='application config file to read (default: development.ini), or FILE#NAME',
    )
    parser.add_argument(
        '--json', action='store_true', default=False if default else argparse.SUPPRESS, help='one JSON document'
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ('' if text.endswith('.') else '.')


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 10**9:
        raise argparse.ArgumentTypeError(f'{text!r} is no number of seconds')
    return value


def _interval(text: str) -> float:
    value = _seconds(text)
    if value < 0.1:
        raise argparse.ArgumentTypeError(f'{text!r} is less than 0.1 seconds')
    return value
