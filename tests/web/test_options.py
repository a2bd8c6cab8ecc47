"""The options: from the blueprint, from plug() and from the ini; what is wrong is said with its remedy."""

from __future__ import annotations

from dataclasses import fields

import pytest
from tgext.pluggable import plug

import tgext.evolve
from tests import apps
from tgext.evolve import OptionError, PlanError
from tgext.evolve.component import EVOLVER
from tgext.evolve.options import Options

#: Some file.
_HERE = __file__

#: For each option: a value in Python, the same in an ini file, and what the application gets.
GOOD = {
    'enabled': (True, 'true', True),
    'mode': ('wait', 'wait', 'wait'),
    'namespace': ('other', ' other ', 'other'),
    'store': ('sqlalchemy', 'sqlalchemy', 'sqlalchemy'),
    'lease': (30, '30', 30.0),
    'poll': (0.25, '0.25', 0.25),
    'watch': (0, '0', 0.0),
    'on_failure': ('open', 'open', 'open'),
    'unknown': ('refuse', 'Refuse', 'refuse'),
    'max_attempts': (3, '3', 3),
    'retry_delay': (0.5, '0.5', 0.5),
    'retry_after': (30, '30', 30),
    'bypass': (['/hooks', '/pay'], '/hooks /pay', ('/hooks', '/pay')),
    'health_path': ('/internal/health', '/internal/health/', '/internal/health'),
    'discover': (False, 'off', False),
    'permission': ('deploy', ' deploy ', 'deploy'),
    'bypass_secret': ('a secret of 26 characters.', ' a secret of 26 characters. ', 'a secret of 26 characters.'),
    'page_title': ('Short break', ' Short\n break ', 'Short break'),
    'page_text': ('Tea is ready.', ' Tea is ready. ', 'Tea is ready.'),
    'page_file': (_HERE, f' {_HERE} ', _HERE),
    'page_details': (True, 'yes', True),
}

BAD = [
    ('enabled', 'maybe'),
    ('enabled', ''),
    ('mode', 'sometimes'),
    ('namespace', 'n' * 201),
    ('namespace', 'a\nb'),
    ('store', 'mysql'),
    ('store', 'nonsense://x/y'),
    ('lease', '0'),
    ('lease', 'ten'),
    ('lease', 'nan'),
    ('lease', 'inf'),
    ('lease', '-10'),
    ('poll', '0'),
    ('poll', '11'),  # more than the lease
    ('watch', '-1'),
    ('watch', 'never'),
    ('on_failure', 'ignore'),
    ('unknown', 'maybe'),
    ('max_attempts', '0'),
    ('max_attempts', '2.5'),
    ('retry_delay', '-1'),
    ('retry_after', '0'),
    ('retry_after', 'soon'),
    ('bypass', '/'),
    ('bypass', ['/hooks', '']),
    ('bypass', ['/a', None]),
    ('bypass', '/hooks/../x'),
    ('bypass', '/a//b'),
    ('health_path', 'evolve'),
    ('health_path', '/a//b'),
    ('discover', 'perhaps'),
    ('permission', ''),
    ('permission', 'a\nb'),
    ('page_file', '/no/such/file.html'),
    ('page_file', 'no_such_package:page.html'),
    ('page_file', 'tgext.evolve:no/such/page.html'),
    ('page_file', 'tgext.evolve:'),
    ('page_file', '/'),
    ('page_details', 'some'),
]

#: Options whose value, however odd, is never wrong, or never told.
ANYTHING = {'page_title', 'page_text', 'bypass_secret'}

ways = pytest.mark.parametrize('way', ['plugme', 'plug', 'blueprint', 'ini'])


def configure(url, given, way, evolutions=()):
    """An application's configuration, its options ``given`` one of the ways that there are."""
    base_config = apps.configurator(apps.Model())
    ini = {'debug': 'false', 'sqlalchemy.url': url}
    if way == 'plugme':
        tgext.evolve.plugme(base_config, {'evolutions': list(evolutions), **given})
    elif way == 'plug':
        plug(base_config, 'tgext.evolve', evolutions=list(evolutions), **given)
    else:
        tgext.evolve.plugme(base_config, {'evolutions': list(evolutions)})
        prefixed = {f'tgext.evolve.{name}': value for name, value in given.items()}
        if way == 'blueprint':
            base_config.update_blueprint(prefixed)
        else:
            ini.update(prefixed)
    conf = base_config.configure({}, ini)
    base_config.setup(conf)
    return conf


def test_each_option_is_tried_here():
    assert set(GOOD) == {field.name for field in fields(Options)}
    assert {name for name, _ in BAD} == set(GOOD) - ANYTHING


