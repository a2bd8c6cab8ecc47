"""A database of 0.0.5 is taken over, or says why it is not; and what its users wrote still works."""

from __future__ import annotations

import logging

import pytest
import sqlalchemy
import tg
import transaction
from sqlalchemy import text

import tgext.evolve
from tests import apps
from tgext.evolve.errors import LeaseTaken, OptionError
from tgext.evolve.stores.base import Owner


@pytest.fixture
def old(url):
    """Makes the table of 0.0.5 with these rows, and reads it."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    class Old:
        def make(self, **rows):
            with engine.begin() as connection:
                connection.execute(
                    text('CREATE TABLE tgext_evolve (type VARCHAR(16) PRIMARY KEY, value VARCHAR(255) NOT NULL)')
                )
                for kind, value in rows.items():
                    connection.execute(text('INSERT INTO tgext_evolve VALUES (:k, :v)'), {'k': kind, 'v': value})

        def rows(self):
            with engine.connect() as connection:
                return dict(connection.execute(text('SELECT type, value FROM tgext_evolve')).all())

        def unlock(self):
            with engine.begin() as connection:
                connection.execute(text("DELETE FROM tgext_evolve WHERE type = 'lock'"))

    return Old()


def plan():
    return [apps.evolution(id) for id in ('one', 'two', 'three')]


def test_everything_up_to_its_version_counts_as_done(site, url, old, caplog):
    old.make(version='two')
    evolutions = plan()
    caplog.set_level(logging.WARNING, 'tgext.evolve')
    started = site(url, evolutions)
    assert started.opens()
    assert [evolution.runs for evolution in evolutions] == [0, 0, 1]
    assert started.history() == {'one': 'imported', 'two': 'imported', 'three': 'done'}
    assert old.rows() == {'version': 'two'}
    assert "'one', 'two'" in caplog.text
    assert 'unstamp' in caplog.text


def test_the_order_of_0_0_5_is_the_one_of_the_option_as_written(site, url, old):
    old.make(version='two')
    evolutions = [
        apps.evolution('one', depends_on=('three',)),
        apps.evolution('two', serving='everything'),
        apps.evolution('three', depends_on=()),
    ]
    started = site(url, evolutions)
    assert started.opens()
    assert started.history() == {'one': 'imported', 'two': 'imported', 'three': 'done'}


def test_what_was_registered_elsewhere_is_not_covered_by_its_version(site, url, old):
    old.make(version='three')
    extra = apps.evolution('extra')
    model = apps.Model()
    base_config = apps.configurator(model)
    tgext.evolve.register(base_config, [extra])
    tgext.evolve.plugme(base_config, {'evolutions': plan(), 'watch': 0, 'poll': 0.02})
    app = base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url})
    started = site.adopt(app)
    assert started.opens()
    assert extra.runs == 1


def test_one_that_never_ran_is_made_pending_by_unstamp(site, url, old):
    old.make(version='two')
    evolutions = plan()
    started = site(url, evolutions)
    assert started.opens()
    tgext.evolve.unstamp(started.conf, ['one'])
    again = site(url, evolutions)
    assert again.opens()
    assert [evolution.runs for evolution in evolutions] == [1, 0, 1]


def test_an_unknown_version_keeps_the_gate_closed_and_says_what_to_type(site, url, old, caplog):
    old.make(version='gone')
    evolutions = plan()
    started = site(url, evolutions)
    started.get('/')
    verdict = started.becomes('predecessor')
    assert "'gone'" in verdict.detail
    assert 'gearbox evolve adopt ID' in verdict.detail
    assert 'gearbox evolve stamp ID' in verdict.detail
    assert 'gone' not in started.get('/').text + started.get('/_evolve/status').text
    assert [evolution.runs for evolution in evolutions] == [0, 0, 0]
    assert tgext.evolve.adopt(started.conf, version='one') == ['one']
    assert started.gate.wait(10)
    assert [evolution.runs for evolution in evolutions] == [0, 1, 1]


def test_adopting_an_unknown_version_records_nothing_and_says_so(site, url, old):
    old.make(version='gone')
    started = site(url, plan())
    with pytest.raises(OptionError, match="there is no evolution 'two-and-a-half' in the evolutions option") as raised:
        tgext.evolve.adopt(started.conf, version='two-and-a-half')
    assert raised.value.place == "namespace 'testapp'"
    assert raised.value.remedy == 'Name the last one that ran, as written there.'
    assert started.history() == {}


def test_that_somebody_took_the_lease_is_no_consent(site, url, old):
    """A person who adopts, or a release that knows the version, takes it a moment before it records."""
    old.make(version='gone')
    evolutions = plan()
    started = site(url, evolutions)
    store = started.evolver.store
    store.prepare()
    store.release(store.acquire(Owner(), 10))
    started.get('/')
    started.becomes('predecessor')
    assert [evolution.runs for evolution in evolutions] == [0, 0, 0]


def test_a_lock_that_was_left_keeps_the_gate_closed_and_says_what_to_type(site, url, old):
    old.make(lock='4711', version='two')
    evolutions = plan()
    started = site(url, evolutions)
    started.get('/')
    verdict = started.becomes('predecessor')
    assert '4711' in verdict.detail
    assert 'gearbox evolve unlock' in verdict.detail
    with pytest.raises(LeaseTaken, match='4711'):
        tgext.evolve.adopt(started.conf)
    assert tgext.evolve.adopt(started.conf, ignore_lock=True) == ['one', 'two']
    assert started.gate.wait(10)
    assert [evolution.runs for evolution in evolutions] == [0, 0, 1]
    assert old.rows() == {'lock': '4711', 'version': 'two'}


def test_a_lock_of_a_first_run_that_was_killed_can_be_ignored_too(site, url, old):
    old.make(lock='4711')
    started = site(url, plan())
    started.get('/')
    started.becomes('predecessor')
    assert tgext.evolve.adopt(started.conf, ignore_lock=True) == []
    assert started.gate.wait(10)
    assert set(started.history().values()) == {'done'}


def test_a_process_of_0_0_5_that_still_runs_is_waited_for(site, url, old):
    old.make(lock='4711', version='one')
    started = site(url, plan())
    started.get('/')
    started.becomes('predecessor')
    old.unlock()
    assert started.gate.wait(10)
    assert started.history() == {'one': 'imported', 'two': 'done', 'three': 'done'}


def test_stamp_needs_no_run_at_all(site, url):
    evolutions = plan()
    started = site(url, evolutions)
    assert tgext.evolve.stamp(started.conf) == ['one', 'two', 'three']
    assert started.get('/').status_int == 200
    assert [evolution.runs for evolution in evolutions] == [0, 0, 0]


# -- what its users wrote


def test_an_evolution_with_an_engine_of_its_own_runs_ddl_while_ours_runs(site, url):
    def work(evolution):
        engine = sqlalchemy.create_engine(tg.config.get('sqlalchemy.url'))
        metadata = sqlalchemy.MetaData()
        sqlalchemy.Table('made_by_evolution', metadata, sqlalchemy.Column('id', sqlalchemy.Integer, primary_key=True))
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(text('INSERT INTO made_by_evolution VALUES (1)'))
        engine.dispose()

    started = site(url, [apps.evolution('ddl', work)])
    assert started.opens()
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        assert connection.execute(text('SELECT id FROM made_by_evolution')).all() == [(1,)]


def test_orm_objects_that_are_flushed_and_committed_by_hand_are_saved(site, url):
    model = apps.Model()
    model.metadata.create_all(sqlalchemy.create_engine(url))

    def work(evolution):
        model.DBSession.add(model.Page(title='by hand'))
        model.DBSession.flush()
        transaction.commit()

    started = site(url, [apps.evolution('orm', work)], model=model)
    assert started.opens()
    assert [page.title for page in model.DBSession.query(model.Page)] == ['by hand']
    model.DBSession.remove()


def test_plugging_through_tgext_pluggable_with_its_own_options(site, url):
    from tgext.pluggable import plug

    model = apps.Model()
    base_config = apps.configurator(model)
    evolution = apps.evolution('plugged')
    plug(base_config, 'tgext.evolve', evolutions=[evolution], global_models=True, watch=0, poll=0.02)
    started = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url}))
    assert started.opens()
    assert evolution.runs == 1


def test_an_object_that_only_looks_like_an_evolution_runs(site, url):
    class Duck:
        evolution_id = 7
        runs = 0

        def evolve(self):
            Duck.runs += 1

    started = site(url, [Duck()])
    assert started.opens()
    assert started.history() == {'7': 'done'}


@pytest.mark.parametrize('word', ['false', 'False', 'no', 'off', '0', False])
def test_enabled_false_sets_nothing_up(site, url, word):
    evolution = apps.evolution('never')
    started = site(url, [evolution], ini={'tgext.evolve.enabled': word})
    assert started.evolver is None
    assert started.get('/').status_int == 200
    assert started.get('/_evolve/ready').status_int == 404
    assert evolution.runs == 0
    assert tgext.evolve.stamp(started.conf) == []
    assert tgext.evolve.is_open(started.conf)


# -- the same on MongoDB


@pytest.fixture(params=['mongodb', 'mim'])
def mongo(request):
    """The database that ``ming.url`` and ``ming.db`` name."""
    if request.param == 'mim':
        from ming import mim

        mim.Connection.get().drop_all()
        yield {'ming.url': 'mim:///', 'ming.db': 'old'}, mim.Connection.get()['old']
        return
    import pymongo

    url = request.getfixturevalue('mongodb_server').new_database()
    server, _, name = url.rpartition('/')
    with pymongo.MongoClient(url) as client:
        yield {'ming.url': server + '/', 'ming.db': name}, client[name]


class MingModel:
    """A model module on Ming."""

    def __init__(self):
        from ming import Session
        from ming.odm import ThreadLocalODMSession

        self.session = Session()
        self.DBSession = ThreadLocalODMSession(self.session)

    def init_model(self, datastore):
        self.session.bind = datastore
        return self.DBSession


def ming_configurator(model):
    base_config = apps.configurator()
    base_config.update_blueprint({'use_ming': True, 'model': model})
    return base_config


def ming_site(site, model, ini, evolutions):
    base_config = ming_configurator(model)
    tgext.evolve.plugme(base_config, {'evolutions': evolutions, 'watch': 0, 'poll': 0.02})
    return site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', **ini}))


def test_the_document_of_0_0_5_is_imported(site, mongo):
    ini, database = mongo
    database.tgext_evolve.insert_many([{'type': 'lock', 'process': None}, {'type': 'version', 'current': 'two'}])
    evolutions = plan()
    started = ming_site(site, MingModel(), ini, evolutions)
    assert started.opens()
    assert [evolution.runs for evolution in evolutions] == [0, 0, 1]
    assert started.history() == {'one': 'imported', 'two': 'imported', 'three': 'done'}
    assert database.tgext_evolve.count_documents({}) == 2


def test_a_lock_document_that_was_left_keeps_the_gate_closed(site, mongo):
    ini, database = mongo
    database.tgext_evolve.insert_many([{'type': 'lock', 'process': 4711}, {'type': 'version', 'current': 'two'}])
    started = ming_site(site, MingModel(), ini, plan())
    started.get('/')
    assert '4711' in started.becomes('predecessor').detail
    tgext.evolve.adopt(started.conf, ignore_lock=True)
    assert started.gate.wait(10)


def test_a_ming_evolution_drops_and_ensures_indexes_and_flushes(site, mongo):
    from ming import schema
    from ming.odm import FieldProperty, MappedClass, ThreadLocalODMSession, mapper

    ini, database = mongo
    model = MingModel()

    class Thing(MappedClass):
        class __mongometa__:
            session = model.DBSession
            name = 'thing'
            indexes = [('name',)]

        _id = FieldProperty(schema.ObjectId)
        name = FieldProperty(str)

    def reindex(evolution):
        indexed = mapper(Thing).collection.m
        indexed.ensure_indexes()
        database.thing.drop_indexes()
        indexed.ensure_indexes()
        Thing(name='flushed by hand')
        ThreadLocalODMSession.flush_all()
        Thing(name='left in the session')

    started = ming_site(site, model, ini, [apps.evolution('reindex', reindex)])
    assert started.opens()
    assert sorted(document['name'] for document in database.thing.find()) == ['flushed by hand', 'left in the session']
    assert [('name', 1)] in [list(index['key']) for index in database.thing.index_information().values()]


def test_transactional_is_refused_on_mongodb(mongo):
    ini, _ = mongo
    base_config = ming_configurator(MingModel())
    tgext.evolve.plugme(base_config, {'evolutions': [apps.evolution('it', transactional=True)]})
    with pytest.raises(tgext.evolve.PlanError, match=r"'it' is transactional.*for batches only"):
        base_config.make_wsgi_app({}, {'debug': 'false', **ini})
