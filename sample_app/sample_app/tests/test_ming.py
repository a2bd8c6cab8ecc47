"""The application on MongoDB, with Ming's own database in memory."""

import uuid
from pathlib import Path

import pytest
import tg
from paste.deploy import appconfig
from webtest import TestApp

import tgext.evolve
from sample_app.websetup import set_up
from tgext.evolve.testing import check_evolutions

from .conftest import log_in

pytest.importorskip('ming')

from ming import create_datastore

from sample_app import ming_model
from sample_app.config.ming_cfg import base_config

# Ming flushes all sessions of a process at once, and cannot flush one that nobody has bound: tests of other
# applications would fail until the first one here.
ming_model.init_model(create_datastore('mim:///nothing'))

MING_INI = Path(__file__).parents[2] / 'ming.ini'


@pytest.fixture
def make_app():
    from sample_app.config import ming_cfg
    from sample_app.websetup.ming_bootstrap import bootstrap

    url = f'mim:///sample_app_{uuid.uuid4().hex}'

    def make(**options):
        conf = appconfig(f'config:{MING_INI}')
        options = {'ming.url': url, 'tgext.evolve.watch': '0', **options}
        app = TestApp(ming_cfg.make_app(conf.global_conf, **{**conf.local_conf, **options}))
        set_up(tg.config, bootstrap)
        return app

    return make


@pytest.fixture
def evolve_application(make_app, evolve_database):
    """As in conftest.py, on MongoDB."""

    def make():
        make_app(
            **{'ming.url': evolve_database('mim:///wiki'), 'sample_app.setup': 'old', 'tgext.evolve.enabled': 'false'}
        )
        return tg.config

    return make


TestEvolutions = check_evolutions(base_config)


def test_a_new_database_has_nothing_to_evolve(make_app):
    app = make_app()
    assert tgext.evolve.wait(tg.config, timeout=30)
    assert '40 pages' in app.get('/')
    assert 'Welcome, manager.' in log_in(app, 'manager', 'managepass')


def test_old_pages_are_served_when_they_have_evolved(make_app):
    app = make_app(**{'sample_app.setup': 'old', 'sample_app.demo_pause': '0.01'})
    assert 'Back in a moment' in app.get('/', headers={'Accept': 'text/html'}, status=503)
    assert tgext.evolve.wait(tg.config, timeout=30)
    page = app.get('/')
    assert '<a href="/page/sorting-2">Sorting</a>' in page
    assert 'not counted' not in page
