"""Scripts of SQL as evolutions: each version once, what is repeatable whenever its content has changed."""

from __future__ import annotations

import threading
from textwrap import dedent

import pytest
import tg
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from tests import apps
from tests.sources.projects import Application, contents
from tgext.evolve.component import evolver_of
from tgext.evolve.errors import PlanError, SourceError, StoreAway
from tgext.evolve.evolver import Ended
from tgext.evolve.gate import Reason
from tgext.evolve.records import Records
from tgext.evolve.sources import script_files, sql
from tgext.evolve.sources.sql import SQLScripts

DATABASES = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql', 'mariadb'], indirect=True)
TRANSACTIONAL = pytest.mark.parametrize('store_url', ['sqlite', 'postgresql'], indirect=True)
SQLITE = pytest.mark.parametrize('store_url', ['sqlite'], indirect=True)
POSTGRESQL = pytest.mark.parametrize('store_url', ['postgresql'], indirect=True)
MARIADB = pytest.mark.parametrize('store_url', ['mariadb'], indirect=True)

#: A project, release by release; versions have gaps.
PAGES = 'CREATE TABLE page (id INTEGER PRIMARY KEY, title VARCHAR(80));'
ROWS = "INSERT INTO page (id, title) VALUES (1, 'a;b'), (2, 'it''s 100% :done');"
SLUGS = 'ALTER TABLE page ADD COLUMN slug VARCHAR(80);\nUPDATE page SET slug = LOWER(title);'
VERSIONS = {
    'V001__pages.sql': PAGES,
    'V2__rows.sql': ROWS,
    'V2.1__slugs.sql': SLUGS,
    'V10__tags.sql': 'CREATE TABLE tag (id INTEGER PRIMARY KEY);\nINSERT INTO tag (id) VALUES (1); -- and; no more\n',
}
ALL = ['sql:1', 'sql:2', 'sql:2.1', 'sql:10']
VIEW = 'DROP VIEW IF EXISTS titles;\nCREATE VIEW titles AS SELECT {} FROM page;\n'


class Folder:
    """A folder of scripts, and the applications that have it."""

    def __init__(self, directory, url):
        self.directory = directory / 'sql'
        self.directory.mkdir()
        self.url = url

    def write(self, files=None, **more):
        for name, content in {**(files or {}), **more}.items():
            (self.directory / name).write_text(dedent(content))
        return self

    def remove(self, *names):
        for name in names:
            (self.directory / name).unlink()

    def rename(self, before, after):
        (self.directory / before).rename(self.directory / after)

    def start(self, *others, options=None, **parameters):
        return Application(self.url, SQLScripts(str(self.directory), **parameters), *others, **(options or {}))


@pytest.fixture
def folder(tmp_path, store_url):
    return Folder(tmp_path, store_url)


@pytest.fixture
def another_database(request, tmp_path):
    kind = request.node.callspec.params['store_url']
    if kind == 'sqlite':
        return f'sqlite:///{tmp_path / "another.db"}'
    return request.getfixturevalue(f'{kind}_server').new_database()


def ids(application):
    return [planned.id for planned in application.plan]


def query(url, statement):
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def states(application, id):
    return [attempt.state.value for attempt in application.evolver.store.history().of(id)]


# -- versions


@DATABASES
@pytest.mark.parametrize('before', range(len(VERSIONS)))
def test_from_nothing_and_from_each_release_it_is_the_same_database(folder, another_database, before):
    names = list(VERSIONS)
    folder.write({name: VERSIONS[name] for name in names[:before]})
    assert folder.start().run() is Ended.DONE
    folder.write(VERSIONS)
    application = folder.start()
    assert application.pending() == ALL[before:]
    assert application.run() is Ended.DONE
    assert [states(application, id) for id in ALL] == [['done']] * 4
    folder.url, url = another_database, folder.url
    assert folder.start().run() is Ended.DONE
    assert contents(url) == contents(another_database)
    assert query(url, 'SELECT title, slug FROM page ORDER BY id') == [
        ('a;b', 'a;b'),
        ("it's 100% :done", "it's 100% :done"),
    ]


