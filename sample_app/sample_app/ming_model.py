"""The same as ``sample_app.model``, in collections of MongoDB by way of Ming."""

from ming import Session, schema
from ming.odm import FieldProperty, MappedClass, Mapper, ThreadLocalODMSession

from .lib.passwords import hash_password, verify_password
from .lib.text import count_words

mainsession = Session()
DBSession = ThreadLocalODMSession(mainsession)


def init_model(datastore):
    """Called by TurboGears when the application is configured."""
    mainsession.bind = datastore
    Mapper.compile_all()
    return DBSession


class User(MappedClass):
    class __mongometa__:
        session = DBSession
        name = 'tg_user'
        unique_indexes = [('user_name',)]

    _id = FieldProperty(schema.ObjectId)
    user_name = FieldProperty(schema.String(required=True))
    password = FieldProperty(schema.String(required=True))
    group_names = FieldProperty([str])
    permission_names = FieldProperty([str])

    @classmethod
    def create(cls, user_name, password, groups=(), permissions=()):
        return cls(
            user_name=user_name,
            password=hash_password(password),
            group_names=list(groups),
            permission_names=list(permissions),
        )

    @classmethod
    def by_user_name(cls, user_name):
        return cls.query.get(user_name=user_name)

    def validate_password(self, password):
        return verify_password(password, self.password)


class Page(MappedClass):
    class __mongometa__:
        session = DBSession
        name = 'page'
        indexes = [('slug',)]

    _id = FieldProperty(schema.ObjectId)
    title = FieldProperty(schema.String(required=True))
    body = FieldProperty(schema.String(required=True))
    tags = FieldProperty([str])
    # New in this release: missing in documents of the release before, until the evolutions have filled them.
    slug = FieldProperty(schema.String(if_missing=None))
    words = FieldProperty(schema.Int(if_missing=None))

    def write(self, body):
        self.body = body
        self.words = count_words(body)


def list_pages():
    return Page.query.find().sort('title').all()


def find_page(slug):
    return Page.query.get(slug=slug)
