"""Batches on real databases: every item once, in whatever way the evolution goes through them."""

from __future__ import annotations

import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from pymongo.errors import AutoReconnect
from sqlalchemy import delete, func, insert, literal, select, text, update

from tests.processes.harness import until
from tests.stores import open_store, take_over
from tgext.evolve import BatchedEvolution, PlanError
from tgext.evolve.errors import ItemFailed, NotRunning, StoreAway, StoreBusy, StoreError
from tgext.evolve.evolver import Ended
from tgext.evolve.gate import Reason
from tgext.evolve.keys import KeyProblem
from tgext.evolve.plan import planned
from tgext.evolve.points import at_points
from tgext.evolve.ready.mongodb import ConvertField, DeleteDocuments, RenameField
from tgext.evolve.ready.sql import CopyTable, DeleteRows, FillColumn
from tgext.evolve.stores.base import Owner

ROWS = 1050


def on(*databases):
    return pytest.mark.parametrize('store_url', databases, indirect=True)


every_sql = on('sqlite', 'postgresql', 'mariadb')
sqlite = on('sqlite')
mongodb = on('mongodb')


def batched(table, id='count', **attributes):
    """Adds 1 to each row; given attributes win."""

    def process(self, page):
        page.seen += 1

    own = {'evolution_id': id, 'items': table.Page, 'batch_size': 100, 'process': process, **attributes}
    return type('Batched', (BatchedEvolution,), {'__module__': __name__, **own})()


# -- every item once


@on('sqlite', 'postgresql', 'mariadb', 'mongodb')
def test_every_item_is_processed_once(table):
    table.fill(ROWS)
    evolver = table.run(batched(table))
    assert evolver.gate.is_open
    assert table.seen() == {1: ROWS}
    [checkpoint] = table.store.checkpoints('count')
    assert (checkpoint.done, checkpoint.total, checkpoint.passes, checkpoint.finished) == (ROWS, ROWS, 1, True)
    assert table.states('count') == ['done']


@on('sqlite', 'mongodb')
def test_nothing_to_process_is_done_at_once(table):
    assert table.run(batched(table)).gate.is_open
    assert table.states('count') == ['done']


@every_sql
def test_rows_that_leave_the_filter_are_neither_skipped_nor_seen_for_ever(table):
    table.fill(ROWS)

    def process(self, page):
        page.slug = page.title.lower()
        page.seen += 1

    table.run(batched(table, where=table.Page.slug.is_(None), process=process))
    assert table.seen() == {1: ROWS}
    assert table.slugs() == ROWS


@every_sql
def test_a_key_of_two_columns(table):
    table.fill_visits(7, 61)
    table.run(batched(table, items=table.Visit, batch_size=50))
    assert table.seen(table.Visit) == {1: 7 * 61}


@every_sql
def test_a_statement_of_columns(table):
    table.fill(ROWS)
    page = table.Page.__table__
    seen = []

    def process_batch(self, rows):
        seen.extend(row.id for row in rows)
        self.session.execute(update(page).where(page.c.id.in_([row.id for row in rows])).values(seen=page.c.seen + 1))

    table.run(batched(table, items=select(page.c.title, page.c.id), process_batch=process_batch))
    assert seen == list(range(1, ROWS + 1))
    assert table.seen() == {1: ROWS}


@sqlite
def test_what_fetches_by_itself(table):
    numbers = list(range(1000))
    done = []
    evolution = batched(
        table,
        items=None,
        fetch=lambda self, after, until, limit: [n for n in numbers if after is None or n > after][:limit],
        key=lambda self, number: number,
        count=lambda self: len(numbers),
        process=lambda self, number: done.append(number),
    )
    table.run(evolution)
    assert done == numbers
    assert table.store.checkpoints('count')[0].total == 1000


@mongodb
def test_plain_documents_of_a_collection(table):
    table.fill(ROWS)

    def process(self, document):
        self.session.page.update_one({'_id': document['_id']}, {'$inc': {'seen': 1}})

    table.run(batched(table, items='page', process=process))
    assert table.seen() == {1: ROWS}


