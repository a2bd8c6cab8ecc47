"""The pytest plugin, in suites of other projects: each one here is a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROJECT = """
import pytest
import tg
from tests import apps
from tgext.evolve import Evolution

model = apps.Model()
Page = model.Page


class Good(Evolution):
    evolution_id = 'good'
    description = 'Give every page a slug'
    transactional = True

    def evolve(self):
        for page in model.DBSession.query(Page).filter(Page.slug.is_(None)):
            page.slug = page.title


class Bad(Evolution):
    evolution_id = 'bad'

    def evolve(self):
        for page in model.DBSession.query(Page):
            page.seen += 1


class Raises(Evolution):
    evolution_id = 'raises'
    description = 'Cannot be done'

    def evolve(self):
        pages = model.DBSession.query(Page).count()
        raise ZeroDivisionError(f'{pages} pages')


evolutions = [Good]


def make(url):
    model.DBSession.remove()
    apps.make(url, evolutions, model=model, options={'enabled': False})
    model.metadata.create_all(model.engine)
    with model.engine.begin() as connection:
        connection.execute(Page.__table__.insert(), [{'title': f'Page {number}'} for number in range(3)])
    return tg.config
"""

CONFTEST = """
import pytest
import project


@pytest.fixture
def evolve_application(evolve_database):
    return lambda: project.make(evolve_database())
"""


@pytest.fixture
def suite(pytester, run_pytest):
    """Runs a test module in the suite of a project, in a process of its own."""

    def run(module, *arguments, ini='', evolutions='[Good]', imports=''):
        pytester.makeini('[pytest]\n' + ini)
        project = imports + PROJECT.replace('evolutions = [Good]', f'evolutions = {evolutions}')
        pytester.makepyfile(project=project, conftest=CONFTEST, test_them=textwrap.dedent(module))
        return run_pytest(*arguments)

    return run


ONE_LINE = """
from project import evolutions
from tgext.evolve.testing import check_evolutions

