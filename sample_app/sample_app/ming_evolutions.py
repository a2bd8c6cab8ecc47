"""The evolutions of ``sample_app.evolutions``, for MongoDB. They are plugged in ``config/ming_cfg.py``.

There are no transactions: each document is saved by itself, and what is done already is not done again.
"""

import tg

from tgext.evolve import BatchedEvolution, Evolution

from .lib.text import count_words, slugify
from .ming_model import DBSession, Page


class BackfillSlugs(Evolution):
    evolution_id = '2026-10-backfill-slugs'
    description = 'Give every page an address made from its title'

    def evolve(self):
        pages = Page.query.find().sort('_id').all()
        taken = {page.slug for page in pages if page.slug}
        for done, page in enumerate(pages, 1):
            if not page.slug:
                page.slug = slugify(page.title, taken)
                taken.add(page.slug)
                DBSession.flush()
            self.progress(done, len(pages))


class CountWords(BatchedEvolution):
    """Its checkpoint follows each batch: what is killed between the two runs that batch again, which does no harm."""

    evolution_id = '2026-11-count-words'
    depends_on = (BackfillSlugs.evolution_id,)
    description = 'Count the words of every page'
    items = Page
    where = {'words': None}
    batch_size = 2  # so that one sees it move: 500 is the default

    def process(self, page):
        page.words = count_words(page.body)

    def pause(self):
        return self.batch_size * float(tg.config.get('sample_app.demo_pause', 0))  # seconds
