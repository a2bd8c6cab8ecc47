"""Entries of the ``evolutions`` option: what they may be, and what is said of what they may not be."""

from __future__ import annotations

import sys

import pytest
import tg

import tgext.evolve
from tests import apps
from tests.web.conftest import PATIENCE
from tgext.evolve import PlanError, SourceError
from tgext.evolve.finding import evolver_in

HEAD = 'from tgext.evolve import Evolution\n'


def a_class(name, id=None):
    id = repr(id or name)
    return f'class {name}(Evolution):\n    evolution_id = {id}\n    def evolve(self):\n        pass\n'


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes modules by their paths, importable in this test only."""
    root = tmp_path / 'modules'
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    before = set(sys.modules)

    def make(**files):
        for name, source in files.items():
            path = root / (name.replace('__in__', '/') + '.py')
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in path.relative_to(root).parents:
                if str(folder) != '.' and not (root / folder / '__init__.py').exists():
                    (root / folder / '__init__.py').write_text('')
            path.write_text(HEAD + source)

    yield make
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], '__file__', '')).startswith(str(root)):
            del sys.modules[name]


def planned(site, url, *entries, **rest):
    return [each.id for each in site(url, list(entries), **rest).evolver.plan]


def test_an_attribute_may_be_a_class_an_instance_or_a_list(site, url, write):
    write(things=a_class('A') + a_class('B') + 'made = B()\nsome = [A]\n')
    assert planned(site, url, 'things.A') == ['A']
    assert planned(site, url, 'things.made') == ['B']
    assert planned(site, url, 'things.some', 'things.made') == ['A', 'B']


def test_what_a_module_only_imports_is_not_its_own(site, url, write):
    write(first=a_class('A'), second='from first import A\n' + a_class('B'))
    assert planned(site, url, 'second') == ['B']
    assert planned(site, url, 'first', 'second') == ['A', 'B']


def test_a_base_class_without_an_id_is_none(site, url, write):
    write(based='class Base(Evolution):\n    pass\n' + a_class('A').replace('(Evolution)', '(Base)'))
    assert planned(site, url, 'based') == ['A']


def test_packages_are_read_all_the_way_down_in_name_order(site, url, write):
    write(
        deep__in__b=a_class('B'),
        deep__in__a__in__z=a_class('AZ'),
        deep__in__a__in__a=a_class('AA'),
        deep__in__c=a_class('C'),
    )
    assert planned(site, url, 'deep') == ['AA', 'AZ', 'B', 'C']


def test_a_list_in_a_module_wins_and_may_name_others(site, url, write):
    write(
        chosen=a_class('A') + a_class('B') + "evolutions = [B, 'other.C']\n",
        other=a_class('C') + a_class('D'),
    )
    assert planned(site, url, 'chosen') == ['B', 'C']


def test_the_module_itself_may_be_an_entry(site, url, write):
    write(itself=a_class('A'))
    import itself

    assert planned(site, url, itself) == ['A']


def test_an_entry_alone_needs_no_list(site, url, write):
    write(alone=a_class('A'))
    for entry in ('alone', 'alone.A'):
        base_config = apps.configurator(apps.Model())
        tgext.evolve.plugme(base_config, {'evolutions': entry})
        each = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url}))
        assert [p.id for p in each.evolver.plan] == ['A']
    base_config = apps.configurator(apps.Model())
    tgext.evolve.plugme(base_config, {'evolutions': apps.evolution('class')})
    tgext.evolve.register(base_config, apps.evolution('more'))
    tgext.evolve.register(base_config, 'alone')
    each = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url}))
    assert [p.id for p in each.evolver.plan] == ['class', 'more', 'A']


@pytest.mark.parametrize('written', ['one two.B', 'one, two.B', 'one\n  two.B\n'])
def test_the_ini_may_name_them(site, url, write, written):
    write(one=a_class('A'), two=a_class('B') + a_class('C'))
    assert planned(site, url, ini={'tgext.evolve.evolutions': written}) == ['A', 'B']


def test_the_blueprint_may_name_them(site, url):
    base_config = apps.configurator(apps.Model())
    base_config.update_blueprint({'tgext.evolve.evolutions': [apps.evolution('a')]})
    tgext.evolve.plugme(base_config)
    each = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url}))
    assert [p.id for p in each.evolver.plan] == ['a']


def test_an_instance_with_parameters_is_what_it_is(site, url):
    seen = []

    class Rename(tgext.evolve.Evolution):
        def __init__(self, old, new):
            self.evolution_id = f'rename-{old}-{new}'
            self.old, self.new = old, new

        def evolve(self):
            seen.append((self.old, self.new))

    assert site(url, [Rename('a', 'b'), Rename(old='c', new='d')]).opens()
    assert seen == [('a', 'b'), ('c', 'd')]


# -- mistakes


@pytest.mark.parametrize(
    ('entry', 'said'),
    [
        ('nowhere', ["'nowhere'", 'cannot be imported']),
        ('nowhere.at.all', ["'nowhere.at.all'", 'cannot be imported']),
        ('broken', ["'broken'", 'SyntaxError']),
        ('raising', ["'raising'", 'ZeroDivisionError']),
        ('needing', ["'needing'", 'no_such_library']),
        ('needing.A', ["'needing.A'", 'no_such_library']),
        ('fine.Missing', ["'fine.Missing'", 'cannot be imported']),
        ('fine.number', ['5', 'is not an evolution']),
        ('package', ["'package.bad'", 'no_such_library']),
        ('', ["''"]),
        ('.relative', ["'.relative'"]),
        ('fine.', ["'fine.'"]),
        (None, ['None is not an evolution']),
        ({'a': 1}, ['is not an evolution']),
    ],
    ids=str,
)
def test_what_is_wrong_with_an_entry_is_said_by_name(site, url, write, entry, said):
    write(
        broken='def (:\n',
        raising='1 / 0\n',
        needing='import no_such_library\n' + a_class('A'),
        fine='number = 5\n' + a_class('A'),
        package__in__bad='import no_such_library\n',
    )
    with pytest.raises(SourceError) as caught:
        site(url, [entry])
    for word in said:
        assert word in str(caught.value)
    assert caught.value.remedy


def test_a_module_that_lists_itself_is_an_error(site, url, write):
    write(ring="evolutions = ['ring']\n")
    with pytest.raises(SourceError, match="'ring'"):
        site(url, ['ring'])


def test_a_class_that_needs_parameters_is_named_with_its_module(site, url, write):
    write(wanting=a_class('A') + '    def __init__(self, old):\n        pass\n')
    for entry in ('wanting', 'wanting.A'):
        with pytest.raises(SourceError, match=r'wanting\.A takes parameters'):
            site(url, [entry])


def test_twice_the_same_id_names_both_modules(site, url, write):
    write(here=a_class('A', 'same'), there=a_class('B', 'same'))
    with pytest.raises(PlanError) as caught:
        site(url, ['here', 'there'])
    for word in ("'same'", 'here', 'there'):
        assert word in str(caught.value)


def test_a_registered_evolution_may_depend_on_the_applications_own(site, url):
    log = []
    base_config = apps.configurator(apps.Model())
    first = apps.evolution('plugged', lambda e: log.append(e.evolution_id), depends_on=('own',))
    tgext.evolve.register(base_config, [first])
    own = apps.evolution('own', lambda e: log.append(e.evolution_id))
    tgext.evolve.plugme(base_config, {'evolutions': [own], 'watch': 0, 'poll': 0.02})
    each = site.adopt(base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url}))
    assert each.opens()
    assert log == ['own', 'plugged']


def test_registering_without_plugging_does_nothing(url):
    base_config = apps.configurator(apps.Model())
    tgext.evolve.register(base_config, [apps.evolution('a')])
    app = base_config.make_wsgi_app({}, {'debug': 'false', 'sqlalchemy.url': url})
    with pytest.raises(tgext.evolve.EvolveError, match='not found'):
        evolver_in(app)
    with pytest.raises(tgext.evolve.EvolveError, match='not plugged'):
        tgext.evolve.is_open(tg.config)


# -- start() below what servers put around an application


def around_in_a_partial(app):
    from functools import partial

    def call(inner, environ, start_response):
        return inner(environ, start_response)

    return partial(call, app)


def around_in_a_list(app):
    class Cascade:
        def __init__(self, applications):
            self.applications = applications

        def __call__(self, environ, start_response):
            return self.applications[-1](environ, start_response)

    return Cascade([app])


def around_by_prefix(app):
    class Dispatcher:
        def __init__(self, mounts):
            self.mounts = mounts

        def __call__(self, environ, start_response):
            return self.mounts['/wiki'](environ, start_response)

    return Dispatcher({'/wiki': app})


def around_in_slots(app):
    class Slim:
        __slots__ = ('inner',)

        def __call__(self, environ, start_response):
            return self.inner(environ, start_response)

    slim = Slim()
    slim.inner = app
    return slim


def around_in_a_decorator(app):
    from functools import wraps

    @wraps(app, updated=())
    def call(environ, start_response):
        return app(environ, start_response)

    return call


@pytest.mark.parametrize(
    'around', [around_in_a_partial, around_in_a_list, around_by_prefix, around_in_slots, around_in_a_decorator]
)
def test_start_finds_the_application(site, url, around):
    each = site(url, [apps.evolution('a')])
    tgext.evolve.start(around(each.app))
    assert each.gate.wait(PATIENCE)


def test_start_of_a_bound_method_or_of_the_gate_itself(site, url):
    each = site(url, [apps.evolution('a')])
    tgext.evolve.start(each.app.__call__)
    assert each.gate.wait(PATIENCE)
    tgext.evolve.start(each.app)


def test_start_of_a_disabled_application_says_that_it_may_be_disabled(site, url):
    each = site(url, [], options={'enabled': False})
    with pytest.raises(tgext.evolve.EvolveError, match='disabled'):
        tgext.evolve.start(each.app)
    tgext.evolve.start(each.conf)


# -- whose configuration


def test_in_the_callers_thread_an_evolution_sees_its_own_application_too(site, tmp_path):
    """``blocking`` runs in the request; the application that was configured last is another one."""
    seen = []
    options = {'mode': 'blocking'}
    evolution = apps.evolution('a', lambda e: seen.append((tg.config['package_name'], tg.config['sqlalchemy.url'])))
    one_url, two_url = (f'sqlite:///{tmp_path}/{name}.db' for name in ('one', 'two'))
    one = site(one_url, [evolution], name='app_one', options=options)
    two = site(two_url, [evolution], name='app_two', options=options)
    assert one.get('/').status_int == 200
    assert tg.config['package_name'] == 'app_two'
    assert two.get('/').status_int == 200
    assert seen == [('app_one', one_url), ('app_two', two_url)]