TestEvolutions = check_evolutions(evolutions)
"""


def test_one_line_makes_a_test_of_each_check_and_evolution(suite):
    result = suite(ONE_LINE, '-v')
    result.assert_outcomes(passed=6)
    names = (
        'test_ids_are_unique_and_the_plan_has_an_order ',
        'test_has_a_description[[]good] ',
        'test_runs_on_old_data[[]good] ',
        'test_runs_twice_with_the_same_result[[]good] ',
        'test_survives_a_kill_at_every_boundary[[]good] ',
        'test_leaves_no_transaction_open[[]good] ',
    )
    result.stdout.fnmatch_lines([f'test_them.py::TestEvolutions::{name}PASSED*' for name in names])


def test_what_fails_says_what_is_wrong_and_where_and_what_to_do(suite):
    result = suite(ONE_LINE, '--show-capture=no', evolutions='[Good, Bad, Raises]')
    result.assert_outcomes(failed=4, passed=9, skipped=3)
    result.stdout.fnmatch_lines_random(
        [
            "evolution 'bad' has no description (in project.Bad). Say in one line what it does: *",
            "evolution 'bad' changes data when it runs a second time on its own result:",
            '  - page (id = 1): seen is 2 instead of 1',
            "evolution 'raises' raised ZeroDivisionError: 3 pages (in project.Raises). Mend the evolution, *",
            '  File "*project.py", line *, in evolve',
        ]
    )
    # A traceback through our own machinery helps nobody.
    result.stdout.no_fnmatch_line('*evolve/testing/*.py:*')
    result.stdout.no_fnmatch_line('*evolve/runner.py*')


def test_evolutions_that_make_no_plan_are_one_failure_and_the_rest_of_the_module_runs(suite):
    module = ONE_LINE + '\n\ndef test_another():\n    pass\n'
    result = suite(module, evolutions='[Good, Good]')
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["two evolutions have the id 'good' *"])


def test_evolutions_that_the_module_does_not_know_of_are_found_out(suite):
    module = """
        from project import Good
        from tgext.evolve.testing import check_evolutions

        TestEvolutions = check_evolutions([Good])
    """
    result = suite(module, evolutions='[Good, Raises]')
    result.assert_outcomes(failed=1, passed=5)
    result.stdout.fnmatch_lines(["the application has evolutions that no check knows: 'raises' *"])


def test_the_evolutions_of_a_base_config_are_found(suite):
    module = """
        import tgext.evolve
        from project import Bad, Good
        from tests import apps
        from tgext.evolve.testing import check_evolutions

        base_config = apps.configurator()
        tgext.evolve.plugme(base_config, {'evolutions': [Good]})
        tgext.evolve.register(base_config, [Bad])
        TestEvolutions = check_evolutions(base_config)
    """
    result = suite(module, '-k', 'description', evolutions='[Good, Bad]')
    result.assert_outcomes(passed=1, failed=1)


def test_an_evolution_can_be_exempt_from_a_check(suite):
    module = ONE_LINE.replace(
        '(evolutions)', "(evolutions, exempt={'bad': ['runs_twice', 'description', 'survives_kills']})"
    )
    suite(module, evolutions='[Good, Bad]').assert_outcomes(passed=1 + 5 + 2)


MISTAKES = {
    "{'bod': ['runs']}": "there is no evolution 'bod' (in exempt, of check_evolutions()). There are: 'good'",
    "{'good': ['run']}": "there is no check 'run' (in exempt['good'], of check_evolutions()). Use a list of some of",
    "{'good': 'runs'}": "there is no check 'runs' (in exempt['good'], of check_evolutions()). Use a list",
}


def test_an_exemption_of_nothing_is_a_mistake(suite, pytester):
    for number, exempt in enumerate(MISTAKES):
        pytester.makepyfile(
            **{f'test_mistake_{number}': ONE_LINE.replace('(evolutions)', f'(evolutions, exempt={exempt})')}
        )
    result = suite('def test_another():\n    pass\n')
    result.assert_outcomes(errors=len(MISTAKES))
    for words in MISTAKES.values():
        assert words in result.stdout.str()


def test_steps_of_other_systems_are_one_test(suite, pytester):
    pytester.mkdir('sql').joinpath('V001__seen.sql').write_text('UPDATE page SET seen = seen + 1;')
    pytester.mkdir('wrong').joinpath('V001__pages.sql').write_text('UPDATE pages SET seen = 1;')
    sources = "[Good, SQLScripts('{here}/sql'), SQLScripts('{here}/wrong', name='wrong')]".replace(
        '{here}', str(pytester.path)
    )
    imports = 'from tgext.evolve.sources.sql import SQLScripts\n'
    result = suite(ONE_LINE, '--show-capture=no', evolutions=sources, imports=imports)
    result.assert_outcomes(passed=6, failed=1)
    result.stdout.fnmatch_lines(["evolution 'wrong:1' raised ScriptError: *no such table: pages*"])
    # Which ids there are is known no earlier.
    sources = sources.replace(", SQLScripts('{here}/wrong', name='wrong')".replace('{here}', str(pytester.path)), '')
    exempt = ONE_LINE.replace('(evolutions)', "(evolutions, exempt={'sql:01': ['runs']})")
    result = suite(exempt, '--show-capture=no', '-k', 'steps', evolutions=sources, imports=imports)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["there is no evolution or step 'sql:01' (in *). There are: 'good', 'sql:1'*"])


def test_a_test_of_its_own_gets_a_runner(suite):
    module = """
        def test_slugs(evolution_runner):
            change = evolution_runner.run('good')
            assert [row['slug'] for row in change.before['page']] == [None] * 3
            assert [row['slug'] for row in change.after['page']] == ['Page 0', 'Page 1', 'Page 2']
    """
    suite(module).assert_outcomes(passed=1)


LOOK = """
    def test_two(evolve_database):
        first, second = evolve_database(), evolve_database()
        print(first)
        assert first != second or first == 'sqlite://'
        assert evolve_database('mim:///other').startswith('mim:///evolve_')
