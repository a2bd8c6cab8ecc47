"""The revisions of an alembic repository as evolutions: ``gearbox migrate upgrade`` under our lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import SourceError
from .base import Place, Source


class AlembicRevisions:
    """Every revision of an alembic repository is an evolution ``alembic:<revision>``.

    Revisions run through the project's own ``env.py``, one by one; alembic's version table decides which of
    them are applied, so ``gearbox migrate`` and tgext.evolve agree in both directions.

    :param location: the repository, as ``script_location`` of alembic: a path, beside the ini file or the
        project's ``setup.py`` where it is relative, or ``package:folder``.
    :param name: what the ids begin with; two repositories of one application need two.
    :param version_table: alembic's version table; None: as ``env.py`` says.
    :param version_table_schema: the schema of that table; None: as ``env.py`` says.
    :param serving: what may be served until its revisions are done: ``nothing``, ``reads`` or ``everything``.
    :param rerunnable: as for :class:`~tgext.evolve.Evolution`. False: a revision that was killed in its middle
        waits for a person, for databases that cannot roll DDL back.
    :param depends_on: which evolutions must be done before a revision: ``{'2a3f515bad0': ('backfill',)}``. The
        same can be said in a revision file: ``tgext_evolve = {'depends_on': ('backfill',)}``, where ``serving``
        and ``rerunnable`` of that revision may stand too.
    """

    def __init__(
        self,
        location: str = 'migration',
        *,
        name: str = 'alembic',
        version_table: str | None = None,
        version_table_schema: str | None = None,
        serving: str = 'nothing',
        rerunnable: bool | None = None,
        depends_on: Mapping[str, Sequence[str]] | None = None,
    ):
        self.location = location
        self.name = name
        self.version_table = version_table
        self.version_table_schema = version_table_schema
        self.serving = serving
        self.rerunnable = rerunnable
        self.depends_on = dict(depends_on or {})

    def at(self, place: Place) -> Source:
        """:raises SourceError: the repository is not there, is broken, or alembic is not installed."""
        try:
            from .revisions import Repository
        except ImportError as error:
            raise SourceError(
                f'{self!r} needs a library that is not installed: {error}',
                place='the evolutions option',
                remedy="Install it: pip install 'tgext.evolve[alembic]'",
            ) from error
        return Repository(self, place)

    def __repr__(self) -> str:
        return f'AlembicRevisions({self.location!r}, name={self.name!r})'
