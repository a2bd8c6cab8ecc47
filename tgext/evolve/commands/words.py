"""Times, durations and progress as people say them."""

from __future__ import annotations

from datetime import datetime, timezone

from ..gate import Progress
from ..history import Attempt
from ..stores.base import LeaseRow

#: What stands where nothing is known, so that columns of plain text can be counted.
NOTHING = '-'


def when(milliseconds: int | None) -> str:
    """A time of the database's clock, in local time with its offset."""
    if milliseconds is None:
        return NOTHING
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().strftime('%Y-%m-%d %H:%M:%S %z')


def iso(milliseconds: int | None) -> str | None:
    """The same for scripts: ISO 8601, UTC."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return moment.isoformat(timespec='milliseconds').replace('+00:00', 'Z')


def took(seconds: float | None) -> str:
    """A duration by its two largest units."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f'{seconds:.1f} s'
    left = round(seconds)
    for unit, size, smaller, part in (('d', 86_400, 'h', 3_600), ('h', 3_600, 'min', 60), ('min', 60, 's', 1)):
        if left >= size:
            large, rest = divmod(left, size)
            return f'{large} {unit} {rest // part} {smaller}' if rest // part else f'{large} {unit}'
    return f'{left} s'


def number(value: float) -> str:
    return f'{value:,.0f}' if value == int(value) else f'{value:,.1f}'


def progress(progress: Progress | None, *, message: bool = True) -> str:
    """How far it is and how long it may still take."""
    if progress is None:
        return NOTHING
    words = number(progress.done)
    if progress.total is not None:
        words += f' of {number(progress.total)}'
    if progress.fraction is not None:
        words = f'{progress.fraction:.0%} ({words})'
    if progress.remaining is not None and progress.fraction != 1:
        words += f', about {took(progress.remaining)} left'
    return f'{words}: {progress.message}' if message and progress.message else words


def who(row: Attempt | LeaseRow | None) -> str:
    """Host and pid."""
    if row is None or row.host is None:
        return NOTHING
    return f'{row.host}:{row.pid}'


def listed(ids: list[str], most: int = 5) -> str:
    more = f' and {len(ids) - most} more' if len(ids) > most else ''
    return ', '.join(map(repr, ids[:most])) + more


def last_line(error: str | None) -> str:
    """What was raised, of a traceback."""
    lines = [line for line in (error or '').splitlines() if line.strip() and not line.startswith((' ', '\t'))]
    named = [line for line in lines if not line.startswith(('Traceback', '(Background', '[SQL', '[parameters'))]
    for line in reversed(named):
        word = line.partition(':')[0]
        if word.replace('.', '').isidentifier():
            return line
    return named[-1] if named else ''
