"""Applications that are gone when their test is over."""

from __future__ import annotations

import pytest
import tg
from webtest import TestApp

from tests import apps
from tgext.evolve.component import EVOLVER

#: Seconds that anything in these tests may take; what works takes milliseconds.
PATIENCE = 10


class Site:
    """A WSGI application as its users, its probes and its developers see it."""

    def __init__(self, app, conf):
        self.app = app
        self.conf = conf
        self.evolver = conf.get(EVOLVER)
        self.gate = self.evolver.gate if self.evolver is not None else None
        self.browser = TestApp(app)

    def request(self, path='/', method='GET', **environ):
        environ = {key: value for key, value in environ.items() if value is not None}
        return self.browser.request(path, method=method, expect_errors=True, environ=environ)

    def get(self, path='/', accept='text/html', **environ):
        return self.request(path, HTTP_ACCEPT=accept, **environ)

    def status(self):
        return self.get('/_evolve/status', accept='*/*').json

    def opens(self):
        """A request arrives, and the gate opens in time."""
        self.get('/')
        return self.gate.wait(PATIENCE)

    def becomes(self, *reasons):
        """Wait until the gate's reason is one of these; the verdict."""
        moved = self.gate._moved
        with moved:
            assert moved.wait_for(lambda: self.gate.verdict.reason.value in reasons, PATIENCE), self.gate.verdict
            return self.gate.verdict

    def fails(self):
        """A request arrives, and an evolution fails for good."""
        self.get('/')
        return self.becomes('failed')

    def stop(self):
        """The process of this application ends."""
        self.evolver.leave()
        assert self.evolver.join(PATIENCE)

    def history(self):
        """What became of each evolution last: ``{id: state}``."""
        history = self.evolver.store.history()
        return {id: history.latest(id).state.value for id in history.ids}


@pytest.fixture
def url(tmp_path):
    return f'sqlite:///{tmp_path}/app.db'


@pytest.fixture
def site(request):
    """Makes applications; no thread of theirs is left after the test.

    They do not watch for newer releases, which also keeps them from announcing evolutions for seconds.
    """
    made = []
    evolutions_made = []

    def make(url=None, evolutions=(), *, options=None, **rest):
        quick = {'watch': 0, 'poll': 0.02}
        evolutions_made.extend(evolutions)
        app, _ = apps.make(url, evolutions, options={**quick, **(options or {})}, **rest)
        return adopt(app)

    def adopt(app):
        made.append(Site(app, tg.config._current_obj()))
        return made[-1]

    make.adopt = adopt
    yield make
    for evolution in evolutions_made:
        if hasattr(evolution, 'go_on'):
            evolution.go_on.set()
    for each in made:
        if each.evolver is not None:
            each.evolver.leave()
    for each in made:
        if each.evolver is not None:
            each.stop()


@pytest.fixture
def closed(site, url):
    """A site whose one evolution runs until the test sets ``closed.evolution.go_on``."""

    def make(*, url=url, evolution=None, **rest):
        evolution = evolution or apps.held()
        closed = site(url, [evolution], **rest)
        closed.evolution = evolution
        assert closed.get('/').status_int == 503
        assert evolution.began.wait(PATIENCE)
        return closed

    return make
