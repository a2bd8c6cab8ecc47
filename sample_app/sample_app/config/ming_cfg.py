"""The application on MongoDB, and the factory behind ``use = egg:sample_app#ming``."""

from tgext.pluggable import plug

from .. import ming_model
from ..ming_evolutions import BackfillSlugs, CountWords
from .common import configurator

base_config = configurator(ming_model)
base_config.update_blueprint({'use_ming': True, 'tm.enabled': False})

plug(base_config, 'tgext.evolve', evolutions=[BackfillSlugs, CountWords])


def make_app(global_conf, **app_conf):
    return base_config.make_wsgi_app(global_conf, app_conf)
