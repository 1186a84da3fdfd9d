"""Plain data with something else in one of its places, for tests of what reads files of others."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

STRANGE: tuple[Any, ...] = (None, True, [], {}, "x", [1, [2]], {"a": 1}, 10**400, float("nan"), -1, {"filter": "a", "value": [0, 1]})


def changed(given: Any) -> Iterator[Any]:
    """What a recipe may be with something else in one of its places."""
    yield from STRANGE
    if isinstance(given, (dict, list)):
        places: list[Any] = list(given) if isinstance(given, dict) else list(range(len(given)))
        for place in places:
            for other in changed(given[place]):
                made = copy.copy(given)
                made[place] = other
                yield made
