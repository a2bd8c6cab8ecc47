"""Revisions of alembic as evolutions: what ``gearbox migrate`` does and what we do agree, in both directions."""

from __future__ import annotations

import logging
import random
import sys
import types
from pathlib import Path

import pytest
import tg
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

import tgext.evolve
from tests import apps
from tests.processes.harness import until
from tests.sources.projects import contents, execute
from tests.sources.repositories import ALL, ENV, OLD, REVISIONS, Project
from tgext.evolve.component import EVOLVER
from tgext.evolve.evolver import Ended
from tgext.evolve.history import State
from tgext.evolve.sources.alembic import AlembicRevisions

SQL = pytest.mark.parametrize('kind', ['sqlite', 'postgresql', 'mariadb'])


@pytest.fixture
def kind():
    return 'sqlite'


@pytest.fixture
def project(request, kind, tmp_path):
    """Makes projects, each in a directory and on a database of its own, or on the one of another."""

    def make(revisions=ALL, *, url=None, **options):
        number = sum(1 for each in tmp_path.iterdir() if each.is_dir())
        directory = tmp_path / f'project{number}'
        directory.mkdir()
        if url is None and kind == 'sqlite':
            url = f'sqlite:///{directory}/app.db'
        return Project(directory, url or request.getfixturevalue(f'{kind}_server').new_database(), revisions, **options)

    return make


@pytest.fixture
def original(project):
    """What is there after ``gearbox migrate upgrade heads``."""
    theirs = project()
    theirs.migrate('upgrade', 'heads')
    return contents(theirs.url)


def states(evolver):
    return {entry.id.partition(':')[2]: entry.state for entry in evolver.overview().entries}


def pending(evolver):
    return [id for id, state in states(evolver).items() if state == 'pending']


def errors(evolver):
    history = evolver.store.history()
    return [evolver.store.error_of(each) for each in history.attempts if each.state is State.FAILED]


# -- the same in both directions


@SQL
def test_from_nothing_it_comes_to_the_same_as_gearbox_migrate(project, original):
    ours = project()
    evolver = ours.evolver()
    assert evolver.run() is Ended.DONE
    assert contents(ours.url) == original
    assert set(states(evolver).values()) == {'done'}
    before = contents(ours.url)
    ours.migrate('upgrade', 'heads')
    ours.migrate('db_version')
    assert contents(ours.url) == before


@pytest.mark.parametrize('middle', ALL)
def test_what_gearbox_migrate_began_is_finished_here(project, original, middle):
    ours = project()
    ours.migrate('upgrade', middle)
    evolver = ours.evolver()
    begun = {id for id, state in states(evolver).items() if state == 'applied'}
    assert middle in begun
    assert evolver.run() is Ended.DONE
    assert contents(ours.url) == original
    assert {id for id, state in states(evolver).items() if state == 'applied'} == begun


@pytest.mark.parametrize('middle', ALL)
def test_what_was_begun_here_is_finished_by_gearbox_migrate(project, original, middle):
    ours = project()
    evolver = ours.evolver()
    assert evolver.run(until=f'alembic:{middle}') is Ended.DONE
    ours.migrate('upgrade', 'heads')
    assert contents(ours.url) == original
    assert pending(evolver) == []
    assert ours.evolver().gate.is_open


@SQL
def test_the_middle_on_each_database(project, original):
    theirs, ours = project(), project()
    theirs.migrate('upgrade', 'left')
    assert theirs.evolver().run() is Ended.DONE
    assert ours.evolver().run(until='alembic:merge') is Ended.DONE
    ours.migrate('upgrade', 'heads')
    assert contents(theirs.url) == contents(ours.url) == original


def test_in_whatever_order_revisions_are_applied_the_version_table_says_which(project):
    # As several releases with data evolutions in between would order them.
    chance = random.Random(4)
    for _ in range(4):
        evolver = project().evolver()
        [table] = evolver.plan.tables
        applied: set[str] = set()
        while len(applied) < len(evolver.plan):
            ready = [p for p in evolver.plan if p.id not in applied and applied.issuperset(p.depends_on)]
            chosen = chance.choice(ready)
            chosen.evolution.evolve()
            applied.add(chosen.id)
            assert table.look().applied == applied
        while applied:
            needed = {id for p in evolver.plan if p.id in applied for id in p.depends_on}
            chosen = chance.choice([p for p in evolver.plan if p.id in applied and p.id not in needed])
            chosen.evolution.revert()
            applied.remove(chosen.id)
            assert table.look().applied == applied


