"""Loops from stored numbers to stored numbers: sums of models, what lies between two, the nearer one, blends. No weight is found here.

Each fills `out` and says whether all that it read, calculated and wrote is finite: then `out` has the bits that plain torch code gives,
rounded. If not, it is to be made by that. To be imported only where `read_stored` has said yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.kernels.choices import choose
from workbench.kernels.compiling import compiled
from workbench.kernels.instructions import multiply_add
from workbench.kernels.philox import PER_STEP, UNUSED, limit, numbers_of_tile, words_of
from workbench.kernels.stored import TILE, load, places, store

if TYPE_CHECKING:
    import torch

_HALF, _ONE = np.float32(0.5), np.float32(1)


def weighted_sum(out: torch.Tensor, models: Sequence[torch.Tensor], factors: Sequence[float]) -> bool:
    """`models[0] * factors[0]`, to which `add_(model, alpha=factor)` adds the others."""
    return bool(_weighted_sum(*places([out, *models]), np.asarray(factors, np.float32), out.numel()))


def added_difference(out: torch.Tensor, base: torch.Tensor, tuned: torch.Tensor, original: torch.Tensor, strength: float) -> bool:
    """`base + strength * (tuned - original)`."""
    return bool(_added_difference(*places([out, base, tuned, original]), np.float32(strength), out.numel()))


def between(out: torch.Tensor, first: torch.Tensor, second: torch.Tensor, share: float) -> bool:
    """`lerp(first, second, share)`."""
    return bool(_between(*places([out, first, second]), np.float32(share), out.numel()))


def between_columns(out: torch.Tensor, first: torch.Tensor, second: torch.Tensor, shares: torch.Tensor) -> bool:
    """`lerp(first, second, shares)` of whole rows, `shares` being those of one row, in float32."""
    return bool(_between_columns(*places([out, first, second]), shares.reshape(-1).numpy(), out.numel()))


def chosen(
    out: torch.Tensor, anchor: torch.Tensor, first: torch.Tensor, second: torch.Tensor, alpha: float, beta: float, farthest: bool
) -> bool:
    """As `choices.chosen`."""
    return bool(_chosen(*places([out, anchor, first, second]), np.float32(alpha), np.float32(beta), farthest, out.numel()))


def blended(
    out: torch.Tensor, first: torch.Tensor, second: torch.Tensor, change: torch.Tensor, strength: float, share: float, key: int, start: int
) -> bool:
    """`lerp((first + second) / 2, change + second, strength)`; the mean alone for a share of elements, drawn by their numbers."""
    below, words, given = limit(share), words_of(key), places([out, first, second, change])
    return bool(_blended(*given, np.float32(strength), below, *words, np.uint64(start), out.numel()))


@compiled
def _weighted_sum(where: np.ndarray, kinds: np.ndarray, factors: np.ndarray, count: int) -> bool:
    rows = np.empty((2, TILE), np.float32)
    finite = True
    for start in range(0, count, TILE):
        size = min(TILE, count - start)
        one, total = rows[0][:size], rows[1][:size]
        for model in range(len(factors)):
            finite &= load(where[model + 1], kinds[model + 1], start, one)
            factor = factors[model]
            if model == 0:
                for i in range(size):
                    total[i] = one[i] * factor
            else:
                for i in range(size):
                    total[i] = multiply_add(one[i], factor, total[i])
        finite &= store(total, where[0], kinds[0], start)
    return finite


@compiled
def _added_difference(where: np.ndarray, kinds: np.ndarray, strength: np.float32, count: int) -> bool:
    rows = np.empty((3, TILE), np.float32)
    finite = True
    for start in range(0, count, TILE):
        size = min(TILE, count - start)
        base, tuned, original = rows[0][:size], rows[1][:size], rows[2][:size]
        finite &= load(where[1], kinds[1], start, base)
        finite &= load(where[2], kinds[2], start, tuned)
        finite &= load(where[3], kinds[3], start, original)
        for i in range(size):
            base[i] += strength * (tuned[i] - original[i])
        finite &= store(base, where[0], kinds[0], start)
    return finite


@compiled
def _between_tiles(first: np.ndarray, second: np.ndarray, share: np.float32) -> None:
    """Go a share of the way, from the nearer end, as torch does."""
    if abs(share) < _HALF:
        for i in range(len(first)):
            first[i] = multiply_add(share, second[i] - first[i], first[i])
    else:
        for i in range(len(first)):
            first[i] = multiply_add(share - _ONE, second[i] - first[i], second[i])


@compiled
def _between(where: np.ndarray, kinds: np.ndarray, share: np.float32, count: int) -> bool:
    rows = np.empty((2, TILE), np.float32)
    finite = True
    for start in range(0, count, TILE):
        size = min(TILE, count - start)
        first, second = rows[0][:size], rows[1][:size]
        finite &= load(where[1], kinds[1], start, first)
        finite &= load(where[2], kinds[2], start, second)
        _between_tiles(first, second, share)
        finite &= store(first, where[0], kinds[0], start)
    return finite


@compiled
def _between_columns(where: np.ndarray, kinds: np.ndarray, shares: np.ndarray, count: int) -> bool:
    rows = np.empty((2, TILE), np.float32)
    finite = True
    for row in range(0, count, len(shares)):
        for column in range(0, len(shares), TILE):
            size = min(TILE, len(shares) - column)
            first, second, share = rows[0][:size], rows[1][:size], shares[column : column + size]
            finite &= load(where[1], kinds[1], row + column, first)
            finite &= load(where[2], kinds[2], row + column, second)
            for i in range(size):
                near = abs(share[i]) < _HALF
                factor, end = share[i] if near else share[i] - _ONE, first[i] if near else second[i]
                first[i] = multiply_add(factor, second[i] - first[i], end)
            finite &= store(first, where[0], kinds[0], row + column)
    return finite


@compiled
def _chosen(where: np.ndarray, kinds: np.ndarray, alpha: np.float32, beta: np.float32, farthest: bool, count: int) -> bool:
    rows = np.empty((4, TILE), np.float32)
    finite = True
    for start in range(0, count, TILE):
        size = min(TILE, count - start)
        anchor, first, second, taken = rows[0][:size], rows[1][:size], rows[2][:size], rows[3][:size]
        finite &= load(where[1], kinds[1], start, anchor)
        finite &= load(where[2], kinds[2], start, first)
        finite &= load(where[3], kinds[3], start, second)
        choose(anchor, first, second, taken, alpha, beta, farthest)
        finite &= store(taken, where[0], kinds[0], start)
    return finite


@compiled
def _blended(
    where: np.ndarray,
    kinds: np.ndarray,
    strength: np.float32,
    below: np.uint32,
    key: np.uint64,
    key_above: np.uint64,
    number: np.uint64,
    count: int,
) -> bool:
    rows, words = np.empty((3, TILE), np.float32), np.empty((TILE // PER_STEP + 1, 4), np.uint64)
    finite = True
    for start in range(0, count, TILE):
        size = min(TILE, count - start)
        mean, second, change = rows[0][:size], rows[1][:size], rows[2][:size]
        finite &= load(where[1], kinds[1], start, mean)
        finite &= load(where[2], kinds[2], start, second)
        finite &= load(where[3], kinds[3], start, change)
        drawn = numbers_of_tile(size, words, key, key_above, number + np.uint64(start))
        for i in range(size):
            mean[i] = (mean[i] + second[i]) * _HALF
            change[i] += second[i]
        for i in range(size):
            change[i] = mean[i] if np.uint32(drawn[i] >> UNUSED) < below else change[i]
        _between_tiles(mean, change, strength)
        finite &= store(mean, where[0], kinds[0], start)
    return finite