# -- passes


@on('mim', 'mongodb')
@pytest.mark.parametrize(
    'where',
    [{'slug': None}, {'slug': None, '_id': {'$ne': 0}}, {'$or': [{'slug': None}, {'seen': 7}]}],
    ids=['a field', 'the key too', 'alternatives'],
)
def test_a_filter_of_documents_holds_in_every_batch(table, where):
    def process_batch(self, documents):
        for document in documents:
            self.session.page.update_one({'_id': document['_id']}, {'$inc': {'seen': 1}})

    table.fill(260)  # mim reads all of them for each
    table.db.page.update_many({}, {'$set': {'slug': None}})  # mim finds no None where there is nothing
    table.db.page.update_one({'_id': 5}, {'$set': {'slug': 'done'}})
    table.run(batched(table, items='page', where=where, passes=1, batch_size=50, process_batch=process_batch))
    assert table.seen() == {0: 1, 1: 259}


@on('sqlite', 'mongodb')
def test_a_pause_is_asked_for_with_the_application_around_it(table):
    table.fill(20)
    inside = []

    @contextmanager
    def around():
        inside.append('entered')
        yield
        inside.append('left')

    def pause(self):
        inside.append('asked')
        return 0

    evolver = table.evolver(batched(table, pause=pause, batch_size=10))
    evolver.around = around
    evolver.run()
    assert 'asked' in inside
    where = inside.index('asked')
    assert (inside[where - 1], inside[where + 1]) == ('entered', 'left')


@every_sql
def test_what_old_code_adds_behind_the_cursor_is_not_forgotten(table):
    table.fill(300)
    with table.elsewhere() as connection:
        connection.execute(delete(table.Page).where(table.Page.id <= 10))
    added = iter([5, 7])

    def process_batch(self, pages):
        for page in pages:
            page.slug = 'done'
            page.seen += 1

    def pause(self):
        # Between two batches, behind the cursor.
        for id in added:
            with table.elsewhere() as connection:
                connection.execute(insert(table.Page).values(id=id, title='late', seen=0))
            break
        return 0

    table.run(batched(table, where=table.Page.slug.is_(None), process_batch=process_batch, pause=pause))
    assert table.seen() == {1: 292}
    assert table.slugs() == 292


@sqlite
def test_a_filter_that_does_not_shrink_is_found_out(table):
    table.fill(ROWS)
    evolver = table.run(batched(table, where=table.Page.title != ''))
    assert evolver.gate.verdict.reason is Reason.FAILED
    assert 'finds items again' in table.error('count')
    assert 'passes = 1' in table.error('count')
    assert table.seen() == {1: ROWS}


@sqlite
def test_a_filter_that_does_not_shrink_says_so(table):
    table.fill(ROWS)
    table.run(batched(table, where=table.Page.title != '', passes=2))
    assert table.states('count') == ['done']
    assert table.seen() == {2: ROWS}


# -- what goes wrong


@every_sql
def test_an_item_that_raises_stops_it_with_its_key_and_it_goes_on_from_there(table):
    table.fill(ROWS)

    def process(self, page):
        if page.id == 555 and not mended:
            raise ValueError('not this one')
        page.seen += 1

    mended = []
    evolver = table.run(batched(table, process=process))
    assert evolver.gate.verdict.reason is Reason.FAILED
    assert 'the item with the key 555 raised ValueError' in table.error('count')
    assert 'not this one' in table.error('count')
    # What was done before is saved, and of its own batch nothing.
    assert table.seen() == {1: 500, 0: ROWS - 500}
    mended.append(True)
    table.store.forgive(['count'])
    table.run(batched(table, process=process))
    assert table.states('count') == ['failed', 'done']
    assert table.seen() == {1: ROWS}
    assert [attempt.reached for attempt in table.store.history().of('count')] == [500, None]


