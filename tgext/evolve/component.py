"""The TurboGears glue: options, components, the application wrapper. Thin on purpose."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import tg
from tg.appwrappers.base import ApplicationWrapper
from tg.configurator.base import (
    AppReadyConfigurationAction,
    BeforeConfigConfigurationAction,
    ConfigReadyConfigurationAction,
    ConfigurationComponent,
)
from tg.request_local import Response

from . import debugbar, processes
from .bypass import OPERATOR, Bypass
from .databases import Databases, divert
from .errors import NotPlugged, PlanError
from .events import Listener
from .evolver import Evolver
from .gate import Serving, Verdict
from .hooks import Hooks, check_name
from .maintenance import HTML, STATUS, WSGI, Environ, Maintenance, StartResponse, preferred
from .options import COERCE, PLUGGABLE_OPTIONS, PREFIX, Options, check_names
from .plan import Plan, PlannedEvolution
from .reporting import ErrorReports
from .sources import Place, evolutions_of, offered

log = logging.getLogger(__name__)

#: Keys of an application's configuration that are ours; none of them is an option.
EVOLVER = 'tgext_evolve.evolver'
OPTIONS = 'tgext_evolve.options'
#: Where the dashboard is mounted: a name as tgext.pluggable takes it, with dots for slashes.
APPID = 'tgext_evolve.appid'
REGISTERED = 'tgext_evolve.registered'
_APPID = 'evolve'
_MOUNTED = 'tgext_evolve.mounted'
LISTENERS = 'tgext_evolve.listeners'
_PLUGGED = 'tgext_evolve.plugged'
_DATABASES = 'tgext_evolve.databases'
_BARE = 'tgext_evolve.bare_application'

#: In the environ of a request that found the gate closed: the verdict that it found.
CLOSED = 'tgext.evolve.closed'
#: Set once ErrorPage was given our 503: from then on it asks ErrorController.
TRAPPED = 'tgext.evolve.trapped'


def plugme(configurator: Any, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Plug tgext.evolve into an application.

    :param configurator: the application's ``base_config``.
    :param options: ``evolutions`` and any other option of tgext.evolve without its prefix; what
        tgext.pluggable passes on to every pluggable is accepted and ignored.
    :raises OptionError: naming an option that there is not, or that has a bad value.
    """
    if _blueprint(configurator, _PLUGGED, False):
        raise PlanError(
            'tgext.evolve is plugged twice into the same application',
            place='config/app_cfg.py',
            remedy='Plug it once; further evolutions go into tgext.evolve.register(configurator, [...]).',
        )
    ours = {
        name: value
        for name, value in (options or {}).items()
        if name not in PLUGGABLE_OPTIONS and not name.startswith('plug_')
    }
    evolutions = ours.pop('evolutions', _blueprint(configurator, f'{PREFIX}evolutions', ()))
    check_names(ours)
    for name, value in ours.items():
        COERCE[name](name, value)
    given = options or {}
    appid = str(given.get('appid') or _APPID)
    # tgext.pluggable passes over a module that cannot be imported: here, it is loud.
    import_module('.controllers', __package__)
    configurator.update_blueprint(
        {
            _PLUGGED: True,
            APPID: appid,
            _MOUNTED: 'appid' in given and bool(given.get('plug_controller', True)),
            f'{PREFIX}evolutions': list(evolutions_list(evolutions)),
            **{PREFIX + name: value for name, value in ours.items()},
        }
    )
    configurator.register(BareApplicationComponent, after='i18n')
    configurator.register(GateComponent, after='sa_auth')
    configurator.register(EvolveComponent)
    # tgext.pluggable finds a root controller only where it is a module of a package; we find any.
    return {'appid': _APPID, 'plug_controller': False}


def evolutions_list(evolutions: Any) -> Iterable[Any]:
    """Entries as a list: one alone needs none, and a string (an ini has no other) names some."""
    if isinstance(evolutions, str):
        return evolutions.replace(',', ' ').split()
    return evolutions if isinstance(evolutions, Iterable) else [evolutions]


def register(configurator: Any, evolutions: Iterable[Any]) -> None:
    """Add evolutions of another pluggable, any number of times, before or after plugging.

    :param configurator: the application's ``base_config``.
    :param evolutions: entries as in the ``evolutions`` option.
    """
    already = _blueprint(configurator, REGISTERED, [])
    configurator.update_blueprint({REGISTERED: [*already, *evolutions_list(evolutions)]})


