"""The WSGI side: what users, probes and balancers get while the gate is closed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from webob.acceptparse import create_accept_header

from .gate import Gate, Progress, Verdict
from .logs import MARKER
from .options import Options, page_of
from .wording import LATE, Told

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGI = Callable[[Environ, StartResponse], Iterable[bytes]]

HTML = 'text/html'
PROBLEM = 'application/problem+json'
JSON = 'application/json'
TEXT = 'text/plain'

STATUS = '503 Service Unavailable'
TITLE = 'Service Unavailable'

#: Retry-After, in seconds, when no progress tells how long it takes.
DEFAULT_RETRY_AFTER = 10

#: The longest Retry-After that is promised from measured progress, in seconds.
_LONGEST_RETRY_AFTER = 3600

#: What a page may name between two pairs of braces; anything else there is left as it is.
_PLACES = re.compile(r'\{\{(title|text|note|message|details|situation|progress|hint|script|look)\}\}')

#: So many pages are kept rendered: one for each prefix, twice.
_MOST_PAGES = 100


class Maintenance:
    """Answers for one application from memory: no SQL, no session, no identity.

    Pages are rendered once, and again when what they say has changed.
    """

    def __init__(self, gate: Gate, options: Options):
        self._gate = gate
        self._options = options
        self._health = options.health_path
        self._own = bool(options.page_file)
        page = page_of(options.page_file) if self._own else template('maintenance.html')
        #: Text and names of places by turns.
        self._page = _PLACES.split(page)
        #: Nothing would ever load this page again: a header does.
        self._inert = not self._health or 'script' not in self._page[1::2]
        self._policy = None if self._own else _policy()
        # Each replaced as a whole: other threads may be reading them.
        self._told: tuple[Verdict | None, int, Told | None] = (None, 0, None)
        self._pages: tuple[Told | None, dict[tuple[str, bool], bytes]] = (None, {})

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

    def told(self, verdict: Verdict) -> Told:
        """What the public is told; worked out once a second at most, unless the gate moves."""
        second = int(time.monotonic())
        last, when, told = self._told
        if told is None or last is not verdict or when != second:
            told = Told.of(verdict, self._options, self._gate.pace)
            self._told = (verdict, second, told)
        return told

    # -- 503

    def headers(self, verdict: Verdict) -> list[tuple[str, str]]:
        """What every 503 of ours carries."""
        return [
            ('Retry-After', str(self._retry_after(verdict))),
            ('Cache-Control', 'no-store'),
            # For access logs: this one is meant.
            (MARKER, verdict.reason.value),
        ]

    def page_headers(self, environ: Environ, verdict: Verdict) -> list[tuple[str, str]]:
        """The same for a page, also for the one that an ErrorController renders."""
        headers = self.headers(verdict)
        if self._inert and _may_be_repeated(environ):
            # There is no script or no status to ask for: the browser simply tries again.
            headers.append(('Refresh', str(self._retry_after(verdict))))
        return headers

    def _retry_after(self, verdict: Verdict) -> int:
        if self._options.retry_after is not None:
            return self._options.retry_after
        remaining = self._gate.pace.remaining()
        if remaining is None and verdict.progress is not None:
            remaining = verdict.progress.remaining
        if remaining is None:
            return DEFAULT_RETRY_AFTER
        return max(1, min(round(remaining + 0.5), _LONGEST_RETRY_AFTER))

    def unavailable(self, environ: Environ, start_response: StartResponse, verdict: Verdict) -> Iterable[bytes]:
        """The 503 itself, in the form that the client accepts."""
        kind = preferred(environ.get('HTTP_ACCEPT'))
        headers = self.headers(verdict)
        told = self.told(verdict)
        if kind == HTML:
            body = self.page(environ, verdict)
            headers = self.page_headers(environ, verdict)
            if self._policy is not None:
                headers += self._policy
        elif kind == TEXT:
            body = f'{TITLE}. {told.prose}\n'.encode()
        else:
            problem = {'type': 'about:blank', 'title': TITLE, 'status': 503, 'detail': told.prose}
            body = json.dumps({**problem, **told.fields(), 'progress': _public(verdict.progress, told)}).encode()
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

    def page(self, environ: Environ, verdict: Verdict) -> bytes:
        """The page for people; it reloads itself when the gate opens (a POST is not repeated)."""
        told = self.told(verdict)
        said, pages = self._pages
        if said != told or len(pages) > _MOST_PAGES:
            pages = {}
            self._pages = (told, pages)
        key = (environ.get('SCRIPT_NAME', ''), _may_be_repeated(environ))
        page = pages.get(key)
        if page is None:
            page = pages[key] = self._render(told, *key)
        return page

    def _render(self, told: Told, prefix: str, again: bool) -> bytes:
        parts = list(self._page)
        for at in range(1, len(parts), 2):
            parts[at] = self._fill(parts[at], told, prefix, again)
        return ''.join(parts).encode()

    def _fill(self, place: str, told: Told, prefix: str, again: bool) -> str:
        if place == 'script':
            return self._script(prefix, again)
        if place == 'progress':
            return _progress(told)
        if place == 'hint':
            return self._hint(again)
        if place == 'look':
            return template('look.css')
        if place == 'situation':
            return told.situation.value
        return escape(getattr(told, place))

    def _script(self, prefix: str, again: bool) -> str:
        if not self._health:
            return ''
        status = escape(mounted_at(prefix) + f'{self._health}/status')
        script = f'<script data-status="{status}" data-again="{"yes" if again else "no"}">{_code()}</script>'
        if again:
            # Only where no script runs.
            script += f'<noscript><meta http-equiv="refresh" content="{DEFAULT_RETRY_AFTER}"></noscript>'
        return script

    def _hint(self, again: bool) -> str:
        """What to do: nothing, for most people."""
        if not again:
            return escape(_NOT_SENT)
        by_itself = escape(_BY_ITSELF if self._health else _TRIED_AGAIN)
        if not self._health:
            return by_itself
        # Which of the two is true depends on whether the script runs.
        unscripted = f'<span data-evolve="unscripted">{escape(_TRIED_AGAIN)}</span>'
        return f'<span data-evolve="scripted" hidden>{by_itself}</span>{unscripted}'

    # -- health

    def health(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """``live``, ``ready`` and ``status`` below ``health_path``."""
        what = environ['PATH_INFO'][len(self._health) :]
        verdict = self._gate.verdict
        ready = self._gate.is_open
        status, headers = '200 OK', [('Cache-Control', 'no-store')]
        state: dict[str, Any]
        if what == '/live':
            state = {'live': True}
        elif what == '/ready':
            state = {'ready': ready, 'reason': verdict.reason.value}
            if not ready:
                status = STATUS
                headers = self.headers(verdict)
        else:
            state = self.status(verdict)
        body = json.dumps(state).encode()
        start_response(
            status,
            [('Content-Type', JSON), ('Content-Length', str(len(body))), *headers],
        )
        return [] if environ.get('REQUEST_METHOD') == 'HEAD' else [body]

    def status(self, verdict: Verdict) -> dict[str, Any]:
        """What the public may know: never SQL or the text of an error, and no id unless ``page_details``."""
        state: dict[str, Any] = {
            'serving': verdict.serving.value,
            'reason': verdict.reason.value,
            'retry_after': None,
            'progress': None,
        }
        told = self.told(verdict)
        state['progress'] = _public(verdict.progress, told)
        if not self._gate.is_open:
            state.update(told.fields(), retry_after=self._retry_after(verdict))
        return state


def mounted_at(prefix: str) -> str:
    """The path at which the application is mounted, for a browser.

    :param prefix: ``SCRIPT_NAME``.
    """
    if not prefix:
        return ''
    # WSGI decodes it as Latin-1; with two slashes it would be the address of a host.
    return quote('/' + prefix.lstrip('/'), encoding='latin-1', errors='replace')


def _may_be_repeated(environ: Environ) -> bool:
    return environ.get('REQUEST_METHOD', 'GET') in ('GET', 'HEAD')


_HEALTH = frozenset({'/live', '/ready', '/status'})

_BY_ITSELF = 'You need not do anything: this page opens by itself.'
_TRIED_AGAIN = f'This page is tried again every {DEFAULT_RETRY_AFTER} seconds.'
_NOT_SENT = 'What you sent was not received. Please keep it, and send it again when we are back.'


def _public(progress: Progress | None, told: Told) -> dict[str, float | bool | None] | None:
    if progress is None:
        return None

    def rounded(value: float | None, digits: int) -> float | None:
        return None if value is None else round(value, digits)

    return {
        'done': progress.done,
        'total': progress.total,
        'fraction': rounded(progress.fraction, 4),
        'elapsed': rounded(progress.elapsed, 1),
        'remaining': rounded(told.remaining, 1),
        'late': told.late,
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


# -- rendering


@cache
def template(name: str) -> str:
    """A file of ``templates``."""
    return (files(__package__) / 'templates' / name).read_text('utf-8')


@cache
def _code() -> str:
    return '\n' + template('maintenance.js')


def _policy() -> list[tuple[str, str]]:
    """Our own page asks nobody else for anything, whatever came into it."""
    digest = base64.b64encode(hashlib.sha256(_code().encode()).digest()).decode()
    return [
        (
            'Content-Security-Policy',
            f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
            f"img-src data:; base-uri 'none'; form-action 'none'",
        ),
        ('X-Content-Type-Options', 'nosniff'),
    ]


_BLANKS = re.compile(r'\{\{(\w+)\}\}')


def fill(text: str, **values: str) -> str:
    """``{{name}}`` by its value: HTML already."""
    return _BLANKS.sub(lambda blank: values[blank[1]], text)


def _progress(told: Told) -> str:
    known = told.fraction is not None
    return fill(
        template('progress.html'),
        hidden='' if told.has_progress else 'hidden',
        known='yes' if known else 'no',
        now=f' aria-valuenow="{round((told.fraction or 0) * 100)}"' if known else '',
        scale=f' style="transform: scaleX({told.fraction:.2f})"' if known else '',
        percent=escape(f'Current step: {told.percent}') if known else '',
        left=escape(told.left),
        late=escape(LATE, quote=True),
    )
