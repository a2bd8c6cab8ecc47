"""The operator's way through a closed gate: a secret, entered in a form, and a signed cookie for it.

Nothing here asks a database: the gate is closed because nobody may touch it now.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Iterable
from html import escape
from urllib.parse import parse_qs

from webob.cookies import SignedCookieProfile, parse_cookie

from .maintenance import Environ, StartResponse, fill, mounted_at, template
from .options import Options
from .tokens import Tokens

log = logging.getLogger(__name__)

#: In the environ of a request that passes a closed gate with the cookie: True.
OPERATOR = 'tgext.evolve.operator'

COOKIE = 'tgext_evolve_operator'

#: How long the cookie is good, in seconds, by the server's clock.
LIFETIME = 8 * 3600

#: By how much the clocks of two servers may differ, in seconds.
_SKEW = 60

#: The form's token, once in a cookie and once in the form itself: only a page of ours can have both.
_FORM_COOKIE = 'tgext_evolve_form'
_FORM_FOR = 'enter'

#: No secret is so long; nobody needs to send us more, in bytes.
_LONGEST_BODY = 4096


class Throttle:
    """Each wrong guess from an address makes the next one wait: 1 second, doubled up to 30.

    In memory of one process, and nobody is held up while waiting. Behind a proxy everybody has the proxy's address:
    therefore the wait stays short enough for who knows the secret.
    """

    def __init__(self, longest: float = 30.0, forgets: float = 600.0, most: int = 1000):
        self._longest = longest
        self._forgets = forgets
        self._most = most
        self._wrong: dict[str, tuple[int, float]] = {}

    def wait(self, address: str, now: float) -> float:
        """For how many seconds nothing from this address is looked at."""
        times, when = self._wrong.get(address, (0, 0.0))
        if not times or now - when > self._forgets:
            return 0.0
        return max(0.0, when + min(2.0 ** (times - 1), self._longest) - now)

    def wrong(self, address: str, now: float) -> None:
        times, when = self._wrong.pop(address, (0, 0.0))
        if now - when > self._forgets:
            times = 0
        if len(self._wrong) >= self._most:
            # The one that has been quiet for longest: they stand in the order of their guesses.
            self._wrong.pop(next(iter(self._wrong)), None)
        self._wrong[address] = (min(times + 1, 20), now)

    def right(self, address: str) -> None:
        self._wrong.pop(address, None)


class Bypass:
    """``enter`` and ``leave`` below ``health_path``, and whether a request passes.

    :param options: with a ``bypass_secret`` and a ``health_path``.
    :param dashboard: the path of the dashboard below the application, for a link; None: it has none.
    """

    def __init__(self, options: Options, dashboard: str | None = None):
        self._secret = options.bypass_secret.encode()
        self._enter = f'{options.health_path}/enter'
        self._leave = f'{options.health_path}/leave'
        self._dashboard = dashboard
        self._tokens = Tokens(options.bypass_secret)
        self._throttle = Throttle()
        # The namespace: a cookie is good for one application only, also where two have the same secret.
        self._profile = SignedCookieProfile(
            options.bypass_secret,
            f'tgext.evolve.operator:{options.namespace}:',
            COOKIE,
            max_age=LIFETIME,
            httponly=True,
            samesite='Strict',
            hashalg='sha256',
        )

    def is_at(self, path: str) -> bool:
        """Is this path one of ours?"""
        return path in (self._enter, self._leave)

    # -- who passes

    def admits(self, environ: Environ) -> bool:
        """Does this request have a good cookie?"""
        return self._left(environ) > 0

    def _left(self, environ: Environ) -> float:
        """For how many seconds the cookie is still good."""
        now = time.time()
        return max((self._left_of(value, now) for value in _cookies(environ, COOKIE)), default=0.0)

    def _left_of(self, value: bytes, now: float) -> float:
        try:
            since = float(self._profile.serializer.loads(value)['since'])
        except (ValueError, KeyError, TypeError):
            return 0.0
        age = now - since
        return LIFETIME - age if age >= -_SKEW else 0.0

    def pass_by(self, start_response: StartResponse) -> StartResponse:
        """A ``start_response`` for what an operator gets to see: nobody may keep it."""

        def start(status: str, headers: list[tuple[str, str]], *exc_info: object) -> object:
            kept = [(name, value) for name, value in headers if name.lower() not in _CACHING]
            return start_response(status, [*kept, ('Cache-Control', 'no-store')], *exc_info)

        return start

    # -- entering and leaving

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        answer = _Answer(environ, start_response)
        method = environ.get('REQUEST_METHOD', 'GET')
        leaves = environ.get('PATH_INFO') == self._leave
        if method in ('GET', 'HEAD') and not leaves:
            return self._form(answer)
        if method != 'POST':
            return answer.send('405 Method Not Allowed', 'This is sent by POST.', [('Allow', 'POST')])
        refused, fields = _fields(environ)
        if refused is not None:
            return answer.send(refused, 'This cannot be read as what our form sends.')
        if not self._is_from_our_form(environ, fields):
            return self._form(answer, '403 Forbidden', 'This form was open for too long. Please try once more.')
        return self._let_go(answer) if leaves else self._let_in(answer, fields)

    def _let_in(self, answer: _Answer, fields: dict[str, str]) -> Iterable[bytes]:
        address, now = str(answer.environ.get('REMOTE_ADDR', '')), time.monotonic()
        wait = self._throttle.wait(address, now)
        if wait > 0:
            seconds = str(int(wait) + 1)
            words = f'Too many attempts. Please wait {seconds} seconds.'
            return self._form(answer, '429 Too Many Requests', words, [('Retry-After', seconds)])
        given = fields.get('secret', '').strip().encode('utf-8', 'replace')
        if not hmac.compare_digest(given, self._secret):
            self._throttle.wrong(address, now)
            log.warning('a wrong bypass_secret was entered, from %s', address or 'somewhere')
            return self._form(answer, '403 Forbidden', 'That is not the secret.')
        self._throttle.right(address)
        log.warning(
            'the bypass_secret was entered, from %s: the gate is passed for %d hours', address, LIFETIME // 3600
        )
        return answer.redirect(self._enter, self._cookie(answer, {'since': int(time.time())}))

    def _let_go(self, answer: _Answer) -> Iterable[bytes]:
        return answer.redirect(self._enter, self._cookie(answer, None))

    def _cookie(self, answer: _Answer, value: dict[str, int] | None) -> list[tuple[str, str]]:
        path = answer.mounted or '/'
        headers: list[tuple[str, str]] = self._profile.get_headers(value, path=path, secure=answer.is_secure)
        return headers

    def _is_from_our_form(self, environ: Environ, fields: dict[str, str]) -> bool:
        """So that nobody else's page can have somebody entered, or sent away."""
        if environ.get('HTTP_SEC_FETCH_SITE', 'same-origin') not in ('same-origin', 'none'):
            return False
        token = fields.get('token', '')
        cookies = (value.decode('latin-1') for value in _cookies(environ, _FORM_COOKIE))
        return any(self._tokens.agree(cookie, token, _FORM_FOR) for cookie in cookies)

    def _token(self, environ: Environ) -> str:
        """The one that this browser has, so that a form in another tab stays good, or a new one."""
        for value in _cookies(environ, _FORM_COOKIE):
            token = value.decode('latin-1')
            if self._tokens.left(token, _FORM_FOR) > LIFETIME / 2:
                return token
        return self._tokens.make(_FORM_FOR)

    def _form(
        self, answer: _Answer, status: str = '200 OK', wrong: str = '', headers: Iterable[tuple[str, str]] = ()
    ) -> Iterable[bytes]:
        token = self._token(answer.environ)
        cookie = _form_cookie(token, answer, self._enter.rpartition('/')[0])
        left = self._left(answer.environ)
        inside = ''
        if left > 0:
            dashboard = ''
            if self._dashboard is not None:
                dashboard = f'<a class="button" href="{escape(answer.mounted + self._dashboard)}">Dashboard</a>'
            inside = fill(
                template('inside.html'),
                dashboard=dashboard,
                home=escape(f'{answer.mounted}/'),
                leave=escape(answer.mounted + self._leave),
                hours=_hours(left),
                token=escape(token),
            )
        else:
            inside = fill(
                template('secret.html'),
                enter=escape(answer.mounted + self._enter),
                token=escape(token),
                invalid=' aria-invalid="true" aria-describedby="wrong"' if wrong else '',
            )
        page = fill(
            template('enter.html'),
            look=template('look.css'),
            title='You are in' if left > 0 else 'For operators',
            situation='updating' if left > 0 else 'down',
            wrong=f'<p class="note" id="wrong" role="alert" data-situation="failed">{escape(wrong)}</p>'
            if wrong
            else '',
            inside=inside,
        )
        return answer.page(status, page, [*headers, cookie])


