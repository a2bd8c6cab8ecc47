"""What docs/testing.rst shows is run: in a project as it describes one."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tgext.evolve.sources.alembic import AlembicRevisions
from tgext.evolve.testing import EvolutionRunner
from tgext.evolve.testing.items import _CHECKS, check_evolutions

PAGE = (Path(__file__).parents[2] / 'docs' / 'testing.rst').read_text()
BLOCKS = [textwrap.dedent(block) for block in re.findall(r'\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)', PAGE)]

CONFIG = """
from tests import apps
import tgext.evolve
from tgext.evolve import Evolution
from myapp import model


class BackfillSlugs(Evolution):
    evolution_id = '2026-11-backfill-slugs'
    description = 'Give every page a slug'
    transactional = True

    def evolve(self):
        for number, page in enumerate(model.DBSession.query(model.Page).order_by(model.Page.id)):
            page.slug = page.title.lower().replace('é', 'e') + ('' if number == 0 else f'-{number + 1}')


class AddOne(Evolution):
    evolution_id = '2026-11-add-one'
    description = 'Everybody has seen each page once more'
    transactional = True

    def evolve(self):
        for page in model.DBSession.query(model.Page):
            page.seen += 1


base_config = apps.configurator(model.model)
tgext.evolve.plugme(base_config, {'evolutions': [BackfillSlugs, AddOne]})
"""


@pytest.fixture
def project(pytester):
    for folder in ('myapp', 'myapp/config', 'myapp/tests'):
        pytester.mkpydir(folder)
    write = {
        'myapp/model.py': 'from tests.apps import Model\nmodel = Model()\n'
        'Page, DBSession, metadata = model.Page, model.DBSession, model.metadata\n',
        'myapp/config/app_cfg.py': CONFIG,
        'myapp/config/application.py': 'from .app_cfg import base_config\n\n'
        'def make_app(global_conf, **app_conf):\n    return base_config.make_wsgi_app(global_conf, app_conf)\n',
    }
    for name, text in write.items():
        pytester.path.joinpath(name).write_text(text)
    return pytester


def block(words):
    [found] = [each for each in BLOCKS if words in each]
    return found


def test_the_blocks_of_the_page_work(project, run_pytest):
    tests = project.path / 'myapp' / 'tests'
    # Both fixtures have the same application.
    again = '\n\n@pytest.fixture\ndef wiki_application(evolve_application):\n    return evolve_application\n'
    (tests / 'conftest.py').write_text(block('def evolve_application') + again)
    (tests / 'test_evolutions.py').write_text(
        block('TestEvolutions = check_evolutions(base_config)')
        + '\n\n'
        + block('exempt=').replace('TestEvolutions', 'TestAgain')
        + '\n\n'
        + block('def test_every_page_gets_a_slug').replace("'Café'}", "'Café', 'seen': 0}")  # a column of this model
    )
    plain = textwrap.indent(block('from tgext.evolve.testing import Checks'), '    ').replace(
        '.all()', '.plan_is_sound()'
    )
    (tests / 'test_plain.py').write_text(
        f'def test_it(evolve_application):\n    make_application = evolve_application\n{plain}'
    )
    result = run_pytest('-p', 'no:xdist', 'myapp')
    # What adds 1 does not run twice with the same result: that is what the page exempts it from.
    result.assert_outcomes(passed=11 - 1 + 10 + 1 + 1, failed=1)
    result.stdout.fnmatch_lines(['FAILED *TestEvolutions::test_runs_twice_with_the_same_result[[]2026-11-add-one]*'])


def test_the_page_knows_every_test():
    kit = check_evolutions([])
    assert [name for name in vars(kit) if name.startswith('test')] == ['test_ids_are_unique_and_the_plan_has_an_order']
    steps = AlembicRevisions()
    shown = set(re.findall(r'``(test_\w+)``', PAGE))
    from tests.testing.projects import evolution

    assert shown == {
        name for name in vars(check_evolutions([evolution('x', print), steps])) if name.startswith('test_')
    }
    assert len(shown) == len(_CHECKS) + 2


def test_the_page_knows_what_a_runner_does():
    public = {name for name in vars(EvolutionRunner) if not name.startswith('_')}
    shown = {name for name in public if f'``{name}' in PAGE}
    # What is left is for checks, and for who makes a runner without the fixture.
    assert public - shown == {'close', 'content', 'evolver', 'find', 'forget', 'run_plan'}
