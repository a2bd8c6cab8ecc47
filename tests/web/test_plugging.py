"""How tgext.evolve gets into an application, and what it says about mistakes."""

from __future__ import annotations

import re
import sys
import textwrap

import pytest
import sqlalchemy
from sqlalchemy import select, text
from tg import MinimalApplicationConfigurator

import tgext.evolve
from tests import apps
from tgext.evolve.errors import OptionError, PlanError, SourceError


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Writes modules that can be imported during the test."""
    monkeypatch.syspath_prepend(str(tmp_path / 'modules'))
    before = set(sys.modules)

    def write(**sources):
        for name, source in sources.items():
            path = tmp_path / 'modules' / (name.replace('__', '/') + '.py')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('from tgext.evolve import Evolution\n' + textwrap.dedent(source))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


EMPTY = """
class {name}(Evolution):
    evolution_id = '{id}'
    def evolve(self):
        pass
"""


def ids(site):
    return [planned.id for planned in site.evolver.plan]


# -- where evolutions come from


def test_entries_may_be_classes_instances_modules_packages_and_lists(site, url, modules):
    modules(
        one=EMPTY.format(name='A', id='one-a') + EMPTY.format(name='B', id='one-b'),
        pack__init__='',
        pack__m2=EMPTY.format(name='Two', id='pack-2'),
        pack__m1=EMPTY.format(name='One', id='pack-1'),
        explicit=EMPTY.format(name='X', id='x') + EMPTY.format(name='Y', id='y') + 'evolutions = [Y, X]\n',
    )
    entries = [apps.evolution('class'), apps.evolution('instance')(), 'one', 'pack', 'explicit', 'one.A']
    with pytest.raises(PlanError, match="two evolutions have the id 'one-a'"):
        site(url, entries)
    started = site(url, entries[:-1])
    assert ids(started) == ['class', 'instance', 'one-a', 'one-b', 'pack-1', 'pack-2', 'y', 'x']


def test_another_pluggable_registers_before_and_after(site, url):
    base_config = apps.configurator(apps.Model())
    tgext.evolve.register(base_config, [apps.evolution('before')])
    tgext.evolve.plugme(base_config, {'evolutions': [apps.evolution('own')], 'watch': 0})
    tgext.evolve.register(base_config, [apps.evolution('after')])
    tgext.evolve.register(base_config, [apps.evolution('again')])
    started = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url}))
    assert ids(started) == ['own', 'before', 'after', 'again']
    assert started.opens()


def test_installed_distributions_offer_evolutions_when_asked(site, url, modules, tmp_path):
    modules(offering=EMPTY.format(name='Offered', id='offered'))
    info = tmp_path / 'modules' / 'offering-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: offering\nVersion: 1.0\n')
    (info / 'entry_points.txt').write_text('[tgext.evolve.evolutions]\nsome = offering\n')
    assert ids(site(url)) == []
    assert ids(site(url, ini={'tgext.evolve.discover': 'true'})) == ['offered']
    (info / 'entry_points.txt').write_text('[tgext.evolve.evolutions]\nsome = not_there\n')
    with pytest.raises(SourceError, match=r'not_there.*tgext\.evolve\.discover = false|not_there'):
        site(url, ini={'tgext.evolve.discover': 'true'})


class NeedsParameters(tgext.evolve.Evolution):
    evolution_id = 'parameters'

    def __init__(self, old, new):
        pass


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        ('not.there', r"'not\.there' cannot be imported"),
        (NeedsParameters, r'NeedsParameters takes parameters.*Register an instance'),
        (42, r'42 is not an evolution'),
        (object, r'is not an evolution'),
    ],
)
def test_an_entry_that_is_no_evolution_is_named(url, entry, message):
    with pytest.raises(SourceError, match=message):
        apps.make(url, [entry])


@pytest.mark.parametrize(
    ('evolutions', 'message'),
    [
        ([apps.evolution('a', depends_on=('b',))], r"'a' depends on 'b', which no evolution provides"),
        (
            [apps.evolution('a', depends_on=('b',)), apps.evolution('b', depends_on=('a',))],
            r"depend on each other: 'a' -> 'b' -> 'a'|depend on each other: 'b' -> 'a' -> 'b'",
        ),
        ([apps.evolution('a'), apps.evolution('a')], r"two evolutions have the id 'a' \(in tests\.apps"),
        ([apps.evolution(' a')], r"' a' has"),
        ([apps.evolution('a' * 201)], r'201 characters'),
        ([apps.evolution('')], r'0 characters'),
        ([apps.evolution(None)], r'None, not a string'),
        ([apps.evolution('a', serving='nobody')], r"serving = 'nobody'"),
        ([apps.evolution('a', transactional='yes')], r"transactional = 'yes'"),
        ([apps.evolution('a', depends_on='b')], r"depends_on = 'b'.*tuple"),
    ],
)
def test_a_mistake_in_the_plan_is_an_error_when_the_application_is_configured(url, evolutions, message):
    with pytest.raises(PlanError, match=message):
        apps.make(url, evolutions)


# -- options


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('enabled', 'perhaps'),
        ('mode', 'foreground'),
        ('lease', 'ten'),
        ('lease', '0'),
        ('lease', 'nan'),
        ('poll', '-1'),
        ('poll', '60'),
        ('watch', '-5'),
        ('on_failure', 'ignore'),
        ('unknown', 'maybe'),
        ('max_attempts', '0'),
        ('max_attempts', '2.5'),
        ('retry_delay', 'soon'),
        ('retry_after', 'never'),
        ('bypass', '/'),
        ('bypass', '/a /../b'),
        ('health_path', 'no-slash'),
        ('store', 'oracle'),
        ('store', 'nonsense://x'),
        ('store', 'mongodb://localhost'),
        ('store', 'sqlite:///:memory:'),
        ('discover', '2'),
    ],
)
def test_a_bad_value_is_an_error_that_names_option_and_value(url, name, value):
    with pytest.raises(OptionError) as error:
        apps.make(url, ini={f'tgext.evolve.{name}': value})
    assert f'tgext.evolve.{name}' in str(error.value)
    assert error.value.remedy


def test_an_unknown_option_is_an_error_wherever_it_was_written(url):
    with pytest.raises(OptionError, match=r'no option tgext\.evolve\.pol.*Did you mean tgext\.evolve\.poll'):
        apps.make(url, options={'pol': 1})
    with pytest.raises(OptionError, match=r'no option tgext\.evolve\.enable.*enabled'):
        apps.make(url, ini={'tgext.evolve.enable': 'false'})


def test_what_tgext_pluggable_passes_on_is_accepted(url):
    own = {'appid': 'x', 'global_models': True, 'rename_tables': {}, 'plug_controller': False, 'plug_statics': True}
    app, _ = apps.make(url, options=own)
    assert app is not None


def test_the_ini_wins_over_what_is_written_in_the_code(site, url):
    started = site(url, options={'lease': 20, 'poll': 1}, ini={'tgext.evolve.lease': '30'})
    assert (started.evolver.options.lease, started.evolver.options.poll) == (30.0, 1.0)


def test_plugging_twice_is_an_error(url):
    base_config = apps.configurator(apps.Model())
    tgext.evolve.plugme(base_config, {})
    with pytest.raises(PlanError, match=r'plugged twice.*register'):
        tgext.evolve.plugme(base_config, {})


def test_nowhere_to_keep_the_history_is_an_error():
    with pytest.raises(OptionError, match=r'neither SQLAlchemy nor Ming.*tgext\.evolve\.store'):
        apps.make(None, [apps.evolution('a')])


@pytest.mark.parametrize(
    ('store', 'thing', 'remedy'),
    [
        ('mongodb://host:port/x', r'tgext\.evolve\.store is no MongoDB URL: .*', 'Use mongodb://host:port/database.'),
        ('mongodb://u:hunter2@host', r".*'mongodb://u:\*\*\*@host' names no database", 'Use mongodb://host:port/'),
        ('postgresql+nodriver://u:hunter2@host/x', r"tgext\.evolve\.store = '\S+': .*nodriver", 'install its driver'),
    ],
)
def test_a_store_that_cannot_be_used_is_an_error_that_says_why(store, thing, remedy):
    with pytest.raises(OptionError) as error:
        apps.make(None, [apps.evolution('a')], options={'store': store})
    assert re.fullmatch(thing, error.value.thing)
    assert error.value.place == 'the options of tgext.evolve'
    assert remedy in error.value.remedy
    assert 'hunter2' not in str(error.value)


@pytest.mark.parametrize(
    ('store', 'library', 'extra'),
    [
        ('sqlite:///evolve.db', 'tgext.evolve.stores.sqlalchemy', 'sqlalchemy'),
        ('mongodb://host/site', 'pymongo.uri_parser', 'ming'),
    ],
)
def test_a_store_whose_library_is_not_installed_names_the_extra(monkeypatch, store, library, extra):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(OptionError, match=r'tgext\.evolve\.store needs a library that is not installed: ') as error:
        apps.make(None, [apps.evolution('a')], options={'store': store})
    assert error.value.place == 'the options of tgext.evolve'
    assert error.value.remedy == f"Install it: pip install 'tgext.evolve[{extra}]'"


def test_a_source_that_asks_the_database_of_an_application_without_one_is_an_error(tmp_path):
    class Asking:
        def at(self, place):
            place.rows('SELECT 1')

    with pytest.raises(OptionError, match='the application has no SQL database') as error:
        apps.make(None, [Asking()], options={'store': f'sqlite:///{tmp_path}/evolve.db'})
    assert error.value.remedy == 'Set sqlalchemy.url, or remove that source.'


# -- other kinds of applications


def test_sqlite_in_memory_is_evolved_in_the_callers_thread(site):
    model = apps.Model()

    def work(evolution):
        model.metadata.create_all(model.engine)
        model.DBSession.execute(text("INSERT INTO page (title, seen) VALUES ('here', 0)"))

    started = site('sqlite:///:memory:', [apps.evolution('it', work)], model=model)
    assert started.get('/').status_int == 200
    assert model.DBSession.execute(select(model.Page.title)).scalars().all() == ['here']
    model.DBSession.remove()


def test_a_minimal_application_gives_a_store_of_its_own(site, url):
    base_config = MinimalApplicationConfigurator()
    base_config.update_blueprint(
        {
            'package': apps.package(),
            'root_controller': apps.Root(),
            'renderers': ['json'],
            'paths': {'static_files': None, 'root': '.', 'controllers': '.', 'templates': ['.']},
        }
    )
    evolution = apps.evolution('it')
    tgext.evolve.plugme(base_config, {'evolutions': [evolution], 'store': url, 'watch': 0, 'poll': 0.02})
    started = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false'}))
    assert started.opens()
    assert started.get('/').text == 'served'
    assert started.history() == {'it': 'done'}


def test_a_master_with_slaves_is_evolved_on_the_master(site, tmp_path):
    from tg.configuration.sqla.balanced_session import BalancedSession

    master, slave = (f'sqlite:///{tmp_path}/{name}.db' for name in ('master', 'slave'))
    model = apps.Model(class_=BalancedSession)
    for url in (master, slave):
        model.metadata.create_all(sqlalchemy.create_engine(url))

    def insert(title):
        return lambda evolution: model.DBSession.execute(
            text('INSERT INTO page (title, seen) VALUES (:title, 0)'), {'title': title}
        )

    started = site(
        None,
        [apps.evolution('plain', insert('plain')), apps.evolution('tx', insert('tx'), transactional=True)],
        ini={'sqlalchemy.master.url': master, 'sqlalchemy.slaves.one.url': slave},
        model=model,
    )
    assert started.opens()

    def titles(url):
        with sqlalchemy.create_engine(url).connect() as connection:
            return sorted(connection.execute(select(model.Page.title)).scalars())

    assert titles(master) == ['plain', 'tx']
    assert titles(slave) == []
    assert 'tgext_evolve_history' not in sqlalchemy.inspect(sqlalchemy.create_engine(slave)).get_table_names()


def test_a_store_of_its_own_beside_the_session_loses_no_raw_sql(site, url, tmp_path):
    model = apps.Model()
    model.metadata.create_all(sqlalchemy.create_engine(url))

    def work(evolution):
        model.DBSession.execute(text("INSERT INTO page (title, seen) VALUES ('raw', 0)"))

    elsewhere = f'sqlite:///{tmp_path}/elsewhere.db'
    started = site(url, [apps.evolution('it', work)], model=model, options={'store': elsewhere})
    assert started.opens()
    with sqlalchemy.create_engine(url).connect() as connection:
        assert connection.execute(select(model.Page.title)).scalars().all() == ['raw']
    assert sqlalchemy.inspect(sqlalchemy.create_engine(url)).get_table_names() == ['page']
    with pytest.raises(PlanError, match=r"'tx' is transactional.*not the database of the application's session"):
        apps.make(url, [apps.evolution('tx', transactional=True)], options={'store': elsewhere})