#: What would let somebody keep a page that only operators may see.
_CACHING = frozenset({'cache-control', 'expires', 'pragma', 'etag', 'last-modified'})

_POLICY = [
    (
        'Content-Security-Policy',
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'",
    ),
    ('X-Frame-Options', 'DENY'),
    ('X-Content-Type-Options', 'nosniff'),
    ('Referrer-Policy', 'same-origin'),
    ('Cache-Control', 'no-store'),
]


class _Answer:
    """What one request to these pages is answered."""

    def __init__(self, environ: Environ, start_response: StartResponse):
        self.environ = environ
        self._start_response = start_response
        self.mounted = mounted_at(environ.get('SCRIPT_NAME', ''))
        # Whoever pretends to come by https gets a cookie that their browser keeps to itself.
        forwarded = str(environ.get('HTTP_X_FORWARDED_PROTO', '')).partition(',')[0].strip().lower()
        self.is_secure = environ.get('wsgi.url_scheme') == 'https' or forwarded == 'https'

    def page(self, status: str, page: str, headers: Iterable[tuple[str, str]] = ()) -> Iterable[bytes]:
        return self._send(status, 'text/html; charset=utf-8', page.encode(), headers)

    def send(self, status: str, words: str, headers: Iterable[tuple[str, str]] = ()) -> Iterable[bytes]:
        return self._send(status, 'text/plain; charset=utf-8', f'{words}\n'.encode(), headers)

    def redirect(self, path: str, headers: Iterable[tuple[str, str]]) -> Iterable[bytes]:
        return self.send('303 See Other', 'See there.', [('Location', self.mounted + path), *headers])

    def _send(self, status: str, kind: str, body: bytes, headers: Iterable[tuple[str, str]]) -> Iterable[bytes]:
        lines = [('Content-Type', kind), ('Content-Length', str(len(body))), *_POLICY, *headers]
        self._start_response(status, lines)
        return [] if self.environ.get('REQUEST_METHOD') == 'HEAD' else [body]


