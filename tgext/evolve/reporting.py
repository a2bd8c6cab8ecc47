"""Failures go where TurboGears reports exceptions: mail, Sentry, the application's own reporters."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import tg

from . import failure
from .errors import EvolutionFailed
from .events import Event, What
from .leaving import leave_at_exit
from .processes import threads_run
from .remedies import to_type

log = logging.getLogger(__name__)


class ErrorReports:
    """Reports the first failure of an evolution's code, and the one after which it does not run again.

    The reporters are those of the ``trace_errors.*`` options; none of them means no report. They are
    called in a thread of their own: a mail server that does not answer must not keep the lease.

    :param conf: the application's configuration.
    """

    def __init__(self, conf: Any):
        self._conf = conf
        self._threads: list[threading.Thread] = []

    def __call__(self, event: Event) -> None:
        if not _is_due(event):
            return
        reporters = _reporters(self._conf)
        if not reporters:
            return
        # Made here, where nothing else changes the error any more.
        report = _traceback(event)
        if not threads_run():
            self._send(reporters, report, event)
            return
        thread = threading.Thread(
            target=self._send, args=(reporters, report, event), name='tgext.evolve error report', daemon=True
        )
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        leave_at_exit(self)
        thread.start()

    def _send(self, reporters: list[Any], report: Any, event: Event) -> None:
        tg.config.push_thread_config(self._conf)
        try:
            for reporter in reporters:
                try:
                    reporter.report(report)
                except BaseException as error:  # also SystemExit: it would leave out the next one
                    log.warning(
                        '[%s] the failure of %r could not be reported by %s: %s',
                        event.namespace,
                        event.evolution_id,
                        type(reporter).__name__,
                        failure.brief(error),
                        extra=event.extra,
                    )
        finally:
            tg.config.pop_thread_config(self._conf)

    # -- at the end of the process, see tgext.evolve.leaving

    def leave(self) -> None:
        """A report that is on its way is not held up."""

    def join(self, patience: float) -> bool:
        """Wait until all reports are sent.

        :param patience: seconds.
        """
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)


def _is_due(event: Event) -> bool:
    if event.what is What.FAILED:
        return not event.repeated or bool(event.final)
    # Killed too often: nothing was raised, and yet it has failed for good.
    return event.what is What.INTERRUPTED and bool(event.final)


def _reporters(conf: Any) -> list[Any]:
    """Those that TurboGears itself would report an exception to."""
    if not conf.get('tg.errorware'):
        return []  # no full-stack application: it has no error reporting
    from tg.configurator.base import AppReadyConfigurationAction
    from tg.configurator.components.error_reporting import ErrorReportingConfigurationComponent

    app: Any = None
    for action in ErrorReportingConfigurationComponent().get_actions():
        if isinstance(action, AppReadyConfigurationAction):
            app = action(conf, app)
    return list(getattr(app, 'reporters', ()))


def _traceback(event: Event) -> Any:
    """What a reporter of backlash takes, without secrets: see :mod:`tgext.evolve.failure`."""
    from backlash.tbtools import Traceback
    from backlash.utils import RequestContext

    error = event.error or EvolutionFailed(
        f'evolution {event.evolution_id!r} was interrupted again and again',
        place=f'namespace {event.namespace!r}',
        remedy=f'The processes that ran it died or lost the lease: {to_type("history", str(event.evolution_id))}',
    )
    text = failure.describe(error)
    line = failure.brief(error)

    class Cleaned(Traceback):
        """Says what is safe to say of the whole chain of exceptions."""

        plaintext = property(lambda self: text)
        exception = property(lambda self: line)

    shown = _without_secrets(error)
    evolution = {name.removeprefix('evolution_'): value for name, value in event.extra.items()}
    evolution['runs again by itself'] = event.final is False
    evolution['to run it again'] = to_type('retry', str(event.evolution_id))
    return Cleaned(type(shown), shown, error.__traceback__, context=RequestContext(_context(event, evolution)))


def _context(event: Event, evolution: dict[str, object]) -> dict[str, object]:
    """There was no request, but reporters want one: mail dumps its environ, Sentry asks for its address."""
    from webob import Request

    environ = Request.blank('/').environ
    path = f'/{event.evolution_id}'.encode().decode('latin-1')  # as WSGI has it
    environ.update({'SCRIPT_NAME': '/tgext.evolve', 'PATH_INFO': path})
    return {'environ': environ, 'evolution': evolution}


def _without_secrets(error: BaseException) -> BaseException:
    """``error`` itself, or one of the same name that says less: Sentry takes the text from the exception."""
    try:
        text = str(error)
    except BaseException:
        text = None
    if text is not None and failure.clean(text) == text and not _chained(error):
        return error
    kind = type(error)
    alike = type(kind.__name__, (Exception,), {'__module__': kind.__module__, '__qualname__': kind.__qualname__})
    return alike('' if text is None else failure.clean(text)).with_traceback(error.__traceback__)


def _chained(error: BaseException) -> bool:
    """What it was raised from would be told as well, with a text of its own."""
    return error.__cause__ is not None or error.__context__ is not None