def test_a_late_branch_runs_by_itself(project, original):
    ours = project([name for name in ALL if name != 'log1'])
    assert ours.evolver().run() is Ended.DONE
    ours.write('log1', *REVISIONS['log1'])
    evolver = ours.evolver()
    assert pending(evolver) == ['log1']
    assert evolver.run() is Ended.DONE
    assert contents(ours.url) == original


@SQL
def test_a_downgrade_by_gearbox_migrate_makes_it_pending_again(project, original):
    ours = project()
    evolver = ours.evolver()
    evolver.run()
    ours.migrate('downgrade', 'merge')
    again = ours.evolver()
    assert pending(again) == ['c3']
    assert not again.gate.is_open
    assert 'its version table does not have it' in again.overview().find('alembic:c3').why
    assert again.run() is Ended.DONE
    assert contents(ours.url) == original
    assert [a.state for a in again.store.history().of('alembic:c3')] == [State.DONE, State.DONE]


# -- websetup


@pytest.mark.parametrize('first', ['websetup', 'evolve'])
def test_websetup_stamps_alembic_and_us_in_either_order(project, original, first):
    ours = project()
    data = apps.evolution('data')
    conf = ours.application(data)
    steps = [ours.stamp_head, lambda: tgext.evolve.stamp(conf)]
    for step in steps if first == 'websetup' else reversed(steps):
        step()
    assert contents(ours.url)['migrate_version'] == original['migrate_version']
    assert set(contents(ours.url)) == {'migrate_version'}
    evolver = ours.evolver(data)
    assert evolver.gate.is_open
    assert pending(evolver) == []
    assert data.runs == 0


def test_stamp_head_of_websetup_alone_is_enough_for_the_schema(project):
    ours = project()
    ours.stamp_head()
    evolver = ours.evolver(apps.evolution('data'))
    assert [entry.id for entry in evolver.overview().pending] == ['data']
    assert set(states(evolver).values()) == {'applied', 'pending'}


def test_what_is_stamped_here_is_known_to_gearbox_migrate(project):
    ours = project()
    conf = ours.application()
    tgext.evolve.stamp(conf, ['alembic:a1', 'alembic:b2', 'alembic:right'])
    assert contents(ours.url)['migrate_version'][1] == [('right',)]
    tgext.evolve.stamp(conf, ['alembic:left'])
    assert contents(ours.url)['migrate_version'][1] == [('left',), ('right',)]
    tgext.evolve.unstamp(conf, ['alembic:right', 'alembic:left', 'alembic:b2'])
    assert contents(ours.url)['migrate_version'][1] == [('a1',)]
    tgext.evolve.unstamp(conf, ['alembic:a1'])
    assert contents(ours.url)['migrate_version'][1] == []
    assert pending(conf[EVOLVER]) == [planned.id.partition(':')[2] for planned in conf[EVOLVER].plan]


def test_what_alembic_cannot_say_is_refused_with_what_to_type(project):
    ours = project()
    conf = ours.application()
    with pytest.raises(tgext.evolve.PlanError, match='gearbox evolve stamp alembic:b2 alembic:a1'):
        tgext.evolve.stamp(conf, ['alembic:b2'])
    tgext.evolve.stamp(conf)
    with pytest.raises(tgext.evolve.PlanError, match='gearbox evolve unstamp alembic:merge alembic:c3'):
        tgext.evolve.unstamp(conf, ['alembic:merge'])
    assert pending(conf[EVOLVER]) == []


# -- a database that is newer than the code


