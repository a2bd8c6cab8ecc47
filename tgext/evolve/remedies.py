"""What messages tell people to type."""

from __future__ import annotations

import shlex


def to_type(verb: str, *ids: str) -> str:
    """A command line that a shell takes as it is meant, whatever characters the ids have."""
    words = ['gearbox', 'evolve', verb]
    if any(id.startswith('-') for id in ids):
        words.append('--')  # what follows is no option
    return ' '.join([*words, *map(shlex.quote, ids)])
