"""Named points in the code where a test can stop, kill or cut a real process.

In production a point is one call of a function that does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

_reach: Callable[[str], None] | None = None


def point(name: str) -> None:
    """This process has come to the point ``name``."""
    if _reach is not None:
        _reach(name)


def at_points(reach: Callable[[str], None] | None) -> Callable[[str], None] | None:
    """Have ``reach`` called at each point; None: nothing again. For tests only.

    :returns: what was called before.
    """
    global _reach
    before, _reach = _reach, reach
    return before
