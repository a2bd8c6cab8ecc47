"""Each evolution by itself, as a plain object on old rows."""

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from sample_app.evolutions import BackfillSlugs, CountWords, RenameTag
from sample_app.model import DBSession, Page, Tag


@pytest.fixture(autouse=True)
def old(make_app):
    make_app({'sample_app.setup': 'old'})


def test_slugs_are_unique_and_those_there_are_stay():
    first = DBSession.scalars(select(Page).filter_by(title='Sorting').order_by(Page.page_id)).first()
    first.slug = 'generators'
    BackfillSlugs().evolve()
    slugs = {page.slug: page.title for page in DBSession.scalars(select(Page))}
    assert len(slugs) == 40
    assert slugs['generators'] == 'Sorting'
    assert slugs['generators-2'] == 'Generators'


def test_a_tag_is_renamed_on_every_page():
    before = DBSession.query(Tag).filter_by(name='py').count()
    RenameTag(old='py', new='python').evolve()
    assert before > 0
    assert DBSession.query(Tag).filter_by(name='py').count() == 0
    assert DBSession.query(Tag).filter_by(name='python').count() == before


def test_a_tag_that_a_page_has_already_is_an_error():
    with pytest.raises(IntegrityError):
        RenameTag(old='web', new='security').evolve()


def test_the_words_of_a_page_are_counted():
    page = DBSession.scalars(select(Page).filter_by(title='Sorting')).first()
    assert page.words is None
    CountWords().process(page)
    assert page.words == len(page.body.split())
