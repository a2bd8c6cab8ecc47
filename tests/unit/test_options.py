"""Options: the strings of an ini file, or values; a bad one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tgext.evolve import OptionError
from tgext.evolve.options import COERCE, PREFIX, Options, check_names, page_of


def read(**given):
    return Options.of({PREFIX + name: value for name, value in given.items()}, package_name='app')


def test_defaults():
    options = read()
    assert (options.enabled, options.mode, options.namespace, options.store) == (True, 'background', 'app', 'auto')
    assert (options.lease, options.poll, options.watch) == (10, 0.5, 5)
    assert (options.on_failure, options.unknown, options.max_attempts, options.retry_delay) == ('closed', 'warn', 5, 5)
    assert (options.retry_after, options.bypass, options.health_path) == (None, (), '/_evolve')


def test_what_belongs_to_others_is_left_alone():
    conf = {'sqlalchemy.url': 'x', 'debug': 'false', 'tgext.evolver': 1, PREFIX + 'evolutions': [object()]}
    assert Options.of(conf, package_name='app') == read()


@pytest.mark.parametrize(
    ('name', 'value', 'read_as'),
    [
        ('enabled', 'false', False),
        ('enabled', ' No ', False),
        ('enabled', 'ON', True),
        ('enabled', True, True),
        ('enabled', '0', False),
        ('mode', ' Wait', 'wait'),
        ('namespace', ' shop ', 'shop'),
        ('namespace', '', 'app'),
        ('lease', '2.5', 2.5),
        ('watch', '0', 0),
        ('watch', 0, 0),
        ('retry_delay', '0', 0),
        ('poll', '1', 1),
        ('max_attempts', ' 3 ', 3),
        ('retry_after', 'auto', None),
        ('retry_after', '30', 30),
        ('bypass', '/a  /b/c/', ('/a', '/b/c')),
        ('bypass', ['/a', 'b'], ('/a', '/b')),
        ('bypass', '', ()),
        ('bypass', None, ()),
        ('health_path', '/health/', '/health'),
        ('health_path', '', ''),
        ('permission', ' deploy ', 'deploy'),
        ('bypass_secret', ' twenty characters!!! ', 'twenty characters!!!'),
        ('bypass_secret', '', ''),
        ('bypass_secret', None, ''),
        ('bypass_secret', 'zwölf Boxkämpfer jagen', 'zwölf Boxkämpfer jagen'),
        ('page_title', ' A short\n  break ', 'A short break'),
        ('page_text', ' Two\n\nparagraphs ', 'Two\n\nparagraphs'),
        ('page_file', '', ''),
        ('page_file', None, ''),
        ('page_file', 'tgext.evolve:templates/maintenance.html', 'tgext.evolve:templates/maintenance.html'),
        ('page_file', __file__, __file__),
        ('page_file', Path(__file__), __file__),
        ('page_details', 'Yes', True),
    ],
)
def test_good_values(name, value, read_as):
    assert getattr(read(**{name: value}), name) == read_as


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('enabled', 'maybe'),
        ('enabled', ''),
        ('enabled', None),
        ('mode', 'foreground'),
        ('namespace', 'a' * 201),
        ('namespace', 'a\nb'),
        ('lease', '0.5'),
        ('lease', 'ten'),
        ('lease', 'nan'),
        ('lease', 'inf'),
        ('lease', None),
        ('poll', '0'),
        ('poll', '11'),
        ('watch', '-1'),
        ('on_failure', 'ignore'),
        ('unknown', 'yes'),
        ('max_attempts', '0'),
        ('max_attempts', '1.5'),
        ('max_attempts', 'many'),
        ('retry_delay', '-1'),
        ('retry_after', '0'),
        ('retry_after', 'soon'),
        ('bypass', '/'),
        ('bypass', '/a /'),
        ('bypass', ['']),
        ('bypass', '/a//b'),
        ('bypass', '/a/../b'),
        ('bypass', '/a, /b'),
        ('bypass', 5),
        ('health_path', 'health'),
        ('health_path', '//health'),
        ('permission', ''),
        ('permission', None),
        ('page_file', 'no/such/file'),
        ('page_file', 'a\x00b'),
        ('page_file', 'tgext.evolve:../../../../no/such/file'),
        ('page_file', 'no.such.package:file'),
        ('page_details', 'details'),
    ],
)
def test_a_bad_value_is_named_with_its_option(name, value):
    with pytest.raises(OptionError, match=f'tgext.evolve.{name} = '):
        read(**{name: value})


def test_a_page_that_is_not_utf_8_is_named(tmp_path):
    page = tmp_path / 'page.html'
    page.write_bytes('<p>Grüße</p>'.encode('latin-1'))
    with pytest.raises(OptionError, match=r'tgext\.evolve\.page_file = .*UTF-8'):
        read(page_file=str(page))


def test_the_page_of_a_package_and_that_of_a_path_are_read(tmp_path):
    (tmp_path / 'page.html').write_text('<p>Grüße</p>', 'utf-8')
    assert page_of(str(tmp_path / 'page.html')) == '<p>Grüße</p>'
    assert page_of('tgext.evolve:templates/maintenance.html').startswith('<!DOCTYPE html>')


@pytest.mark.parametrize(
    'secret', ['short', 'nineteen characters', 'with a\nline break in it', 'with a NUL \x00 in it ...']
)
def test_a_bad_secret_is_not_told(secret):
    with pytest.raises(OptionError, match=r'tgext\.evolve\.bypass_secret') as raised:
        read(bypass_secret=secret)
    assert secret not in str(raised.value)
    assert repr(secret)[1:-1] not in str(raised.value)
    assert raised.value.__context__ is None  # nor by what it was found out


def test_a_secret_without_a_place_to_enter_it_is_an_error():
    with pytest.raises(OptionError, match=r'needs tgext\.evolve\.health_path'):
        read(bypass_secret='twenty characters!!!', health_path='')


def test_the_secret_is_not_printed_with_the_options():
    assert 'twenty characters' not in repr(read(bypass_secret='twenty characters!!!'))


def test_an_unknown_option_is_named_with_what_was_meant():
    with pytest.raises(OptionError, match=r'no option tgext\.evolve\.leese .*Did you mean tgext\.evolve\.lease'):
        read(leese='1')


def test_an_unknown_option_that_resembles_none_is_told_which_there_are():
    with pytest.raises(OptionError) as raised:
        check_names({'xyzzy': 1})
    assert all(name in raised.value.remedy for name in COERCE)
