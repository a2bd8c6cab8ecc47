"""The application behind the ini files of these tests: what it has is set by the fixture that wrote them."""

from __future__ import annotations

import sys
from types import ModuleType

import tgext.evolve
from tests import apps

#: The entries of its ``evolutions`` option.
evolutions: list = []

#: Its package; None for one that has no file.
package: ModuleType | None = None

#: Raised instead of making it.
trouble: Exception | None = None


class MingModel:
    def __init__(self):
        from ming import Session
        from ming.odm import ThreadLocalODMSession

        self.session = Session()
        self.DBSession = ThreadLocalODMSession(self.session)

    def init_model(self, datastore):
        self.session.bind = datastore
        return self.DBSession


def configurator(is_sql=True):
    model = apps.Model() if is_sql else MingModel()
    if is_sql:
        base_config = apps.configurator(model)
    else:
        base_config = apps.configurator()
        base_config.update_blueprint({'use_ming': True, 'model': model})
    if package is not None:
        base_config.update_blueprint({'package': package, 'package_name': 'testapp'})
    return base_config


def make_app(global_conf, **app_conf):
    print('an application that prints')
    if trouble is not None:
        raise trouble
    base_config = configurator('sqlalchemy.url' in app_conf)
    tgext.evolve.plugme(base_config, {'evolutions': list(evolutions)})
    return base_config.make_wsgi_app(global_conf, {'debug': 'false', **app_conf})


def make_unplugged(global_conf, **app_conf):
    return configurator().make_wsgi_app(global_conf, {'debug': 'false', **app_conf})


def make_both(loader, global_conf, one, two):
    made = [loader.get_app(one), loader.get_app(two)]

    def both(environ, start_response):
        return made[environ['PATH_INFO'].startswith('/two')](environ, start_response)

    return both


def forget():
    """What the last test set."""
    module = sys.modules[__name__]
    module.evolutions, module.package, module.trouble = [], None, None