@pytest.mark.parametrize('rows', [('c3', 'log1'), ('merge',), ('left', 'right'), ('left',)])
def test_a_newer_database_is_served_and_said(project, caplog, rows):
    newer = project()
    for row in rows:
        newer.migrate('upgrade', row)
    older = project(OLD, url=newer.url)
    before = contents(newer.url)
    evolver = older.evolver()
    assert evolver.gate.is_open
    assert {entry.id for entry in evolver.overview().unknown} == {f'alembic:{row}' for row in rows}
    assert all(f'alembic:{row}' in caplog.text for row in rows)
    assert evolver.run() is Ended.DONE
    assert contents(newer.url) == before


def test_beside_a_newer_branch_what_is_above_a_known_one_still_runs(project):
    newer = project()
    newer.migrate('upgrade', 'log1')
    newer.migrate('upgrade', 'b2')
    older = project(('a1', 'b2', 'left', 'log0'), url=newer.url)
    evolver = older.evolver()
    assert states(evolver) == {'a1': 'applied', 'b2': 'applied', 'log0': 'applied', 'left': 'pending'}
    assert evolver.run() is Ended.DONE
    assert contents(newer.url)['migrate_version'][1] == [('left',), ('log1',)]


def test_a_newer_database_can_be_refused(project):
    newer = project()
    newer.migrate('upgrade', 'heads')
    evolver = project(OLD, url=newer.url).evolver(options={'unknown': 'refuse'})
    assert not evolver.gate.is_open
    assert evolver.gate.verdict.reason.value == 'unknown-evolutions'


# -- downgraded while it is served


def test_a_downgrade_of_what_is_served_is_taken_back_unless_evolutions_are_paused(project, original):
    ours = project()
    conf = ours.application(options={'watch': 0.1})
    evolver = conf[EVOLVER]
    evolver.start()
    try:
        assert evolver.gate.wait(30)
        tgext.evolve.pause(conf)
        ours.migrate('downgrade', 'merge')
        until(lambda: evolver.gate.verdict.reason.value == 'paused')
        assert not evolver.gate.is_open
        assert ('c3',) not in contents(ours.url)['migrate_version'][1]
        tgext.evolve.resume(conf)
        until(lambda: evolver.gate.is_open)
        assert contents(ours.url) == original
    finally:
        evolver.leave()
        assert evolver.join(30)


# -- failures


def test_a_failing_revision_is_recorded_and_stays(project, original):
    ours = project()
    good = (ours.folder / 'versions' / 'merge.py').read_text()
    broken = ours.write('merge', ('left', 'right'), up='raise ValueError("no merge today")')
    evolver = ours.evolver()
    assert evolver.run() is Ended.STUCK
    [error] = errors(evolver)
    assert 'no merge today' in error
    assert str(broken) in error
    assert states(evolver)['merge'] == 'failed'
    assert states(evolver)['c3'] == 'pending'
    _, rows = contents(ours.url)['migrate_version']
    assert {row[0] for row in rows} == {'left', 'right', 'log1'}
    assert ours.evolver().run() is Ended.STUCK
    assert len(errors(evolver)) == 1
    broken.write_text(good)  # other code: it runs again by itself
    assert ours.evolver().run() is Ended.DONE
    assert contents(ours.url) == original


def test_a_revision_that_failed_here_and_is_done_by_gearbox_migrate_is_done(project, original):
    ours = project()
    good = (ours.folder / 'versions' / 'merge.py').read_text()
    broken = ours.write('merge', ('left', 'right'), up='raise ValueError("no merge today")')
    ours.evolver().run()
    broken.write_text(good)
    ours.migrate('upgrade', 'heads')
    evolver = ours.evolver()
    assert evolver.gate.is_open
    assert pending(evolver) == []


# -- where env.py works


def test_an_env_that_works_elsewhere_is_found_out_before_it_does(project, tmp_path):
    elsewhere = f'sqlite:///{tmp_path}/elsewhere.db'
    ours = project(
        env=ENV.replace('config.get_section(config.config_ini_section)', f"{{'sqlalchemy.url': {elsewhere!r}}}")
    )
    evolver = ours.evolver()
    assert evolver.run() is Ended.STUCK
    [error] = errors(evolver)
    assert 'SourceError' in error
    assert elsewhere in error
    assert ours.url in error
    assert set(contents(elsewhere)) <= {'migrate_version'}
    assert 'page' not in contents(ours.url)


