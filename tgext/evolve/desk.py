"""What an operator sees of one application and does to it, as values for JSON. Knows nothing of the web."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .errors import EvolveError, LeaseTaken, NothingRuns, OptionError, StoreAway, StoreBusy, StoreError
from .evolver import Evolver
from .gate import Progress, Reason, Verdict
from .history import Attempt, State
from .lease import Lease
from .overview import Entry, Overview
from .records import Records
from .stores.base import LeaseRow

#: How many of each the first view has; the rest is asked for.
PENDING = 40
RUNS = 8
ATTEMPTS_OF_A_RUN = 40
UNKNOWN = 20
PAGE = 100

#: How many attempts at one evolution are shown with their errors.
ERRORS = 10

#: How many ids an answer names.
_NAMED = 3

#: Who records something in a browser does not wait longer for whoever holds the lease, in seconds.
_PATIENCE = 3.0

#: For how long a look is good for others who look, in seconds.
_FRESH = 0.5

#: At most one part in this many of a processor's time goes into one operator's looking.
_SHARE = 20

#: What only this process finds out, by trying to begin: the database alone does not say it.
_FOUND_OUT = frozenset(
    {
        Reason.PREDECESSOR,
        Reason.OTHER_NAMESPACE,
        Reason.UNKNOWN_EVOLUTIONS,
        Reason.DATABASE_AWAY,
        Reason.DATABASE_BUSY,
        Reason.DATABASE_REFUSES,
    }
)


@dataclass(frozen=True)
class Answer:
    """:param status: of HTTP."""

    status: int
    body: dict[str, Any]

    @property
    def json(self) -> dict[str, Any]:
        return {'ok': self.status < 400, **self.body}


class Desk:
    """Looks at and acts on one application."""

    def __init__(self, evolver: Evolver):
        self._evolver = evolver
        self._looking = threading.Lock()
        self._seen: tuple[float, Overview, float] | None = None

    # -- looking

    def _overview(self) -> tuple[Overview, float]:
        """The overview, and what it cost in seconds. One look serves everybody who asks at the same time."""
        with self._looking:
            if self._seen is None or time.monotonic() - self._seen[0] > _FRESH:
                began = time.monotonic()
                overview = self._evolver.overview()
                ended = time.monotonic()
                self._seen = ended, overview, ended - began
            return self._seen[1], self._seen[2]

    def _forget(self) -> None:
        with self._looking:
            self._seen = None

    def state(self) -> Answer:
        """The first view: everything that is not done, who runs, and what ran last."""
        options = self._evolver.options
        mine = self._evolver.gate.verdict
        about = {
            'namespace': options.namespace,
            'store': self._evolver.store.name,
            'mode': options.mode,
            'watch': options.watch,
            'health_path': options.health_path,
            'has_secret': bool(options.bypass_secret),
            'gate': _verdict(mine),
        }
        try:
            overview, cost = self._overview()
        except StoreError as error:
            return Answer(503, {**about, 'error': _error(error), 'pause': 3.0})
        pending = overview.pending
        running = next((entry for entry in pending if entry.state == State.RUNNING.value), None)
        counts: dict[str, int] = {}
        for entry in overview.entries:
            counts[entry.state] = counts.get(entry.state, 0) + 1
        stuck = [entry for entry in pending if entry.needs_a_person]
        waiting = [entry for entry in pending if entry is not running and not entry.needs_a_person]
        changed = [entry for entry in overview.entries if entry.changed]
        return Answer(
            200,
            {
                **about,
                'now': overview.now,
                'pause': max(1.0 if running else 2.0, cost * _SHARE),
                'database': _verdict(overview.verdict),
                'agrees': mine.reason in _FOUND_OUT or mine.serving is overview.verdict.serving,
                'paused': overview.paused,
                'down': _down(overview, mine),
                'lease': _lease(overview.lease),
                'counts': counts,
                'total': len(overview.entries),
                'left': len(pending),
                'running': None if running is None else self._running(running),
                'stuck': [_entry(entry) for entry in stuck[:PENDING]],
                'stuck_total': len(stuck),
                'pending': [_entry(entry) for entry in waiting[:PENDING]],
                'pending_total': len(waiting),
                'unknown': [_entry(entry) for entry in overview.unknown[:UNKNOWN]],
                'unknown_total': len(overview.unknown),
                'changed': [entry.id for entry in changed[:UNKNOWN]],
                'changed_total': len(changed),
                'runs': _runs(overview),
            },
        )

    def _running(self, entry: Entry) -> dict[str, Any]:
        # As the public is told: from what this process saw of its steps, not from how long it has been running.
        left = self._evolver.gate.pace.remaining()
        return {**_entry(entry), 'progress': None if entry.progress is None else _progress(entry.progress, left)}

    def plan(self, text: str = '', state: str = '', start: int = 0) -> Answer:
        """A page of the whole plan, what is pending first, then what is done, newest last in the plan first.

        :param text: in id or description.
        :param state: only these.
        :param start: how many to leave out before.
        """
        overview, _ = self._overview()
        text = text.strip().lower()
        every = [*overview.pending, *(entry for entry in reversed(overview.entries) if entry.is_settled)]
        found = [
            entry
            for entry in (*every, *overview.unknown)
            if (not state or entry.state == state) and (not text or text in _words(entry))
        ]
        start = max(0, start)
        page = found[start : start + PAGE]
        more = start + PAGE if start + PAGE < len(found) else None
        return Answer(200, {'entries': [_entry(entry) for entry in page], 'found': len(found), 'more': more})

    def evolution(self, id: str) -> Answer:
        """One evolution with all of its attempts, the last ones with their errors."""
        overview, _ = self._overview()
        entry = overview.find(id)
        if entry is None:
            return Answer(404, {'error': f'There is no evolution {id!r} here.'})
        attempts = [_attempt(attempt) for attempt in entry.attempts]
        planned = entry.planned
        for attempt, row in list(zip(entry.attempts, attempts, strict=True))[-ERRORS:]:
            if attempt.state in (State.FAILED, State.INTERRUPTED, State.CANCELLED):
                row['error'] = self._evolver.store.error_of(attempt)
        return Answer(
            200,
            {
                **_entry(entry),
                'attempts': attempts[::-1],
                'origin': planned.origin if planned else None,
                'depends_on': list(planned.depends_on) if planned else [],
                'replaces': list(planned.replaces) if planned else [],
                'transactional': planned.transactional if planned else None,
                'rerunnable': planned.rerunnable if planned else None,
                'timeout': planned.timeout if planned else None,
            },
        )

    # -- acting

    def act(self, action: str, id: str = '', message: str = '') -> Answer:
        """Do what a person asked for, and say what happened.

        :param id: the evolution, for ``retry``, ``stamp`` and ``cancel``.
        :param message: for the public, for ``down``.
        """
        act = _ACTIONS.get(action)
        if act is None:
            return Answer(400, {'error': f'There is no action {action!r}.'})
        if action in _OF_ONE and not id:
            return Answer(400, {'error': f'Which evolution? {action} needs an id.'})
        records = _Impatient(self._evolver.options, self._evolver.plan, self._evolver.store)
        try:
            said = act(records, id, message)
        except (NothingRuns, LeaseTaken, StoreBusy) as error:
            return Answer(409, _refusal(error))
        except OptionError as error:
            return Answer(404, _refusal(error))
        except StoreError as error:
            return Answer(503, _refusal(error))
        except EvolveError as error:
            return Answer(409, _refusal(error))
        finally:
            self._forget()
        self._evolver.look()
        return Answer(200, {'message': said})


class _Impatient(Records):
    """Records for a person who waits in front of a browser."""

    def hold(self, patience: float = _PATIENCE) -> Lease:
        return super().hold(min(patience, _PATIENCE))


def _retry(records: _Impatient, id: str, message: str) -> str:
    forgiven = records.retry([id])
    if not forgiven:
        return f'{id} had no failed attempt that counts: nothing was changed.'
    return f'{id} may run again at once ({_number(forgiven, "attempt")} no longer counted).'


def _stamp(records: _Impatient, id: str, message: str) -> str:
    records.stamp([id])
    return f'{id} is recorded as done. It was not run.'


def _cancel(records: _Impatient, id: str, message: str) -> str:
    records.cancel(id)
    return f'{id} was asked to end. It does so at its next report of progress.'


def _pause(records: _Impatient, id: str, message: str) -> str:
    records.pause()
    return 'Paused: no evolution begins any more. What runs goes on to its end.'


def _resume(records: _Impatient, id: str, message: str) -> str:
    records.resume()
    return 'Resumed: what is pending may begin.'


def _shut(records: _Impatient, id: str, message: str) -> str:
    records.down(message.strip())
    return 'The gate is closed, in every process as soon as it looks.'


def _up(records: _Impatient, id: str, message: str) -> str:
    if records.up():
        return 'The gate is no longer closed by hand.'
    return 'The gate was not closed by hand: nothing was changed.'


_ACTIONS: dict[str, Callable[[_Impatient, str, str], str]] = {
    'retry': _retry,
    'stamp': _stamp,
    'cancel': _cancel,
    'pause': _pause,
    'resume': _resume,
    'down': _shut,
    'up': _up,
}
_OF_ONE = frozenset({'retry', 'stamp', 'cancel'})


# -- as values for JSON


def _error(error: EvolveError) -> dict[str, Any]:
    return {'thing': error.thing, 'remedy': error.remedy, 'away': isinstance(error, StoreAway)}


def _refusal(error: EvolveError) -> dict[str, Any]:
    return {'error': f'{error.thing[:1].upper()}{error.thing[1:]}.', 'remedy': error.remedy}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {'serving': verdict.serving.value, 'reason': verdict.reason.value, 'detail': verdict.detail}


def _down(overview: Overview, mine: Verdict) -> dict[str, Any] | None:
    down = overview.down
    if down is None:
        return None
    return {'since': down.started or down.finished, 'by': _who(down), 'message': mine.message}


def _lease(lease: LeaseRow | None) -> dict[str, Any] | None:
    if lease is None:
        return None
    return {
        'alive': lease.alive,
        'by': str(lease),
        'token': lease.token,
        'seconds': round(lease.ttl / 1000, 1),
        'left': round((lease.expires_at - lease.now) / 1000, 1),
        'cancel': lease.requests.cancel or None,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    latest, planned = entry.latest, entry.planned
    return {
        'id': entry.id,
        'state': entry.state,
        'why': entry.why,
        'description': planned.description if planned else '',
        'serving': planned.serving.value if planned else None,
        'tries': len(entry.attempts),
        'changed': entry.changed,
        'known': planned is not None,
        'seconds': _rounded(entry.seconds),
        'at': None if latest is None else latest.finished or latest.started,
        'by': None if latest is None else _who(latest),
        # What tells one failure from the next, for who keeps the text of the last one.
        'mark': None if latest is None else f'{latest.token}.{latest.attempt}.{latest.state.value}',
    }


def _progress(progress: Progress, left: float | None) -> dict[str, Any]:
    return {
        'done': progress.done,
        'total': progress.total,
        'message': progress.message,
        'fraction': progress.fraction,
        'elapsed': _rounded(progress.elapsed),
        'remaining': _rounded(left),
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        'id': attempt.evolution_id,
        'attempt': attempt.attempt,
        'state': attempt.state.value,
        'started': attempt.started,
        'finished': attempt.finished,
        'by': _who(attempt),
        'forgiven': attempt.fingerprint is None and attempt.state in _ENDED_BADLY,
        'error': None,
    }


_ENDED_BADLY = (State.FAILED, State.CANCELLED, State.INTERRUPTED)


def _runs(overview: Overview) -> list[dict[str, Any]]:
    """What ran last, newest first: each time that somebody held the lease, with the attempts made under it."""
    attempts: list[Attempt] = []
    for entry in (*overview.entries, *overview.unknown):
        attempts.extend(entry.attempts)
    runs: dict[int, list[Attempt]] = {}
    for token in sorted({attempt.token for attempt in attempts}, reverse=True)[:RUNS]:
        runs[token] = []
    for attempt in attempts:
        if attempt.token in runs:
            runs[attempt.token].append(attempt)
    return [_run(overview, token, made) for token, made in runs.items()]


def _run(overview: Overview, token: int, made: list[Attempt]) -> dict[str, Any]:
    made.sort(key=lambda attempt: (attempt.started or 0, attempt.attempt))
    holder = overview.holder
    holds = holder is not None and holder.token == token
    ran = [attempt for attempt in made if attempt.state not in (State.STAMPED, State.IMPORTED)]
    recorded = [attempt for attempt in made if attempt.state in (State.STAMPED, State.IMPORTED)]
    ends = [attempt.finished for attempt in made if attempt.finished is not None]
    if holds and any(attempt.state is State.RUNNING for attempt in ran):
        ends.append(overview.now)
    return {
        'token': token,
        'by': _who(made[-1]),
        'holds': holds,
        'started': min((a.started for a in made if a.started is not None), default=None),
        'finished': max(ends, default=None),
        'attempts': [_attempt(attempt) for attempt in ran[-ATTEMPTS_OF_A_RUN:]],
        'attempts_total': len(ran),
        'recorded': _named(attempt.evolution_id for attempt in recorded),
        'recorded_total': len(recorded),
        'recorded_as': recorded[0].state.value if recorded else None,
    }


def _named(ids: Iterable[str]) -> list[str]:
    return list(ids)[:_NAMED]


def _who(attempt: Attempt) -> str:
    return f'{attempt.host}:{attempt.pid}' if attempt.host else ''


def _words(entry: Entry) -> str:
    description = entry.planned.description if entry.planned else ''
    return f'{entry.id} {description} {entry.why}'.lower()


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _number(count: int, what: str) -> str:
    return f'{count} {what}{"" if count == 1 else "s"}'
