"""Loops over the bits of floats: how many magnitudes have which upper bits, and which lower ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.kernels.compiling import compiled
from workbench.kernels.stored import TILE, load, load_delta, places

if TYPE_CHECKING:
    import torch

_BLOCK = 64  # magnitudes that are looked at together
LOW = 16  # bits of a float32 that are counted apart from the upper ones
_LOW, _LOWER, _MAGNITUDE = np.uint32(LOW), np.uint32((1 << LOW) - 1), np.uint32(0x7FFFFFFF)


def upper(values: torch.Tensor, counts: torch.Tensor) -> None:
    """Count, in int64, each flat float32 value's magnitude by its upper bits, which order them."""
    _upper(values.numpy().view(np.uint32), counts.numpy(), 1)


def lower(values: torch.Tensor, top: int, counts: torch.Tensor) -> None:
    """Count by the lower bits those whose upper ones are `top`."""
    _lower(values.numpy().view(np.uint32), np.uint32(top), counts.numpy(), 1)


def deltas(base: torch.Tensor, models: Sequence[torch.Tensor | None], tops: Sequence[int] | None, counts: torch.Tensor) -> bool:
    """Count so for each model what `fit_stored` loops can read of it minus the base; or count nothing, and False, where not all is finite.

    `counts` has a row for each model. By the lower bits where `tops` says which upper ones count.
    """
    where = places([base, *models])
    chosen = np.asarray([0] * len(models) if tops is None else tops, np.uint32)
    given = *where, chosen, tops is not None, counts.numpy()
    counted = int(_deltas(*given, 1, base.numel()))
    if counted < base.numel():
        _deltas(*given, -1, counted)
        return False
    return True


@compiled
def _deltas(where: np.ndarray, kinds: np.ndarray, tops: np.ndarray, lower: bool, counts: np.ndarray, step: int, count: int) -> int:
    """How many elements were counted: all until a tile that is not finite."""
    models = len(tops)
    rows = np.empty((models + 1, TILE), np.float32)
    for start in range(0, count, TILE):
        size = min(TILE, count - start)
        base = rows[models][:size]
        finite = load(where[0], kinds[0], start, base)
        for model in range(models):
            finite &= load_delta(where[model + 1], kinds[model + 1], start, base, rows[model][:size])
        if not finite:
            return start
        for model in range(models):
            bits, found, top = rows[model][:size].view(np.uint32), counts[model], tops[model]
            if lower:
                _lower(bits, top, found, step)
            else:
                _upper(bits, found, step)
    return count


@compiled
def _upper(bits: np.ndarray, found: np.ndarray, step: int) -> None:
    for i in range(len(bits)):
        found[np.uint32(np.uint32(bits[i] & _MAGNITUDE) >> _LOW)] += step


@compiled
def _lower(bits: np.ndarray, top: np.uint32, found: np.ndarray, step: int) -> None:
    for start in range(0, len(bits), _BLOCK):
        block = bits[start : start + _BLOCK]
        here = np.uint32(0)
        for i in range(len(block)):  # most blocks have none: a loop without branches finds those
            here |= np.uint32(np.uint32(np.uint32(block[i] & _MAGNITUDE) >> _LOW) == top)
        if here:
            for i in range(len(block)):
                magnitude = np.uint32(block[i] & _MAGNITUDE)
                if np.uint32(magnitude >> _LOW) == top:
                    found[np.uint32(magnitude & _LOWER)] += step
