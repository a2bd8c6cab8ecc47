"""How hard generated examples are tried."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings

from tests.chaos.figures import long_or_short


def effort(long: int, short: int, **more: Any) -> settings:
    """Without a stopwatch: the machines that run this are busy.

    On a mutation of the product nobody reads the example, so that none is made smaller.
    """
    left_out = {Phase.shrink, Phase.explain} if 'EVOLVE_COPY' in os.environ else set()
    return settings(
        max_examples=long_or_short(long, short),
        phases=[phase for phase in Phase if phase not in left_out],
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        **more,
    )