@sqlite
def test_attempts_that_get_on_do_not_count_towards_the_last_one(table):
    table.fill(ROWS)
    left = Counter({150: 1, 250: 1, 350: 1, 450: 1})

    def process(self, page):
        if left[page.id]:
            left[page.id] -= 1
            raise ValueError('once')
        page.seen += 1

    table.run(batched(table, process=process), max_attempts=2, retry_delay=0.0)
    assert table.states('count') == ['failed'] * 4 + ['done']
    assert table.seen() == {1: ROWS}


@on('postgresql', 'mariadb')
def test_a_batch_that_loses_against_another_transaction_is_tried_again(table):
    """A deadlock: each of two transactions holds what the other one wants."""
    table.fill(200)
    met = threading.Barrier(2, timeout=30)
    losses = []
    page = table.Page

    def process_batch(self, pages):
        first = not losses
        losses.append(True)
        self.session.execute(update(page).where(page.id == 1).values(title='x'))
        if first:
            met.wait()
        self.session.execute(update(page).where(page.id == 2).values(title='x'))
        for each in pages:
            each.seen += 1

    def rival():
        with table.elsewhere() as connection:
            connection.execute(update(page).where(page.id == 2).values(title='y'))
            met.wait()
            try:
                connection.execute(update(page).where(page.id == 1).values(title='y'))
            except Exception:
                lost.append(True)

    lost = []
    other = threading.Thread(target=rival)
    other.start()
    table.run(batched(table, process_batch=process_batch))
    other.join(30)
    assert lost or len(losses) > 2
    assert table.seen() == {1: 200}
    assert table.states('count') == ['done']


@every_sql
def test_a_batch_that_commits_by_itself_is_found_out(table):
    table.fill(ROWS)

    def process_batch(self, pages):
        import transaction

        transaction.commit()

    evolver = table.run(batched(table, process_batch=process_batch))
    assert evolver.gate.verdict.reason is Reason.FAILED
    assert 'committed or rolled back' in table.error('count')


# -- people and other holders


@on('sqlite', 'postgresql', 'mariadb', 'mongodb')
def test_a_deposed_holder_moves_no_checkpoint(table):
    table.fill(ROWS)
    batches = []

    def pause(self):
        batches.append(True)
        if len(batches) == 3:
            depose(table)
        return 0

    ended = table.evolver(batched(table, pause=pause)).run()
    assert ended is Ended.TAKEN
    assert len(batches) == 3
    [checkpoint] = table.store.checkpoints('count')
    assert checkpoint.done == 300
    assert table.states('count') == ['interrupted']
    assert table.store.history().latest('count').reached == 300
    assert table.seen() == {1: 300, 0: ROWS - 300}


@on('sqlite', 'postgresql', 'mariadb', 'mongodb')
def test_a_checkpoint_that_was_dropped_is_moved_by_nobody_until_it_is_taken_again(table):
    """What a holder leaves to workers elsewhere that it cannot end."""
    table.fill(ROWS)
    batches = []

    def pause(self):
        batches.append(True)
        if len(batches) == 3:
            table.store.drop_checkpoints(table.store.history().latest('count'))
        return 0

    assert table.evolver(batched(table, pause=pause)).run() is Ended.DONE
    assert table.states('count') == ['interrupted', 'done']
    assert table.store.history().of('count')[0].reached == 300
    assert table.seen() == {1: ROWS}


def depose(table):
    grant = take_over(table.store)
    assert [attempt.evolution_id for attempt in table.store.interrupt_older(grant)] == ['count']


@on('sqlite', 'postgresql', 'mongodb')
def test_pause_stops_after_a_batch_and_resume_goes_on(table):
    table.fill(ROWS)
    first = []

    def pause(self):
        if not first:
            first.append(True)
            table.store.ask(Owner(), paused=True)
        # Until the heartbeat has heard of it.
        return 0.2

    evolution = batched(table, pause=pause, batch_size=10)
    assert table.evolver(evolution, lease=1.0).run() is Ended.PAUSED
    done = table.store.checkpoints('count')[0].done
    assert 0 < done < ROWS
    assert table.states('count') == ['interrupted']
    table.store.ask(Owner(), paused=False)
    assert table.evolver(batched(table, batch_size=100)).run() is Ended.DONE
    assert table.seen() == {1: ROWS}


