"""Gathers what was measured of single tensors by the place they lie in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.matching import places

Found = TypeVar("Found")

ALL = "all"  # the last place: every tensor


def by_place(anchor: Checkpoint, found: Iterable[tuple[str, Found]]) -> dict[str, list[Found]]:
    """Of pairs of place and value, the values in each: the anchor's blocks by depth, its components, last all of them."""
    pairs = list(found)
    there = {place for place, _ in pairs}
    groups = {place: [value for at, value in pairs if at == place] for place in places(anchor) if place in there}
    return groups | {ALL: [value for _, value in pairs]}
