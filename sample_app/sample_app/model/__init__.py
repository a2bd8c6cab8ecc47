"""The tables, on SQLAlchemy.

``sample_app.ming_model`` offers the same names on MongoDB: the controllers work with either, as ``tg.config['model']``.
"""

import zope.sqlalchemy
from sqlalchemy.orm import declarative_base, scoped_session, sessionmaker

DBSession = scoped_session(sessionmaker())
zope.sqlalchemy.register(DBSession)

DeclarativeBase = declarative_base()
metadata = DeclarativeBase.metadata


def init_model(engine):
    """Called by TurboGears when the application is configured."""
    DBSession.configure(bind=engine)
    return DBSession


from .auth import Group, Permission, User  # noqa: E402
from .wiki import Page, Tag, find_page, list_pages  # noqa: E402

__all__ = [
    'DBSession',
    'DeclarativeBase',
    'Group',
    'Page',
    'Permission',
    'Tag',
    'User',
    'find_page',
    'init_model',
    'list_pages',
    'metadata',
]
