"""How Sphinx builds these pages: ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / '_ext'))

project = 'tgext.evolve'
author = 'Alessandro Molina and the tgext.evolve contributors'
copyright = 'the tgext.evolve contributors, MIT license'  # noqa: A001 (Sphinx's name)
release = version = version_of('tgext.evolve')

extensions = [
    'sphinx.ext.autodoc',  # public names, from their docstrings
    'sphinx.ext.doctest',  # what stands at a >>> is run
    'generated',  # options, verbs, exit codes, hooks and tables, from the code (_ext/generated.py)
]
exclude_patterns = ['_build']

html_theme = 'furo'
html_title = f'tgext.evolve {release}'
# The pages are where a clone has them; nothing is loaded from elsewhere.
html_copy_source = False

# Signatures as they are written; None of them needs a database to be read.
autodoc_typehints = 'signature'
autodoc_member_order = 'bysource'
python_use_unqualified_type_names = True
# Nothing to be run is guessed at: only what stands at a >>>.
doctest_test_doctest_blocks = 'default'
