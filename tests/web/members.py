"""A full-stack application with users who log in, as a quickstart makes it."""

from __future__ import annotations

import tg
from sqlalchemy import Column, Integer, Unicode, text
from tg import TGController, expose
from tg.configuration.auth import TGAuthMetadata

from tests import apps


class Model(apps.Model):
    """Users beside the pages."""

    def __init__(self, **session_options):
        super().__init__(**session_options)

        class User(self.Base):
            __tablename__ = 'tg_user'
            user_id = Column(Integer, primary_key=True)
            user_name = Column(Unicode(16), unique=True, nullable=False)
            password = Column(Unicode(128), nullable=False)

        self.User = User

    def create(self, engine):
        self.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO tg_user (user_name, password) VALUES ('manager', 'managepass')"))


class AuthMetadata(TGAuthMetadata):
    def __init__(self, model):
        self.model = model

    def _user(self, name):
        return self.model.DBSession.query(self.model.User).filter_by(user_name=name).first()

    def authenticate(self, environ, identity):
        user = self._user(identity['login'])
        return user.user_name if user is not None and user.password == identity['password'] else None

    def get_user(self, identity, userid):
        return self._user(userid)

    def get_groups(self, identity, userid):
        return []

    def get_permissions(self, identity, userid):
        return []


class ErrorController(TGController):
    @expose(content_type='text/html')
    def document(self, *args, **kwargs):
        return f'our own page for {tg.request.identity and tg.request.identity["user"].user_name}'


class Root(apps.Root):
    error = ErrorController()

    @expose(content_type='text/plain')
    def me(self):
        visits = tg.session.get('visits', 0) + 1
        tg.session['visits'] = visits
        tg.session.save()
        return f'{tg.request.identity["user"].user_name if tg.request.identity else "nobody"}, visit {visits}'

    @expose(content_type='text/plain')
    def login(self, **kw):
        return 'please log in'


def blueprint(model, tmp_path):
    """What a quickstart's ``app_cfg.py`` says, for this model."""
    return {
        'model': model,
        'root': Root(),
        'session.enabled': True,
        'session.data_serializer': 'json',
        'session.data_dir': str(tmp_path / 'sessions'),
        'session.type': 'file',
        'errorpage.enabled': True,
        'errorpage.status_codes': [403, 404],
        'sa_auth.enabled': True,
        'sa_auth.cookie_secret': '8700d3c3-cab6-4202-aaa5-a34e316e3ea6',
        'sa_auth.authmetadata': AuthMetadata(model),
        'sa_auth.post_login_url': '/me',
        'sa_auth.post_logout_url': '/me',
        'sa_auth.form_plugin': None,
        'identity.allow_missing_user': False,
    }