"""


class TestScratchDatabases:
    @pytest.mark.parametrize('ini', ['', 'evolve_database =', 'evolve_database = sqlite'])
    def test_are_files_of_their_own(self, pytester, ini):
        pytester.makeini('[pytest]\n' + ini)
        pytester.makepyfile(textwrap.dedent(LOOK))
        # In this process: nothing of a project is imported.
        result = pytester.runpytest_inprocess('-p', 'no:cacheprovider', '-s')
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(['*sqlite:////*evolve_*.db*'])

    def test_can_be_in_memory(self, suite):
        result = suite(LOOK + ONE_LINE.replace('\n', '\n    '), '-s', ini='evolve_database = sqlite://')
        result.assert_outcomes(passed=7)

    def test_are_nobodys_own_file(self, suite):
        result = suite(LOOK, ini='evolve_database = sqlite:////tmp/precious.db')
        result.stdout.fnmatch_lines(["*the database for the checks of evolutions is the file '/tmp/precious.db' *"])

    @pytest.mark.parametrize('kind', ['postgresql', 'mariadb'])
    def test_are_made_beside_the_one_that_is_named_and_dropped_again(self, suite, request, kind):
        import sqlalchemy

        url = request.getfixturevalue(f'{kind}_server').new_database()
        result = suite(ONE_LINE + textwrap.dedent(LOOK), '-s', '--evolve-database', url, ini='evolve_database = x://')
        result.assert_outcomes(passed=7)
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            made = result.stdout.str().partition('/evolve_')[2].split()[0]
            question = 'SELECT count(*) FROM information_schema.schemata WHERE schema_name = :name'
            if kind == 'postgresql':
                question = 'SELECT count(*) FROM pg_database WHERE datname = :name'
            assert connection.execute(sqlalchemy.text(question), {'name': f'evolve_{made}'}).scalar() == 0
            assert sqlalchemy.inspect(connection).get_table_names() == []
        engine.dispose()

    def test_are_dropped_on_mongodb(self, suite, mongodb_server):
        from pymongo import MongoClient

        module = """
            from pymongo import MongoClient

            def test_one(evolve_database):
                url = evolve_database()
                with MongoClient(url) as client:
                    client.get_default_database().page.insert_one({'_id': 1})
                    assert client.get_default_database().name in client.list_database_names()
        """
        with MongoClient(mongodb_server.url) as client:
            before = set(client.list_database_names())
            suite(module, '--evolve-database', mongodb_server.new_database()).assert_outcomes(passed=1)
            assert set(client.list_database_names()) <= before


def test_a_project_that_does_not_use_it_pays_next_to_nothing(pytester):
    pytester.makepyfile("""
        import sys

        def test_nothing(request):
            loaded = {name.partition('.')[0] for name in sys.modules}
            assert not loaded & {'tg', 'sqlalchemy', 'pymongo', 'ming', 'transaction', 'zope', 'webob'}
            ours = {name for name in sys.modules if name.startswith('tgext.evolve')}
            assert ours == {
                'tgext.evolve', 'tgext.evolve.errors', 'tgext.evolve.evolution',
                'tgext.evolve.testing', 'tgext.evolve.testing.plugin',
            }
            assert request.fixturenames == ['request']
    """)
    pytester.runpytest_subprocess('-p', 'no:cacheprovider').assert_outcomes(passed=1)  # nothing is imported before it


def test_the_helpers_need_no_pytest():
    code = (
        'import sys\n'
        'from tgext.evolve.testing import Change, CheckFailed, Checks, Content, EvolutionRunner, NotApplicable\n'
        'assert "pytest" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)


def test_the_public_names_are_all_there():
    import tgext.evolve.testing as kit

    assert list(kit.__all__) == sorted(kit._HOME)
    for name in kit.__all__:
        assert getattr(kit, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        kit.nonsense  # noqa: B018
