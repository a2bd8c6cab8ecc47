"""What the data of the release before needs before this release may serve it.

Between the two, pages got a slug and a word count, and the tag ``py`` was renamed to ``python``. Each evolution here
does one of these, each in another style. They are plugged in ``config/app_cfg.py``.
"""

import time

import tg
import transaction
from sqlalchemy import func, select, text

from tgext.evolve import Evolution

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


class CountWords(Evolution):
    """Commits by itself, page by page: when it is interrupted, the next process goes on where this one stopped."""

    evolution_id = '2026-11-count-words'
    depends_on = (BackfillSlugs.evolution_id,)
    description = 'Count the words of every page'

    def evolve(self):
        pause = float(tg.config.get('sample_app.demo_pause', 0))  # seconds
        total = DBSession.scalar(select(func.count()).select_from(Page))
        todo = DBSession.scalars(select(Page.page_id).where(Page.words.is_(None)).order_by(Page.page_id)).all()
        for done, page_id in enumerate(todo, total - len(todo) + 1):
            page = DBSession.get(Page, page_id)
            page.words = count_words(page.body)
            DBSession.flush()
            transaction.commit()
            self.progress(done, total)
            time.sleep(pause)
