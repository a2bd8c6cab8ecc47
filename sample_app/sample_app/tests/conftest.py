"""Applications to ask: ``app`` with a fresh wiki in memory, ``make_app`` for any other."""

from pathlib import Path

import pytest
import tg
import transaction
from paste.deploy import appconfig
from webtest import TestApp

from sample_app.config import application
from sample_app.model import DBSession
from sample_app.websetup import set_up
from sample_app.websetup.bootstrap import bootstrap

TEST_INI = Path(__file__).parents[2] / 'test.ini'


@pytest.fixture
def make_app():
    """Makes an application of test.ini and the options given, and fills its database as ``setup-app`` would."""

    def make(options=None, fill=True):
        DBSession.remove()  # the session of an application before this one
        conf = appconfig(f'config:{TEST_INI}')
        app = TestApp(application.make_app(conf.global_conf, **{**conf.local_conf, **(options or {})}))
        if fill:
            set_up(tg.config, bootstrap)
        return app

    yield make
    transaction.abort()
    DBSession.remove()


@pytest.fixture
def app(make_app):
    return make_app()


@pytest.fixture
def evolve_application(make_app, evolve_database):
    """For the checks of tgext.evolve: makes the application on a scratch database, as the release before left it."""

    def make():
        make_app({'sqlalchemy.url': evolve_database(), 'sample_app.setup': 'old'})
        return tg.config

    return make


def log_in(app, login, password):
    """The page that one sees after the form was sent."""
    form = app.get('/login').form
    form['login'] = login
    form['password'] = password
    return form.submit().maybe_follow()
