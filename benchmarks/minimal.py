"""The same minimal application on either stack: ours with the newest TurboGears, and 0.0.5 with the last that runs it.

A program of its own that imports nothing of this clone, because 0.0.5 has an environment of its own. It reads one JSON
object a line and answers with one: see :class:`benchmarks.stacks.Worker`.
"""

from __future__ import annotations

import cProfile
import gc
import json
import logging
import os
import pstats
import sys
import threading
import time
import types
import warnings

ENVIRON = {
    'REQUEST_METHOD': 'GET',
    'SCRIPT_NAME': '',
    'PATH_INFO': '/',
    'QUERY_STRING': '',
    'SERVER_NAME': 'localhost',
    'SERVER_PORT': '80',
    'SERVER_PROTOCOL': 'HTTP/1.1',
    'HTTP_HOST': 'localhost:80',
    'HTTP_ACCEPT': 'text/html',
    'wsgi.version': (1, 0),
    'wsgi.url_scheme': 'http',
    'wsgi.multithread': False,
    'wsgi.multiprocess': False,
    'wsgi.run_once': False,
}

#: Seconds until a gate that must open is open.
PATIENCE = 60


class Application:
    """One WSGI application.

    :param evolutions: None: nothing is plugged.
    """

    def __init__(self, url, evolutions=None, traps=False, closed=False):
        import tg

        if hasattr(tg.milestones, '_reset_all'):
            tg.milestones._reset_all()
        make = self._make_old if _is_predecessor() else self._make
        self.wsgi = make(url, evolutions, traps, closed)

    def _make(self, url, evolutions, traps, closed):
        from tg import FullStackApplicationConfigurator

        config = FullStackApplicationConfigurator()
        config.update_blueprint(
            {
                'package': _package(),
                'root_controller': _root(),
                'renderers': ['json'],
                'default_renderer': 'json',
                'session.enabled': False,
                'serve_static': False,
                'cache.enabled': False,
                'errorpage.enabled': traps,
                'errorpage.status_codes': [403, 404, 503],
                'paths': {'static_files': None, 'root': '.', 'controllers': '.', 'templates': ['.']},
                'use_sqlalchemy': True,
                'model': _model(),
            }
        )
        if evolutions is not None:
            import tgext.evolve

            # A process that only waits: it never runs anything, and stays closed while something is pending.
            options = {'mode': 'wait'} if closed else {}
            tgext.evolve.plugme(config, {'evolutions': evolutions, 'namespace': 'testapp', **options})
        return config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url})

    def _make_old(self, url, evolutions, traps, closed):
        from tg import AppConfig

        config = AppConfig(minimal=True, root_controller=_root())
        model = _model()
        config.package = _package(model)
        config.use_sqlalchemy = True
        config.model = model
        config.renderers = ['json']
        config['errorpage.enabled'] = traps
        config['errorpage.status_codes'] = [403, 404, 503]
        config['sqlalchemy.url'] = url
        before = set(threading.enumerate())
        if evolutions is not None:
            import tgext.evolve

            tgext.evolve.plugme(config, options={'evolutions': evolutions})
        application = config.make_wsgi_app()
        # It takes its lock, looks and lets go in a thread, while requests are answered 200 or 503 by chance.
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE)
        return application

    def answer(self):
        told = []
        for _ in self.wsgi(dict(ENVIRON), lambda status, headers, error=None: told.append(status)):
            pass
        return int(told[0].split()[0])

    def until(self, status):
        end = time.monotonic() + PATIENCE
        while self.answer() != status:
            if time.monotonic() > end:
                raise TimeoutError(f'no {status} after {PATIENCE} seconds')
            time.sleep(0.01)

    def seconds(self, requests):
        """CPU seconds of this thread for so many requests: what else the machine does is not in it."""
        application, environ = self.wsgi, ENVIRON

        def start_response(status, headers, error=None):
            return None

        began = time.thread_time()
        for _ in range(requests):
            answer = application(dict(environ), start_response)
            for _ in answer:
                pass
            if hasattr(answer, 'close'):
                answer.close()
        return time.thread_time() - began


def _is_predecessor():
    from importlib.metadata import version

    return version('tgext.evolve') == '0.0.5'


def _root():
    from tg import TGController, expose

    class Error(TGController):
        @expose(content_type='text/html')
        def document(self, *args, **kw):
            return '<!DOCTYPE html><title>Closed</title><p>We are back soon.'

    class Root(TGController):
        error = Error()

        @expose(content_type='text/plain')
        def index(self):
            return 'served'

    return Root()


def _model():
    import zope.sqlalchemy
    from sqlalchemy.orm import scoped_session, sessionmaker

    model = types.ModuleType('model')
    model.DBSession = scoped_session(sessionmaker())
    zope.sqlalchemy.register(model.DBSession)

    def init_model(engine):
        model.DBSession.configure(bind=engine)
        return model.DBSession

    model.init_model = init_model
    return model


def _package(model=None):
    package = types.ModuleType('testapp')
    package.__file__ = __file__
    package.model = model
    return package


def evolution_id(number):
    return f'2026-{number:05}-what-it-does'


