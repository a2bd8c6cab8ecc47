"""What the public is told about a closed gate: words and numbers, whatever form they are sent in. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .gate import Reason, Serving, Verdict
from .options import Options
from .pace import Pace


class Situation(str, Enum):
    """What a closed gate means to somebody who wants to come in."""

    UPDATING = 'updating'
    READING = 'reading'
    WAITING = 'waiting'
    PAUSED = 'paused'
    FAILED = 'failed'
    UNREACHABLE = 'unreachable'
    DOWN = 'down'


_OF_REASON = {
    Reason.DOWN: Situation.DOWN,
    Reason.WAITING: Situation.WAITING,
    Reason.PAUSED: Situation.PAUSED,
    Reason.FAILED: Situation.FAILED,
    Reason.CANCELLED: Situation.FAILED,
    Reason.PREDECESSOR: Situation.FAILED,
    Reason.OTHER_NAMESPACE: Situation.FAILED,
    Reason.UNKNOWN_EVOLUTIONS: Situation.FAILED,
    Reason.DATABASE_REFUSES: Situation.FAILED,
    Reason.DATABASE_AWAY: Situation.UNREACHABLE,
}

#: Title and text. Nothing is promised that nobody can know.
_WORDS = {
    Situation.UPDATING: (
        'Back in a moment',
        'We are updating our data. Everything opens again as soon as that is done.',
    ),
    Situation.READING: (
        'Nothing can be changed just now',
        'We are updating our data. Until that is done you can read everything, but not change anything.',
    ),
    Situation.WAITING: (
        'An update is about to begin',
        'We are closed until our data is up to date. The update has not begun yet.',
    ),
    Situation.PAUSED: (
        'The update is paused',
        'We are closed until our data is up to date. The update was paused, and will go on later.',
    ),
    Situation.FAILED: (
        'Something went wrong',
        'An update of our data did not work, so we stay closed. We are looking into it, and cannot say yet when we '
        'will be back.',
    ),
    Situation.UNREACHABLE: (
        'We cannot reach our data',
        'A part of our system does not answer at the moment. We keep trying, and open again as soon as it does.',
    ),
    Situation.DOWN: ('Closed for maintenance', 'We are working on this site, and open it again when that is done.'),
}

#: Where progress of the run says something about the opening of the gate.
_WITH_PROGRESS = frozenset({Situation.UPDATING, Situation.READING})


@dataclass(frozen=True)
class Told:
    """All that the public is told, by page, JSON or text.

    :param text: may have several lines.
    :param note: said besides ``text`` when that is the application's own and does not fit the situation.
    :param message: of the person who closed the gate by hand; it stands in ``text`` too.
    :param fraction: of what runs now, 0 to 1.
    :param remaining: seconds until what runs now is done, when that can be told.
    :param late: it has been silent for much longer than expected.
    :param details: for those who switched them on: ids and messages.
    """

    situation: Situation
    reason: str
    serving: str
    title: str
    text: str
    note: str = ''
    message: str = ''
    fraction: float | None = None
    remaining: float | None = field(default=None, compare=False)
    late: bool = False
    details: str = ''

    @classmethod
    def of(cls, verdict: Verdict, options: Options, pace: Pace) -> Told:
        situation = _OF_REASON.get(verdict.reason, Situation.UPDATING)
        if situation is Situation.UPDATING and verdict.serving is Serving.READS:
            situation = Situation.READING
        title, text = _WORDS[situation]
        note = ''
        if verdict.message:
            text = verdict.message
        elif options.page_text:
            note = '' if situation is Situation.UPDATING else text
            text = options.page_text
        progress = verdict.progress if situation in _WITH_PROGRESS else None
        fraction = progress.fraction if progress is not None else None
        details = ''
        if options.page_details:
            about = progress.message if progress is not None else None
            details = ' · '.join(filter(None, (verdict.detail, about)))
        return cls(
            situation=situation,
            reason=verdict.reason.value,
            serving=verdict.serving.value,
            title=options.page_title or title,
            text=text,
            note=note,
            message=verdict.message,
            fraction=None if fraction is None else math.floor(fraction * 100 + 1e-6) / 100,
            remaining=pace.remaining() if fraction is not None else None,
            late=fraction is not None and pace.is_late(),
            details=details,
        )

    @property
    def has_progress(self) -> bool:
        """Does something run that is waited for, whether or not it says how far it is?"""
        return self.situation in _WITH_PROGRESS

    @property
    def percent(self) -> str:
        return '' if self.fraction is None else f'{round(self.fraction * 100)}%'

    @property
    def left(self) -> str:
        """The estimate in words, as coarse as it is uncertain."""
        if self.late:
            return LATE
        return '' if self.remaining is None else f'about {_about(self.remaining)} left'

    @property
    def prose(self) -> str:
        """Everything in sentences."""
        step = ', '.join(filter(None, (self.percent, self.left)))
        said = [_sentence(self.title), self.text, self.note, step and f'Current step: {step}.', self.details]
        return ' '.join(filter(None, said))

    def fields(self) -> dict[str, Any]:
        """The members of JSON that all forms of it have in common."""
        fields = {
            'serving': self.serving,
            'reason': self.reason,
            'situation': self.situation.value,
            'heading': self.title,
            'text': self.text,
            'note': self.note,
        }
        return {**fields, 'details': self.details} if self.details else fields


#: Said instead of an estimate that did not hold.
LATE = 'taking longer than expected'


def _sentence(text: str) -> str:
    return text if text[-1:] in '.!?…' else f'{text}.'


def _about(seconds: float) -> str:
    if seconds <= 10:
        return '10 seconds'
    if seconds <= 90:
        return f'{math.ceil(seconds / 10) * 10} seconds'
    if seconds <= 90 * 60:
        return f'{math.ceil(seconds / 60)} minutes'
    return f'{math.ceil(seconds / 3600)} hours'