@on('sqlite', 'postgresql')
def test_cancel_keeps_what_was_saved(table):
    table.fill(ROWS)
    first = []

    def pause(self):
        if not first:
            first.append(True)
            table.store.ask(Owner(), cancel='count')
        return 0.2

    evolver = table.evolver(batched(table, pause=pause, batch_size=10), lease=1.0)
    assert evolver.run() is Ended.STUCK
    assert evolver.gate.verdict.reason is Reason.CANCELLED
    assert table.states('count') == ['cancelled']
    assert table.seen()[1] == table.store.checkpoints('count')[0].done


@sqlite
def test_it_yields_to_what_is_stricter(table):
    table.fill(ROWS)
    first = []

    def pause(self):
        if not first:
            first.append(True)
            table.store.ask(Owner(), wanted='nothing')
        return 0.2

    evolution = batched(table, pause=pause, batch_size=10, serving='everything')
    evolver = table.evolver(evolution, lease=1.0)
    evolver._begin_process()
    pause_seconds = evolver._turn()
    assert pause_seconds >= 1.0
    assert table.states('count') == ['interrupted']
    assert not table.store.lease_row().alive
    # Whoever takes the lease next has got what was asked for.
    assert table.store.acquire(Owner(), 1) is not None
    assert table.store.requests().wanted is None


# -- partitions


@every_sql
def test_partitions_in_threads(table):
    table.fill(ROWS)
    threads = set()

    def process(self, page):
        threads.add(threading.get_ident())
        page.seen += 1

    evolution = batched(table, process=process, partitions=4, executor=lambda self: ThreadPoolExecutor(2))
    table.run(evolution)
    assert table.states('count') == ['done']
    assert table.seen() == {1: ROWS}
    checkpoints = table.store.checkpoints('count')
    assert len(checkpoints) == 4
    assert all(each.done > 200 for each in checkpoints)
    assert threading.get_ident() not in threads


@every_sql
def test_partitions_of_a_key_of_two_columns(table):
    table.fill_visits(7, 61)
    table.run(batched(table, items=table.Visit, batch_size=50, partitions=3))
    assert table.seen(table.Visit) == {1: 7 * 61}
    assert [each.done for each in table.store.checkpoints('count')] == pytest.approx([142, 142, 143], abs=2)


@mongodb
def test_partitions_of_documents(table):
    table.fill(ROWS)
    table.run(batched(table, partitions=3))
    assert table.seen() == {1: ROWS}
    assert [each.done for each in table.store.checkpoints('count')] == [350, 350, 350]


@every_sql
def test_an_item_that_raises_in_a_partition_stops_all_of_them(table):
    table.fill(ROWS)

    def process(self, page):
        if page.id == 555:
            raise ValueError('not this one')
        page.seen += 1

    evolution = batched(table, process=process, partitions=4, executor=lambda self: ThreadPoolExecutor(4))
    evolver = table.run(evolution)
    assert evolver.gate.verdict.reason is Reason.FAILED
    assert 'the item with the key 555 raised ValueError' in table.error('count')
    assert table.seen()[1] == sum(each.done for each in table.store.checkpoints('count'))


@sqlite
def test_few_items_make_few_partitions(table):
    table.fill(2)
    table.run(batched(table, partitions=5))
    assert table.seen() == {1: 2}


# -- sizes, trials, beginnings


@sqlite
def test_the_size_of_batches_adapts(table):
    table.fill(ROWS)
    sizes = []

    def process_batch(self, pages):
        sizes.append(len(pages))
        for page in pages:
            page.seen += 1

    evolution = batched(table, process_batch=process_batch, batch_size=4, batch_seconds=60, largest_batch=256)
    table.run(evolution)
    assert sizes[:6] == [4, 8, 16, 32, 64, 128]
    assert max(sizes) == 256
    assert table.seen() == {1: ROWS}


@on('sqlite', 'postgresql', 'mariadb', 'mongodb')
def test_a_dry_run_saves_nothing(table):
    table.fill(ROWS)
    evolution = batched(table)
    assert table.evolver(evolution).dry_run('count') == 100
    assert table.seen() == {0: ROWS}
    assert table.states('count') == []
    table.run(evolution)
    assert table.seen() == {1: ROWS}


