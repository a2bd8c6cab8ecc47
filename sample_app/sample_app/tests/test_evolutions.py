"""The evolutions: checked as any project can, by the runner of tgext.evolve, and as plain objects on old rows."""

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from sample_app.config.app_cfg import base_config
from sample_app.evolutions import BackfillSlugs, CountWords, RenameTag
from sample_app.model import DBSession, Page, Tag
from tgext.evolve.testing import check_evolutions

TestEvolutions = check_evolutions(base_config)


def test_all_pages_have_their_words_counted(evolution_runner):
    change = evolution_runner.run('2026-11-count-words')
    assert {page['words'] for page in change.before['page']} == {None}
    assert all(page['words'] == len(page['body'].split()) for page in change.after['page'])
    assert change.before.differences(change.after, ignore=['page.words']) == []


@pytest.fixture
def old(make_app):
    make_app({'sample_app.setup': 'old'})


def test_slugs_are_unique_and_those_there_are_stay(old):
    first = DBSession.scalars(select(Page).filter_by(title='Sorting').order_by(Page.page_id)).first()
    first.slug = 'generators'
    BackfillSlugs().evolve()
    slugs = {page.slug: page.title for page in DBSession.scalars(select(Page))}
    assert len(slugs) == 40
    assert slugs['generators'] == 'Sorting'
    assert slugs['generators-2'] == 'Generators'


def test_a_tag_is_renamed_on_every_page(old):
    before = DBSession.query(Tag).filter_by(name='py').count()
    RenameTag(old='py', new='python').evolve()
    assert before > 0
    assert DBSession.query(Tag).filter_by(name='py').count() == 0
    assert DBSession.query(Tag).filter_by(name='python').count() == before


def test_a_tag_that_a_page_has_already_is_an_error(old):
    with pytest.raises(IntegrityError):
        RenameTag(old='web', new='security').evolve()


def test_the_words_of_a_page_are_counted(old):
    page = DBSession.scalars(select(Page).filter_by(title='Sorting')).first()
    assert page.words is None
    CountWords().process(page)
    assert page.words == len(page.body.split())
