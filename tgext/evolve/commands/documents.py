"""What ``--json`` prints. Scripts depend on it: keys are added, never renamed; else :data:`VERSION` grows."""

from __future__ import annotations

from typing import Any

from ..evolver import Evolver
from ..gate import Progress
from ..history import Attempt
from ..overview import Entry, Overview
from .exits import Problem
from .words import iso

VERSION = 1

Document = dict[str, Any]


def document(command: str, **parts: Any) -> Document:
    return {'version': VERSION, 'command': command, **parts}


def of_problem(command: str, problem: Problem) -> Document:
    error = {'kind': problem.kind, 'message': problem.thing, 'remedy': problem.remedy, 'exit': int(problem.code)}
    return document(command, error=error)


def of_application(evolver: Evolver) -> Document:
    options = evolver.options
    return {'enabled': True, 'namespace': options.namespace, 'store': evolver.store.name, 'mode': options.mode}


def of_overview(overview: Overview) -> Document:
    verdict, lease = overview.verdict, overview.lease
    holder = overview.holder
    return {
        'now': iso(overview.now),
        'gate': {
            'serving': verdict.serving.value,
            'reason': verdict.reason.value,
            'detail': verdict.detail,
            'message': verdict.message,
        },
        'lease': {
            'held': holder is not None,
            'host': lease.host if lease else None,
            'pid': lease.pid if lease else None,
            'token': lease.token if lease else None,
            'expires': iso(lease.expires_at) if lease else None,
            'evolution': holder.report.evolution_id if holder else None,
            'cancelling': lease.requests.cancel or None if lease else None,
        },
        'paused': iso(overview.paused),
        'down': None
        if overview.down is None
        else {
            'since': iso(overview.down.started),
            'host': overview.down.host,
            'pid': overview.down.pid,
            'message': verdict.message,
        },
        'pending': [entry.id for entry in overview.pending],
    }


def of_entry(entry: Entry) -> Document:
    counts, planned = entry.counts, entry.planned
    return {
        'id': entry.id,
        'state': entry.state,
        'why': entry.why,
        'description': planned.description if planned else '',
        'serving': planned.serving.value if planned else None,
        'transactional': planned.transactional if planned else None,
        'depends_on': list(planned.depends_on) if planned else [],
        'origin': planned.origin if planned else None,
        'attempts': len(entry.attempts),
        'started': iso(counts.started) if counts else None,
        'finished': iso(counts.finished) if counts else None,
        'seconds': entry.seconds,
        'host': counts.host if counts else None,
        'pid': counts.pid if counts else None,
        'changed': entry.changed,
        'progress': of_progress(entry.progress),
        'needs_a_person': entry.needs_a_person,
    }


def of_progress(progress: Progress | None) -> Document | None:
    if progress is None:
        return None
    return {
        'done': progress.done,
        'total': progress.total,
        'fraction': progress.fraction,
        'elapsed': progress.elapsed,
        'remaining': progress.remaining,
        'message': progress.message,
    }


def of_attempt(attempt: Attempt, error: str | None) -> Document:
    started, finished = attempt.started, attempt.finished
    return {
        'id': attempt.evolution_id,
        'attempt': attempt.attempt,
        'state': attempt.state.value,
        'serving': attempt.serving,
        'token': attempt.token,
        'started': iso(started),
        'finished': iso(finished),
        'seconds': None if started is None or finished is None else max(0.0, (finished - started) / 1000),
        'host': attempt.host,
        'pid': attempt.pid,
        'fingerprint': attempt.fingerprint,
        'error': error,
    }