@sqlite
def test_a_dry_run_says_what_raised(table):
    table.fill(ROWS)

    def process(self, page):
        raise ValueError('no')

    with pytest.raises(ItemFailed, match='the item with the key 1 raised ValueError'):
        table.evolver(batched(table, process=process)).dry_run('count')


@sqlite
def test_a_batch_that_raises_as_one_is_told_by_its_end(table):
    table.fill(ROWS)

    def process_batch(self, pages):
        raise ValueError('no')

    with pytest.raises(ItemFailed, match='the batch of 100 items up to the key 100 raised ValueError') as raised:
        table.evolver(batched(table, process_batch=process_batch)).dry_run('count')
    assert raised.value.place.startswith("evolution 'count', ")
    assert raised.value.remedy.startswith('Mend the evolution or that item.')


@sqlite
def test_a_dry_run_of_what_is_not_in_the_plan_is_refused(table):
    with pytest.raises(PlanError, match="there is no evolution 'cuont'") as raised:
        table.evolver(batched(table)).dry_run('cuont')
    assert (raised.value.place, raised.value.remedy) == ('the plan', 'Use an id of the plan.')


def left_halfway(table):
    """An evolution whose checkpoint is somewhere."""

    def process(self, page):
        if (getattr(page, 'id', None) or page._id) > 200:
            raise ValueError('no')

    table.fill(ROWS)
    evolver = table.run(batched(table, process=process))
    assert table.store.checkpoints('count')[0].done == 200
    return evolver


@sqlite
def test_a_key_that_somebody_edited_is_named(table):
    evolver = left_halfway(table)
    with table.elsewhere() as connection:
        connection.execute(text("UPDATE tgext_evolve_checkpoint SET position = 'half'"))
    with pytest.raises(KeyProblem, match="the checkpoint 'half' cannot be read") as raised:
        evolver.dry_run('count')
    assert raised.value.place == 'tgext_evolve_checkpoint'
    assert 'Somebody edited it. Mend it, or delete' in raised.value.remedy


@mongodb
def test_a_checkpoint_that_somebody_edited_is_named(table):
    evolver = left_halfway(table)
    table.db.tgext_evolve_checkpoint.update_one({}, {'$unset': {'passes': 1}})
    with pytest.raises(StoreError, match=r"the checkpoint with the _id '.*' has no 'passes'") as raised:
        evolver.dry_run('count')
    assert raised.value.place == 'the collection tgext_evolve_checkpoint'
    assert 'Somebody edited it. Mend it, or delete' in raised.value.remedy


@mongodb
def test_a_connection_that_is_lost_in_a_batch_is_told_and_each_item_processed_once(table):
    table.fill(ROWS)

    def cut(point):
        if point == 'before-checkpoint':
            raise AutoReconnect('connection closed')

    at_points(cut)
    try:
        with pytest.raises(StoreAway, match="the connection was lost during a batch of 'count'") as raised:
            table.run(batched(table), max_attempts=2, retry_delay=0)
    finally:
        at_points(None)
    assert raised.value.place == table.store.name
    assert raised.value.remedy == 'What became of it is read from the history when the database is back.'
    table.run(batched(table), max_attempts=2, retry_delay=0)
    assert table.seen() == {1: ROWS}
    assert table.states('count') == ['interrupted', 'done']


@mongodb
def test_a_dry_run_is_refused_where_nothing_can_be_rolled_back(table):
    with pytest.raises(PlanError, match='cannot be tried: it says transactional_batches = False'):
        table.evolver(batched(table, transactional_batches=False)).dry_run('count')


@sqlite
def test_forgotten_checkpoints_begin_anew(table):
    table.fill(ROWS)

    def process(self, page):
        if page.id == 555 and not mended:
            raise ValueError('no')
        page.seen += 1

    mended = []
    table.run(batched(table, process=process))
    table.store.forgive(['count'])
    table.store.forget_checkpoints(['count'])
    mended.append(True)
    table.run(batched(table, process=process))
    assert table.seen() == {2: 500, 1: ROWS - 500}


