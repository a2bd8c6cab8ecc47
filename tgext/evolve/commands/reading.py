"""The verbs that only look."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from .. import failure
from ..errors import StoreError
from ..evolver import Evolver
from ..history import CLAIM, Attempt, State
from ..overview import Entry, Overview
from ..plan import PlannedEvolution
from ..remedies import to_type
from . import words
from .application import Application, of_error
from .documents import Document, document, of_application, of_attempt, of_entry, of_overview, of_problem
from .exits import Exit
from .output import Output

STATUS_HEAD = ('STATE', 'ID', 'WHEN', 'TOOK', 'BY', 'PROGRESS', 'WHY')
PLAN_HEAD = ('NUMBER', 'ID', 'SERVING', 'ROWS', 'DESCRIPTION')
HISTORY_HEAD = ('STATE', 'ID', 'ATTEMPT', 'WHEN', 'TOOK', 'BY', 'ERROR')

CHANGED = 'its code has changed since it ran'


def status(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    """Every evolution in the order of the plan, and what keeps the gate where it is."""
    evolver = application.enabled()
    overview = evolver.overview()
    _show(evolver, overview, output, 'status')
    return Exit.DONE


def _show(evolver: Evolver, overview: Overview, output: Output, command: str) -> None:
    if output.json:
        output.document(_status_document(evolver, overview, command))
        return
    for line in headlines(evolver, overview):
        output.lines([line], {})
    output.lines([''], {})
    output.table(STATUS_HEAD, rows_of(overview), states=0)


def _status_document(evolver: Evolver, overview: Overview, command: str) -> Document:
    return document(
        command,
        **of_application(evolver),
        **of_overview(overview),
        evolutions=[of_entry(entry) for entry in overview.entries],
        unknown=[of_entry(entry) for entry in overview.unknown],
    )


def headlines(evolver: Evolver, overview: Overview) -> list[str]:
    """What is so of the whole namespace, each with what to type about it."""
    verdict, holder, lease = overview.verdict, overview.holder, overview.lease
    done = len(overview.entries) - len(overview.pending)
    lines = [
        f'namespace: {evolver.options.namespace}',
        f'database: {evolver.store.name}',
        f'gate: may serve {verdict.serving.value}: {verdict.reason.value}'
        + (f' ({verdict.detail})' if verdict.detail else ''),
    ]
    if holder is not None:
        runs = holder.report.evolution_id
        about = f', runs {runs!r}' + (f' since {words.when(holder.report.since)}' if runs else '') if runs else ''
        lines.append(f'lease: held by {holder}{about}')
    elif lease is not None and lease.expires_at > 0 and lease.report.evolution_id:
        lines.append(f'lease: free; {lease} lost it at {words.when(lease.expires_at)}, which needs nothing from you')
    else:
        lines.append('lease: free')
    if lease is not None and lease.requests.cancel:
        lines.append(f'cancel: asked for {lease.requests.cancel!r}')
    if overview.paused is not None:
        lines.append(f'paused: since {words.when(overview.paused)}; to go on, type: {to_type("resume")}')
    if overview.down is not None:
        said = f', saying {verdict.message!r}' if verdict.message else ''
        lines.append(
            f'down: by hand since {words.when(overview.down.started)}, by {words.who(overview.down)}{said}; '
            f'to open it again, type: {to_type("up")}'
        )
    if evolver.options.mode == 'wait' and overview.pending:
        lines.append(f'mode: wait; no server runs anything, so type: {to_type("run")}')
    lines.append(f'evolutions: {done} of {len(overview.entries)} done, {len(overview.pending)} pending')
    if overview.unknown:
        lines.append(f'unknown: {len(overview.unknown)} that the database knows and this code does not')
    return lines


def rows_of(overview: Overview) -> list[list[str]]:
    return [_row(entry) for entry in (*overview.entries, *overview.unknown)]


def _row(entry: Entry) -> list[str]:
    counts = entry.counts
    return [
        entry.state,
        entry.id,
        words.when(counts.started if counts else None),
        words.took(entry.seconds),
        words.who(counts),
        words.progress(entry.progress),
        why(entry) or words.NOTHING,
    ]


def why(entry: Entry) -> str:
    """Why it is not done, with what to type where a person is needed."""
    if entry.planned is not None and entry.needs_a_person:
        return f'{entry.why}; type: {to_type("retry", entry.id)}'
    if entry.after is not None:
        return f'{entry.why}, at {words.when(entry.after)}'
    return CHANGED if entry.changed else entry.why


def plan(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    """What would run now, in its order; and what would not, and why."""
    evolver = application.enabled()
    overview = evolver.overview()
    runs = [entry for entry in overview.pending if not entry.held]
    held = [entry for entry in overview.pending if entry.held]
    counts = [_count(application, entry.planned, output) for entry in runs]
    if output.json:
        output.document(
            document(
                'plan',
                **of_application(evolver),
                **of_overview(overview),
                would_run=[{**of_entry(entry), 'rows': rows} for entry, rows in zip(runs, counts, strict=True)],
                held=[of_entry(entry) for entry in held],
            )
        )
        return Exit.DONE
    if not overview.pending:
        output.lines(['nothing is pending'], {})
        return Exit.DONE
    if runs:
        output.lines([f'{len(runs)} would run now, in this order:'], {})
        rows = [
            [
                str(number),
                entry.id,
                entry.planned.serving.value if entry.planned else '',
                words.NOTHING if count is None else words.number(count),
                entry.planned.description if entry.planned else '',
            ]
            for number, (entry, count) in enumerate(zip(runs, counts, strict=True), 1)
        ]
        output.table(PLAN_HEAD, rows)
    for entry in held:
        output.lines([f'not now: {entry.id}: {why(entry)}'], {})
    if overview.paused is not None:
        output.lines([f'nothing begins before this is typed: {to_type("resume")}'], {})
    if overview.holder is not None:
        output.lines([f'the lease is held by {overview.holder}, which runs it'], {})
    return Exit.DONE


def _count(application: Application, planned: PlannedEvolution | None, output: Output) -> int | None:
    """How much there is to do, of an evolution that has a ``count()``; what that writes is rolled back."""
    if planned is None or not callable(getattr(planned.evolution, 'count', None)):
        return None
    try:
        with application.context():
            rows = application.enabled().count(planned.id)
    except Exception as error:
        output.note(f'count() of {planned.id!r} failed: {failure.brief(error)}')
        return None
    return rows if isinstance(rows, int) and not isinstance(rows, bool) else None


def check(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    """For pipelines and probes: is anything pending?"""
    evolver = application.enabled()
    overview = evolver.overview()
    pending = [entry.id for entry in overview.pending]
    line = f'{len(pending)} pending: {words.listed(pending)}' if pending else 'nothing is pending'
    output.lines([line], document('check', **of_application(evolver), **of_overview(overview)))
    return Exit.FAILED if pending else Exit.DONE


def pause(seconds: float) -> None:
    time.sleep(seconds)


def watch(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    """Look again and again, until nothing is left."""
    evolver = application.enabled()
    overview = evolver.overview()
    live = output.live()
    if live is None:
        return _watch_lines(evolver, overview, opts.interval, output)
    terminal = output.terminal
    assert terminal is not None
    with live:
        trouble = ''
        while True:
            progress = next((e.progress for e in overview.entries if e.progress is not None), None)
            lines = headlines(evolver, overview) + ([trouble] if trouble else [])
            fraction = progress.fraction if progress is not None else None
            live.update(terminal.picture(lines, STATUS_HEAD, rows_of(overview), 0, fraction), refresh=True)
            if not overview.pending and not trouble:
                return Exit.DONE
            pause(opts.interval)
            try:
                overview, trouble = evolver.overview(), ''
            except StoreError as error:
                trouble = str(of_error(error))


def _watch_lines(evolver: Evolver, overview: Overview, interval: float, output: Output) -> Exit:
    """A line for whatever changed since the last look."""
    said: dict[str, str] = {}
    trouble = ''
    while True:
        now = {'': _gate_line(overview), **{entry.id: _entry_line(entry) for entry in overview.entries}}
        changed = [line for key, line in now.items() if said.get(key) != line]
        if output.json:
            if changed:
                output.document(_status_document(evolver, overview, 'watch'))
        else:
            for line in changed:
                output.lines([f'{words.when(overview.now)}  {line}'], {})
        said = now
        if not overview.pending:
            return Exit.DONE
        pause(interval)
        try:
            overview, trouble = evolver.overview(), ''
        except StoreError as error:
            problem = of_error(error)
            if trouble != problem.kind:
                output.wrong(str(problem), of_problem('watch', problem))
            trouble = problem.kind


def _gate_line(overview: Overview) -> str:
    holder = f'lease held by {overview.holder}' if overview.holder is not None else 'lease free'
    return f'gate: may serve {overview.verdict.serving.value}: {overview.verdict.reason.value}; {holder}'


def _entry_line(entry: Entry) -> str:
    about = words.progress(entry.progress) if entry.progress is not None else why(entry)
    return f'{entry.state}  {entry.id}' + (f'  {about}' if about else '')


def history(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    """Every attempt, the newest last; of one evolution with its whole errors."""
    evolver = application.enabled()
    known = evolver.ledger.history()
    attempts: Sequence[Attempt] = known.attempts
    if opts.id is not None:
        application.check_ids([opts.id], known)
        planned = evolver.plan.find(opts.id)
        attempts = known.under(planned.names if planned is not None else [opts.id])
    attempts = sorted(attempts, key=lambda a: (a.started or a.finished or 0, *a.order))
    errors = [evolver.store.error_of(attempt) if attempt.state in _HAVE_ERRORS else None for attempt in attempts]
    if output.json:
        output.document(
            document(
                'history',
                **of_application(evolver),
                attempts=[of_attempt(attempt, error) for attempt, error in zip(attempts, errors, strict=True)],
            )
        )
        return Exit.DONE
    if not attempts:
        output.lines(['nothing was ever recorded' + (f' of {opts.id!r}' if opts.id is not None else ' here')], {})
        return Exit.DONE
    rows = [
        [
            attempt.state.value,
            attempt.evolution_id if attempt.evolution_id != CLAIM else words.NOTHING,
            str(attempt.attempt),
            words.when(attempt.started),
            words.took(_seconds(attempt)),
            words.who(attempt),
            words.last_line(error) or words.NOTHING,
        ]
        for attempt, error in zip(attempts, errors, strict=True)
    ]
    output.table(HISTORY_HEAD, rows, states=0)
    if opts.id is not None:
        for attempt, error in zip(attempts, errors, strict=True):
            if error and '\n' in error:
                output.lines(['', f'attempt {attempt.attempt}:', *error.rstrip().splitlines()], {})
    return Exit.DONE


_HAVE_ERRORS = (State.FAILED, State.INTERRUPTED, State.CANCELLED)


def _seconds(attempt: Attempt) -> float | None:
    if attempt.state in (State.STAMPED, State.IMPORTED) or attempt.started is None or attempt.finished is None:
        return None
    return max(0.0, (attempt.finished - attempt.started) / 1000)


def graph(application: Application, opts: argparse.Namespace, output: Output) -> Exit:
    """What depends on what, with states: for a page of documentation, or for Graphviz."""
    evolver = application.enabled()
    overview = evolver.overview()
    states = {entry.id: entry.state for entry in overview.entries}
    numbers = {planned.id: number for number, planned in enumerate(evolver.plan)}
    edges = [(numbers[needed], numbers[id]) for id in numbers for needed in evolver.plan.dependencies[id]]
    if output.json:
        nodes = [{'id': id, 'state': states[id]} for id in numbers]
        ids = list(numbers)
        output.document(
            document(
                'graph',
                **of_application(evolver),
                nodes=nodes,
                edges=[{'from': ids[first], 'to': ids[second]} for first, second in edges],
            )
        )
        return Exit.DONE
    draw = _dot if opts.format == 'dot' else _mermaid
    text = draw([(id, states[id]) for id in numbers], edges)
    # Never folded, whatever it is shown on: it is to be copied.
    print('\n'.join(text), flush=True)
    return Exit.DONE


_COLOURS = {
    'done': '#c8e6c9',
    'stamped': '#e8f5e9',
    'imported': '#e8f5e9',
    'applied': '#e8f5e9',
    'running': '#b3e5fc',
    'pending': '#fff9c4',
    'failed': '#ffcdd2',
    'interrupted': '#ffcdd2',
    'cancelled': '#e1bee7',
}


def _mermaid(nodes: list[tuple[str, str]], edges: list[tuple[int, int]]) -> list[str]:
    lines = ['flowchart TD']
    for number, (id, state) in enumerate(nodes):
        lines.append(f'    n{number}["{_entities(id)}<br/>{state}"]:::{state}')
    lines += [f'    n{first} --> n{second}' for first, second in edges]
    used = dict.fromkeys(state for _, state in nodes)
    lines += [f'    classDef {state} fill:{_COLOURS.get(state, "#eeeeee")},color:#000' for state in used]
    return lines


def _entities(text: str) -> str:
    """Mermaid's own: whatever is not plain could be markup to it."""
    return ''.join(c if c.isalnum() or c in ' -_.:/' else f'#{ord(c)};' for c in text)


def _dot(nodes: list[tuple[str, str]], edges: list[tuple[int, int]]) -> list[str]:
    lines = ['digraph evolutions {', '    node [shape=box, style="rounded,filled"];']
    for number, (id, state) in enumerate(nodes):
        label = id.replace('\\', '\\\\').replace('"', '\\"')
        lines.append(f'    n{number} [label="{label}\\n{state}", fillcolor="{_COLOURS.get(state, "#eeeeee")}"];')
    lines += [f'    n{first} -> n{second};' for first, second in edges]
    return [*lines, '}']
