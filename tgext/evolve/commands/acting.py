"""The verbs that record what people decide. Each says what it did and what follows from it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TypeVar

from ..errors import LeaseTaken, NothingRuns
from ..evolver import Evolver
from ..history import State
from ..remedies import to_type
from . import words
from .application import Application
from .documents import document, of_application
from .exits import Exit, Problem
from .output import Output

Result = TypeVar('Result')


def stamp(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    application.enabled()
    if opts.all == bool(opts.ids):
        raise Problem(
            Exit.USAGE,
            'usage',
            'stamp takes ids, or --all for everything that is pending' + (', not both' if opts.all else ''),
            f'What is pending is shown by: {to_type("status")}',
        )
    if opts.ids:
        application.check_ids(opts.ids)
    ids = _held(lambda: application.records(opts.wait).stamp(opts.ids or None))
    line = f'recorded as done without running: {_all(ids)}' if ids else 'nothing was pending, so nothing was recorded'
    return _said(application, 'stamp', [line], output, ids=ids)


def unstamp(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    evolver = application.enabled()
    history = evolver.ledger.history()
    application.check_ids(opts.ids, history)
    taken: list[str] = []
    kept: list[str] = []
    for id in dict.fromkeys(opts.ids):
        planned = evolver.plan.find(id)
        attempts = history.under(planned.names if planned is not None else [id])
        only = any(a.state in (State.STAMPED, State.IMPORTED) for a in attempts)
        (taken if only else kept).append(id)
    if taken:
        _held(lambda: application.records(opts.wait).unstamp(taken))
    lines = [f'pending again: {_all(taken)}'] if taken else []
    lines += [f'neither stamped nor imported, so it stays as it is: {id}' for id in kept]
    _said(application, 'unstamp', lines, output, ids=taken, unchanged=kept)
    return Exit.DONE if taken else Exit.FAILED


def retry(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    evolver = application.enabled()
    application.check_ids(opts.ids)
    forgiven = _held(lambda: application.records(opts.wait).retry(opts.ids, restart=opts.restart))
    if not forgiven:
        line = 'no attempt had failed, was cancelled or interrupted: nothing changes'
    elif evolver.options.mode == 'wait':
        line = f'{_attempts(forgiven)} no longer count; it runs when this is typed: {to_type("run")}'
    else:
        line = (
            f'{_attempts(forgiven)} no longer count: it runs again at once where a server waits for it, else when '
            f'one starts, or when this is typed: {to_type("run")}'
        )
    lines = [line]
    if opts.restart:
        lines.append('a batched one begins anew: what its checkpoints said is forgotten')
    return _said(application, 'retry', lines, output, ids=list(opts.ids), attempts=forgiven, restart=opts.restart)


def _attempts(count: int) -> str:
    return f'{count} attempt' + ('s' if count > 1 else '')


def pause(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    evolver = application.enabled()
    application.records().pause()
    running = _running(evolver)
    lines = [f'paused: nothing begins any more, in whatever process. To go on, type: {to_type("resume")}']
    if running is not None:
        lines.append(f'{running} runs already and goes on to its end (a batched one: to the end of its batch)')
    return _said(application, 'pause', lines, output, running=running)


def resume(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    application.records().resume()
    line = 'resumed: servers go on by themselves within their poll time'
    return _said(application, 'resume', [line], output)


def cancel(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    try:
        id = application.records().cancel()
    except NothingRuns as error:
        raise Problem(Exit.FAILED, 'nothing-runs', error.thing, error.remedy) from error
    lines = [
        f'asked for: {id} ends at its next report of progress (a batched one: after its batch), and is recorded as '
        f'cancelled; one that reports nothing runs to its end',
        f'the gate stays closed to its level until this is typed: {to_type("retry", id)}; or, if its work is done: '
        f'{to_type("stamp", id)}',
    ]
    return _said(application, 'cancel', lines, output, id=id)


def down(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    evolver = application.enabled()
    application.records().down(opts.message)
    return _said(
        application,
        'down',
        [f'down: {_within(evolver)} closes. To open it again, type: {to_type("up")}'],
        output,
        watch=evolver.options.watch,
    )


def up(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    evolver = application.enabled()
    was_down = application.records().up()
    line = f'up: {_within(evolver)} opens, if nothing else keeps it closed' if was_down else 'it was not down'
    return _said(application, 'up', [line], output, was_down=was_down, watch=evolver.options.watch)


def _within(evolver: Evolver) -> str:
    watch = evolver.options.watch
    if not watch:
        return (
            'each process that starts from now on (tgext.evolve.watch = 0, so those that run do not look: restart them)'
        )
    return f'within {words.took(watch)} (tgext.evolve.watch) every process'


def unlock(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    """The lease needs no unlocking, and says so; what 0.0.5 left does."""
    evolver = application.enabled()
    overview = evolver.overview()
    holder = overview.holder
    if holder is not None:
        runs = f' and runs {holder.report.evolution_id!r}' if holder.report.evolution_id else ''
        raise Problem(
            Exit.LATER,
            'lease-held',
            f'the lease is held by {holder} and alive: that process renews it{runs}',
            f'To end what it runs, type: {to_type("cancel")}; or stop that process: its lease expires '
            f'{words.took(holder.ttl / 1000)} later by itself',
        )
    lines = []
    if overview.lease is not None and overview.lease.report.evolution_id:
        lines.append(
            f'the lease expired at {words.when(overview.lease.expires_at)}; it was held by {overview.lease}. It needs '
            f'nothing from you: whoever runs next takes it'
        )
    else:
        lines.append('nobody holds the lease')
    old = evolver.store.predecessor()
    lock = old.locked_by if old is not None else None
    if old is None or lock is None:
        return _said(application, 'unlock', lines, output, lock_of_0_0_5=None, ids=[])
    if evolver.ledger.history():
        lines.append(f'0.0.5 left a lock here (process {lock}), which nothing looks at any more')
        return _said(application, 'unlock', lines, output, lock_of_0_0_5=lock, ids=[])
    what = (
        f'what it recorded is taken over: everything up to {old.version!r} counts as done'
        if old.version is not None
        else 'it recorded nothing as done, so everything is pending'
    )
    _confirm(
        f'tgext.evolve 0.0.5 left its lock in {evolver.store.name}: process {lock}. If no process of 0.0.5 runs any '
        f'more, {what}. The lock itself stays where it is, and counts no more.',
        opts.yes,
        output,
    )
    if old.version is not None and evolver.plan.up_to(old.version) is None:
        raise Problem(
            Exit.FAILED,
            'unknown-version',
            f'0.0.5 recorded {old.version!r} as the last evolution, and the evolutions option has no such id',
            'Name the last one that ran: gearbox evolve adopt ID',
        )
    ids = _held(lambda: application.records().adopt(ignore_lock=True))
    lines.append(f'the lock of 0.0.5 (process {lock}) counts no more; done: {_all(ids) if ids else "nothing"}')
    return _said(application, 'unlock', lines, output, lock_of_0_0_5=lock, ids=ids)


def adopt(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    evolver = application.enabled()
    old = evolver.store.predecessor()
    version = opts.id or (old.version if old is not None else None)
    if version is None:
        raise Problem(
            Exit.FAILED,
            'nothing-to-adopt',
            f'0.0.5 recorded nothing in {evolver.store.name}',
            'Name the last evolution that ran: gearbox evolve adopt ID',
        )
    application.check_ids([version], planned=True)
    if not evolver.plan.up_to(version):
        raise Problem(
            Exit.NO_SUCH_ID,
            'no-such-id',
            f'{version!r} is no entry of the evolutions option itself, which is what 0.0.5 counted by',
            'Record those that ran by their ids: gearbox evolve stamp ID...',
        )
    lock = old.locked_by if old is not None else None
    if lock is not None:
        _confirm(
            f'tgext.evolve 0.0.5 holds its lock in {evolver.store.name}: process {lock}. No process of it may run '
            f'any more.',
            opts.yes,
            output,
        )
    ids = _held(lambda: application.records(opts.wait).adopt(version, ignore_lock=lock is not None))
    return _said(application, 'adopt', [f'these count as done: {_all(ids)}'], output, ids=ids)


def claim(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    evolver = application.enabled()
    _held(lambda: application.records(opts.wait).claim())
    line = f'a history of its own begins under {evolver.options.namespace!r}: what is pending there will run'
    return _said(application, 'claim', [line], output)


def _running(evolver: Evolver) -> str | None:
    holder = evolver.overview().holder
    return holder.report.evolution_id if holder is not None else None


def _held(act: Callable[[], Result]) -> Result:
    """What needs the lease, told in our words when somebody holds it."""
    try:
        return act()
    except LeaseTaken as error:
        raise Problem(
            Exit.LATER,
            'lease-held',
            error.thing,
            f'Wait for it (--wait SECONDS), or end what it runs: {to_type("cancel")}',
        ) from error


def _confirm(question: str, yes: bool, output: Output) -> None:
    """:raises Problem: unless a person agrees."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Problem(Exit.USAGE, 'not-confirmed', question, 'To say so, add --yes')
    output.note(question)
    print('Go on? [y/N] ', end='', file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ('y', 'yes'):
        raise Problem(Exit.FAILED, 'not-confirmed', 'nothing was done')


def _all(ids: list[str]) -> str:
    return ', '.join(ids)


def _said(application: Application, verb: str, lines: list[str], output: Output, **parts: object) -> Exit:
    output.lines(lines, document(verb, **of_application(application.enabled()), **parts, said=lines))
    return Exit.DONE
