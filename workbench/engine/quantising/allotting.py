"""How each tensor is written so that all fit into so many bytes with the least error. What each way loses is measured elsewhere."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from workbench.engine.quantising.quantiser import Quantiser


@dataclass(frozen=True)
class WritingOffer:
    """A way to write a tensor: its bytes in the file, and the squared error that it makes."""

    quantiser: Quantiser
    nbytes: int
    wrong: float


def allotted(offers: Mapping[str, Sequence[WritingOffer]], allowed: int) -> dict[str, WritingOffer] | None:
    """For each tensor one of its offers, with the least total error within `allowed` bytes, nearly; None where the smallest do not fit.

    All begin with their smallest; then bytes go where each removes most error, until they are spent. Of a tensor's offers those count
    that lie on the lower convex hull of error over bytes, so that a step never buys less than the one after it.
    """
    hulls = {key: _hull(found) for key, found in offers.items()}
    chosen = {key: hull[0] for key, hull in hulls.items()}
    left = allowed - sum(one.nbytes for one in chosen.values())
    if left < 0:
        return None
    steps = [_step(key, hull, 1) for key, hull in sorted(hulls.items()) if len(hull) > 1]
    heapq.heapify(steps)
    while steps:
        _, key, at = heapq.heappop(steps)
        hull = hulls[key]
        dearer = hull[at].nbytes - hull[at - 1].nbytes
        if dearer <= left:  # else no later one of this tensor fits either
            chosen[key], left = hull[at], left - dearer
            if at + 1 < len(hull):
                heapq.heappush(steps, _step(key, hull, at + 1))
    return chosen


def _step(key: str, hull: Sequence[WritingOffer], at: int) -> tuple[float, str, int]:
    """The step to one offer from that before it, the best first."""
    return _slope(hull[at - 1], hull[at]), key, at


def _hull(found: Sequence[WritingOffer]) -> list[WritingOffer]:
    """The offers on the lower convex hull, from the smallest on, each with less error than the one before."""
    hull: list[WritingOffer] = []
    for one in _falling(found):
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], one):
            hull.pop()
        hull.append(one)
    return hull


def _falling(found: Sequence[WritingOffer]) -> Iterator[WritingOffer]:
    least = float("inf")
    for one in sorted(found, key=lambda one: (one.nbytes, one.wrong)):
        if one.wrong < least:
            least = one.wrong
            yield one


def _slope(before: WritingOffer, after: WritingOffer) -> float:
    return (after.wrong - before.wrong) / (after.nbytes - before.nbytes)
