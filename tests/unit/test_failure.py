"""Recording a failure never fails, and keeps no secrets."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgext.evolve import LeaseLost
from tgext.evolve.failure import LIMIT, brief, clean, describe

#: Not as one word in the source, which is part of a traceback.
SECRET = 'top' + 'secret'


def raised(error, cause=None):
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def hostile(how):
    class Hostile(Exception):
        def __str__(self):
            raise how

        __repr__ = __str__

    return raised(Hostile())


class TestDescribe:
    def test_has_the_traceback_and_the_message(self):
        text = describe(raised(ValueError('seven')))
        assert text.startswith('Traceback')
        assert 'in raised' in text
        assert text.rstrip().endswith('ValueError: seven')

    def test_has_the_whole_chain(self):
        text = describe(raised(ValueError('second'), cause=raised(KeyError('first'))))
        assert text.index("KeyError: 'first'") < text.index('ValueError: second')

    @pytest.mark.skipif(sys.version_info < (3, 11), reason='exception groups are of Python 3.11')
    def test_has_all_of_a_group(self):
        group = ExceptionGroup('both', [raised(ValueError('one')), ExceptionGroup('inner', [KeyError('two')])])  # noqa: F821
        text = describe(raised(group))
        assert 'ValueError: one' in text
        assert "KeyError: 'two'" in text

    def test_a_chain_that_bites_its_tail_comes_to_an_end(self):
        one, two = raised(ValueError('one')), raised(ValueError('two'))
        one.__cause__, two.__cause__ = two, one
        assert 'ValueError: one' in describe(one)

    def test_a_very_long_chain_comes_to_an_end(self):
        error = None
        for number in range(3000):
            error = raised(ValueError(number), cause=error)
        assert 'ValueError' in describe(error)

    @pytest.mark.parametrize('how', [ValueError(), RecursionError(), KeyboardInterrupt(), SystemExit(), LeaseLost()])
    def test_an_error_without_a_text_is_named_at_least(self, how):
        for tell in (describe, brief):
            assert 'Hostile' in tell(hostile(how))

    def test_an_error_whose_attributes_raise_is_described(self):
        class Hostile(Exception):
            def __getattribute__(self, name):
                if name in ('hide_parameters', 'exceptions'):
                    raise RuntimeError(name)
                return super().__getattribute__(name)

        assert 'seven' in describe(raised(Hostile('seven')))

    def test_what_only_looks_like_a_group_is_described(self):
        class Odd(Exception):
            exceptions = (1, 'two', None)
            hide_parameters = property(lambda self: False)

        assert 'seven' in describe(raised(Odd('seven')))

    @pytest.mark.parametrize('error', [KeyboardInterrupt(), SystemExit(3), LeaseLost('gone'), GeneratorExit()])
    def test_what_is_no_exception_is_described_too(self, error):
        assert type(error).__name__ in describe(raised(error))

    @given(st.text(st.characters()), st.text(st.characters()))
    def test_whatever_it_says_can_be_stored(self, one, other):
        error = raised(ValueError(one), cause=raised(KeyError(other)))
        for text in (describe(error), brief(error)):
            text.encode('utf-8')
            assert '\0' not in text
            assert len(text.encode()) <= LIMIT


class TestStatements:
    sqlalchemy = pytest.importorskip('sqlalchemy')

    @pytest.fixture
    def error(self):
        engine = self.sqlalchemy.create_engine('sqlite://')
        with pytest.raises(self.sqlalchemy.exc.OperationalError) as caught, engine.connect() as connection:
            connection.execute(self.sqlalchemy.text('insert into nowhere values (:a)'), {'a': SECRET})
        engine.dispose()
        return caught.value

    def test_parameters_are_hidden(self, error):
        text = describe(error)
        assert 'insert into nowhere' in text
        assert SECRET not in text

    def test_parameters_are_hidden_in_causes_and_groups(self, error):
        wrapped = raised(ValueError('outer'), cause=raised(RuntimeError('middle'), cause=error))
        assert SECRET not in describe(wrapped)
        if sys.version_info >= (3, 11):
            assert SECRET not in describe(raised(ExceptionGroup('all', [wrapped, error])))  # noqa: F821

    def test_parameters_are_hidden_in_what_was_being_handled(self, error):
        outer = ValueError('outer')
        outer.__context__ = error
        assert SECRET not in describe(raised(outer))


class TestPasswords:
    @pytest.mark.parametrize(
        'text',
        [
            'postgresql://user:topsecret@host/db',
            'postgresql+psycopg://user:topsecret@host/db?sslmode=require',
            "could not connect to 'mysql+pymysql://u:topsecret@h:3306/db' at all",
            'redis://:topsecret@host:6379/0',
            'url=mongodb://u:topsecret@a:1,b:2/db',
            'postgresql://u:top@topsecret@host/db',
            'postgresql://u:topsecret/x@host/db',
            'dsn_postgresql://u:topsecret@host',
            '1postgresql://u:topsecret@host',
            f'postgresql://u:topsecret{"x" * 3000}@host',
            'a://b:topsecret@c and d://e:topsecret@f',
            'host=h user=u password=topsecret dbname=d',
            "host=h password = 'topsecret and more'",
            r"password='it\'s topsecret' host=h",
            'password="topsecret"',
            'PWD={topsecret;};UID=u',
            'Driver=x;Password=topsecret;Server=y',
            'PGPASSWORD=topsecret psql',
            "connect(host='h', passwd='topsecret')",
            "{'user': 'u', 'password': 'topsecret'}",
            '{"password":"topsecret"}',
            'https://host/?user=u&password=topsecret&x=y',
            'sslpassword=topsecret',
            'pass\0word=topsecret',
        ],
    )
    def test_are_hidden(self, text):
        assert 'topsecret' not in clean(text)
        assert 'topsecret' not in describe(raised(ValueError(text)))
        assert 'topsecret' not in brief(raised(ValueError(text)))

    @pytest.mark.parametrize(
        ('text', 'kept'),
        [
            ('postgresql://user:topsecret@host/db', 'postgresql://user:***@host/db'),
            ('host=h password=topsecret dbname=d', 'host=h password=*** dbname=d'),
            ('see http://host:8080/path for more', 'see http://host:8080/path for more'),
            ('http://host/ and bob@example.org', 'http://host/ and bob@example.org'),
            ("Access denied for user 'u'@'h' (using password: YES)",) * 2,
            ('password authentication failed for user "u"',) * 2,
        ],
    )
    def test_and_the_rest_is_kept(self, text, kept):
        assert clean(text) == kept


class TestLongTexts:
    def test_are_cut_in_the_middle(self):
        text = clean('begin' + 'x' * 100_000 + 'end')
        assert text.startswith('begin')
        assert text.endswith('end')
        assert 'cut' in text
        assert len(text.encode()) <= LIMIT <= 32 * 1024

    @pytest.mark.parametrize('letter', ['é', '€', '𝄞', '\ud800', 'x'])
    def test_are_cut_by_bytes_between_letters(self, letter):
        text = clean(letter * 100_000)
        assert LIMIT - 100 < len(text.encode()) <= LIMIT

    def test_of_an_error_keep_its_last_line(self):
        assert describe(raised(ValueError('x' * 100_000 + ' at last'))).rstrip().endswith('at last')
        assert len(brief(raised(ValueError('x' * 100_000)))) <= 500

    @pytest.mark.parametrize(
        'part',
        ['x', 'a.', 'http://a:', '://a:b', 'password', 'password=', "password='", 'password=' + ' ' * 9, '@', ' '],
    )
    def test_cost_no_more_than_their_length(self, part):
        started = time.perf_counter()
        clean(part * (1_000_000 // len(part)))
        assert time.perf_counter() - started < 5

    def test_of_any_length_are_short_in_the_end(self):
        assert len(clean('x' * 50_000_000).encode()) <= LIMIT


class TestBrief:
    @pytest.mark.parametrize(
        ('error', 'line'),
        [
            (ValueError('one\ntwo'), 'ValueError: one'),
            (ValueError('\n  one\r\ntwo'), 'ValueError: one'),
            (ValueError('one\rtwo\u2028three'), 'ValueError: one'),
            (ValueError(), 'ValueError'),
            (ValueError('  '), 'ValueError'),
        ],
    )
    def test_is_one_line(self, error, line):
        assert brief(error) == line
