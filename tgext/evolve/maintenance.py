"""The WSGI side: what users, probes and balancers get while the gate is closed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from webob.acceptparse import create_accept_header

from .gate import Gate, Progress, Verdict
from .options import Options

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGI = Callable[[Environ, StartResponse], Iterable[bytes]]

HTML = 'text/html'
PROBLEM = 'application/problem+json'
JSON = 'application/json'
TEXT = 'text/plain'

STATUS = '503 Service Unavailable'
TITLE = 'Service Unavailable'
SENTENCE = 'The application is updating its data and will be back in a moment.'

#: Retry-After, in seconds, when no progress tells how long it takes.
DEFAULT_RETRY_AFTER = 10

#: The longest Retry-After that is promised from measured progress, in seconds.
_LONGEST_RETRY_AFTER = 3600


class Maintenance:
    """Answers for one application from memory: no SQL, no session, no identity."""

    def __init__(self, gate: Gate, options: Options):
        self._gate = gate
        self._options = options
        self._health = options.health_path
        self._pages: dict[tuple[str, bool], bytes] = {}

    # -- who gets what

    def is_health(self, path: str) -> bool:
        """Is this path below ``health_path``?"""
        return bool(self._health) and path.startswith(self._health) and (path[len(self._health) :] in _HEALTH)

    def is_bypassed(self, path: str) -> bool:
        """Is this path below one of the ``bypass`` prefixes, by whole segments?

        A path with empty, ``.`` or ``..`` segments is not: who dispatches it may read it in
        another way.
        """
        if not self._options.bypass:
            return False
        segments = path[1:].split('/') if path.startswith('/') else path.split('/')
        if any(segment in ('.', '..') for segment in segments) or '' in segments[:-1]:
            return False
        return any(path == prefix or path.startswith(prefix + '/') for prefix in self._options.bypass)

    # -- 503

    def headers(self, verdict: Verdict) -> list[tuple[str, str]]:
        """What every 503 of ours carries."""
        return [
            ('Retry-After', str(self._retry_after(verdict))),
            ('Cache-Control', 'no-store'),
        ]

    def page_headers(self, environ: Environ, verdict: Verdict) -> list[tuple[str, str]]:
        """The same for a page, also for the one that an ErrorController renders."""
        headers = self.headers(verdict)
        if not self._health and _may_be_repeated(environ):
            # There is no status to ask for: the browser simply tries again.
            headers.append(('Refresh', str(self._retry_after(verdict))))
        return headers

    def _retry_after(self, verdict: Verdict) -> int:
        if self._options.retry_after is not None:
            return self._options.retry_after
        remaining = verdict.progress.remaining if verdict.progress else None
        if remaining is None:
            return DEFAULT_RETRY_AFTER
        return max(1, min(round(remaining + 0.5), _LONGEST_RETRY_AFTER))

    def unavailable(self, environ: Environ, start_response: StartResponse, verdict: Verdict) -> Iterable[bytes]:
        """The 503 itself, in the form that the client accepts."""
        kind = preferred(environ.get('HTTP_ACCEPT'))
        headers = self.headers(verdict)
        if kind == HTML:
            body = self.page(environ)
            headers = self.page_headers(environ, verdict)
        elif kind == TEXT:
            body = f'{TITLE}. {SENTENCE}\n'.encode()
        else:
            body = json.dumps(
                {
                    'type': 'about:blank',
                    'title': TITLE,
                    'status': 503,
                    'detail': SENTENCE,
                    'reason': verdict.reason.value,
                }
            ).encode()
        charset = '' if kind in (JSON, PROBLEM) else '; charset=utf-8'
        start_response(
            STATUS,
            [
                ('Content-Type', kind + charset),
                ('Content-Length', str(len(body))),
                ('Vary', 'Accept'),
                *headers,
            ],
        )
        return [] if environ.get('REQUEST_METHOD') == 'HEAD' else [body]

    def page(self, environ: Environ) -> bytes:
        """The page for people; it reloads itself when the gate opens (a POST is not repeated)."""
        prefix = environ.get('SCRIPT_NAME', '')
        again = _may_be_repeated(environ)
        page = self._pages.get((prefix, again))
        if page is None:
            if len(self._pages) > 100:
                self._pages.clear()
            page = self._pages[prefix, again] = self._render(prefix, again)
        return page

    def _render(self, prefix: str, again: bool) -> bytes:
        refresh = script = ''  # without a status to ask for, a header has the page reloaded
        if self._health:
            # WSGI decodes the prefix as Latin-1; with two slashes it would be the address of a host.
            mounted = '/' + prefix.lstrip('/') if prefix else ''
            status = escape(quote(mounted, encoding='latin-1', errors='replace') + f'{self._health}/status')
            code = _template('maintenance.js')
            script = f'<script data-status="{status}" data-again="{"yes" if again else "no"}">\n{code}</script>'
            if again:
                # Only where no script runs.
                refresh = f'<noscript><meta http-equiv="refresh" content="{DEFAULT_RETRY_AFTER}"></noscript>'
        return _template('maintenance.html').format(refresh=refresh, script=script).encode()

    # -- health

    def health(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """``live``, ``ready`` and ``status`` below ``health_path``."""
        what = environ['PATH_INFO'][len(self._health) :]
        verdict = self._gate.verdict
        ready = self._gate.is_open
        status, state = '200 OK', self.status(verdict)
        headers = [('Cache-Control', 'no-store')]
        if what == '/live':
            state = {'live': True}
        elif what == '/ready':
            state = {'ready': ready, 'reason': verdict.reason.value}
            if not ready:
                status = STATUS
                headers = self.headers(verdict)
        body = json.dumps(state).encode()
        start_response(
            status,
            [('Content-Type', JSON), ('Content-Length', str(len(body))), *headers],
        )
        return [] if environ.get('REQUEST_METHOD') == 'HEAD' else [body]

    def status(self, verdict: Verdict) -> dict[str, Any]:
        """What the public may know: never an id, a message, SQL or the text of an error."""
        return {
            'serving': verdict.serving.value,
            'reason': verdict.reason.value,
            'retry_after': None if self._gate.is_open else self._retry_after(verdict),
            'progress': _public(verdict.progress),
        }


def _may_be_repeated(environ: Environ) -> bool:
    return environ.get('REQUEST_METHOD', 'GET') in ('GET', 'HEAD')


_HEALTH = frozenset({'/live', '/ready', '/status'})


def _public(progress: Progress | None) -> dict[str, float | None] | None:
    if progress is None:
        return None

    def rounded(value: float | None, digits: int) -> float | None:
        return None if value is None else round(value, digits)

    return {
        'done': progress.done,
        'total': progress.total,
        'fraction': rounded(progress.fraction, 4),
        'elapsed': rounded(progress.elapsed, 1),
        'remaining': rounded(progress.remaining, 1),
    }


@lru_cache(maxsize=256)
def preferred(accept: str | None) -> str:
    """The form of a 503 that suits an Accept header best; HTML for who does not care."""
    try:
        offers = create_accept_header(accept or None).acceptable_offers([HTML, PROBLEM, JSON, TEXT])
    except ValueError:
        return HTML
    if not offers:
        return TEXT
    best = offers[0][1]
    equal = [kind for kind, quality in offers if quality == best]
    # Equally good for the client: what it names (scripts send "application/json, text/plain, */*"), then people first.
    named = [kind for kind in equal if kind in (accept or '').lower()] or equal
    return HTML if HTML in named else named[0]


@cache
def _template(name: str) -> str:
    return (files(__package__) / 'templates' / name).read_text('utf-8')
