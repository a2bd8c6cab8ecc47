"""Filters for ``logging``: an access log without the 503s that are meant, and records that name their evolution."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from .events import fields
from .evolution import current

#: The header that tells a 503 of the gate from all others; its value is the reason.
MARKER = 'X-Evolve'


class NoMaintenance(logging.Filter):
    """Drops the lines of gunicorn's access log that are about a 503 of the closed gate.

    For the logger ``gunicorn.access`` or its handlers. What it cannot tell stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        atoms = record.args
        if not isinstance(atoms, Mapping) or str(atoms.get('s', '')) != '503':
            return True
        return atoms.get(f'{{{MARKER.lower()}}}o') in (None, '-')


class WithEvolution(logging.Filter):
    """Gives every record the fields of :func:`tgext.evolve.events.fields`, for formats that name them.

    What is logged inside of ``evolve()``, by whatever library, gets the id, attempt and token of the
    evolution that runs; what is logged elsewhere gets None. Put it on a handler.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        run = current()
        found = fields() if run is None else run.fields()
        for name, value in found.items():
            if getattr(record, name, None) is None:
                setattr(record, name, value)
        return True