def test_an_env_that_runs_nothing_is_no_success(project):
    evolver = project(env='from alembic import context\n').evolver()
    assert evolver.run() is Ended.STUCK
    [error] = errors(evolver)
    assert 'did not run the revision at all' in error


def test_an_env_with_another_version_table_is_found_out(project):
    evolver = project().evolver(version_table='some_other')
    assert evolver.run() is Ended.STUCK
    [error] = errors(evolver)
    assert "AlembicRevisions('migration', version_table='migrate_version', version_table_schema=None)" in error


@pytest.mark.parametrize(
    ('said', 'name'),
    [
        ("version_table='photos_migrate'", 'photos_migrate'),
        ('version_table=TABLE', 'named_table'),
        ('', 'alembic_version'),
    ],
)
def test_the_version_table_is_the_one_of_env(project, said, name):
    env = 'TABLE = "named_table"\n' + ENV.replace("version_table='migrate_version'", said)
    ours = project(env=env)
    assert ours.evolver().run() is Ended.DONE
    assert name in contents(ours.url)
    assert ours.evolver().gate.is_open


def test_a_version_table_that_is_computed_has_to_be_said(project):
    ours = project(env=ENV.replace("version_table='migrate_version'", 'version_table="v".upper()'))
    with pytest.raises(tgext.evolve.SourceError, match=r'version_table=\.\.\.'):
        ours.evolver()
    assert ours.evolver(version_table='V').run() is Ended.DONE


def test_a_version_table_that_is_said_twice_has_to_be_said_once(project):
    ours = project(env=ENV + "\ndict(version_table='other')\n")
    with pytest.raises(
        tgext.evolve.SourceError, match=r'version_table cannot be read off .*, which computes it'
    ) as error:
        ours.evolver()
    assert error.value.place.startswith("AlembicRevisions('migration'")
    assert error.value.remedy == "Say it: AlembicRevisions('migration', version_table=...)"


def test_an_env_that_is_no_python_is_an_error(project):
    ours = project(env=ENV + '\nif so\n')
    with pytest.raises(tgext.evolve.SourceError, match=r'env\.py cannot be read: .*expected') as error:
        ours.evolver()
    assert error.value.place == str((ours.folder / 'env.py').resolve())


def test_an_env_may_ask_what_alembic_s_own_commands_tell_it(project, tmp_path):
    note = tmp_path / 'noted'
    ours = project(
        env=f'from pathlib import Path\nfrom alembic import context as c\n'
        f'told = c.get_revision_argument(), c.get_tag_argument(), c.get_x_argument(as_dictionary=True)\n'
        f'open({str(note)!r}, "a").write(repr(told) + "\\n")\n' + ENV
    )
    assert ours.evolver().run(until='alembic:a1') is Ended.DONE
    assert note.read_text().startswith("('a1', None, {})")


def test_sqlite_in_memory_is_refused_when_it_runs(project):
    evolver = project(url='sqlite:///:memory:').evolver()
    assert evolver.run() is Ended.STUCK
    assert 'lives in one connection' in errors(evolver)[0]


def test_env_has_the_options_of_the_application(project, tmp_path):
    note = tmp_path / 'noted'
    ours = project(
        env=f'from pathlib import Path\nfrom alembic import context as c\n'
        f'section = c.config.get_section(c.config.config_ini_section)\n'
        f'noted = section, c.config.config_file_name, c.config.get_main_option("my.option")\n'
        f'Path({str(note)!r}).write_text(repr(noted))\n' + ENV
    )
    ini = {'my.option': '100 % sure', 'sqlalchemy.pool_size': '5', 'sqlalchemy.echo': 'false'}
    connect_args = {'timeout': 7}
    conf = ours.application(ini=ini)
    conf['sqlalchemy.connect_args'] = connect_args
    [source] = [AlembicRevisions('migration').at(conf['tgext_evolve.databases'].place())]
    assert source.config.get_section('app:main')['sqlalchemy.connect_args'] == connect_args
    assert conf[EVOLVER].run() is Ended.DONE
    section, file, option = eval(note.read_text())
    assert section['sqlalchemy.url'] == ours.url
    assert 'sqlalchemy.pool_size' not in section
    assert file == str(ours.ini)
    assert option == '100 % sure'


