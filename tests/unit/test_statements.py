"""Where a statement of a script ends, by the rules of each database."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgext.evolve.errors import SourceError
from tgext.evolve.sources.statements import statements_of


def split(backend, text):
    def wrong(line, what, remedy):
        return SourceError(what, place=f'line {line}', remedy=remedy)

    return statements_of(text, backend, wrong)


PROCEDURE = """CREATE PROCEDURE p() BEGIN
  DECLARE i INT DEFAULT 0;
  IF i THEN SELECT 1; ELSE SELECT IF(1, 2, 3); END IF;
  WHILE i DO SET i = CASE WHEN i THEN 0 END; END WHILE;
  CASE i WHEN 1 THEN SELECT 1; ELSE BEGIN END; END CASE;
END"""

WHOLE = {
    'postgresql': [
        "INSERT INTO a VALUES ('a;b', 'it''s;', E'a\\';b', U&'d\\0061;', $$;$$, $x$ $$;$$ ' $x$)",
        "SELECT 'a\\'",
        'CREATE TABLE "a;b" (id int)',
        "SELECT 1 /* a; ' /* b; */ c; ' */ + 1 -- d; '\n + 2",
        'CREATE FUNCTION f() RETURNS int AS $$ BEGIN RETURN 1; END; $$ LANGUAGE plpgsql',
        "DO $x$ BEGIN RAISE NOTICE 'it''s; $$'; END $x$",
        'CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END',
        'CREATE RULE r AS ON INSERT TO a DO ALSO (INSERT INTO b VALUES (1); INSERT INTO b VALUES (2))',
        "CALL f('a;b')",
        "EXPLAIN SELECT ';'",
        "SELECT '100%', a % 2, b::text, '{}'::jsonb #> '{a}', :c, $1",
        'BEGIN',
        'SELECT CASE WHEN true THEN 1 END',
    ],
    'sqlite': [
        'CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET x = CASE WHEN 1 THEN 2 END; DELETE FROM b; END',
        'create temp trigger if not exists t after insert on a begin update a set x = 1; end',
        "SELECT `a;b`, [c;d], \"e;f\", 'g;'';'",
        'SELECT 1 /* a; /* b; */ + 1 -- c;\n + 2',
        "SELECT 'a\\'",
        'BEGIN',
        'END',
        'CREATE TABLE a ("begin" int, "end" int)',
    ],
    'mariadb': [
        PROCEDURE,
        f'CREATE OR REPLACE DEFINER=`a`@`%` {PROCEDURE.removeprefix("CREATE ")}',
        'CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET NEW.x = 1',
        'CREATE FUNCTION f() RETURNS INT RETURN CASE WHEN 1 THEN 2 END',
        'BEGIN NOT ATOMIC SELECT 1; SELECT 2; END',
        'CREATE TABLE event (begin INT, end INT)',
        "INSERT INTO a VALUES ('a\\';b', \"c\\\";d\", `e;f`, 'it''s;')",
        'SELECT 1 /* a; /* b; */ + 1 # c; \'\n + 2 -- d; "\n + 3',
        'SELECT 1--1',
        '/*!40101 SET @a = 1 */',
        '/*M!100000 SET @a = 1 */',
        'SELECT 5 /*! + 1 ; */',
        'BEGIN',
    ],
}
WHOLE['mysql'] = [each for each in WHOLE['mariadb'] if 'NOT ATOMIC' not in each]
BETWEEN = ['', '\n', ' -- a; comment\n', '\n/* a; comment */ ', ';', '\n ; ;\n']
EACH = [pytest.param(backend, text, id=f'{backend}: {text[:40]}') for backend in WHOLE for text in WHOLE[backend]]


@pytest.mark.parametrize(('backend', 'text'), EACH)
def test_a_statement_is_kept_in_one_piece(backend, text):
    [alone] = split(backend, text)
    assert alone.text == text
    before, found, after = split(backend, f'SELECT 0;\n\n{text};\nSELECT 9;')
    assert (before.text, found.text, after.text) == ('SELECT 0', text, 'SELECT 9')
    assert (before.line, found.line, after.line) == (1, 3, 4 + text.count('\n'))


@given(st.data(), st.sampled_from(sorted(WHOLE)))
def test_any_of_them_in_any_order_with_anything_between(data, backend):
    chosen = data.draw(st.lists(st.sampled_from(WHOLE[backend]), max_size=6))
    text = ''.join(data.draw(st.sampled_from(BETWEEN)) + each + ';' for each in chosen)
    text += data.draw(st.sampled_from(BETWEEN))
    assert [statement.text for statement in split(backend, text)] == chosen


@pytest.mark.parametrize('backend', WHOLE)
@pytest.mark.parametrize('text', ['', '\n', ';;', '-- a; b', '/* a; b */', '-- a\n;\n-- b\n'])
def test_there_may_be_nothing_in_it(backend, text):
    assert split(backend, text) == []


@pytest.mark.parametrize(
    ('backend', 'text', 'line'),
    [
        *((backend, "SELECT 1;\nSELECT 'a;\nSELECT 2;", None) for backend in WHOLE),
        ('sqlite', 'SELECT 1; /* never closed', None),
        ('postgresql', 'SELECT 1;\nDO $x$ BEGIN; END;', None),
        ('postgresql', 'SELECT 1;\nSELECT (1; SELECT 2;', 2),
        ('postgresql', 'SELECT 1;\nCREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2;', 2),
        ('sqlite', 'SELECT 1;\nCREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2;', 2),
        ('mariadb', 'SELECT 1;\nCREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2;', 2),
        ('mariadb', 'SELECT 1;\nDELIMITER //\nCREATE PROCEDURE p() BEGIN SELECT 1; END//\nDELIMITER ;', 2),
        ('postgresql', 'SELECT 1;\nCOPY a (b) FROM STDIN;\n1;2\n\\.\n', 2),
        ('postgresql', '\n\\connect other\nSELECT 1;', 2),
        ('sqlite', '.mode csv\nSELECT 1;', 1),
    ],
)
def test_what_cannot_be_split_is_an_error_before_anything_runs(backend, text, line):
    with pytest.raises(SourceError) as caught:
        split(backend, text)
    assert caught.value.remedy
    assert line is None or caught.value.place == f'line {line}'
