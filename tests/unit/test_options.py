"""Options: the strings of an ini file, or values; a bad one is named."""

from __future__ import annotations

import pytest

from tgext.evolve import OptionError
from tgext.evolve.options import COERCE, PREFIX, Options, check_names


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
    ],
)
def test_a_bad_value_is_named_with_its_option(name, value):
    with pytest.raises(OptionError, match=f'tgext.evolve.{name} = '):
        read(**{name: value})


def test_an_unknown_option_is_named_with_what_was_meant():
    with pytest.raises(OptionError, match=r'no option tgext\.evolve\.leese .*Did you mean tgext\.evolve\.lease'):
        read(leese='1')


def test_an_unknown_option_that_resembles_none_is_told_which_there_are():
    with pytest.raises(OptionError) as raised:
        check_names({'xyzzy': 1})
    assert all(name in raised.value.remedy for name in COERCE)
