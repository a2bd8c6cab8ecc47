"""The command itself: parses, loads the application, calls the verb, says in one line what is wrong."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable

from gearbox.command import Command

from ..errors import EvolveError
from . import acting, creating, reading, running, testing
from .application import Application, load, of_error
from .documents import document, of_problem
from .exits import Exit, Problem
from .output import Output
from .parser import EPILOG, VERBS, Parser, add_verbs

Verb = Callable[[Application, argparse.Namespace, Output], Exit]

#: Each verb with what does it.
DOES: dict[str, Verb] = {
    'status': reading.status,
    'plan': reading.plan,
    'check': reading.check,
    'watch': reading.watch,
    'history': reading.history,
    'graph': reading.graph,
    'run': running.run,
    'dry-run': running.dry_run,
    'stamp': acting.stamp,
    'unstamp': acting.unstamp,
    'retry': acting.retry,
    'pause': acting.pause,
    'resume': acting.resume,
    'cancel': acting.cancel,
    'down': acting.down,
    'up': acting.up,
    'unlock': acting.unlock,
    'adopt': acting.adopt,
    'claim': acting.claim,
    'create': creating.create,
    'test': testing.test,
}
assert set(DOES) == set(VERBS)

#: These only look: where tgext.evolve is disabled there is nothing to see, which is no error.
LOOKS = frozenset({'status', 'plan', 'check', 'watch', 'history', 'graph'})


class EvolveCommand(Command):
    """Look at the evolutions of an application, run them, and put right what went wrong."""

    def get_description(self) -> str:
        return 'Look at data evolutions, run them, and put right what went wrong'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = Parser(
            prog=prog_name,
            description=self.get_description() + '.',
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
        )
        verbs = add_verbs(parser)
        # `gearbox help` leaves here what follows the name of the command.
        asked = getattr(self.app_args, 'cmd', None)
        return verbs.get(asked[0], parser) if asked else parser

    def take_action(self, opts: argparse.Namespace) -> int:
        output = Output(json=opts.json)
        level = getattr(self.app_args, 'verbose_level', 1)
        if level < 2:
            _quiet()
        application = None
        try:
            application = load(opts.config_file)
            if application.evolver is None and opts.verb in LOOKS:
                return _disabled(application, opts, output)
            return int(DOES[opts.verb](application, opts, output))
        except EvolveError as error:
            return self._wrong(of_error(error), opts, output)
        except Problem as problem:
            return self._wrong(problem, opts, output)
        except KeyboardInterrupt:
            return self._wrong(Problem(Exit.INTERRUPTED, 'interrupted', 'interrupted by Ctrl-C'), opts, output)
        except BrokenPipeError:
            # Whoever read has seen enough; the interpreter must not complain at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return int(Exit.DONE)
        finally:
            if application is not None:
                application.close()

    def _wrong(self, problem: Problem, opts: argparse.Namespace, output: Output) -> int:
        if getattr(self.app_args, 'debug', False):
            traceback.print_exc()
        output.wrong(str(problem), of_problem(opts.verb, problem))
        return int(problem.code)


def _disabled(application: Application, opts: argparse.Namespace, output: Output) -> int:
    output.lines(
        [f'tgext.evolve is disabled in {application.ini} (tgext.evolve.enabled = false): the gate is open'],
        document(opts.verb, enabled=False, pending=[]),
    )
    return int(Exit.DONE)


def _quiet() -> None:
    """The command says itself what happens; the rest goes to log files, and with ``-v`` to stderr."""
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler and not any(isinstance(f, _Loud) for f in handler.filters):
            handler.addFilter(_Loud())


class _Loud(logging.Filter):
    """What people have to see although they did not ask for logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition('.')[0] == 'tg':
            # What TurboGears misses in an application is not what was asked about.
            return record.levelno >= logging.ERROR
        return record.levelno >= logging.WARNING and not record.name.startswith('tgext.evolve')