@SQLITE
def test_versions_are_numbers_and_each_waits_for_the_one_before(folder):
    application = folder.write(VERSIONS).start()
    assert ids(application) == ALL
    assert [list(planned.depends_on) for planned in application.plan] == [[], ['sql:1'], ['sql:2'], ['sql:2.1']]
    assert [planned.description for planned in application.plan] == ['pages', 'rows', 'slugs', 'tags']
    assert application.plan.order[0].origin == str(folder.directory / 'V001__pages.sql')


@SQLITE
def test_a_script_that_comes_late_runs(folder):
    folder.write(VERSIONS).start().run()
    application = folder.write({'V3__late.sql': 'CREATE TABLE late (id INTEGER);'}).start()
    assert application.pending() == ['sql:3']
    assert application.run() is Ended.DONE
    assert 'late' in contents(folder.url)


@SQLITE
def test_another_title_and_other_zeros_are_the_same_script(folder):
    folder.write(VERSIONS).start().run()
    folder.rename('V001__pages.sql', 'V1.0__the_pages.sql')
    folder.rename('V2.1__slugs.sql', 'V0002_01__slugs.sql')
    application = folder.start()
    assert ids(application) == ALL
    assert application.pending() == []


@SQLITE
def test_what_was_done_and_then_edited_is_shown_and_does_not_run_again(folder):
    folder.write(VERSIONS).start().run()
    folder.write({'V2__rows.sql': ROWS + '\nDROP TABLE page;'})
    application = folder.start()
    assert application.pending() == []
    changed = {entry.id: entry.changed for entry in application.evolver.overview().entries}
    assert changed == {'sql:1': False, 'sql:2': True, 'sql:2.1': False, 'sql:10': False}


@SQLITE
def test_the_ends_of_lines_and_a_mark_at_the_beginning_change_nothing(folder):
    folder.write(VERSIONS).start().run()
    for name, content in VERSIONS.items():
        (folder.directory / name).write_bytes(b'\xef\xbb\xbf' + content.replace('\n', '\r\n').encode())
    assert not any(entry.changed for entry in folder.start().evolver.overview().entries)


@SQLITE
def test_a_database_that_is_newer_than_the_code_serves_and_warns(folder, caplog):
    folder.write(VERSIONS).start().run()
    folder.remove('V10__tags.sql')
    application = folder.start()
    assert application.evolver.gate.is_open
    assert "'sql:10'" in caplog.text
    assert folder.start(options={'unknown': 'refuse'}).evolver.gate.verdict.reason is Reason.UNKNOWN_EVOLUTIONS


@SQLITE
def test_applications_may_have_several_folders(folder, tmp_path):
    (tmp_path / 'more').mkdir()
    (tmp_path / 'more' / 'V1__more.sql').write_text('CREATE TABLE more (id INTEGER);')
    more = SQLScripts(str(tmp_path / 'more'), name='more', depends_on={'V01': 'sql:2'})
    application = folder.write(VERSIONS).start(more, depends_on={'sql:010': ('more:1',)})
    assert ids(application) == ['sql:1', 'sql:2', 'sql:2.1', 'more:1', 'sql:10']
    assert application.run() is Ended.DONE


@SQLITE
def test_a_folder_stands_beside_the_ini_file_or_in_a_package(folder, tmp_path, monkeypatch):
    folder.write(VERSIONS)
    apps.make(folder.url, [SQLScripts('sql')], options={'watch': 0}, ini={'here': str(tmp_path)})
    assert [planned.id for planned in evolver_of(tg.config._current_obj()).plan] == ALL
    package = tmp_path / 'package_of_scripts'
    package.mkdir()
    (package / '__init__.py').touch()
    folder.directory.rename(package / 'sql')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert ids(Application(folder.url, SQLScripts('package_of_scripts:sql'))) == ALL


@SQLITE
def test_creating_the_application_costs_one_query(folder):
    folder.write(VERSIONS).write({'R__titles.sql': VIEW.format('title')}).start().run()
    with apps.statements() as seen:
        assert folder.start().evolver.gate.is_open
    assert len([statement for statement in seen if 'PRAGMA' not in statement]) == 1


# -- names


@SQLITE
@pytest.mark.parametrize(
    'name',
    [
        *('v1__title.sql', 'V1_title.sql', 'V1.sql', 'V__title.sql', 'U1__undo.sql', 'r__views.sql', 'R_views.sql'),
        *('schema.sql', 'V1__title.SQL', 'V1a__title.sql', 'V1__a.b.c.sql', 'V1.__a.sql', 'V-1__a.sql', 'V1__.sql'),
    ],
)
def test_what_looks_like_a_script_and_is_none_is_an_error(folder, name):
    with pytest.raises(SourceError) as caught:
        folder.write({name: 'SELECT 1;'}).start()
    assert name in str(caught.value)
    assert '__<title>.sql' in caught.value.remedy


