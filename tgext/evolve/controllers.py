"""The dashboard's two doors: a TurboGears controller, and one around TurboGears for operators while the gate is closed.

Plugged by tgext.pluggable, or with the option ``appid``, it is mounted there. Else, the application mounts one by hand,
in its own RootController: ``evolve = tgext.evolve.controllers.EvolveController()``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import tg
from tg import TGController, expose
from tg.configuration.utils import TGConfigError
from tg.predicates import Predicate, has_permission
from tg.wsgiapp import TGApp
from webob import Request, Response

from .bypass import OPERATOR
from .component import APPID, EVOLVER, OPTIONS
from .desk import Answer, Desk
from .errors import StoreError
from .evolver import Evolver
from .maintenance import Environ, StartResponse, mounted_at
from .options import Options
from .tokens import COOKIE, HEADER, LIFETIME, Tokens

log = logging.getLogger(__name__)

#: Who that is: nobody was asked for a name.
_SOMEBODY = 'operator'

_DESK = 'tgext_evolve.desk'

#: Which of the secrets' names a person should be told.
_SAY = 'tgext.evolve.bypass_secret (20 characters at least) or sa_auth.cookie_secret'

HEADERS = {
    'Cache-Control': 'no-store',
    'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    'X-Frame-Options': 'DENY',
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'same-origin',
}

_STATIC = {'dashboard.css': 'text/css', 'dashboard.js': 'text/javascript', 'dashboard.svg': 'image/svg+xml'}


class Visit:
    """One request to the dashboard, whichever door it came through.

    :param conf: the configuration of the application.
    :param who: who asks; a token is good for one person only.
    """

    def __init__(self, request: Any, response: Any, conf: Mapping[str, Any], who: str):
        self.request = request
        self.response = response
        self._conf = conf
        self._who = who
        self._options: Options = conf[OPTIONS]
        response.headers.update(HEADERS)

    @property
    def desk(self) -> Desk | None:
        """None when tgext.evolve is disabled."""
        return desk_of(self._conf)

    def page(self) -> dict[str, Any]:
        """What the template needs, and it needs nothing else: no helper and no variable of the application's."""
        # With one slash, whatever was asked for: with two it would be the address of a host.
        path = '/' + self.request.path.strip('/')
        # Whatever it is called by: /evolve, /evolve/, /evolve/index.
        options = self._options
        base = path[: -len('/index')] if path.endswith('/index') else path
        return {
            'base': base,
            # Where a secret opens the closed gate; Kajiki leaves out an attribute that is None.
            'enter': f'{mounted_at(self.request.environ.get("SCRIPT_NAME", ""))}{options.health_path}/enter'
            if options.bypass_secret
            else None,
            'css': f'{base}/static/dashboard.css?v={_version("dashboard.css")}',
            'icon': f'{base}/static/dashboard.svg',
            'js': f'{base}/static/dashboard.js?v={_version("dashboard.js")}',
            'namespace': options.namespace,
            'enabled': self.desk is not None,
        }

    def look(self, see: Callable[[Desk], Answer]) -> dict[str, Any]:
        desk = self.desk
        if desk is None:
            return self._answer(Answer(409, {'error': 'tgext.evolve is disabled in this application.'}))
        try:
            return self._answer(see(desk))
        except StoreError as error:
            return self._answer(Answer(503, {'error': str(error)}))

    def plan(self, text: str, state: str, start: str) -> dict[str, Any]:
        first = int(start) if start.isdecimal() and len(start) < 10 else 0
        return self.look(lambda desk: desk.plan(text, state, first))

    def evolution(self, id: str) -> dict[str, Any]:
        return self.look(lambda desk: desk.evolution(id))

    def state(self) -> dict[str, Any]:
        """The first view, with the token that actions must show."""
        return {**self.look(Desk.state), **self._permission_to_act()}

    def _permission_to_act(self) -> dict[str, Any]:
        tokens = Tokens.of(self._conf)
        if tokens is None:
            return {'token': None, 'why_no_actions': f'Actions need a secret to sign with: set {_SAY} in the ini file.'}
        token = self.request.cookies.get(COOKIE) or ''
        if tokens.left(token, self._who) < LIFETIME / 2:
            token = tokens.make(self._who)
            self.response.set_cookie(
                COOKIE,
                token,
                max_age=LIFETIME,
                path=self.request.script_name or '/',
                # Whoever pretends to come by https gets a cookie that their browser keeps to itself.
                secure='https' in (self.request.scheme, self.request.headers.get('X-Forwarded-Proto')),
                httponly=True,
                samesite='Strict',
            )
        return {'token': token, 'why_no_actions': None}

    def act(self, action: str, id: str, message: str) -> dict[str, Any]:
        refusal = self._refusal()
        if refusal is not None:
            return self._answer(refusal)
        answer = self.look(lambda desk: desk.act(action, id, message))
        log.warning('%s asked for %s %s: %s', self._who, action, id, answer.get('message') or answer.get('error'))
        return answer

    def _refusal(self) -> Answer | None:
        if self.request.method != 'POST':
            self.response.headers['Allow'] = 'POST'
            return Answer(405, {'error': 'Actions are sent by POST.'})
        tokens = Tokens.of(self._conf)
        if tokens is None:
            return Answer(403, {'error': f'Actions need a secret to sign with: set {_SAY}.'})
        if not tokens.agree(self.request.cookies.get(COOKIE), self.request.headers.get(HEADER), self._who):
            return Answer(
                403, {'error': 'This did not come from the dashboard, or it was open for too long: reload it.'}
            )
        return None

    def _answer(self, answer: Answer) -> dict[str, Any]:
        self.response.status_int = answer.status
        return answer.json

    def static(self, name: str) -> bytes:
        kind = _STATIC.get(name)
        if kind is None:
            self.response.status_int = 404
            self.response.headers['Content-Type'] = 'text/plain; charset=utf-8'
            return b'There is no such file.\n'
        self.response.headers['Content-Type'] = f'{kind}; charset=utf-8'
        self.response.headers['Cache-Control'] = 'private, max-age=86400'
        return _file(name)

    def without_kajiki(self) -> str:
        """Said where the page would be."""
        self.response.status_int = 501
        self.response.headers['Content-Type'] = 'text/plain; charset=utf-8'
        return "The dashboard needs Kajiki, which is not installed: pip install 'tgext.evolve[dashboard]'\n"