def test_an_application_with_master_and_slaves_works_on_the_master(project, original):
    ours = project()
    model = apps.Model()
    base_config = apps.configurator(model)
    tgext.evolve.plugme(base_config, {'evolutions': [AlembicRevisions('migration')], 'watch': 0})
    urls = {f'sqlalchemy.{name}.url': ours.url for name in ('master', 'slaves.one')}
    base_config.make_wsgi_app({}, {'debug': 'false', 'here': str(ours.directory), **urls})
    assert tg.config._current_obj()[EVOLVER].run() is Ended.DONE
    assert contents(ours.url) == original


def test_an_env_that_configures_logging_does_not_touch_the_application_s(project, tmp_path, capsys):
    seen = []

    class Handler(logging.Handler):
        def emit(self, record):
            seen.append(record.getMessage())

    mine = logging.getLogger('an.application')
    mine.setLevel(logging.INFO)
    handler = Handler()
    root = logging.getLogger()
    root.addHandler(handler)
    before = root.handlers[:], root.level
    ours = project(
        env='from logging.config import fileConfig\nfrom alembic import context as c\n'
        'fileConfig(c.config.config_file_name)\n' + ENV
    )
    ours.ini.write_text(
        '[loggers]\nkeys=root\n[handlers]\nkeys=console\n[formatters]\nkeys=plain\n[formatter_plain]\nformat=%(message)s\n'
        '[logger_root]\nlevel=ERROR\nhandlers=console\n[handler_console]\nclass=StreamHandler\nargs=(sys.stdout,)\n'
    )
    ours.write(
        'a1', up='import logging\nlogging.getLogger("an.application").info("in the revision")\n' + REVISIONS['a1'][2]
    )
    try:
        assert ours.evolver().run() is Ended.DONE
        mine.info('afterwards')
        assert {'in the revision', 'afterwards'} <= set(seen)
        assert (root.handlers, root.level) == before
        assert not mine.disabled
    finally:
        root.removeHandler(handler)


def test_revisions_see_the_application_s_configuration_and_leave_it(project):
    ours = project()
    ours.write('a1', up='import tg\ntg.config["seen"].append(tg.config["sqlalchemy.url"])\n' + REVISIONS['a1'][2])
    conf = ours.application()
    conf['seen'] = []
    apps.make(f'sqlite:///{ours.directory}/other.db', name='other')
    after = tg.config._current_obj()
    assert conf[EVOLVER].run() is Ended.DONE
    assert conf['seen'] == [ours.url]
    assert tg.config._current_obj() is after


# -- dependencies between revisions and data evolutions


def slugs(url, id, **attributes):
    def work(evolution):
        execute(url, "UPDATE page SET slug = 'slug of ' || title")

    return apps.evolution(id, work, **attributes)


def test_data_evolutions_and_revisions_depend_on_each_other(project):
    ours = project()
    data = slugs(ours.url, 'slugs', depends_on=('alembic:b2',))
    evolver = ours.evolver(data, depends_on={'left': ('slugs',)})
    order = [planned.id for planned in evolver.plan]
    assert order.index('alembic:b2') < order.index('slugs') < order.index('alembic:left')
    assert evolver.run() is Ended.DONE
    assert data.runs == 1


def test_a_revision_file_can_say_what_it_waits_for_and_what_may_be_served(project):
    ours = project()
    extra = "tgext_evolve = {'depends_on': ('slugs',), 'serving': 'everything', 'rerunnable': False}"
    ours.write('c3', *REVISIONS['c3'], extra=extra)
    evolver = ours.evolver(slugs(ours.url, 'slugs', depends_on=('alembic:right',)), serving='reads')
    last = evolver.plan.find('alembic:c3')
    assert (last.serving.value, last.rerunnable) == ('everything', False)
    assert 'slugs' in last.depends_on
    assert evolver.plan.find('alembic:a1').serving.value == 'reads'
    assert [planned.id for planned in evolver.plan][-1] == 'alembic:c3'
    ours.migrate('upgrade', 'heads')  # which knows nothing of ours