@SQLITE
def test_a_script_that_cannot_be_read_is_an_error(folder):
    script = folder.directory / 'V1__pages.sql'
    script.symlink_to('/proc/self/mem')  # the rights of a file would not keep root from it
    with pytest.raises(SourceError, match=r'V1__pages\.sql cannot be read: Input/output error') as caught:
        folder.start()
    assert (caught.value.place, caught.value.remedy) == (str(script), 'Make it readable.')
    script.unlink()
    script.write_bytes("SELECT 'caf\xe9';".encode('latin-1'))
    with pytest.raises(SourceError, match=r'V1__pages\.sql is not in UTF-8: ') as caught:
        folder.start()
    assert (caught.value.place, caught.value.remedy) == (str(script), 'Save it as UTF-8.')


@SQLITE
def test_what_does_not_look_like_a_script_is_left_out(folder):
    folder.write(VERSIONS).write({'README': '', 'V1__pages.sql~': '', '.V1__x.sql': '', 'notes.txt': ''})
    (folder.directory / 'old').mkdir()
    assert ids(folder.start()) == ALL


@SQLITE
@pytest.mark.parametrize('other', ['V1__other.sql', 'V01__pages.sql', 'V1.0__pages.sql', 'V1_0__other.sqlite.sql'])
def test_a_version_twice_is_an_error_that_names_both_files(folder, other):
    with pytest.raises(SourceError) as caught:
        folder.write({'V1__pages.sql': PAGES, other: PAGES}).start()
    assert 'V1__pages.sql' in str(caught.value)
    assert other in str(caught.value)


@SQLITE
def test_a_variant_for_no_database_is_an_error(folder):
    with pytest.raises(SourceError, match="is for 'postgres', and there is no such database"):
        folder.write({'V1__pages.postgres.sql': PAGES}).start()


@DATABASES
def test_the_variant_for_this_database_wins(folder):
    for each in ('sqlite', 'postgresql', 'mariadb', 'mysql'):
        folder.write({f'V1__it.{each}.sql': f'CREATE TABLE for_{each} (id INTEGER);'})
    folder.write({'V1__it.sql': 'CREATE TABLE for_others (id INTEGER);'})
    folder.start().run()
    made = [name for name in contents(folder.url) if name.startswith('for_')]
    assert made == [f'for_{make_url(folder.url).get_backend_name()}']


def test_mariadb_is_content_with_the_variant_for_mysql(tmp_path):
    folder = Folder(tmp_path, None).write({'V1__it.mysql.sql': '', 'V1__it.sql': '', 'V2__it.sql': ''})
    files = script_files.files_in(folder.directory, None)
    names = [file.path.name for file in script_files.chosen(files, 'mariadb', None)]
    assert names == ['V1__it.mysql.sql', 'V2__it.sql']


@SQLITE
def test_a_script_for_other_databases_only_is_an_error(folder):
    folder.write({'V1__it.postgresql.sql': '', 'V1__it.mariadb.sql': ''})
    with pytest.raises(SourceError, match='there is no V1__it for sqlite, only') as caught:
        folder.start()
    assert 'V1__it.sqlite.sql (it may be empty)' in caught.value.remedy
    folder.write({'V1__it.sqlite.sql': '-- nothing to do here\n'})
    assert folder.start().run() is Ended.DONE


@SQLITE
def test_a_folder_that_is_not_there_is_an_error(folder):
    with pytest.raises(SourceError, match="there is no folder 'nowhere'"):
        Application(folder.url, SQLScripts('nowhere'))
    with pytest.raises(SourceError, match="no package 'nowhere_at_all'"):
        Application(folder.url, SQLScripts('nowhere_at_all:sql'))
    with pytest.raises(SourceError, match=r"'nowhere_at_all\.sub:sql' cannot be found: No module named 'nowhere"):
        Application(folder.url, SQLScripts('nowhere_at_all.sub:sql'))