@ways
@pytest.mark.parametrize('name', sorted(GOOD))
def test_an_option_is_taken_from_wherever_it_is_written(url, name, way):
    value, written, expected = GOOD[name]
    conf = configure(url, {name: written if way == 'ini' else value}, way)
    got = getattr(conf[EVOLVER].options, name)
    assert got == expected
    assert type(got) is type(expected)


@ways
@pytest.mark.parametrize(('name', 'value'), BAD, ids=str)
def test_a_bad_value_is_an_error_that_names_option_value_and_remedy(url, name, value, way):
    if way == 'ini' and not isinstance(value, str):
        pytest.skip('an ini has strings only')
    with pytest.raises(OptionError) as caught:
        configure(url, {name: value}, way)
    said = str(caught.value)
    assert f'tgext.evolve.{name}' in said
    if isinstance(value, str):
        assert repr(value)[1:-1][:8] in said
    assert caught.value.remedy.startswith(('Use ', 'Name '))


@ways
@pytest.mark.parametrize('secret', ['hunter2', 'nineteen-characters', 'a secret\nof two long lines', 4711])
def test_a_bad_secret_is_an_error_that_does_not_tell_it(url, secret, way):
    if way == 'ini' and not isinstance(secret, str):
        pytest.skip('an ini has strings only')
    with pytest.raises(OptionError) as caught:
        configure(url, {'bypass_secret': secret}, way)
    assert 'tgext.evolve.bypass_secret' in str(caught.value)
    assert caught.value.remedy.startswith('Use ')
    assert str(secret) not in repr(caught.value.args) + str(caught.value)


def test_a_secret_needs_the_path_below_which_it_is_entered(url):
    with pytest.raises(OptionError, match=r'needs tgext\.evolve\.health_path') as caught:
        configure(url, {'bypass_secret': GOOD['bypass_secret'][0], 'health_path': ''}, 'ini')
    assert GOOD['bypass_secret'][0] not in str(caught.value)


def test_a_secret_is_not_seen_where_options_are_printed(url):
    secret = GOOD['bypass_secret'][0]
    options = configure(url, {'bypass_secret': secret}, 'plugme')[EVOLVER].options
    assert options.bypass_secret == secret
    assert secret not in repr(options)


@pytest.mark.parametrize(
    ('name', 'by_code', 'by_ini'),
    [
        ('permission', 'manage', 'deploy'),
        ('page_title', 'by code', 'by ini'),
        ('page_details', True, 'false'),
        ('bypass_secret', 'secret-by-code-0123456789', 'secret-by-ini-0123456789'),
    ],
)
def test_the_ini_has_the_last_word(url, name, by_code, by_ini):
    base_config = apps.configurator(apps.Model())
    tgext.evolve.plugme(base_config, {name: by_code})
    conf = base_config.configure({}, {'debug': 'false', 'sqlalchemy.url': url, f'tgext.evolve.{name}': by_ini})
    base_config.setup(conf)
    assert getattr(conf[EVOLVER].options, name) == (False if by_ini == 'false' else by_ini)


@ways
@pytest.mark.parametrize(
    ('name', 'close'), [('pol', 'poll'), ('evolution', 'evolutions'), ('healthpath', 'health_path')]
)
def test_an_unknown_option_is_an_error_that_names_a_likely_one(url, name, close, way):
    with pytest.raises(OptionError) as caught:
        configure(url, {name: '1'}, way)
    assert f'there is no option tgext.evolve.{name}' in str(caught.value)
    assert f'tgext.evolve.{close}' in caught.value.remedy


@ways
def test_an_unknown_option_like_no_other_is_an_error_that_names_all(url, way):
    with pytest.raises(OptionError) as caught:
        configure(url, {'xyzzy': '1'}, way)
    for name in GOOD:
        assert name in caught.value.remedy


def test_a_bad_value_in_the_ini_stops_the_application(site, url):
    with pytest.raises(OptionError):
        site(url, [], ini={'tgext.evolve.mode': 'sometimes'})


def test_a_password_in_a_bad_store_is_not_repeated(site, url):
    with pytest.raises(OptionError) as caught:
        site(url, [], options={'store': 'nonsense://user:hunter2@host/x'})
    assert 'hunter2' not in str(caught.value)


# -- enabled


@ways
@pytest.mark.parametrize('value', [False, 0, 'false', 'no', 'off', '0', 'False', ' NO '])
def test_disabled_sets_nothing_up(site, url, value, way):
    if way == 'ini':
        value = str(value)
    evolution = apps.evolution('a')
    conf = configure(url, {'enabled': value}, way, [evolution])
    assert conf[EVOLVER] is None
    assert tgext.evolve.is_open(conf)
    assert tgext.evolve.wait(conf, 0)
    assert tgext.evolve.stamp(conf) == []