def listen(configurator: Any, hook: str, listener: Listener) -> None:
    """Have ``listener`` hear what happens in this application alone.

    :param configurator: the application's ``base_config``.
    :param hook: as for ``tg.hooks``, for example ``evolve.failed``.
    :param listener: called with the :class:`~tgext.evolve.events.Event`.
    :raises OptionError: when there is no such hook.
    """
    already = _blueprint(configurator, LISTENERS, [])
    configurator.update_blueprint({LISTENERS: [*already, (check_name(hook), listener)]})


def _blueprint(configurator: Any, name: str, default: Any) -> Any:
    try:
        return configurator.get_blueprint_value(name)
    except KeyError:
        return default


def evolver_of(conf: Any) -> Evolver | None:
    """The evolver of a configured application; None when tgext.evolve is disabled there.

    :raises NotPlugged: when the application was configured without it.
    """
    try:
        plugged = conf.get(_PLUGGED, False)
        evolver = conf.get(EVOLVER)
    except AttributeError:
        plugged, evolver = False, None
    if not plugged:
        raise NotPlugged(
            'tgext.evolve is not plugged into this application, or it is not configured yet',
            place=f'the configuration given ({type(conf).__name__})',
            remedy='Plug it in config/app_cfg.py, and pass the configuration of the application '
            '(tg.config once it is made, or what base_config.configure() returned).',
        )
    return evolver


def make_evolver(conf: Any, options: Options, databases: Databases) -> Evolver:
    """The evolver of a configured application, which nobody but the caller knows of yet.

    :raises PlanError: the evolutions make no plan, or one of them cannot be honoured here.
    """
    place = databases.place()
    plan = Plan(
        evolutions_of(evolutions_list(conf[f'{PREFIX}evolutions']), listed=True, place=place)
        + evolutions_of(conf.get(REGISTERED, ()), listed=False, place=place)
        + (offered(place) if options.discover else [])
    )
    store = databases.store()
    for planned in plan:
        refusal = store.refuses(planned) if planned.transactional else None
        if refusal is not None:
            raise PlanError(
                f'evolution {planned.id!r} is transactional, which cannot be honoured: {refusal}',
                place=planned.origin,
                remedy='Say transactional = False, and make it safe to run more than once.',
            )

    @contextmanager
    def around() -> Iterator[None]:
        tg.config.push_thread_config(conf)
        try:
            with databases.beside(store):
                yield
        finally:
            tg.config.pop_thread_config(conf)

    ini = conf.get('__file__')
    return Evolver(options, plan, store, around, f'config:{ini}' if ini else None)


def written_in(configurator: Any, place: Place) -> list[PlannedEvolution]:
    """The evolutions that an application's ``base_config`` names, before any ini file says otherwise.

    :param place: stands for the application, which is not made yet.
    :raises EvolveError: one of them is none, or its attributes are wrong.
    """
    discover = COERCE['discover']('discover', _blueprint(configurator, f'{PREFIX}discover', False))
    return (
        evolutions_of(evolutions_list(_blueprint(configurator, f'{PREFIX}evolutions', ())), listed=True, place=place)
        + evolutions_of(_blueprint(configurator, REGISTERED, ()), listed=False, place=place)
        + (offered(place) if discover else [])
    )


