"""What the application is, whichever database it is on."""

from tg import FullStackApplicationConfigurator
from tg.configuration.auth import TGAuthMetadata
from tg.util import Bunch

import sample_app


class AuthMetadata(TGAuthMetadata):
    """Tells TurboGears who the users of a model are."""

    def __init__(self, user_class):
        self.user_class = user_class

    def authenticate(self, environ, identity):
        user = self.user_class.by_user_name(identity['login'])
        if user is not None and user.validate_password(identity['password']):
            return user.user_name
        return None

    def get_user(self, identity, userid):
        return self.user_class.by_user_name(userid)

    def get_groups(self, identity, userid):
        return identity['user'].group_names

    def get_permissions(self, identity, userid):
        return identity['user'].permission_names


def configurator(model):
    """:param model: the module with ``User``, ``list_pages`` and so on; TurboGears calls its ``init_model``."""
    base_config = FullStackApplicationConfigurator()
    base_config.update_blueprint(
        {
            'package': sample_app,
            'model': model,
            'DBSession': model.DBSession,
            'app_globals': Bunch,
            'helpers': Bunch(),
            'renderers': ['json', 'kajiki'],
            'default_renderer': 'kajiki',
            'templating.kajiki.strip_text': False,
            'disable_request_extensions': True,
            'trace_errors.enable': False,
            'session.enabled': True,
            'session.data_serializer': 'json',
            'sa_auth.enabled': True,
            'sa_auth.authmetadata': AuthMetadata(model.User),
            'sa_auth.post_login_url': '/post_login',
            'sa_auth.post_logout_url': '/',
            'identity.allow_missing_user': False,
            # While evolutions run the application answers 503: its own ErrorController says so to people.
            'errorpage.status_codes': [403, 404, 503],
        }
    )
    return base_config
