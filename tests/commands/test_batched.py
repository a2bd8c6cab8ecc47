"""What is typed about batched evolutions."""

from __future__ import annotations

import pytest

from tests import apps
from tgext.evolve import BatchedEvolution

pytestmark = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mongodb'], indirect=True)


def numbers(id='numbers', stop=None):
    """An evolution of the numbers from 1 to 25; it raises at ``stop``."""

    class Numbers(BatchedEvolution):
        evolution_id = id
        batch_size = 10
        rerunnable = False
        seen: list[int] = []
        stops_at = stop

        def fetch(self, after, until, limit):
            return list(range((after or 0) + 1, 26))[:limit]

        def key(self, item):
            return item

        def count(self):
            return 25

        def process(self, item):
            if item == self.stops_at:
                raise ValueError('boom')
            self.seen.append(item)

    Numbers.seen = []
    return Numbers


def test_a_dry_run_does_one_batch_and_saves_nothing(site):
    evolution = numbers()
    site.has(evolution)
    typed = site.type('dry-run', 'numbers')
    assert typed.code == 0
    assert '10 items of numbers were processed and rolled back' in typed.out
    assert site.type('dry-run', 'numbers', '--json').json['items'] == 10
    assert evolution.seen == 2 * list(range(1, 11))
    assert site.states() == {}
    assert site.store.checkpoints('numbers') == []


def test_a_dry_run_names_the_item_that_raises(site):
    site.has(numbers(stop=3))
    typed = site.type('dry-run', 'numbers')
    assert typed.code == 1
    assert 'the item with the key 3 raised ValueError' in typed.error
    assert site.states() == {}


def test_batches_without_a_transaction_cannot_be_tried(site):
    """On MongoDB nothing could be rolled back; on SQL each batch is in one."""
    evolution = numbers()
    evolution.transactional_batches = False
    site.has(evolution)
    typed = site.type('dry-run', 'numbers')
    if not site.url.startswith('mongodb'):
        assert typed.code == 0
        return
    assert typed.code == 1
    assert "'numbers' cannot be tried" in typed.error
    assert evolution.seen == []


def test_what_is_not_batched_cannot_be_tried(site):
    site.has(apps.evolution('plain'))
    typed = site.type('dry-run', 'plain')
    assert typed.code == 1
    assert "'plain' cannot be tried: it is not batched" in typed.error
    assert site.type('dry-run', 'nobody').code == 65


def test_retry_goes_on_where_it_stopped_or_begins_anew(site):
    evolution = numbers(stop=15)
    site.has(evolution)
    assert site.type('run').code == 1
    assert evolution.seen[:10] == list(range(1, 11))
    evolution.stops_at = None
    evolution.seen.clear()
    assert site.type('retry', 'numbers').code == 0
    assert site.type('run').code == 0
    assert evolution.seen == list(range(11, 26))

    again = numbers('again', stop=15)
    site.has(again)
    assert site.type('run').code == 1
    again.stops_at = None
    again.seen.clear()
    typed = site.type('retry', 'again', '--restart')
    assert typed.code == 0
    assert 'begins anew' in typed.out
    assert site.type('run').code == 0
    assert again.seen == list(range(1, 26))


def test_to_begin_anew_takes_the_lease(site):
    site.has(numbers(stop=15))
    assert site.type('run').code == 1
    site.hold()
    typed = site.type('retry', 'numbers', '--restart')
    assert typed.code == 75
    assert 'elsewhere:4711' in typed.error
    assert len(site.store.checkpoints('numbers')) == 1