@sqlite
def test_it_cannot_be_called_by_hand(table):
    with pytest.raises(NotRunning, match='dry_run'):
        batched(table).evolve()
    with pytest.raises(NotRunning, match=r'process\(\)'):
        batched(table).session  # noqa: B018


# -- mistakes are found when the application is configured


@sqlite
@pytest.mark.parametrize(
    ('attributes', 'words'),
    [
        ({'batch_size': 0}, 'batch_size = 0'),
        ({'batch_size': True}, 'batch_size = True'),
        ({'passes': 0}, 'passes = 0'),
        ({'partitions': 1.5}, 'partitions = 1.5'),
        ({'pause': -1}, 'pause = -1'),
        ({'batch_seconds': 0}, 'batch_seconds = 0'),
        ({'transactional': True}, 'transactional = True'),
        ({'items': None}, 'does not say what its items are'),
        ({'process': BatchedEvolution.process}, 'does nothing with its items'),
    ],
)
def test_a_mistake_is_named(table, attributes, words):
    with pytest.raises(PlanError, match=words):
        planned(batched(table, **attributes))


@sqlite
@pytest.mark.parametrize('items', ['page', object()])
def test_items_that_this_database_does_not_have(table, items):
    evolver = table.run(batched(table, items=items))
    assert evolver.gate.verdict.reason is Reason.FAILED
    assert 'neither a mapped class nor a select()' in table.error('count')


@mongodb
def test_items_that_are_no_collection(table):
    table.run(batched(table, items=5))
    error = table.error('count')
    assert "the items of 'count' are 5, which is neither a mapped class nor the name of a collection" in error
    assert 'Use a class mapped by Ming, the name of a collection, or fetch() and key().' in error


@sqlite
def test_items_without_a_key(table):
    table.run(batched(table, items=select(table.Page.title)))
    assert "the items of 'count' have no primary key (in tests.batches.test_batches.Batched)" in table.error('count')
    assert 'Say key_columns = (column, ...): not null, unique together, with an index.' in table.error('count')


@sqlite
def test_items_of_a_session_where_the_application_has_none(table):
    table.store = open_store(table.url, namespace=table.store.namespace)
    table.run(batched(table))
    assert "the items of 'count' are read through a session, and the application has none" in table.error('count')
    assert 'Define fetch() and key() instead.' in table.error('count')


@sqlite
def test_a_key_that_cannot_be_kept_in_a_checkpoint(table):
    def fetch(self, after, until, limit):
        return [1, 2, 3]

    def key(self, item):
        return {item}

    table.run(batched(table, items=None, fetch=fetch, key=key))
    assert 'KeyProblem: a key is {1}, of the type builtins.set (in a batched evolution). Keys' in table.error('count')


# -- ready-made ones


@every_sql
def test_a_column_is_filled(table):
    table.fill(ROWS)
    table.run(FillColumn('fill', table.Page.slug, func.lower(table.Page.title), batch_size=100))
    assert table.states('fill') == ['done']
    assert table.slugs() == ROWS


@every_sql
def test_a_column_whose_value_is_null_is_found_out(table):
    table.fill(ROWS)
    table.run(FillColumn('fill', table.Page.slug, None, batch_size=100))
    assert 'finds items again' in table.error('fill')


@every_sql
def test_rows_are_deleted(table):
    table.fill(ROWS)
    table.run(DeleteRows('delete', table.Page, table.Page.id > 50, batch_size=100))
    assert table.seen() == {0: 50}


@every_sql
def test_a_table_is_copied_and_what_is_there_stays(table):
    table.fill(ROWS)
    with table.elsewhere() as connection:
        connection.execute(insert(table.Visit).values(site='page', number=7, seen=99))
    columns = {'site': literal('page'), 'number': table.Page.id, 'seen': table.Page.seen}
    table.run(CopyTable('copy', table.Page, table.Visit, columns, batch_size=100))
    assert table.states('copy') == ['done']
    assert table.seen(table.Visit) == {0: ROWS - 1, 99: 1}