@SQLITE
def test_depends_on_of_no_script_is_an_error(folder):
    with pytest.raises(SourceError, match="depends_on has '7', and there is no such script"):
        folder.write(VERSIONS).start(depends_on={'7': ('x',)})
    with pytest.raises(PlanError, match='which no evolution provides'):
        folder.start(depends_on={'10': ('nobody',)})


def test_a_database_that_cannot_be_split_for_is_an_error():
    from tgext.evolve.sources.base import Place

    url = create_engine('sqlite://').url.set(drivername='oracle')
    with pytest.raises(SourceError, match='for oracle'):
        SQLScripts('sql').at(Place(connect=None, url=url, session=object()))


@POSTGRESQL
def test_without_sqlglot_the_extra_is_named(folder, monkeypatch):
    find_spec = sql.importlib.util.find_spec
    monkeypatch.setattr(sql.importlib.util, 'find_spec', lambda name: None if name == 'sqlglot' else find_spec(name))
    assert folder.start().run() is Ended.DONE  # there is nothing to be split
    with pytest.raises(SourceError, match=r"pip install 'tgext\.evolve\[sql\]'"):
        folder.write(VERSIONS).start()


@SQLITE
def test_nothing_is_split_before_it_is_run(folder):
    """What is done already costs no parser at each start."""
    application = folder.write({'V1__it.sql': "SELECT 'never closed;"}).start(options={'max_attempts': 1})
    assert application.run() is Ended.STUCK
    assert 'line 1' in application.error('sql:1')


# -- headers


@SQLITE
def test_a_header_says_more_about_its_script(folder):
    header = """
    -- Some words about it.

    -- tgext.evolve: depends_on = data, sql:1
    --tgext.evolve:serving=reads
    -- tgext.evolve: rerunnable = FALSE
    -- tgext.evolve: transactional = false
    -- tgext.evolve: description = It makes more, = better
    CREATE TABLE more (id INTEGER);
    """
    application = folder.write(VERSIONS).write({'V11__more.sql': header}).start(apps.evolution('data'))
    planned = application.plan.find('sql:11')
    assert planned.depends_on == ('data', 'sql:1', 'sql:10')
    assert (planned.serving.value, planned.rerunnable, planned.transactional) == ('reads', False, False)
    assert planned.description == 'It makes more, = better'
    assert application.run() is Ended.DONE


@SQLITE
@pytest.mark.parametrize(
    ('line', 'says'),
    [
        ('-- tgext.evolve: transaction = false', 'says nothing that is understood'),
        ('-- tgext.evolve transactional = false', 'says nothing that is understood'),
        ('-- tgext.evolve: transactional', 'says nothing that is understood'),
        ('-- tgext.evolve: transactional = no', "transactional = 'no'"),
        ('-- tgext.evolve: serving = all', "serving = 'all'"),
        ('-- tgext.evolve: serving = reads\n-- tgext.evolve: serving = nothing', 'says nothing that is understood'),
        ('SELECT 1;\n-- tgext.evolve: serving = reads', 'stands after the first statement'),
    ],
)
def test_what_a_header_cannot_say_is_an_error_that_names_file_and_line(folder, line, says):
    folder.write({'V1__it.sql': f'{line}\nSELECT 1;'})
    with pytest.raises((SourceError, PlanError), match=says) as caught:
        folder.start()
    assert str(folder.directory / 'V1__it.sql') in caught.value.place
    assert says.startswith('serving =') or 'line ' in caught.value.place


# -- running


@DATABASES
def test_a_step_that_fails_names_file_line_and_statement_and_stays(folder):
    bad = "CREATE TABLE half (id INTEGER);\n\n\nINSERT INTO nowhere VALUES ('x');"
    folder.write(VERSIONS).write({'V3__bad.sql': bad})
    application = folder.start(options={'max_attempts': 1})
    assert application.run() is Ended.STUCK
    error = application.error('sql:3')
    assert f'{folder.directory / "V3__bad.sql"}, line 4' in error
    assert "INSERT INTO nowhere VALUES ('x')" in error
    assert 'nowhere' in error.partition('by the statement')[0]
    assert application.pending() == ['sql:3', 'sql:10']
    transactional = not folder.url.startswith(('mysql', 'mariadb'))
    assert ('half' in contents(folder.url)) is not transactional
    assert ('Nothing of this script was saved' in error) is transactional
    folder.write({'V3__bad.sql': 'CREATE TABLE IF NOT EXISTS half (id INTEGER);'})
    application = folder.start()
    assert application.run() is Ended.DONE  # mended: it is tried at once
    assert states(application, 'sql:3') == ['failed', 'done']