class EvolveComponent(ConfigurationComponent):
    """Runs the application's evolutions and keeps its gate.

    Options: see :class:`tgext.evolve.options.Options`; all begin with ``tgext.evolve.``.
    """

    id = 'tgext.evolve'

    def get_coercion(self) -> dict[str, Any]:
        return {PREFIX + name: partial(coerce, name) for name, coerce in COERCE.items()}

    def get_actions(self) -> tuple[Any, ...]:
        return (
            BeforeConfigConfigurationAction(self._check),
            ConfigReadyConfigurationAction(self._configure),
            AppReadyConfigurationAction(self._mount),
            AppReadyConfigurationAction(self._look_and_start),
        )

    def on_bind(self, configurator: Any) -> None:
        # Inside of ErrorPage, so that ErrorController can trap the 503; outside of everything
        # that asks the database who the user is.
        configurator.register_application_wrapper(ClosedApplicationWrapper, after='TransactionApplicationWrapper')

    def _check(self, conf: Any, app: Any) -> None:
        divert(conf)
        conf[OPTIONS] = _options(conf)
        if 'kajiki' not in conf['renderers'] and find_spec('kajiki') is not None:
            # The dashboard's engine, besides the application's own.
            conf['renderers'] = [*conf['renderers'], 'kajiki']
        debugbar.add_section()

    def _configure(self, conf: Any, app: Any) -> None:
        """Engine and sessions are bound by now: make the plan, refuse what cannot be honoured."""
        options = conf[OPTIONS]
        conf[EVOLVER] = None
        if not options.enabled:
            return
        conf[EVOLVER] = evolver = make_evolver(conf, options, databases := Databases(conf, options))
        evolver.listeners.add(Hooks(conf, conf.get(LISTENERS, ()), databases.abandon))
        evolver.listeners.add(ErrorReports(conf))
        conf[_DATABASES] = databases

    def _mount(self, conf: Any, app: Any) -> Any:
        if conf[_MOUNTED]:
            import_module('.controllers', __package__).mount(conf, conf[APPID])
        return app

    def _look_and_start(self, conf: Any, app: Any) -> Any:
        evolver = conf[EVOLVER]
        if evolver is None:
            return app
        evolver.look()
        role = processes.role()
        blocking = evolver.options.mode == 'blocking' and role is not processes.Role.OTHER
        if blocking and not evolver.gate.is_open:
            evolver.block()
            if role is processes.Role.MASTER:
                # Evolutions have used the pool of the application, which no worker may inherit.
                conf[_DATABASES].dispose()
        if role is processes.Role.SERVER:
            evolver.start()
        elif role is processes.Role.MASTER:
            processes.after_fork(evolver.after_fork)
        return app


def _options(conf: Any) -> Options:
    package = conf.get('package')
    name = conf.get('package_name') or getattr(package, '__name__', '') or 'application'
    return Options.of(conf, package_name=name)


class BareApplicationComponent(ConfigurationComponent):
    """Remembers the application without authentication around it: what renders the error page."""

    id = 'tgext.evolve.bare'

    def get_actions(self) -> tuple[Any, ...]:
        return (AppReadyConfigurationAction(self._remember),)

    def _remember(self, conf: Any, app: Any) -> Any:
        conf[_BARE] = app
        return app


class GateComponent(ConfigurationComponent):
    """Puts the gate around the application, outside of repoze.who and its login handlers."""

    id = 'tgext.evolve.gate'

    def get_actions(self) -> tuple[Any, ...]:
        return (AppReadyConfigurationAction(self._add_gate),)

    def _add_gate(self, conf: Any, app: Any) -> Any:
        if conf[EVOLVER] is None:
            return app
        # Where there is no authentication, the application is bare already.
        # Not imported above: it needs what stands here.
        door = import_module('.controllers', __package__).Door(conf)
        bypass = None
        if conf[EVOLVER].options.bypass_secret:
            bypass = Bypass(conf[EVOLVER].options, _mount_of(conf))
        return GateMiddleware(app, conf.get(_BARE, app), conf[EVOLVER], traps_503(conf), bypass, door)


def _mount_of(conf: Any) -> str | None:
    """The path of the dashboard, below the application's own; None without one."""
    appid = str(conf.get(APPID) or '')
    return '/' + appid.replace('.', '/') if appid else None


