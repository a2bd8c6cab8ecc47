"""Where evolutions come from: whatever stands in the ``evolutions`` option."""

from .entries import evolutions_of, offered

__all__ = ['evolutions_of', 'offered']