@POSTGRESQL
def test_what_a_driver_cannot_run_is_refused_before_anything_runs(folder):
    """Where each statement ends is held against each database in tests/unit/test_statements.py."""
    refused = {
        'DELIMITER //\nSELECT 2//': r'DELIMITER is a command of the mariadb and mysql clients, and no SQL',
        '\\connect other\nSELECT 2;': r'\connect is a command of a command-line client, and no SQL',
        'COPY it (id) FROM STDIN;\n1\n\\.\n': 'COPY from a script needs rows beside it, which only psql can read',
        "SELECT 'a;": 'it cannot be read: ',
        'SELECT (2;': 'this statement has no end',
    }
    for script, thing in refused.items():
        application = folder.write({'V1__it.sql': f'CREATE TABLE it (id INTEGER);\n{script}'}).start(
            options={'max_attempts': 1}
        )
        assert application.run() is Ended.STUCK
        error = application.error('sql:1')
        assert f'ScriptError: {thing}' in error
        assert f'(in {folder.directory / "V1__it.sql"}, line ' in error
        assert 'it' not in contents(folder.url)


@DATABASES
@pytest.mark.parametrize('transactional', [True, False])
def test_nothing_in_a_text_is_taken_for_a_parameter(folder, transactional):
    if transactional and not folder.url.startswith(('sqlite', 'postgresql')):
        header = '-- tgext.evolve: transactional = true\n'  # no DDL in it
    else:
        header = '' if transactional else '-- tgext.evolve: transactional = false\n'
    folder.write({'V1__pages.sql': PAGES})
    strange = "INSERT INTO page VALUES ({}, '%s %(a)s 100% :b ? $1 {{c}} %%');\n"
    folder.write({'V2__rows.sql': header + strange.format(1) + strange.format(2) + 'SELECT 7 % 4;'})
    assert folder.start().run() is Ended.DONE
    assert query(folder.url, 'SELECT title FROM page') == [('%s %(a)s 100% :b ? $1 {c} %%',)] * 2


@TRANSACTIONAL
@pytest.mark.parametrize('line', ['BEGIN', 'begin transaction', 'COMMIT', 'END', 'ROLLBACK', 'START TRANSACTION'])
def test_what_would_end_the_transaction_is_refused_before_anything_runs(folder, line):
    folder.write({'V1__it.sql': f'CREATE TABLE it (id INTEGER);\n{line};\nSELECT 1;'})
    application = folder.start(options={'max_attempts': 1})
    assert application.run() is Ended.STUCK
    error = application.error('sql:1')
    assert 'line 2' in error
    assert '-- tgext.evolve: transactional = false' in error
    assert 'it' not in contents(folder.url)


@TRANSACTIONAL
def test_savepoints_are_its_own_affair(folder):
    folder.write({'V1__it.sql': f'{PAGES} SAVEPOINT a; {ROWS} ROLLBACK TO SAVEPOINT a; RELEASE SAVEPOINT a;'})
    assert folder.start().run() is Ended.DONE
    assert query(folder.url, 'SELECT * FROM page') == []


@DATABASES
def test_without_the_transaction_a_script_may_have_its_own(folder):
    text = f'-- tgext.evolve: transactional = false\n{PAGES}\nBEGIN;\n{ROWS}\nROLLBACK;\nBEGIN;\n{ROWS}\nCOMMIT;'
    application = folder.write({'V1__it.sql': text}).start()
    assert application.run() is Ended.DONE, application.error('sql:1')
    assert len(query(folder.url, 'SELECT * FROM page')) == 2


@POSTGRESQL
def test_postgresql_runs_what_takes_no_transaction(folder):
    concurrently = 'CREATE INDEX CONCURRENTLY titles ON page (title);\nVACUUM ANALYZE page;'
    folder.write({'V1__pages.sql': PAGES, 'V2__index.sql': concurrently})
    application = folder.start(options={'max_attempts': 1})
    assert application.run() is Ended.STUCK
    assert 'Write -- tgext.evolve: transactional = false at its top' in application.error('sql:2')
    folder.write({'V2__index.sql': f'-- tgext.evolve: transactional = false\n{concurrently}'})
    application = folder.start()
    assert application.run() is Ended.DONE, application.error('sql:2')
    with create_engine(folder.url, poolclass=NullPool).connect() as connection:
        assert [index['name'] for index in inspect(connection).get_indexes('page')] == ['titles']