class GateMiddleware:
    """Lets a request through to the application, or answers 503.

    :param bare: the application without authentication; it renders ErrorController's page.
    :param trapped: does ErrorController want the 503?
    :param bypass: the way through the closed gate for operators; None when there is no secret.
    :param door: the dashboard without the application around it, for them.
    """

    def __init__(
        self,
        app: WSGI,
        bare: WSGI,
        evolver: Evolver,
        trapped: bool,
        bypass: Bypass | None = None,
        door: Any = None,
    ):
        self.app = app
        self.bare = bare
        self.evolver = evolver
        self.gate = evolver.gate
        self.maintenance = Maintenance(evolver.gate, evolver.options)
        self.trapped = trapped
        health = evolver.options.health_path
        self._health = health + '/' if health else None
        self._said_broken = False
        self.bypass = bypass
        self.door = door

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self.gate.passing and not self._is_health(environ):
            return self.app(environ, start_response)
        return self._closed(environ, start_response)

    def _is_health(self, environ: Environ) -> bool:
        return self._health is not None and environ.get('PATH_INFO', '').startswith(self._health)

    def _closed(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get('PATH_INFO', '')
        if path == '/_test_vars' and 'paste.testing_variables' in environ:
            # A shell or a test suite asks for its context: nothing is served, nothing is started.
            return self.app(environ, start_response)
        self.evolver.ensure_started()
        if self.maintenance.is_health(path):
            return self.maintenance.health(environ, start_response)
        if self.bypass is not None and self.bypass.is_at(path):
            return self.bypass(environ, start_response)
        # Decided once for the whole request: the gate may move meanwhile.
        verdict = self.gate.verdict
        if self.bypass is not None and verdict.serving is not Serving.EVERYTHING and self.bypass.admits(environ):
            environ[OPERATOR] = True
            behind = self.door if self.door is not None and self.door.is_at(path) else self.app
            return behind(environ, self.bypass.pass_by(start_response))
        if verdict.lets_through(environ['REQUEST_METHOD']) or self.maintenance.is_bypassed(path):
            return self.app(environ, start_response)
        if self.trapped and preferred(environ.get('HTTP_ACCEPT')) == HTML:
            return self._error_page(environ, start_response, verdict)
        return self.maintenance.unavailable(environ, start_response, verdict)

    def _error_page(self, environ: Environ, start_response: StartResponse, verdict: Verdict) -> Iterable[bytes]:
        environ[CLOSED] = (self.maintenance, verdict)
        # Nobody's identity is looked up for an error page, nor is a session: I18N would load it
        # for the language, from a database perhaps.
        for key in ('repoze.who.identity', 'REMOTE_USER', 'repoze.what.credentials', 'HTTP_COOKIE'):
            environ.pop(key, None)
        path = environ.get('PATH_INFO')
        try:
            return self.bare(environ, start_response)
        except Exception:
            # Once: under load it would be said for each request.
            level = logging.DEBUG if self._said_broken else logging.ERROR
            self._said_broken = True
            log.log(level, 'ErrorController could not render its page for a 503; ours is served', exc_info=True)
            environ['PATH_INFO'] = path
            return self.maintenance.unavailable(environ, start_response, verdict)


def traps_503(conf: Any) -> bool:
    """Does the application's ErrorController want 503s?"""
    from tg.support.converters import asbool, aslist

    codes = {str(code) for code in aslist(conf.get('errorpage.status_codes', ()))}
    return asbool(conf.get('errorpage.enabled', False)) and '503' in codes


class ClosedApplicationWrapper(ApplicationWrapper):
    """Gives ErrorPage the 503 to trap, and its page the headers that it would lose."""

    def __init__(self, handler: Any, config: Any):
        super().__init__(handler, config)
        self._injected = config.get(EVOLVER) is not None

    @property
    def injected(self) -> bool:
        return self._injected

    def __call__(self, controller: Any, environ: Environ, context: Any) -> Any:
        closed = environ.get(CLOSED)
        if closed is None:
            return self.next_handler(controller, environ, context)
        maintenance, verdict = closed
        if environ.get(TRAPPED):
            # The second pass: ErrorPage asks ErrorController for its page.
            response = self.next_handler(controller, environ, context)
            if response.status_int >= 300 and response.status_int != 503:
                # There is no such page, or it asks for a login: not what was meant by a 503.
                response = self._page(maintenance, environ, verdict)
            response.status = STATUS
        else:
            # TurboGears 2.5.0 and 2.5.1 keep the response that was trapped in different places.
            environ[TRAPPED] = True
            response = self._page(maintenance, environ, verdict)
        headers = maintenance.page_headers(environ, verdict)
        # Whose session was not looked at does not get a new one.
        replaced = {'set-cookie', *(name.lower() for name, _ in headers)}
        # All at once: each header that is set by itself goes through the whole list.
        response.headerlist = [each for each in response.headerlist if each[0].lower() not in replaced] + headers
        return response

    def _page(self, maintenance: Maintenance, environ: Environ, verdict: Verdict) -> Response:
        body = maintenance.page(environ, verdict)
        headers = [('Content-Type', f'{HTML}; charset=utf-8'), ('Content-Length', str(len(body)))]
        return Response(status=STATUS, headerlist=headers, app_iter=[body])
