"""The section of tgext.debugbar, really plugged in; and the dashboard where tgext.pluggable wants it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

#: An application's package: tgext.debugbar looks for its root controller.
PACKAGE = {
    '__init__.py': '',
    'templates/__init__.py': '',
    'templates/page.xhtml': '<html><head><title>x</title></head><body><p>served</p></body></html>',
    'controllers/__init__.py': '',
    'controllers/root.py': """
from tg import TGController, expose

class RootController(TGController):
    @expose('kajiki:wiki.templates.page')
    def index(self):
        return {}
""",
}

#: What a pluggable registers stays in its process: each application gets a process of its own.
APPLICATION = """
import sys
import time
import types

import tg
from tg import FullStackApplicationConfigurator
from tgext.pluggable import plug
from webtest import TestApp

import tgext.evolve
import wiki
from tests import apps
from tgext.evolve.component import EVOLVER

def failing(evolution):
    raise ValueError('no')

base_config = FullStackApplicationConfigurator()
off = ('session.enabled', 'serve_static', 'errorpage.enabled', 'cache.enabled', 'i18n.enabled')
base_config.update_blueprint({**dict.fromkeys(off, False), 'package': wiki, 'renderers': ['json', 'kajiki']})
base_config.update_blueprint(BLUEPRINT)
PLUGS
app = base_config.make_wsgi_app({}, {'debug': DEBUG, **INI})
conf = tg.config._current_obj()
tgext.evolve.start(conf)
evolver = conf[EVOLVER]
# They run behind the open gate.
until = time.monotonic() + 60
while evolver is not None and not any(each.state == 'failed' for each in evolver.overview().entries):
    assert time.monotonic() < until
    time.sleep(0.02)
for path in PATHS:
    print(TestApp(app).get(path, headers={'Accept': 'text/html'}, expect_errors=True).text)
print('debugbar loaded:', 'tgext.debugbar' in sys.modules)
"""

EVOLVE = (
    "plug(base_config, 'tgext.evolve', evolutions=[apps.evolution('<b>done</b>', serving='everything'), "
    "apps.evolution('broken', failing, serving='everything'), apps.evolution('later', serving='everything')], watch=0)"
)
BAR = "plug(base_config, 'tgext.debugbar')"

SQL = "{'use_sqlalchemy': True, 'model': apps.Model()}"
MING = (
    "{'ming.enabled': True, 'ming.url': 'mim:///', 'ming.db': 'wiki', 'DBSession': types.SimpleNamespace(), "
    "'model': types.SimpleNamespace(init_model=lambda datastore: None, DBSession=None)}"
)


@pytest.fixture
def page(tmp_path):
    """What pages of an application say."""
    for name, text in PACKAGE.items():
        path = tmp_path / 'wiki' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def page(plugs, *, debug='true', ming=False, paths=('/',)):
        ini = {} if ming else {'sqlalchemy.url': f'sqlite:///{tmp_path}/app.db'}
        code = APPLICATION.replace('BLUEPRINT', MING if ming else SQL).replace('PLUGS', '\n'.join(plugs))
        code = code.replace('DEBUG', repr(debug)).replace('INI', repr(ini)).replace('PATHS', repr(paths))
        done = subprocess.run(
            [sys.executable, '-c', code],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), os.getcwd()])},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return page


def section(page):
    found = re.search(r'tgdb_title">Evolutions</div>(.*?)tgdb_detail_box', page, re.DOTALL)
    return found and found.group(1)


@pytest.mark.parametrize('plugs', [[EVOLVE, BAR], [BAR, EVOLVE]], ids=['before', 'after'])
@pytest.mark.parametrize('ming', [False, True], ids=['sql', 'ming'])
def test_the_debugbar_has_the_plan_in_short(page, plugs, ming):
    found = section(page(plugs, ming=ming))
    assert found, 'no section'
    assert '3: 1 done, 1 failed, 1 pending' in found
    assert 'may serve everything: failed' in found
    assert 'broken' in found
    assert 'free' in found
    assert 'Last runs' in found
    assert '&lt;b&gt;done&lt;/b&gt;' in found
    assert '<b>done</b>' not in found


def test_where_evolutions_are_disabled_there_is_no_section(page):
    disabled = EVOLVE.replace('watch=0', 'enabled=False')
    found = page([disabled, BAR])
    assert 'tgdb_debugbar' in found
    assert section(found) is None


def test_without_debug_there_is_no_bar(page):
    found = page([EVOLVE, BAR], debug='false')
    assert 'served' in found
    assert 'tgdb_debugbar' not in found


def test_without_the_debugbar_nothing_of_it_is_loaded(page):
    found = page([EVOLVE])
    assert 'served' in found
    assert 'debugbar loaded: False' in found


def test_tgext_pluggable_mounts_the_dashboard_and_serves_its_files(page):
    found = page([EVOLVE], paths=('/evolve', '/', '/_pluggable/tgext.evolve/dashboard.js'))
    # Nobody is logged in, and there is no login: what matters is that it is there.
    assert '401 Unauthorized' in found
    assert 'served' in found
    assert "'use strict'" in found


def test_tgext_pluggable_mounts_the_dashboard_where_it_is_told_to(page):
    elsewhere = EVOLVE.replace("'tgext.evolve', ", "'tgext.evolve', appid='evolutions', ")
    found = page([elsewhere], paths=('/evolutions', '/evolve'))
    assert '401 Unauthorized' in found
    assert '404 Not Found' in found


def test_who_wants_no_dashboard_gets_none(page):
    without = EVOLVE.replace("'tgext.evolve', ", "'tgext.evolve', plug_controller=False, ")
    assert '404 Not Found' in page([without], paths=('/evolve',))