@POSTGRESQL
@pytest.mark.parametrize('transactional', ['true', 'false'])
def test_a_connection_that_is_lost_is_no_failure_of_the_script(folder, transactional):
    away = f'-- tgext.evolve: transactional = {transactional}\nSELECT pg_terminate_backend(pg_backend_pid());'
    application = folder.write({'V1__it.sql': away}).start()
    with pytest.raises(StoreAway):
        application.run()
    assert states(application, 'sql:1') == ['running']  # what became of it finds out who takes the lease next
    folder.write({'V1__it.sql': 'SELECT 1;'})
    application = folder.start(options={'lease': 1})
    assert application.evolver.run(patience=30) is Ended.DONE
    assert states(application, 'sql:1') == ['interrupted', 'done']


@SQLITE
def test_sqlite_runs_what_takes_no_transaction(folder):
    folder.write({'V1__pages.sql': PAGES, 'V2__vacuum.sql': 'VACUUM;'})
    application = folder.start(options={'max_attempts': 1})
    assert application.run() is Ended.STUCK
    assert 'Write -- tgext.evolve: transactional = false at its top' in application.error('sql:2')
    folder.write({'V2__vacuum.sql': '-- tgext.evolve: transactional = false\nVACUUM;'})
    assert folder.start().run() is Ended.DONE


@SQLITE
def test_sqlite_does_not_hear_foreign_keys_in_a_transaction(folder):
    off = 'PRAGMA foreign_keys = OFF;\nCREATE TABLE it (id INTEGER);'
    application = folder.write({'V1__it.sql': off}).start(options={'max_attempts': 1})
    assert application.run() is Ended.STUCK
    assert 'PRAGMA foreign_keys does nothing in a transaction' in application.error('sql:1')
    folder.write({'V1__it.sql': f'-- tgext.evolve: transactional = false\n{off}'})
    assert folder.start().run() is Ended.DONE


@POSTGRESQL
def test_postgresql_gets_functions_and_rules_in_one_piece(folder):
    folder.write({'V1__pages.sql': PAGES})
    folder.write(
        {
            'V2__functions.sql': """
            CREATE FUNCTION shout(t text) RETURNS text AS $body$
            BEGIN
              -- not; here
              RETURN upper(t) || '; $$ 100%';
            END;
            $body$ LANGUAGE plpgsql;
            CREATE FUNCTION two() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;
            CREATE TABLE log (title text);
            CREATE RULE noted AS ON INSERT TO page DO ALSO
              (INSERT INTO log VALUES (NEW.title); INSERT INTO log VALUES (shout(NEW.title)));
            DO $$ BEGIN INSERT INTO page VALUES (two(), 'x'); END $$;
            """
        }
    )
    application = folder.start()
    assert application.run() is Ended.DONE, application.error('sql:2')
    assert query(folder.url, 'SELECT title FROM log') == [('x',), ('X; $$ 100%',)]


@MARIADB
def test_mariadb_gets_procedures_and_triggers_in_one_piece(folder):
    folder.write({'V1__pages.sql': PAGES})
    folder.write(
        {
            'V2__stored.sql': """
            CREATE TRIGGER upper_title BEFORE INSERT ON page FOR EACH ROW BEGIN
              IF NEW.title IS NULL THEN SET NEW.title = ';'; END IF;
              SET NEW.title = CASE WHEN NEW.id = 2 THEN '100%' ELSE UPPER(NEW.title) END;
            END;
            CREATE PROCEDURE fill() BEGIN
              DECLARE i INT DEFAULT 0;
              WHILE i < 3 DO SET i = i + 1; INSERT INTO page VALUES (i, 'x'); END WHILE;
            END;
            /*!40101 CALL fill() */;
            """
        }
    )
    application = folder.start()
    assert application.run() is Ended.DONE, application.error('sql:2')
    assert query(folder.url, 'SELECT title FROM page ORDER BY id') == [('X',), ('100%',), ('X',)]


