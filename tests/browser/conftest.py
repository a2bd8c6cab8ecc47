"""A real browser on real applications, without leaving the machine.

``site`` and ``closed`` make applications as in ``tests/web``; ``serve(site.app)`` gives one an address;
``browse(address)`` opens it in headless Chromium and returns Playwright's ``Page``; ``puppet()`` is an evolution that
does what the test says::

    def test_it_opens(site, url, serve, browse, puppet):
        evolution = puppet()
        page = browse(serve(site(url, [evolution]).app))
        evolution.report(3, 10)
        expect(page.get_by_role('progressbar')).to_have_attribute('aria-valuenow', '30')
        evolution.finish()
        expect(page.locator('body')).to_have_text('served')

Every page is watched: a request to another host than 127.0.0.1 is cut off and fails the test, and so does a script that
raises. ``accessible(page)`` runs axe-core. ``picture(page, 'name')`` stores a screenshot where ``PICTURES`` says.
"""

from __future__ import annotations

import os
import queue
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from webtest.http import StopableWSGIServer

import tgext.evolve
from tests.servers import missing
from tests.web.conftest import closed, site, url  # noqa: F401

#: Seconds that a browser may take on a busy machine.
PATIENCE = 30

#: Where systems keep it.
_NAMES = ('chromium', 'chromium-browser', 'google-chrome')


@pytest.fixture(scope='session')
def chromium() -> Iterator[Any]:
    """Playwright's ``Browser``: the system's Chromium, headless; it downloads nothing."""
    names = [os.environ['CHROMIUM']] if os.environ.get('CHROMIUM') else _NAMES
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        missing('no Chromium: install it (Debian: apt-get install chromium), or name its program in CHROMIUM')
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError as error:
        missing(f"no Playwright ({error}): install 'tgext.evolve[test]'")
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=[
                '--no-sandbox',  # root, as in a container, has none
                '--disable-dev-shm-usage',
                '--disable-background-networking',
                '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any) -> Iterator[Any]:
    """``browse(address, path='/', mobile=, dark=, javascript=, **context)`` opens a page.

    :param mobile: 360 pixels wide, with a touch screen.
    :param dark: for who prefers dark colours.
    :param javascript: False: scripts are switched off.
    :param context: anything else of Playwright's ``Browser.new_context``; the same ``page.context`` keeps its cookies.
    """
    contexts: list[Any] = []
    strayed: list[str] = []
    raised: list[str] = []

    def guard(route: Any) -> None:
        if urlsplit(route.request.url).hostname == '127.0.0.1':
            route.continue_()
        else:
            strayed.append(route.request.url)
            route.abort()

    def browse(address: str, path: str = '/', *, mobile=False, dark=False, javascript=True, **context: Any) -> Any:
        # What moves all the time keeps a core busy that others need.
        options: dict[str, Any] = {'viewport': {'width': 1000, 'height': 640}, 'reduced_motion': 'reduce'}
        if mobile:
            options = {'viewport': {'width': 360, 'height': 640}, 'is_mobile': True, 'has_touch': True}
            options['device_scale_factor'] = 2
        options.update(color_scheme='dark' if dark else 'light', java_script_enabled=javascript, **context)
        made = chromium.new_context(**options)
        contexts.append(made)
        made.set_default_timeout(PATIENCE * 1000)
        made.route('**/*', guard)
        made.on('weberror', lambda error: raised.append(str(error.error)))
        page = made.new_page()
        page.goto(address.rstrip('/') + path)
        return page

    yield browse
    for context in contexts:
        # Whoever is in the middle of a request of the page's must not raise into the next test.
        context.unroute_all(behavior='ignoreErrors')
        context.close()
    assert strayed == [], 'a page asked another host'
    assert raised == [], 'a script of a page raised'


@pytest.fixture
def serve() -> Iterator[Any]:
    """``serve(app)``: the WSGI application in a thread of this process, on a port of its own; its address."""
    servers: list[StopableWSGIServer] = []

    def serve(app: Any) -> str:
        servers.append(StopableWSGIServer.create(app, threads=8))
        return servers[-1].application_url.rstrip('/')

    yield serve
    for server in servers:
        server.shutdown()


class Puppet(tgext.evolve.Evolution):
    """An evolution that does what the test says, in the thread that runs it. A subclass for each."""

    orders: queue.Queue[Any]

    def evolve(self) -> None:
        while True:
            order, arguments = self.orders.get(timeout=PATIENCE * 4)
            if order == 'finish':
                return
            if order == 'fail':
                raise arguments
            self.progress(*arguments)


@pytest.fixture
def puppet() -> Iterator[Any]:
    """``puppet(id='puppet', **attributes)``: the class of an evolution with ``report``, ``finish`` and ``fail``.

    What is ordered before it runs is done when it runs.
    """
    made: list[type[Puppet]] = []

    def make(id: str = 'puppet', **attributes: Any) -> Any:
        orders: queue.Queue[Any] = queue.Queue()

        class Pulled(Puppet):
            evolution_id = id

            @staticmethod
            def report(done: float, total: float | None = None, message: str | None = None) -> None:
                orders.put(('report', (done, total, message)))

            @staticmethod
            def finish() -> None:
                orders.put(('finish', None))

            @staticmethod
            def fail(error: Exception) -> None:
                orders.put(('fail', error))

        Pulled.orders = orders
        for name, value in attributes.items():
            setattr(Pulled, name, value)
        made.append(Pulled)
        return Pulled

    yield make
    for each in made:
        each.finish()


@pytest.fixture
def accessible() -> Any:
    """``accessible(page)``: axe-core finds nothing serious or critical on it."""

    def check(page: Any) -> None:
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(page).response['violations']
        grave = [f'{each["id"]}: {each["help"]}' for each in found if each['impact'] in ('serious', 'critical')]
        assert grave == []

    return check


@pytest.fixture
def picture(tmp_path: Path) -> Any:
    """``picture(page, 'name')``: a screenshot in the directory that ``PICTURES`` names; its path.

    Without ``PICTURES`` it is taken all the same, and thrown away.
    """

    def take(page: Any, name: str) -> Path:
        path = Path(os.environ.get('PICTURES') or tmp_path) / f'{name}.png'
        # Halfway through an animation, no two pictures are the same.
        page.screenshot(path=path, animations='disabled')
        return path

    return take