@sqlite
def test_ready_made_ones_name_what_they_do_not_take(table):
    with pytest.raises(TypeError, match='batchsize'):
        FillColumn('fill', table.Page.slug, 'x', batchsize=5)
    with pytest.raises(TypeError, match='filter'):
        DeleteRows('delete', table.Page, None)
    with pytest.raises(TypeError, match='number of visit'):
        CopyTable('copy', table.Page, table.Visit, {'site': table.Page.title})


@mongodb
def test_a_field_is_renamed(table):
    table.fill(ROWS)
    table.run(RenameField('rename', table.Page, 'title', 'name', batch_size=100))
    assert table.states('rename') == ['done']
    assert table.db.page.count_documents({'name': {'$exists': True}, 'title': {'$exists': False}}) == ROWS


@mongodb
def test_a_field_is_converted(table):
    table.fill(ROWS)
    convert = ConvertField('convert', 'page', 'seen', str, {'seen': {'$type': 'int'}}, batch_size=100)
    table.run(convert)
    assert table.states('convert') == ['done']
    assert {document['seen'] for document in table.db.page.find()} == {'0'}


@mongodb
def test_documents_are_deleted(table):
    table.fill(ROWS)
    table.run(DeleteDocuments('delete', 'page', {'_id': {'$gt': 50}}, batch_size=100))
    assert sum(table.seen().values()) == 50


# -- transactions of MongoDB


def raises_once(table, **attributes):
    """Its item 150 raises the first time, in the middle of the second batch, after others are written."""
    tried = []

    def process(self, page):
        if page['_id'] == 150 and not tried:
            tried.append(True)
            raise ValueError('not now')
        self.session.page.update_one({'_id': page['_id']}, {'$inc': {'seen': 1}})

    return batched(table, items='page', process=process, **attributes)


@mongodb
def test_a_batch_that_raises_leaves_nothing_of_itself(table):
    table.fill(ROWS)
    evolution = raises_once(table)
    assert table.run(evolution).gate.verdict.reason is Reason.FAILED
    assert 'the item with the key 150 raised ValueError' in table.error('count')
    assert table.seen() == {1: 100, 0: ROWS - 100}
    table.store.forgive(['count'])
    table.run(evolution)
    assert table.seen() == {1: ROWS}


def alone(table, monkeypatch):
    """A server that is a member of nothing, as a mongod is that was started without a replica set."""
    monkeypatch.setattr('tgext.evolve.stores.ming.has_transactions', lambda hello: False)
    return {}


@mongodb
@pytest.mark.parametrize('why', [alone, lambda table, monkeypatch: {'transactional_batches': False}])
def test_without_a_transaction_the_checkpoint_follows_the_batch(table, monkeypatch, why):
    table.fill(ROWS)
    evolution = raises_once(table, **why(table, monkeypatch))
    assert table.run(evolution).gate.verdict.reason is Reason.FAILED
    # The batch is there as far as it came, and begins anew.
    assert table.seen() == {1: 149, 0: ROWS - 149}
    assert table.store.checkpoints('count')[0].done == 100
    table.store.forgive(['count'])
    table.run(evolution)
    assert table.seen() == {2: 49, 1: ROWS - 49}
    with pytest.raises(PlanError, match='cannot be tried'):
        table.evolver(evolution).dry_run('count')


def test_only_servers_of_a_replica_set_or_behind_a_router_have_transactions():
    from tgext.evolve.stores.ming_transactions import has_transactions

    assert has_transactions({'setName': 'rs0'})
    assert has_transactions({'msg': 'isdbgrid'})
    assert not has_transactions({'isWritablePrimary': True})