def desk_of(conf: Any) -> Desk | None:
    """The desk of an application, made at the first question; None when tgext.evolve is disabled there."""
    evolver: Evolver | None = conf.get(EVOLVER)
    if evolver is None:
        return None
    desk: Desk | None = conf.get(_DESK)
    if desk is None:
        desk = conf[_DESK] = Desk(evolver)
    return desk


@cache
def _file(name: str) -> bytes:
    return (files(__package__) / 'public' / name).read_bytes()


@cache
def _version(name: str) -> str:
    return hashlib.sha256(_file(name)).hexdigest()[:12]


# -- the door of TurboGears


class MayOperate(Predicate):
    """Has the ``permission`` option's permission, or came through the closed gate as an operator."""

    message = 'The dashboard of the evolutions needs a permission that you do not have.'

    def evaluate(self, environ: Environ, credentials: Any) -> None:
        if environ.get(OPERATOR) is not True and not has_permission(tg.config[OPTIONS].permission).is_met(environ):
            self.unmet()


class EvolveController(TGController):
    """The dashboard, for an application's RootController."""

    allow_only = MayOperate()

    def _visit_now(self) -> Visit:
        environ = tg.request.environ
        identity = environ.get('repoze.who.identity') or {}
        who = _SOMEBODY if environ.get(OPERATOR) is True else f'user {identity.get("repoze.who.userid", "")}'
        return Visit(tg.request, tg.response, tg.config, who)

    # Kajiki by name: the application's own pages may be written for any other engine.
    @expose('kajiki:tgext.evolve.templates.dashboard')
    def index(self, **kw: Any) -> Any:
        visit = self._visit_now()
        return visit.page() if 'kajiki' in tg.config['render_functions'] else visit.without_kajiki()

    @expose('json')
    def state(self, **kw: Any) -> dict[str, Any]:
        return self._visit_now().state()

    @expose('json')
    def plan(self, text: str = '', state: str = '', start: str = '0', **kw: Any) -> dict[str, Any]:
        return self._visit_now().plan(text, state, start)

    @expose('json')
    def evolution(self, id: str = '', **kw: Any) -> dict[str, Any]:
        return self._visit_now().evolution(id)

    @expose('json')
    def act(self, action: str = '', id: str = '', message: str = '', **kw: Any) -> dict[str, Any]:
        return self._visit_now().act(action, id, message)

    @expose()
    def static(self, *names: str, **kw: Any) -> bytes:
        # Not from names: TurboGears may have taken the extension away.
        return self._visit_now().static(tg.request.path_info.rsplit('/', 1)[-1])


