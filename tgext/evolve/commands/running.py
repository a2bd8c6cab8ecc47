"""``run``: what is pending, here and now, with its progress."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

from .. import failure
from ..errors import ItemFailed, PlanError
from ..events import Event, What
from ..evolver import Ended, Evolver
from ..overview import Overview
from ..remedies import to_type
from . import words
from .application import Application
from .documents import Document, document, of_application, of_overview
from .exits import Exit, Problem
from .output import Output

if TYPE_CHECKING:
    from rich.progress import TaskID

#: Plain text tells of progress at most this often, in seconds.
QUIET = 10.0


def run(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    """Run what is pending in the foreground; servers that watch open by themselves."""
    evolver = application.enabled()
    if opts.until is not None:
        application.check_ids([opts.until], planned=True)
    overview = evolver.overview()
    _say_whom_it_waits_for(overview, opts.wait, output)
    ended, display = foreground(evolver, output, until=opts.until, patience=opts.wait)
    overview = evolver.overview()
    result = {
        **of_application(evolver),
        **of_overview(overview),
        'ended': ended.value,
        'ran': display.ran,
    }
    if ended is Ended.DONE:
        done = sum(each['outcome'] == What.FINISHED.value for each in display.ran)
        until = f' up to {opts.until!r}' if opts.until is not None else ''
        left = f'; {len(overview.pending)} still pending' if overview.pending else ''
        line = f'{done} done{until}{left}' if done else f'nothing is pending{until}{left}'
        output.lines([line], document('run', **result))
        return Exit.DONE
    problem = _problem(ended, overview, evolver, display)
    error: Document = {
        'kind': problem.kind,
        'message': problem.thing,
        'remedy': problem.remedy,
        'exit': int(problem.code),
    }
    output.wrong(str(problem), document('run', **result, error=error))
    return problem.code


def dry_run(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    """One batch, processed and rolled back; nothing of it is saved, and nobody waits for it."""
    evolver = application.enabled()
    application.check_ids([opts.id], planned=True)
    with redirect_stdout(sys.stderr) if output.json else nullcontext():
        try:
            items = evolver.dry_run(opts.id)
        except PlanError as error:
            raise Problem(Exit.FAILED, 'no-dry-run', f'{error.thing} (in {error.place})', error.remedy) from error
        except ItemFailed as error:
            raise Problem(
                Exit.FAILED, 'failed', f'{error.thing}: {failure.brief(error.__cause__ or error)}', error.remedy
            ) from error
    line = f'{items} items of {opts.id} were processed and rolled back' if items else f'{opts.id} finds no items'
    output.lines([line], document('dry-run', **of_application(evolver), id=opts.id, items=items))
    return Exit.DONE


def foreground(
    evolver: Evolver, output: Output, *, until: str | None = None, patience: float = 0.0
) -> tuple[Ended, Display]:
    """Run here and now, and show what happens."""
    display = Display(output)
    evolver.listeners.add(display)
    try:
        with _ends_in_good_order(evolver), display, redirect_stdout(sys.stderr) if output.json else nullcontext():
            return evolver.run(until=until, patience=patience), display
    finally:
        evolver.listeners.remove(display)


def _say_whom_it_waits_for(overview: Overview, patience: float, output: Output) -> None:
    holder = overview.holder
    if holder is not None and overview.pending and patience and not output.json:
        runs = f', which runs {holder.report.evolution_id!r}' if holder.report.evolution_id else ''
        output.lines([f'waiting at most {words.took(patience)} for {holder}{runs}'], {})


def _problem(ended: Ended, overview: Overview, evolver: Evolver, display: Display) -> Problem:
    if ended is Ended.TAKEN:
        holder = overview.holder
        by = f'{holder}' if holder is not None else 'another process'
        return Problem(
            Exit.LATER,
            'lease-held',
            f'the lease is held by {by}, which runs what is pending',
            f'To see how far it is, type: {to_type("watch")}; to wait for it: gearbox evolve run --wait SECONDS',
        )
    if ended is Ended.PAUSED:
        return Problem(
            Exit.LATER,
            'paused',
            f'evolutions are paused since {words.when(overview.paused)}',
            f'To go on, type: {to_type("resume")}',
        )
    if ended is Ended.LEFT:
        return Problem(
            Exit.TERMINATED,
            'terminated',
            'ended by SIGTERM; what is not done is pending',
            f'To go on, type: {to_type("run")}',
        )
    stopped = [entry for entry in overview.entries if entry.needs_a_person]
    if not stopped:
        # Nothing of the plan: what stands elsewhere, or what the history knows of a newer release.
        return Problem(Exit.FAILED, overview.verdict.reason.value, overview.verdict.detail)
    first = stopped[0]
    error = display.errors.get(first.id) or (
        words.last_line(evolver.store.error_of(first.counts)) if first.counts is not None else ''
    )
    others = f' (and so did {words.listed([each.id for each in stopped[1:]])})' if stopped[1:] else ''
    return Problem(
        Exit.FAILED,
        first.state,
        f'{first.id!r} {"was " if first.state != "failed" else ""}{first.state}{others}'
        + (f': {error}' if error else ''),
        f'Mend it and run again, or type: {to_type("retry", first.id)}; or, if its work is done already: '
        f'{to_type("stamp", first.id)}. Its traceback: {to_type("history", first.id)}',
    )


@contextmanager
def _ends_in_good_order(evolver: Evolver) -> Iterator[None]:
    """SIGTERM only asks: the evolution ends at its next report of progress, or at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        # Not print(): whatever was interrupted may be in the middle of one.
        os.write(2, b'gearbox evolve: SIGTERM: it ends at its next report of progress\n')
        evolver.leave()

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Display:
    """What happens, as it happens."""

    def __init__(self, output: Output):
        #: For the document: each attempt with its outcome.
        self.ran: list[Document] = []
        #: What each evolution raised, in one line.
        self.errors: dict[str, str] = {}
        self._output = output
        self._progress = output.terminal.progress() if output.terminal is not None else None
        self._task: TaskID | None = None
        self._said = 0.0
        self._began: tuple[str, int | None] | None = None

    def __enter__(self) -> None:
        if self._progress is not None:
            self._progress.start()

    def __exit__(self, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, event: Event) -> None:
        id = event.evolution_id
        if id is None:
            return  # the gate of this process serves nobody
        if event.what is What.STARTED:
            self._began = id, event.attempt
            self._said = time.monotonic()
            if self._progress is not None:
                self._task = self._progress.add_task(id, total=None, about='')
            else:
                self._line(f'{id}: started' + (f', attempt {event.attempt}' if (event.attempt or 1) > 1 else ''))
        elif event.what is What.PROGRESS:
            self._moved(event, id)
        else:
            self._ended(event, id)

    def _moved(self, event: Event, id: str) -> None:
        now = event.progress
        if now is None:
            return
        if self._progress is not None and self._task is not None:
            about = (
                words.progress(now)
                if now.total is None
                else (now.message or f'{words.number(now.done)} of {words.number(now.total)}')
            )
            self._progress.update(self._task, completed=now.done, total=now.total, about=about)
        elif time.monotonic() - self._said >= QUIET:
            self._said = time.monotonic()
            self._line(f'{id}: {words.progress(now)}')

    def _ended(self, event: Event, id: str) -> None:
        if self._began != (id, event.attempt):
            self._line(f'{id}: attempt {event.attempt} of another process was {event.what.value}')
            return
        outcome = event.what.value
        error = failure.brief(event.error) if event.error is not None else None
        if error is not None:
            self.errors[id] = error
        self.ran.append(
            {'id': id, 'attempt': event.attempt, 'outcome': outcome, 'seconds': event.seconds, 'error': error}
        )
        said = 'done in' if event.what is What.FINISHED else f'{outcome} after'
        line = f'{id}: {said} {words.took(event.seconds)}' + (f': {error}' if error else '')
        if self._progress is not None and self._task is not None:
            if event.what is What.FINISHED:
                task = next(task for task in self._progress.tasks if task.id == self._task)
                total = task.total or task.completed or 1
                self._progress.update(self._task, total=total, completed=total)
            self._progress.update(self._task, about=said + ' ' + words.took(event.seconds))
            self._progress.stop_task(self._task)
            self._task = None
        else:
            self._line(line)

    def _line(self, line: str) -> None:
        if not self._output.json:
            self._output.lines([line], {})
