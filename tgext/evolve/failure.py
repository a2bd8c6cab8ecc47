"""An exception as text that may be kept: no parameters, no passwords, nothing a column refuses."""

from __future__ import annotations

import re
import traceback

#: The longest text that is kept of one error, in characters.
LIMIT = 32_000

_URL_PASSWORD = re.compile(r'(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@]+@', re.IGNORECASE)
_KEY_PASSWORD = re.compile(r'\b(password|passwd|pwd)(\s*=\s*)(\'[^\']*\'|"[^"]*"|[^\s,;&)]+)', re.IGNORECASE)


def describe(error: BaseException) -> str:
    """The traceback of ``error``, safe to store. Never raises."""
    _hide_parameters(error)
    try:
        text = ''.join(traceback.format_exception(error))
    except Exception:
        # An exception whose own str() raises, or worse.
        frames = ''.join(traceback.format_tb(error.__traceback__))
        text = f'{frames}{type(error).__module__}.{type(error).__qualname__}: (its text cannot be had)'
    return clean(text)


def brief(error: BaseException) -> str:
    """One line about ``error``, safe to store and to log. Never raises."""
    _hide_parameters(error)
    try:
        text = str(error).strip().split('\n')[0]
    except Exception:
        text = '(its text cannot be had)'
    return clean(f'{type(error).__name__}: {text}' if text else type(error).__name__)[:500]


def clean(text: str) -> str:
    """``text`` without passwords, NULs and what UTF-8 cannot encode, and not too long."""
    text = _URL_PASSWORD.sub(r'\1***@', text)
    text = _KEY_PASSWORD.sub(r'\1\2***', text)
    text = text.replace('\0', '').encode('utf-8', 'replace').decode('utf-8')
    if len(text) > LIMIT:
        head, tail = LIMIT // 4, LIMIT - LIMIT // 4 - 40
        text = f'{text[:head]}\n[... cut ...]\n{text[-tail:]}'
    return text


def _hide_parameters(error: BaseException) -> None:
    """SQLAlchemy puts the statement's parameters into its message unless it is told not to."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if hasattr(each, 'hide_parameters'):
            try:
                each.hide_parameters = True
            except AttributeError:
                pass
        todo += [each.__cause__, each.__context__]
        todo += getattr(each, 'exceptions', ())
