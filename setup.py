"""Which packages there are; everything else about the distribution stands in pyproject.toml."""

from setuptools import find_namespace_packages, setup

# tgext is a PEP 420 namespace that other distributions share: it has no __init__.py, and must not get one.
setup(
    packages=find_namespace_packages(include=['tgext.*']),
    package_data={'tgext.evolve': ['py.typed', 'templates/*', 'public/**/*', 'commands/skeletons/*']},
)