@SQLITE
def test_sqlite_gets_triggers_in_one_piece(folder):
    trigger = """
    CREATE TRIGGER upper_title AFTER INSERT ON page BEGIN
      UPDATE page SET title = CASE WHEN id = 2 THEN '100%;' ELSE upper(title) END WHERE id = NEW.id;
      UPDATE page SET title = title || '!' WHERE id = NEW.id;
    END;
    """
    folder.write({'V1__pages.sql': PAGES, 'V2__trigger.sql': trigger, 'V3__rows.sql': ROWS})
    assert folder.start().run() is Ended.DONE
    assert query(folder.url, 'SELECT title FROM page ORDER BY id') == [('A;B!',), ('100%;!',)]


def test_a_database_in_memory_has_them_too(tmp_path):
    folder = Folder(tmp_path, 'sqlite://')
    folder.write(VERSIONS).write({'V11__x.sql': '-- tgext.evolve: transactional = false\nCREATE TABLE x (id INTEGER);'})
    application = folder.start()
    assert application.run() is Ended.DONE
    with application.evolver.store._engine.connect() as connection:
        assert {'page', 'tag', 'x'} <= set(inspect(connection).get_table_names())


@SQLITE
def test_progress_is_told_by_file_and_line(folder):
    from tgext.evolve.events import What

    application = folder.write({'V1__it.sql': 'SELECT 1;\nSELECT 2;\n\nSELECT 3;'}).start()
    told = []
    application.evolver.listeners.add(lambda event: told.append(event))
    application.run()
    [finished] = [event for event in told if event.what is What.FINISHED]
    assert (finished.progress.done, finished.progress.total) == (2, 3)
    assert finished.progress.message == 'V1__it.sql, line 4'


# -- repeatable ones


@DATABASES
def test_it_runs_after_all_versions_and_again_whenever_its_content_changed(folder):
    folder.write(VERSIONS).write({'R__titles.sql': VIEW.format('title'), 'R__a.sql': 'SELECT 1;'})
    application = folder.start()
    assert application.pending() == [*ALL, 'sql:R__a', 'sql:R__titles']
    assert application.run() is Ended.DONE
    again = folder.start()
    assert again.evolver.gate.is_open
    assert again.run() is Ended.DONE
    folder.write({'R__titles.sql': VIEW.format('slug')})
    application = folder.start()
    assert application.pending() == ['sql:R__titles']
    entry = application.evolver.overview().find('sql:R__titles')
    assert (entry.state, entry.why) == ('pending', 'its content changed since it ran')
    assert application.run() is Ended.DONE
    assert len(query(folder.url, 'SELECT slug FROM titles')) == 2
    assert states(application, 'sql:R__titles') == ['done', 'done']
    assert states(application, 'sql:R__a') == ['done']
    entry = application.evolver.overview().find('sql:R__titles')
    assert (entry.state, entry.changed) == ('done', False)


@SQLITE
def test_it_waits_for_a_version_that_comes_late_and_keeps_fewer_users_out(folder):
    folder.write(VERSIONS).write({'R__titles.sql': VIEW.format('title')}).start().run()
    late = '-- tgext.evolve: serving = everything\nALTER TABLE page ADD COLUMN late INTEGER;'
    application = folder.write({'R__titles.sql': VIEW.format('late'), 'V3__late.sql': late}).start()
    assert application.pending() == ['sql:3', 'sql:R__titles']
    assert application.run() is Ended.DONE


@SQLITE
def test_a_stamp_records_the_content_also_when_it_changed(folder):
    folder.write(VERSIONS).write({'R__titles.sql': VIEW.format('title')}).start().run()
    for column in ('slug', 'id'):
        folder.write({'R__titles.sql': VIEW.format(column)})
        application = folder.start()
        assert application.pending() == ['sql:R__titles']
        evolver = application.evolver
        records = Records(evolver.options, application.plan, evolver.store)
        assert records.stamp() == ['sql:R__titles']
        assert records.stamp(['sql:R__titles'])
        application = folder.start()
        assert application.pending() == []
        assert application.evolver.overview().find('sql:R__titles').state == 'stamped'
    assert states(application, 'sql:R__titles') == ['done', 'stamped', 'stamped']
    Records(evolver.options, application.plan, evolver.store).unstamp(['sql:R__titles'])
    assert folder.start().pending() == ['sql:R__titles']
    assert query(folder.url, 'SELECT title FROM titles')


