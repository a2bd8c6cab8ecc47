"""What ``gearbox setup-app`` does to an empty database."""

import tgext.evolve


def setup_app(command, conf, vars):
    """Called by gearbox, with the configuration of the ini file."""
    # An ini with a ming.url is one of the application on MongoDB.
    if 'ming.url' in conf.local_conf:
        from ..config.ming_cfg import base_config
        from .ming_bootstrap import bootstrap
    else:
        from ..config.app_cfg import base_config
        from .bootstrap import bootstrap

    conf = base_config.configure(conf.global_conf, conf.local_conf)
    base_config.setup(conf)
    set_up(conf, bootstrap)


def set_up(conf, bootstrap):
    """Fill an empty database, as the option ``sample_app.setup`` says.

    new
        Users, and pages as this release writes them. No evolution has anything to do here, now or later: they are
        recorded as done.
    old
        The same users and pages, the pages as the release before left them. All evolutions are pending.
    """
    age = conf.get('sample_app.setup', 'new')
    if age not in ('new', 'old'):
        raise ValueError(f'sample_app.setup = {age}: use new or old')
    if not bootstrap(conf, old=age == 'old'):
        # And no stamp: nobody knows which evolutions it has had.
        print('The database has been set up before: nothing was changed.')
        return
    if age == 'new':
        tgext.evolve.stamp(conf)