def test_an_unknown_revision_in_depends_on_is_an_error_that_names_it(project):
    ours = project()
    with pytest.raises(tgext.evolve.SourceError, match='gone'):
        ours.evolver(depends_on={'gone': ('slugs',)})
    with pytest.raises(tgext.evolve.PlanError, match='alembic:gone'):
        ours.evolver(apps.evolution('data', depends_on=('alembic:gone',)))


# -- two repositories


def test_a_pluggable_has_revisions_of_its_own(project, tmp_path, monkeypatch):
    """As ``gearbox migrate-pluggable photos init`` writes them."""
    from tgext.pluggable.commands import alembic_migration

    template = Path(alembic_migration.__file__).parent / 'template' / 'env.py_tmpl'
    env = template.read_text().replace('{{tablename}}', 'photos_migrate')
    ours = project()
    package = tmp_path / 'photos'
    photos = Project(package, ours.url, (), env=env)
    (package / '__init__.py').touch()
    photos.write('p1', up="op.create_table('photo', {id})", down="op.drop_table('photo')")
    monkeypatch.syspath_prepend(tmp_path)
    base_config = apps.configurator(apps.Model())
    tgext.evolve.plugme(base_config, {'evolutions': [AlembicRevisions('migration')], 'watch': 0})
    tgext.evolve.register(base_config, [AlembicRevisions('photos:migration', name='alembic.photos')])
    conf = {'debug': 'false', 'here': str(ours.directory), 'sqlalchemy.url': ours.url}
    base_config.make_wsgi_app({}, conf)
    evolver = tg.config._current_obj()[EVOLVER]
    assert len(evolver.plan.tables) == 2
    assert evolver.plan.find('alembic.photos:p1') is not None
    assert evolver.run() is Ended.DONE
    found = contents(ours.url)
    assert found['photos_migrate'][1] == [('p1',)]
    assert len(found['migrate_version'][1]) == 2


def test_one_source_serves_several_applications(project):
    source = AlembicRevisions('migration')
    made = [project(), project()]
    for each in made:
        apps.make(each.url, [source], options={'watch': 0}, ini={'here': str(each.directory)})
        assert tg.config._current_obj()[EVOLVER].run() is Ended.DONE
    assert contents(made[0].url) == contents(made[1].url)


# -- what a start costs


def test_start_up_asks_the_history_and_the_version_table_once_each(project):
    ours = project()
    ours.evolver().run()
    with apps.statements() as seen:
        evolver = ours.evolver()
    assert evolver.gate.is_open
    assert len(seen) == 2
    assert sum('migrate_version' in statement for statement in seen) == 1
    assert all(statement.lstrip().upper().startswith('SELECT') for statement in seen)


def test_the_history_may_be_kept_elsewhere(project, original, tmp_path):
    ours = project()
    options = {'store': f'sqlite:///{tmp_path}/history.db'}
    assert ours.evolver(options=options).run() is Ended.DONE
    assert contents(ours.url) == original
    assert ours.evolver(options=options).gate.is_open
    ours.migrate('downgrade', 'merge')
    assert pending(ours.evolver(options=options)) == ['c3']


def test_revision_files_are_read_once(project):
    ours = project()
    ours.write('a1', *REVISIONS['a1'], extra='import tests.sources.test_alembic as t; t.imported.append(revision)')
    imported.clear()
    evolver = ours.evolver()
    evolver.run()
    evolver.look()
    assert imported == ['a1']


imported: list[str] = []


def test_nothing_stays_open_after_the_look(project, postgresql_server):
    url = postgresql_server.new_database()
    ours = project(url=url)
    ours.evolver()
    with create_engine(url, poolclass=NullPool).connect() as connection:
        count = 'SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()'
        assert connection.execute(text(count)).scalar() == 0


# -- mistakes, when the application is configured


def broken(text):
    return lambda ours: (ours.folder / 'versions' / 'x9.py').write_text(text)