@SQLITE
def test_one_that_fails_is_tried_again_when_it_was_mended(folder):
    folder.write(VERSIONS).write({'R__titles.sql': VIEW.format('title')}).start().run()
    folder.write({'R__titles.sql': VIEW.format('nonsense +')})
    application = folder.start(options={'max_attempts': 2})
    assert application.run() is Ended.STUCK
    assert states(application, 'sql:R__titles') == ['done', 'failed', 'failed']
    # What the database has is still the first one. Going back to it runs it again: it cannot be known.
    folder.write({'R__titles.sql': VIEW.format('title')})
    application = folder.start()
    assert application.pending() == ['sql:R__titles']
    assert application.run() is Ended.DONE
    assert states(application, 'sql:R__titles') == ['done', 'failed', 'failed', 'done']


class TestTwoReleases:
    """Side by side, each with a content of its own."""

    @pytest.fixture
    def releases(self, folder):
        """Starts a process of one of them; all are watching until the end."""
        folder.write(VERSIONS)
        started = []

        def start(column, run=True, **options):
            folder.write({'R__titles.sql': VIEW.format(column)})
            application = folder.start(options={'watch': 0.2, 'poll': 0.05, **options})
            started.append(application)
            if run:
                application.evolver.start()
                assert application.evolver.wait(30)
            return application

        yield start
        for application in started:
            application.evolver.leave()
        for application in started:
            assert application.evolver.join(30)

    @TRANSACTIONAL
    def test_they_do_not_provoke_each_other(self, folder, releases):
        old = releases('title')
        new = releases('slug')
        for _ in range(10):
            looked(old, new)
        assert states(new, 'sql:R__titles') == ['done', 'done']
        assert old.evolver.wait(30)
        assert new.evolver.wait(30)
        assert query(folder.url, 'SELECT slug FROM titles')
        # Whoever is started later has its own, whichever release that is; again nobody answers.
        back = releases('title')
        for _ in range(10):
            looked(old, new, back)
        assert states(new, 'sql:R__titles') == ['done', 'done', 'done']
        assert query(folder.url, 'SELECT title FROM titles')
        # Their threads may say a moment later what they saw a moment before.
        assert all(each.evolver.wait(30) for each in (old, new, back))

    @SQLITE
    def test_what_an_old_process_saw_is_kept_though_it_runs_what_else_comes(self, folder, releases):
        old = releases('title', run=False)
        assert old.run() is Ended.DONE
        releases('slug')
        assert old.run() is Ended.DONE
        assert old.pending() == []
        assert states(old, 'sql:R__titles') == ['done', 'done']

    @SQLITE
    def test_an_old_process_closes_while_the_newer_content_runs_and_opens_after_it(self, folder, releases, monkeypatch):
        old = releases('title')
        go = threading.Event()
        execute_of = sql.Script._execute

        def held(script, *arguments):
            assert go.wait(30)
            execute_of(script, *arguments)

        monkeypatch.setattr(sql.Script, '_execute', held)
        folder.write({'R__titles.sql': '-- tgext.evolve: serving = reads\n' + VIEW.format('slug')})
        new = folder.start(options={'watch': 0.2, 'poll': 0.05, 'retry_delay': 0})
        new.evolver.start()
        try:
            deadline = threading.Event()
            for _ in range(600):
                if old.evolver.gate.verdict.reason is Reason.NEWER_RELEASE:
                    break
                deadline.wait(0.05)
            verdict = old.evolver.gate.verdict
            assert (verdict.reason, verdict.serving.value) == (Reason.NEWER_RELEASE, 'reads')
            assert 'sql:R__titles' in verdict.detail
            go.set()
            assert new.evolver.wait(30)
            assert old.evolver.wait(30)
            assert states(old, 'sql:R__titles') == ['done', 'done']
        finally:
            go.set()
            new.evolver.leave()
            assert new.evolver.join(30)

    @SQLITE
    def test_one_of_the_newer_release_that_fails_keeps_no_later_process_of_the_old_one_out(self, folder, releases):
        releases('title', run=False).run()
        new = releases('nonsense +', run=False, max_attempts=1)
        assert new.run() is Ended.STUCK
        back = releases('title')
        assert states(back, 'sql:R__titles') == ['done', 'failed', 'done']


def looked(*applications):
    """Each of them has looked at the database, and would have begun what is pending."""
    for application in applications:
        application.evolver._turn()
