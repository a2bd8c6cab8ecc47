"""An application with one batched evolution whose partitions are worked on elsewhere; it is made from an ini file.

Holders, processes of a pool and workers of a cluster all make it from the same file, as they do in production:

    python -m tests.batches.spread app.ini      runs what is pending, and says how that ended
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from importlib import import_module
from pathlib import Path

from tests import apps
from tgext.evolve import BatchedEvolution

#: Executors that a test brings, by name: only its own process hands out.
EXECUTORS = {}


class Count(BatchedEvolution):
    """Adds 1 to each row. At row ``stop`` the first that comes there says who it is, and waits for the file ``go``.

    :param meet_in: the directory where they meet.
    :param workers: ``threads``, ``processes``, ``forked``, the address of a Dask scheduler, or a name in EXECUTORS.
    :param effort: how often a digest is computed for each row.
    """

    evolution_id = 'count'

    def __init__(self, items, meet_in, workers, stop=0, effort=0, **attributes):
        self.items = items
        self._directory = Path(meet_in)
        self._workers = workers
        self._stop = int(stop)
        self._effort = int(effort)
        vars(self).update(attributes)

    def process(self, page):
        page.seen += 1
        id = getattr(page, 'id', None) or page._id
        if id == self._stop:
            self._meet()
        for _ in range(self._effort):
            hashlib.sha256(b'work' * 16).digest()

    def _meet(self):
        try:
            with open(self._directory / 'met', 'x') as met:
                met.write(f'{os.getpid()}\n')
        except FileExistsError:
            return
        while not (self._directory / 'go').exists():
            time.sleep(0.01)

    def executor(self):
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

        from tgext.evolve import executors

        if self._workers in EXECUTORS:
            return EXECUTORS[self._workers]()
        if self._workers == 'threads':
            return ThreadPoolExecutor(2)
        if self._workers == 'processes':
            return executors.processes(2)
        if self._workers == 'forked':
            import multiprocessing

            return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork'))
        return executors.dask(self._workers, timeout=3) if self._workers else None


class Ming:
    """Documents in place of rows."""

    def __init__(self):
        from ming import Session, schema
        from ming.odm import FieldProperty, MappedClass, ThreadLocalODMSession

        self._session = Session()
        self.DBSession = odm = ThreadLocalODMSession(self._session)

        class Page(MappedClass):
            class __mongometa__:
                name = 'page'
                session = odm

            _id = FieldProperty(schema.Int)
            seen = FieldProperty(schema.Int)

        self.Page = Page

    def init_model(self, datastore):
        self._session.bind = datastore
        return self.DBSession


def make_app(global_conf, **ini):
    """As PasteDeploy asks for it."""
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format='%(process)d %(levelname)s %(name)s: %(message)s')
    is_sql = 'sqlalchemy.url' in ini
    model = apps.Model() if is_sql else Ming()
    base_config = apps.configurator(model if is_sql else None)
    if not is_sql:
        base_config.update_blueprint({'use_ming': True, 'model': model})
    given = {key[len('count.') :]: ini.pop(key) for key in list(ini) if key.startswith('count.')}
    for name in {'partitions', 'batch_size'} & set(given):
        given[name] = int(given[name])
    for name in {'pause', 'timeout'} & set(given):
        given[name] = float(given[name])
    plugme = import_module('tgext.evolve').plugme
    plugme(base_config, {'evolutions': [Count(model.Page, **given)]})
    return base_config.make_wsgi_app({**global_conf}, ini)


def main(path):
    from paste.deploy import loadapp

    from tgext.evolve.finding import evolver_in

    evolver = evolver_in(loadapp(f'config:{path}'))
    evolver.start()
    while not evolver.gate.is_open:
        time.sleep(0.05)
    print('open', flush=True)


if __name__ == '__main__':
    main(sys.argv[1])