@ways
@pytest.mark.parametrize('value', [True, 1, 'true', 'yes', 'on', '1', 'True', ' YES '])
def test_enabled_is_enabled(url, value, way):
    conf = configure(url, {'enabled': str(value) if way == 'ini' else value}, way, [apps.evolution('a')])
    assert conf[EVOLVER] is not None
    assert not tgext.evolve.is_open(conf)


def test_a_disabled_application_has_no_gate_and_asks_no_database(site, url):
    evolution = apps.evolution('a')
    with apps.statements() as statements:
        each = site(url, [evolution], options={'enabled': False})
        assert each.get('/').text == 'served'
        assert each.get('/_evolve/live').status_int == 404
    assert statements == []
    assert evolution.runs == 0
    assert 'GateMiddleware' not in repr(layers(each.app))


def test_a_disabled_application_does_not_look_for_its_evolutions(site, url):
    """A test suite may disable it where the evolutions' own needs are not there."""
    each = site(url, ['no.such.module'], options={'enabled': 'false'})
    assert each.get('/').text == 'served'


def layers(app):
    found = []
    while app is not None:
        found.append(type(app).__name__)
        app = getattr(app, 'app', None) or getattr(app, 'application', None)
    return found


# -- plugging


@pytest.mark.parametrize(
    'options',
    [
        {'global_models': True},
        {'appid': 'changes'},
        {'global_models': True, 'appid': 'x'},
        {'rename_tables': {}},
        {'global_helpers': True},
        {'plug_controller': False},
        {'plug_models': False, 'plug_helpers': False, 'plug_bootstrap': False, 'plug_statics': False},
    ],
    ids=str,
)
def test_the_options_of_tgext_pluggable_are_accepted(site, url, options):
    evolution = apps.evolution('a')
    base_config = apps.configurator(apps.Model())
    plug(base_config, 'tgext.evolve', evolutions=[evolution], watch=0, **options)
    each = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url}))
    assert each.opens()
    assert each.get('/').text == 'served'
    assert evolution.runs == 1


def test_plugme_alone_needs_no_options(site, url):
    base_config = apps.configurator(apps.Model())
    assert tgext.evolve.plugme(base_config)['appid']
    each = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url}))
    assert each.get('/').text == 'served'


def test_plugged_twice_is_an_error(url):
    base_config = apps.configurator(apps.Model())
    tgext.evolve.plugme(base_config, {})
    with pytest.raises(PlanError, match='plugged twice'):
        tgext.evolve.plugme(base_config, {})
    with pytest.raises(PlanError, match=r'tgext\.evolve\.register'):
        plug(base_config, 'tgext.evolve')


def test_one_configurator_makes_any_number_of_applications(site, tmp_path):
    base_config = apps.configurator(apps.Model())
    runs = []
    tgext.evolve.plugme(base_config, {'evolutions': [apps.evolution('a', runs.append)], 'watch': 0})
    for number in range(3):
        ini = {'debug': 'false', 'sqlalchemy.url': f'sqlite:///{tmp_path}/{number}.db'}
        each = site.adopt(base_config.make_wsgi_app({}, ini))
        assert each.opens()
        assert len(runs) == number + 1


def test_the_namespace_is_the_packages_name(site, url):
    assert site(url, [], name='myapp').evolver.options.namespace == 'myapp'
    assert site(url, [], name='myapp', options={'namespace': 'x'}).evolver.options.namespace == 'x'


def test_a_store_of_its_own_keeps_the_applications_database_free(site, url, tmp_path):
    elsewhere = f'sqlite:///{tmp_path}/evolve.db'
    each = site(url, [apps.evolution('a')], options={'store': elsewhere})
    assert each.opens()
    each.stop()
    with apps.statements() as statements:
        again = site(url, [apps.evolution('a')], options={'store': elsewhere})
    assert again.gate.is_open
    assert len(statements) == 1
    assert not (tmp_path / 'app.db').exists() or not (tmp_path / 'app.db').stat().st_size
    assert (tmp_path / 'evolve.db').stat().st_size


def test_a_transactional_evolution_needs_the_store_beside_its_data(site, url, tmp_path):
    with pytest.raises(PlanError) as caught:
        site(
            url,
            [apps.evolution('both', transactional=True)],
            options={'store': f'sqlite:///{tmp_path}/elsewhere.db'},
        )
    assert "'both'" in str(caught.value)
