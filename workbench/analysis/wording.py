"""Numbers and names as they stand in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SHOWN = 3  # names


def percent(share: float) -> str:
    """`6.6 %`, of a share; two digits below ten percent."""
    if math.isnan(share):
        return "undefined"
    if 0 < share < 1e-6:
        return "under 0.0001 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


def enumerated(names: Sequence[str], shown: int = _SHOWN) -> str:
    """`a, b and c`, or the first few and how many more there are."""
    if len(names) > shown:
        return f"{', '.join(names[:shown])} and {len(names) - shown} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
