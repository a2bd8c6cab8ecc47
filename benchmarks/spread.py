"""Medians that say how sure they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, its 95 % confidence bounds, and the extremes.

    The bounds are order statistics: they ask for no distribution, and are the extremes where there are too few values.
    """
    ordered = sorted(values)
    count = len(ordered)
    # So many values lie outside on each side: the normal approximation of a binomial with p = 1/2.
    outside = max(0, math.floor((count - 1.96 * math.sqrt(count)) / 2))
    return {
        'median': statistics.median(ordered),
        'low': ordered[outside],
        'high': ordered[count - 1 - outside],
        'smallest': ordered[0],
        'largest': ordered[-1],
        'count': count,
    }
