"""The wiki: pages, and the tags on them."""

from sqlalchemy import Column, ForeignKey, Integer, String, Text, select
from sqlalchemy.ext.associationproxy import association_proxy
from sqlalchemy.orm import relationship, selectinload

from ..lib.text import count_words
from . import DBSession, DeclarativeBase


class Page(DeclarativeBase):
    __tablename__ = 'page'

    page_id = Column(Integer, primary_key=True)
    title = Column(String(100), nullable=False)
    body = Column(Text, nullable=False)
    # New in this release: empty in rows of the release before, until the evolutions have filled them.
    slug = Column(String(100), unique=True)
    words = Column(Integer)

    tag_rows = relationship('Tag', order_by='Tag.name', cascade='all, delete-orphan')
    tags = association_proxy('tag_rows', 'name')  # as strings

    def write(self, body):
        self.body = body
        self.words = count_words(body)


class Tag(DeclarativeBase):
    __tablename__ = 'tag'

    page_id = Column(ForeignKey('page.page_id'), primary_key=True)
    name = Column(String(40), primary_key=True)

    def __init__(self, name):
        self.name = name


def list_pages():
    return DBSession.scalars(select(Page).options(selectinload(Page.tag_rows)).order_by(Page.title, Page.page_id)).all()


def find_page(slug):
    return DBSession.scalars(select(Page).filter_by(slug=slug)).first()
