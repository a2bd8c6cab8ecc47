"""Where evolutions come from: whatever stands in the ``evolutions`` option."""

from .base import Place, PlacedSource, Source
from .entries import evolutions_of, offered

__all__ = ['Place', 'PlacedSource', 'Source', 'evolutions_of', 'offered']
