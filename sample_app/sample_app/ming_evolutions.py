"""The evolutions of ``sample_app.evolutions``, for MongoDB. They are plugged in ``config/ming_cfg.py``.

There are no transactions: each document is saved by itself, and what is done already is not done again.
"""

import time

import tg

from tgext.evolve import Evolution

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


class CountWords(Evolution):
    evolution_id = '2026-11-count-words'
    depends_on = (BackfillSlugs.evolution_id,)
    description = 'Count the words of every page'

    def evolve(self):
        pause = float(tg.config.get('sample_app.demo_pause', 0))  # seconds
        pages = Page.query.find().sort('_id').all()
        for done, page in enumerate(pages, 1):
            if page.words is None:
                page.words = count_words(page.body)
                DBSession.flush()
                time.sleep(pause)
            self.progress(done, len(pages))