def _cookies(environ: Environ, name: str) -> list[bytes]:
    """All of this name: an application above this one, on the same host, may have set one too."""
    header = environ.get('HTTP_COOKIE', '')
    if name not in header:
        return []
    return [value for key, value in parse_cookie(header) if key == name.encode()]


def _form_cookie(token: str, answer: _Answer, path: str) -> tuple[str, str]:
    secure = '; secure' if answer.is_secure else ''
    where = f'{answer.mounted}{path}'
    return 'Set-Cookie', f'{_FORM_COOKIE}={token}; Path={where}; HttpOnly; SameSite=Strict{secure}'


def _fields(environ: Environ) -> tuple[str | None, dict[str, str]]:
    """What the form sent; or the status with which it is refused, before it is read."""
    kind = str(environ.get('CONTENT_TYPE', '')).partition(';')[0].strip().lower()
    if kind != 'application/x-www-form-urlencoded':
        return '415 Unsupported Media Type', {}
    length = str(environ.get('CONTENT_LENGTH') or '')
    if not length.isdecimal():
        return '411 Length Required', {}
    if len(length) > 9 or int(length) > _LONGEST_BODY:
        return '413 Content Too Large', {}
    body = environ['wsgi.input'].read(int(length))
    try:
        given = parse_qs(body.decode('ascii', 'replace'), keep_blank_values=True, max_num_fields=10)
    except ValueError:
        return '400 Bad Request', {}
    return None, {name: values[-1] for name, values in given.items()}


def _hours(seconds: float) -> str:
    minutes = int(seconds // 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes:02d} min' if hours else f'{minutes} min'