#: By this name tgext.pluggable finds it, when it is told to mount it (``plug_controller=True``).
RootController = EvolveController


def mount(conf: Any, appid: str) -> None:
    """Put the dashboard into the application's tree of controllers, unless something is there already.

    :param appid: a name, after dots below other controllers.
    """
    *above, name = appid.split('.')
    try:
        place = conf.get('tg.root_controller') or TGApp.lookup_controller(conf, 'root')
        for each in above:
            place = getattr(place, each)
    except (ImportError, AttributeError, AssertionError, KeyError, TGConfigError) as error:
        log.warning('the dashboard is not mounted at %r, as there is no such place: %s', appid, error)
        return
    if not hasattr(place, name):
        setattr(place, name, EvolveController())


# -- the door around TurboGears


class Door:
    """The dashboard while the gate is closed: no part of the application takes part in it.

    Not its session, its identity or its error pages, and not what its RootController, its wrappers, its hooks and its
    template variables do at each request: any of them may ask tables that are just being changed.

    It asks for no permission: who comes here has been let in by the gate.
    """

    def __init__(self, conf: Any):
        self._conf = conf
        appid = str(conf.get(APPID) or '')
        self.mount = '/' + appid.replace('.', '/') if appid else None

    def is_at(self, path: str) -> bool:
        """Is this path the dashboard's?"""
        return self.mount is not None and (path == self.mount or path.startswith(self.mount + '/'))

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        response = Response()
        visit = Visit(request, response, self._conf, _SOMEBODY)
        assert self.mount is not None
        try:
            self._answer(request.path_info[len(self.mount) :].strip('/'), visit)
        except Exception:
            log.exception('the dashboard failed')
            response.status_int = 500
            response.content_type = 'application/json'
            response.json = {'ok': False, 'error': 'The dashboard failed: see the log of the application.'}
        found: Iterable[bytes] = response(environ, start_response)
        return found

    def _answer(self, what: str, visit: Visit) -> None:
        given, response = visit.request.params, visit.response
        if not what.startswith('static/') and what not in ('', 'index'):
            response.content_type = 'application/json'
        if what in ('', 'index'):
            self._page(visit)
        elif what == 'state':
            response.json = visit.state()
        elif what == 'plan':
            response.json = visit.plan(given.get('text', ''), given.get('state', ''), given.get('start', '0'))
        elif what == 'evolution':
            response.json = visit.evolution(given.get('id', ''))
        elif what == 'act':
            sent = visit.request.POST
            response.json = visit.act(sent.get('action', ''), sent.get('id', ''), sent.get('message', ''))
        elif what.startswith('static/'):
            response.body = visit.static(what[len('static/') :])
        else:
            response.status_int = 404
            response.json = {'ok': False, 'error': 'There is no such page.'}

    def _page(self, visit: Visit) -> None:
        template = _template()
        response = visit.response
        if template is None:
            response.text = visit.without_kajiki()
        else:
            # Kajiki's own gettext may be TurboGears', which needs a request of TurboGears'.
            response.text = str(template({**visit.page(), 'gettext': str}).render())


@cache
def _template() -> Any:
    try:
        from kajiki import XMLTemplate
    except ImportError:
        return None
    source = (files(__package__) / 'templates' / 'dashboard.xhtml').read_text('utf-8')
    return XMLTemplate(source, mode='html5', filename='dashboard.xhtml')
