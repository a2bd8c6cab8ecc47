"""Each process of the suite notes where it makes errors, for :mod:`tests.raised` to read."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from tgext.evolve.errors import EvolveError

#: In the environment: the directory that all processes of a run write to.
WHERE = 'EVOLVE_RAISED'

#: The file in it.
NOTES = 'notes'


def note_all() -> None:
    """From now on, if a run wants to know."""
    if WHERE in os.environ and not hasattr(EvolveError.__init__, 'noted'):
        noting = noted(EvolveError.__init__, Path(os.environ[WHERE]) / NOTES)
        EvolveError.__init__ = noting  # type: ignore[method-assign]


def pytest_configure() -> None:
    """As a plugin of a pytest that a test starts: ``-p tests.noting``."""
    note_all()


def noted(make: Callable[..., None], file: Path) -> Callable[..., None]:
    """The ``__init__`` of an error that also adds a line to *file* for each way that led to it: the positions of its
    callers, innermost first.
    """
    lines: set[str] = set()

    @functools.wraps(make)
    def init(self, *args, **kwargs):
        line = '\t'.join(_positions(sys._getframe(1)))
        if line not in lines:
            # A test may have taken the disk or the rights away.
            with contextlib.suppress(OSError), open(file, 'a') as out:
                out.write(f'{line}\n')
            # Near the end of the stack this is not come to: then it is tried again further up.
            lines.add(line)
        make(self, *args, **kwargs)

    init.noted = lines  # type: ignore[attr-defined]
    return init


def _positions(frame: FrameType | None, most: int = 6) -> Iterator[str]:
    while frame is not None and most:
        yield f'{frame.f_code.co_filename}:{frame.f_lineno}'
        frame = frame.f_back
        most -= 1
