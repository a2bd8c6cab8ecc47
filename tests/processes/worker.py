"""The application that the tests start in processes of its own: all that it does is set in a JSON file.

``EVOLVE_SETTINGS`` names that file; see :class:`tests.processes.harness.Site` for who writes it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import transaction
from sqlalchemy import text, update
from tg import TGController, expose

import tgext.evolve
from tests import apps
from tgext.evolve import BatchedEvolution, Evolution
from tgext.evolve.points import at_points, point

#: Rows of the page table, or documents of the page collection; each evolution adds 1 to each of them.
ROWS = 10


def settings() -> dict:
    return json.loads(Path(os.environ['EVOLVE_SETTINGS']).read_text())


def note(event: str, about: str = '-') -> None:
    """Tell the test, in one write: processes that die leave whole lines."""
    line = f'{event} {about} {os.getpid()} {time.monotonic():.3f}\n'.encode()
    witness = os.open(settings()['witness'], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(witness, line)
    os.close(witness)


def wait_for_file(name: str) -> None:
    path = Path(settings()['directory'], name)
    while not path.exists():
        time.sleep(0.01)


class Rows:
    """What evolutions change, in whichever database."""

    def __init__(self, kind):
        self.kind = kind
        if kind == 'sql':
            self.model = apps.Model()
        else:
            from ming import Session
            from ming.odm import ThreadLocalODMSession

            self.model = self
            self._session = Session()
            self.DBSession = ThreadLocalODMSession(self._session)

    def init_model(self, datastore):
        self._session.bind = datastore
        return self.DBSession

    def count(self, rows):
        for row in rows:
            if self.kind == 'sql':
                page = self.model.Page
                self.model.DBSession.execute(update(page).where(page.id == row).values(seen=page.seen + 1))
            else:
                self.DBSession.db.page.update_one({'_id': row}, {'$inc': {'seen': 1}})

    def lock(self):
        page = self.model.Page
        self.model.DBSession.execute(update(page).values(seen=page.seen))

    def commit(self):
        if self.kind == 'sql':
            transaction.commit()


rows: Rows | None = None

#: What the method of an evolution returns in a process that it forked.
CHILD = object()


class Step(Evolution):
    """Adds 1 to each row, and between the two halves does what the test wants.

    :param go: the file that a held evolution waits for.
    :param go_child: the file that the child of an evolution waits for.
    """

    def __init__(self, id, does='count', go='go', go_child='go', **attributes):
        self.evolution_id = id
        self.does = does
        self.go = go
        self.go_child = go_child
        vars(self).update(attributes)

    def evolve(self):
        note('begin', self.evolution_id)
        self._count(1, ROWS // 2)
        note('half', self.evolution_id)
        if getattr(self, self.does)() is CHILD:
            return  # without a word to the database: the connection is the parent's
        self._count(ROWS // 2 + 1, ROWS)
        note('end', self.evolution_id)

    def _count(self, first, last):
        rows.count(range(first, last + 1))
        if not self.transactional:
            rows.commit()

    def count(self):
        pass

    def hold(self):
        wait_for_file(self.go)

    def lock(self):
        """Is held with rows locked, whatever kind of evolution it is; if it is no transactional one, then without."""
        rows.lock()
        note('level', rows.model.DBSession.connection().get_isolation_level().replace(' ', '-'))
        note('locked', self.evolution_id)
        wait_for_file(self.go)
        if not self.transactional:
            rows.commit()
            note('unlocked', self.evolution_id)
            wait_for_file(f'{self.go}-on')

    def linger(self):
        """Takes a moment, in which it can be killed."""
        time.sleep(0.1)

    def statement(self):
        """Executes SQL in the middle of its own work."""
        rows.model.DBSession.execute(text(self.sql))

    def tick(self):
        """Goes on writing without asking anybody."""
        path = Path(settings()['directory'], self.go)
        while not path.exists():
            note('tick', self.evolution_id)
            time.sleep(0.05)

    def query(self):
        """Runs the statement in the file ``statement``: the database works, and the process waits for its answer."""
        from sqlalchemy import text

        note('query', self.evolution_id)
        rows.model.DBSession.execute(text(Path(settings()['directory'], 'statement').read_text()))

    def tell(self):
        path = Path(settings()['directory'], self.go)
        done = 0
        while not path.exists():
            self.progress(done, 1000)
            done += 1
            time.sleep(0.01)

    def fail(self):
        raise ValueError('this evolution fails')

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def exit(self):
        os._exit(3)

    def _child(self):
        """In a process that the evolution made: stays for longer than a lease, and reports."""
        note('child', self.evolution_id)
        wait_for_file(self.go_child)
        self.progress(1)
        note('child-end', self.evolution_id)

    def fork(self):
        child = os.fork()
        if not child:
            self._child()
            os._exit(0)
        os.waitpid(child, 0)

    def fork_and_exit(self):
        child = os.fork()
        if not child:
            self._child()
            sys.exit(0)
        os.waitpid(child, 0)

    def fork_and_return(self):
        child = os.fork()
        if not child:
            self._child()
            return CHILD
        os.waitpid(child, 0)
        return None

    def spawn(self):
        import multiprocessing

        child = multiprocessing.get_context('fork').Process(target=self._child)
        child.start()
        child.join()
        assert child.exitcode == 0

    def terminate(self):
        import multiprocessing

        child = multiprocessing.get_context('fork').Process(target=self._child)
        child.start()
        # Not before it runs: Python forgets signals for which it has a handler and that come in the middle of a fork.
        wait_for_file(self.go)
        child.terminate()
        child.join()
        note(f'exitcode{child.exitcode}', self.evolution_id)


class Batches(BatchedEvolution):
    """Adds 1 to each row, one row in a batch unless the test wants more.

    :param threads: how many threads partitions run on; None: none but that of the evolution.
    :param seconds: from one batch to the next.
    """

    batch_size = 1

    def __init__(self, id, threads=None, seconds=0.0, **attributes):
        self.evolution_id = id
        self.threads = threads
        self.seconds = seconds
        vars(self).update(attributes)
        self.items = rows.model.Page if rows.kind == 'sql' else 'page'

    def evolve(self):
        note('begin', self.evolution_id)
        super().evolve()
        note('end', self.evolution_id)

    def process_batch(self, items):
        """By the database, which adds to what is there when it does so: whoever is late adds to what others did."""
        ids = [item.id if rows.kind == 'sql' else item['_id'] for item in items]
        note('batch', f'{ids[0]}-{ids[-1]}')
        point('in-batch')
        if rows.kind == 'sql':
            page = rows.model.Page
            change = update(page).where(page.id.between(ids[0], ids[-1])).values(seen=page.seen + 1)
            self.session.execute(change, execution_options={'synchronize_session': False})
        else:
            self.session.page.update_many({'_id': {'$in': ids}}, {'$inc': {'seen': 1}})

    def pause(self):
        point('between-batches')
        return self.seconds

    def executor(self):
        return None if self.threads is None else ThreadPoolExecutor(self.threads)


class Numbered(Batches):
    """Documents of MongoDB by their number, in closed ranges: those of a large collection take a while to be found."""

    def __init__(self, id, **attributes):
        super().__init__(id, **attributes)
        self.items = None

    def fetch(self, after, until, limit):
        first = (after or 0) + 1
        return list(rows.DBSession.db.page.find({'number': {'$gte': first, '$lt': first + limit}}).sort('number'))

    def key(self, item):
        return item['number']

    def count(self):
        return rows.DBSession.db.page.estimated_document_count()

    def process_batch(self, items):
        first, last = items[0]['number'], items[-1]['number']
        note('batch', f'{first}-{last}')
        point('in-batch')
        rows.DBSession.db.page.update_many({'number': {'$gte': first, '$lte': last}}, {'$inc': {'seen': 1}})


#: What a dictionary in a site's evolutions stands for, by its ``batched``.
KINDS = {False: Step, True: Batches, 'by number': Numbered}


class Root(TGController):
    @expose(content_type='text/plain')
    def index(self):
        note('served')
        return f'served {os.getpid()}'

    @expose(content_type='text/plain')
    def work(self):
        """Takes a moment, so that requests at the same time need several workers."""
        time.sleep(0.02)
        return f'served {os.getpid()}'


def evolutions(given: list) -> list:
    def one(each):
        if not isinstance(each, dict):
            return import_module(each)
        return KINDS[each.pop('batched', False)](**each)

    return [one(each) for each in given]


def _reached(points: dict):
    """What is done at a point: ``kill``, or wait for a file; ``kill 3``: when it is passed for the third time only."""
    passed = Counter()

    def reach(name: str) -> None:
        if name not in points:
            return
        action, _, number = points[name].partition(' ')
        passed[name] += 1
        if number and passed[name] != int(number):
            return
        note('point', name)
        if action == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        wait_for_file(action)

    return reach


def _own_handler(number, frame):
    note('handler')
    raise SystemExit(7)


def make(**ini):
    """The WSGI application."""
    global rows
    given = settings()
    note('make')
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format='%(process)d %(levelname)s %(name)s: %(message)s')
    logging.getLogger('tgext.evolve').setLevel(logging.INFO)
    if given.get('points'):
        at_points(_reached(given['points']))
    if given.get('handler') == 'before':
        signal.signal(signal.SIGTERM, _own_handler)
    elif given.get('handler') == 'ignore':
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    is_sql = not given['url'].startswith('mongodb')
    rows = Rows('sql' if is_sql else 'mongodb')
    base_config = apps.configurator(rows.model if is_sql else None, root=Root())
    if not is_sql:
        base_config.update_blueprint({'use_ming': True, 'model': rows})
    options = {'evolutions': evolutions(given['evolutions']), **given['options']}
    tgext.evolve.plugme(base_config, options)
    url = {'sqlalchemy.url' if is_sql else 'ming.url': given['url']}
    app = base_config.make_wsgi_app({}, {'debug': 'false', **url, **given.get('ini', {}), **ini})
    if given.get('handler') == 'after':
        signal.signal(signal.SIGTERM, _own_handler)
    note('made')
    return app


def make_app(global_conf, **app_conf):
    """The same, as PasteDeploy asks for it."""
    return make(**app_conf)
