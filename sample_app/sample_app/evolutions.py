"""What the data of the release before needs before this release may serve it.

Between the two, pages got a slug and a word count, and the tag ``py`` was renamed to ``python``. Each evolution here
does one of these, each in another style. They are plugged in ``config/app_cfg.py``.
"""

import tg
from sqlalchemy import select, text

from tgext.evolve import BatchedEvolution, Evolution

from .lib.text import count_words, slugify
from .model import DBSession, Page


class BackfillSlugs(Evolution):
    """Objects of the model, all in one transaction: tgext.evolve commits it, together with its record."""

    evolution_id = '2026-10-backfill-slugs'
    transactional = True
    description = 'Give every page an address made from its title'

    def evolve(self):
        taken = set(DBSession.scalars(select(Page.slug).where(Page.slug.is_not(None))))
        pages = DBSession.scalars(select(Page).where(Page.slug.is_(None)).order_by(Page.page_id)).all()
        for done, page in enumerate(pages, 1):
            page.slug = slugify(page.title, taken)
            taken.add(page.slug)
            self.progress(done, len(pages))


class RenameTag(Evolution):
    """Raw SQL, with parameters: each instance is an evolution of its own.

    Where a page has the new tag already this fails on the primary key, and nothing is changed.
    """

    transactional = True

    def __init__(self, old, new):
        self.old = old
        self.new = new
        self.evolution_id = f'2026-10-rename-tag-{old}-to-{new}'
        self.description = f'Rename the tag {old} to {new}'

    def evolve(self):
        DBSession.execute(text('UPDATE tag SET name = :new WHERE name = :old'), {'old': self.old, 'new': self.new})


class CountWords(BatchedEvolution):
    """In batches, each saved with its checkpoint: when it is interrupted, the next process goes on where it stopped."""

    evolution_id = '2026-11-count-words'
    depends_on = (BackfillSlugs.evolution_id,)
    description = 'Count the words of every page'
    items = Page
    where = Page.words.is_(None)
    batch_size = 2  # so that one sees it move: 500 is the default

    def process(self, page):
        page.words = count_words(page.body)

    def pause(self):
        return self.batch_size * float(tg.config.get('sample_app.demo_pause', 0))  # seconds
