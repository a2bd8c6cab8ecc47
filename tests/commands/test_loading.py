"""Whatever is wrong with the ini or the application is one line, an exit code, and no traceback."""

from __future__ import annotations

import pytest

from tests import apps
from tests.commands import application
from tgext.evolve.commands.command import DOES, LOOKS

pytestmark = pytest.mark.parametrize('store_url', ['sqlite'], indirect=True)

ARGUMENTS = {'unstamp': ['one'], 'retry': ['one'], 'dry-run': ['one'], 'create': ['a name'], 'stamp': ['--all']}


@pytest.mark.parametrize('verb', DOES)
def test_there_is_no_such_ini(site, verb):
    typed = site.type(verb, '-c', 'nowhere.ini', *ARGUMENTS.get(verb, []))
    assert typed.code == 66
    assert "'nowhere.ini'" in typed.error
    assert typed.out == ''


@pytest.mark.parametrize('spec', ['other.ini', 'config:other.ini', 'other.ini#main', 'config:other.ini#main'])
def test_the_ini_is_named_as_other_commands_of_gearbox_take_it(site, spec):
    site.has()
    (site.directory / 'development.ini').rename(site.directory / 'other.ini')
    assert site.type('-c', spec, 'check').code == 0
    assert site.type('check', '--config', spec).code == 0
    assert site.type('check').code == 66


@pytest.mark.parametrize(
    'text',
    [
        'no section',
        '[app:main]\nuse = egg:no_such_distribution',
        '[app:main]\nuse = call:no.such:thing',
        '[server:main]',
    ],
)
def test_an_ini_that_is_bad(site, text):
    (site.directory / 'development.ini').write_text(text)
    typed = site.type('status')
    assert typed.code == 78
    assert 'development.ini' in typed.error
    assert site.type('status', '--json').json['error']['exit'] == 78


def test_a_section_that_is_not_there(site):
    typed = site.type('status', '-c', 'development.ini#other')
    assert typed.code == 78
    assert '#other' in typed.error


COMPOSITE = """
[composite:main]
use = call:tests.commands.application:make_both
one = one
two = two
[app:one]
use = call:tests.commands.application:make_app
sqlalchemy.url = {url}
tgext.evolve.namespace = first
[app:two]
use = call:tests.commands.application:make_app
sqlalchemy.url = {url}
"""


def test_two_applications_in_one_ini_have_to_be_told_apart(site):
    site.has(apps.evolution('one'))
    (site.directory / 'development.ini').write_text(COMPOSITE.format(url=site.url))
    typed = site.type('status')
    assert typed.code == 78
    assert '#NAME' in typed.error
    assert site.type('status', '-c', 'development.ini#one', '--json').json['namespace'] == 'first'
    assert site.type('status', '-c', 'development.ini#two', '--json').json['namespace'] == 'testapp'


def test_it_is_not_plugged(site):
    site.write(factory='make_unplugged')
    typed = site.type('status')
    assert typed.code == 78
    assert "plug(base_config, 'tgext.evolve'" in typed.error
    assert site.type('status', '--json').json['error']['kind'] == 'not-plugged'


@pytest.mark.parametrize('verb', [verb for verb in DOES if verb != 'create'])  # which needs a package, no database
def test_it_is_disabled(site, verb):
    one = apps.evolution('one')
    site.has(one)
    site.write(enabled='false')
    typed = site.type(verb, *ARGUMENTS.get(verb, []))
    if verb in LOOKS:
        assert typed.code == 0
        assert 'disabled' in typed.out
        assert site.type(verb, '--json').json['enabled'] is False
    else:
        assert typed.code == 78
        assert 'enabled = false' in typed.error
    assert one.runs == 0


def test_an_option_that_is_bad_is_named(site):
    site.write(pol='1')
    typed = site.type('status')
    assert typed.code == 78
    assert 'Did you mean tgext.evolve.poll?' in typed.error


def test_a_plan_that_is_none_is_named(site):
    site.has(apps.evolution('one'), apps.evolution('one'))
    typed = site.type('status')
    assert typed.code == 78
    assert "two evolutions have the id 'one'" in typed.error


def test_an_application_that_cannot_be_loaded(site):
    application.trouble = RuntimeError('first line\nsecond line')
    typed = site.type('status')
    assert typed.code == 78
    assert 'RuntimeError: first line' in typed.error


def test_an_application_that_asks_its_database_while_it_is_loaded(site):
    from sqlalchemy.exc import OperationalError

    refused = ConnectionRefusedError('refused')
    application.trouble = OperationalError('SELECT secret', {}, refused)
    typed = site.type('check')
    assert typed.code == 69
    assert site.type('check', '--json').json['error']['kind'] == 'database-away'


@pytest.mark.parametrize(
    'argv', [[], ['nonsense'], ['run', '--wait', 'soon'], ['graph', '--format', 'png'], ['watch', '--interval', '0']]
)
def test_a_command_line_that_cannot_be_understood_is_2_and_one_line(site, argv):
    typed = site.type(*argv)
    assert typed.code == 2
    assert typed.err.count('\n') == 1
    assert 'gearbox help evolve' in typed.err