@mongodb
def test_a_batch_that_lost_against_another_writer_is_tried_again(table):
    table.fill(ROWS)
    tried = []

    def process_batch(self, items):
        tried.append(items[0]['_id'])
        if tried == [1, 101]:
            # Somebody else, after this batch has read the page.
            other = threading.Thread(target=lambda: table.db.page.update_one({'_id': 150}, {'$inc': {'seen': 10}}))
            other.start()
            other.join()
        ids = [item['_id'] for item in items]
        self.session.page.update_many({'_id': {'$in': ids}}, {'$inc': {'seen': 1}})

    table.run(batched(table, items='page', process_batch=process_batch))
    assert table.states('count') == ['done']
    assert tried[:4] == [1, 101, 101, 201]
    assert table.seen() == {1: ROWS - 1, 11: 1}


@mongodb
def test_what_fetches_by_itself_is_in_the_transaction_too(table):
    table.fill(ROWS)
    tried = []

    def process(self, page):
        if page._id == 150 and not tried:
            tried.append(True)
            raise ValueError('not now')
        table.Page.query.update({'_id': page._id}, {'$inc': {'seen': 1}})

    def fetch(self, after, until, limit):
        return table.Page.query.find({'_id': {'$gt': after or 0}}).sort('_id').limit(limit).all()

    evolution = batched(table, items=None, fetch=fetch, key=lambda self, page: page._id, process=process)
    table.run(evolution)
    assert table.seen() == {1: 100, 0: ROWS - 100}
    table.store.forgive(['count'])
    table.run(evolution)
    assert table.seen() == {1: ROWS}


@mongodb
def test_threads_save_their_batches_in_transactions_of_their_own(table):
    table.fill(ROWS)
    evolution = batched(table, partitions=4, batch_size=20, executor=lambda self: ThreadPoolExecutor(4))
    table.run(evolution)
    assert table.states('count') == ['done']
    assert table.seen() == {1: ROWS}


@mongodb
def test_who_cannot_end_the_session_of_an_open_batch_waits_and_says_for_whom(table, monkeypatch, caplog):
    """A batch that lasts is left alone, and what it saves counts; the next one is refused."""
    table.fill(ROWS)
    successor = table.another_store()
    said = []

    def refused(noted):
        return 'it is not allowed to' if noted else None

    monkeypatch.setattr(successor, '_end_sessions', refused)

    def succeed():
        grant = take_over(successor)
        for _ in range(2):
            with pytest.raises(StoreBusy) as busy:
                successor.interrupt_older(grant)
            said.append(str(busy.value))
        return grant

    def process(self, page):
        if page._id == 150:
            # Not in the context of the batch, whose client alone may be used there.
            with ThreadPoolExecutor(1) as other:
                said.append(other.submit(succeed).result())
        if page._id == 250:
            # However fast the batches are: it learns of it before they are all done.
            until(lambda: 'was lost' in caplog.text)
        page.seen += 1

    ended = table.evolver(batched(table, process=process)).run()
    assert ended is Ended.TAKEN
    first, _, grant = said
    assert f':{os.getpid()} holds its checkpoint, and its session could not be ended: it is not allowed to' in first
    # Marked at its first try; what it returns is complete all the same.
    assert [attempt.evolution_id for attempt in successor.interrupt_older(grant)] == ['count']
    # Until then it went on, and what it saved counts.
    reached = table.store.history().latest('count').reached
    assert 200 <= reached <= 300
    assert table.seen() == {1: reached, 0: ROWS - reached}
    successor.close()


@mongodb
def test_who_takes_over_ends_the_session_of_an_open_batch_and_none_else(table):
    table.fill(ROWS)
    bystander = table.db.client.start_session()
    bystander.start_transaction()
    table.db.page.update_one({'_id': ROWS}, {'$inc': {'seen': 5}}, session=bystander)
    taken = []

    def process(self, page):
        if page._id == 150 and not taken:
            with ThreadPoolExecutor(1) as other:
                taken.append(other.submit(depose, table).exception())
        page.seen += 1

    ended = table.evolver(batched(table, process=process)).run()
    assert taken == [None]
    assert ended is Ended.TAKEN
    assert table.seen() == {1: 100, 0: ROWS - 100}
    assert table.store.history().latest('count').reached == 100
    bystander.commit_transaction()
    assert table.seen() == {1: 100, 0: ROWS - 101, 5: 1}