MISTAKES = {
    'x9.py': broken('revision = "x9"\ndown_revision = None\nimport nothing_of_this_name\n'),
    'x9.py ': broken('revision = "x9"\ndown_revision = (\n'),
    'not present|gone': broken('revision = "x9"\ndown_revision = "gone"\ndef upgrade(): pass\n'),
    'more than once': broken('revision = "a1"\ndown_revision = None\ndef upgrade(): pass\n'),
    'upgrade': broken('revision = "x9"\ndown_revision = None\n'),
    'env.py': lambda ours: (ours.folder / 'env.py').unlink(),
    'tgext_evolve': broken(
        'revision = "x9"\ndown_revision = None\ntgext_evolve = {"depends": ()}\ndef upgrade(): pass\n'
    ),
    'tuple of ids': broken(
        'revision = "x9"\ndown_revision = None\ntgext_evolve = {"depends_on": "x"}\ndef upgrade(): pass\n'
    ),
    '[Cc]ycle': lambda ours: [ours.write('x8', ('x9',)), ours.write('x9', ('x8',))],
}


@pytest.mark.parametrize('words', MISTAKES)
def test_a_mistake_in_the_repository_is_named(project, words):
    ours = project()
    MISTAKES[words](ours)
    with pytest.raises(tgext.evolve.SourceError, match=words.strip()):
        ours.evolver()


def test_a_folder_that_is_not_there_is_said_with_where_it_was_looked_for(project):
    ours = project(folder='elsewhere')
    conf = {'here': str(ours.directory)}
    with pytest.raises(tgext.evolve.SourceError, match=f"no folder 'migration': neither {ours.directory}/migration"):
        apps.make(ours.url, [AlembicRevisions()], ini=conf)
    with pytest.raises(tgext.evolve.SourceError, match='no_such_package'):
        apps.make(ours.url, [AlembicRevisions('no_such_package:migration')], ini=conf)
    apps.make(ours.url, [AlembicRevisions(str(ours.folder))])


def test_the_folder_is_beside_the_project_where_the_ini_file_is_elsewhere(project, tmp_path):
    ours = project()
    package = types.ModuleType('theirs')
    package.__file__ = str(ours.directory / 'theirs' / '__init__.py')
    apps.make(ours.url, [AlembicRevisions('migration')], ini={'here': str(tmp_path)}, package=package)
    assert tg.config._current_obj()[EVOLVER].plan.find('alembic:a1') is not None


def test_an_application_without_sql_is_told_so(tmp_path):
    with pytest.raises(tgext.evolve.SourceError, match='has no SQL database'):
        apps.make(None, [AlembicRevisions('migration')], options={'store': f'sqlite:///{tmp_path}/evolve.db'})


def test_without_alembic_the_extra_is_named(project, monkeypatch):
    ours = project()
    monkeypatch.setitem(sys.modules, 'tgext.evolve.sources.revisions', None)
    with pytest.raises(tgext.evolve.SourceError, match=r'tgext\.evolve\[alembic\]'):
        ours.evolver()


def test_the_names_in_messages_are_files(project):
    ours = project()
    assert ours.evolver().plan.find('alembic:a1').origin == str((ours.folder / 'versions' / 'a1.py').resolve())


def test_the_fingerprint_is_the_text_of_the_file(project):
    ours = project()
    first = ours.evolver().plan.find('alembic:a1').fingerprint
    assert ours.evolver().plan.find('alembic:a1').fingerprint == first
    with open(ours.folder / 'versions' / 'a1.py', 'a') as file:
        file.write('# changed\n')
    assert ours.evolver().plan.find('alembic:a1').fingerprint != first


def test_branches_merges_and_alembic_s_own_dependencies_are_dependencies_of_the_plan(project):
    evolver = project().evolver(depends_on={'log1': ('alembic:right',)})
    assert {id: set(needed) for id, needed in evolver.plan.dependencies.items()} == {
        'alembic:a1': set(),
        'alembic:b2': {'alembic:a1'},
        'alembic:left': {'alembic:b2'},
        'alembic:right': {'alembic:b2'},
        'alembic:merge': {'alembic:left', 'alembic:right'},
        'alembic:log0': set(),
        'alembic:log1': {'alembic:log0', 'alembic:right'},
        'alembic:c3': {'alembic:merge', 'alembic:log0'},
    }