def _evolutions(number):
    from tgext.evolve import Evolution

    class Some(Evolution):
        def __init__(self, number):
            self.evolution_id = evolution_id(number)

        def evolve(self):
            pass

    return [Some(each) for each in range(number)]


class Statements:
    """Counts SQL statements on any engine of the process."""

    def __init__(self):
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        self.number = 0
        self.thread = None
        event.listen(Engine, 'before_cursor_execute', self._note)

    def _note(self, *args):
        if self.thread in (None, threading.get_ident()):
            self.number += 1


# -- what the other side asks for


class Serving:
    """An application beside the same one that is not plugged, in one process: both see the same machine."""

    def __init__(self, url, plugged_url, closed, traps):
        self.statements = Statements()
        self.bare = Application(url, traps=traps)
        self.plugged = Application(plugged_url, _evolutions(10), traps=traps, closed=closed)
        self.bare.until(200)
        self.plugged.until(503 if closed else 200)

    def rounds(self, rounds, requests):
        found = []
        for number in range(rounds):
            self.statements.thread = threading.get_ident()
            before = self.statements.number
            # By turns, so that neither is always the second.
            order = [('bare', self.bare), ('plugged', self.plugged)][:: -1 if number % 2 else 1]
            seconds = {name: application.seconds(requests) for name, application in order}
            found.append({**seconds, 'statements': self.statements.number - before})
        return found


def profile(work):
    """Whose code the time is spent in: shares by module of ours, and by package of others; the largest first."""
    profiler = cProfile.Profile(time.thread_time)
    profiler.runcall(work)
    own = {}
    for (path, _, _), (_, _, seconds, _, _) in pstats.Stats(profiler).stats.items():
        name = _whose(path)
        own[name] = own.get(name, 0.0) + seconds
    whole = sum(own.values())
    shares = sorted(((seconds / whole, name) for name, seconds in own.items()), reverse=True)
    return [[name, share] for share, name in shares if share >= 0.01]


def _whose(path):
    parts = os.path.splitext(path)[0].split(os.sep)
    if 'evolve' in parts:
        return '.'.join(parts[parts.index('evolve') - 1 :])
    return parts[parts.index('site-packages') + 1] if 'site-packages' in parts else 'Python'


def start(url, plugged, evolutions):
    """Make the application in a fresh child, where all is imported and nothing is made yet."""
    mine, childs = os.pipe()
    gc.freeze()  # a collection in the child must not copy what is the parent's
    child = os.fork()
    if not child:
        status = 1
        try:
            statements = Statements()
            # The evolutions are the application's own, whatever it plugs.
            made = _evolutions(evolutions)
            began, cpu = time.perf_counter(), time.process_time()
            application = Application(url, made if plugged else None)
            told = {
                'seconds': time.perf_counter() - began,
                'cpu': time.process_time() - cpu,
                'statements': statements.number,
            }
            # Made is open: the very first request is served.
            told['status'] = application.answer()
            os.write(childs, json.dumps(told).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(childs)
    with os.fdopen(mine) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told)


def weigh(url, plugged):
    """What a whole process costs, from its imports to its first answer."""
    before = time.process_time()
    began = time.perf_counter()
    application = Application(url, _evolutions(10) if plugged else None)
    application.until(200)
    return {
        'seconds': time.perf_counter() - began,
        'cpu': time.process_time() - before,
        'memory': _memory(),
        'modules': sorted(sys.modules),
    }


def _memory():
    """Megabytes that this process has in memory now."""
    try:
        with open('/proc/self/statm') as statm:
            return int(statm.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1024**2
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024**2 if sys.platform == 'darwin' else 1024)


def versions():
    from importlib.metadata import version

    return {name: version(name) for name in ('tgext.evolve', 'TurboGears2', 'SQLAlchemy')}


def warm():
    """Import everything, so that a start is not measured with its imports."""
    answer = Application('sqlite://').answer()
    import tgext.evolve

    if not _is_predecessor():
        import tgext.evolve.component
        import tgext.evolve.controllers
        import tgext.evolve.stores.sqlalchemy  # noqa: F401
    return answer


def profile_start(url, evolutions):
    made = _evolutions(evolutions)
    return profile(lambda: Application(url, made))


class Desk:
    """What is asked by name: the functions above, and what they leave for the next question."""

    def __init__(self):
        self.serving = None
        self.do = {each.__name__: each for each in (versions, weigh, warm, start, profile_start)}
        self.do.update(serve=self.serve, rounds=self.rounds, profile_requests=self.profile_requests)

    def serve(self, **order):
        self.serving = Serving(**order)

    def rounds(self, rounds, requests):
        return self.serving.rounds(rounds, requests)

    def profile_requests(self, requests):
        return profile(lambda: self.serving.plugged.seconds(requests))


def main():
    # What lies beside this program belongs to the other release.
    del sys.path[0]
    warnings.simplefilter('ignore')
    logging.disable(logging.CRITICAL)
    # Whatever an application prints must not come between the answers.
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    desk = Desk()
    for line in sys.stdin:
        order = json.loads(line)
        told = desk.do[order.pop('do')](**order)
        answers.write(json.dumps(told) + '\n')
        answers.flush()


if __name__ == '__main__':
    main()
