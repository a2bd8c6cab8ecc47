"""An exception as text that may be kept: no parameters, no passwords, nothing a column refuses."""

from __future__ import annotations

import re
import traceback

#: The longest text that is kept of one error, in bytes of UTF-8.
LIMIT = 32_000

#: What is looked at of a longer text, in characters at either end.
_LOOKED_AT = 500_000

# Repetitions are bounded or take all they tried: the time to search a text grows with its length, no faster.
_URL_WORD = re.compile(r'(://[^\s:/@]{0,256}:)(\S+)')
_KEY_PASSWORD = re.compile(
    r'(password|passwd|passphrase|pwd)(["\']?[ \t]{0,8}=[ \t]{0,8}|["\'][ \t]{0,8}:[ \t]{0,8})'
    r"""('(?:[^'\\]|\\.){0,512}'|"(?:[^"\\]|\\.){0,512}"|\{[^}]{0,512}\}|[^\s,;&)]+)""",
    re.IGNORECASE | re.DOTALL,
)

_UNSPEAKABLE = '(its text cannot be had)'


def describe(error: BaseException) -> str:
    """The traceback of ``error``, safe to store. Never raises."""
    _hide_parameters(error)
    try:
        text = ''.join(traceback.format_exception(error))
    except BaseException:  # an exception whose own str() raises, or worse
        frames = ''.join(traceback.format_tb(error.__traceback__))
        text = f'{frames}{type(error).__module__}.{type(error).__qualname__}: {_UNSPEAKABLE}'
    return clean(text)


def brief(error: BaseException) -> str:
    """One line about ``error``, safe to store and to log. Never raises."""
    _hide_parameters(error)
    try:
        text = next(iter(str(error).strip()[:_LOOKED_AT].splitlines()), '')
    except BaseException:
        text = _UNSPEAKABLE
    return clean(f'{type(error).__name__}: {text}' if text else type(error).__name__)[:500]


def clean(text: str) -> str:
    """``text`` without passwords, NULs and what UTF-8 cannot encode, and not too long."""
    if len(text) > 2 * _LOOKED_AT:
        text = text[:_LOOKED_AT] + text[-_LOOKED_AT:]  # the seam is cut out again below
    text = text.replace('\0', '')
    text = _URL_WORD.sub(_without_password, text)
    text = _KEY_PASSWORD.sub(r'\1\2***', text)
    kept = text.encode('utf-8', 'replace')
    if len(kept) <= LIMIT:
        return kept.decode('utf-8')
    head, tail = LIMIT // 4, LIMIT - LIMIT // 4 - 40
    return '\n[... cut ...]\n'.join(part.decode('utf-8', 'ignore') for part in (kept[:head], kept[-tail:]))


def _without_password(match: re.Match[str]) -> str:
    before, word = match.groups()
    # Up to the last @ of the word: people do not escape one in a password.
    _, at, rest = word.rpartition('@')
    return f'{before}***@{rest}' if at else f'{before}{word}'


def _hide_parameters(error: BaseException) -> None:
    """SQLAlchemy puts the statement's parameters into its message unless it is told not to."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        each = todo.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        todo += [each.__cause__, each.__context__]
        try:
            if hasattr(each, 'hide_parameters'):
                each.hide_parameters = True
            todo += getattr(each, 'exceptions', ())
        except BaseException:
            pass  # its attributes do not behave; what it refers to has been noted
