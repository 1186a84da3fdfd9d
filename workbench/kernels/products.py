"""Loops over stored numbers that add up inner products in float64, in which those of float32 numbers are exact.

Each goes once through what it reads; None where that is not all finite. To be imported only where `read_stored` has said yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.kernels.compiling import compiled, summing
from workbench.kernels.stored import TILE, load, load_delta, places

if TYPE_CHECKING:
    import torch

_COLUMNS = 1024  # that are added up at once: their sums stay in the first cache
_WIDE = 1024  # elements of a tile of float64


def inner(base: torch.Tensor | None, tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Of each two of n tensors, or of their differences to a base: (0, 0), (0, 1), ..., (1, 1), ..."""
    import torch

    sums = torch.zeros(len(tensors) * (len(tensors) + 1) // 2, dtype=torch.float64)
    count = next(one.numel() for one in (base, *tensors) if one is not None)
    return sums if _inner(*places([base, *tensors]), sums.numpy(), count) else None


def of_differences(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """As `inner`, of the first tensor and of what the others differ from it by, calculated in float64."""
    import torch

    sums = torch.zeros(len(tensors) * (len(tensors) + 1) // 2, dtype=torch.float64)
    return sums if _of_differences(*places(tensors), sums.numpy(), tensors[0].numel()) else None


def of_columns(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor | None:
    """Of two tensors' columns (along dimension 0): the first's with themselves, with the second's, the second's with themselves."""
    import torch

    sums = torch.zeros((3, *first.shape[1:]), dtype=torch.float64)
    done = _of_columns(*places([first, second]), sums.reshape(3, -1).numpy(), first.numel())
    return sums if done else None


@summing
def _dot(one: np.ndarray, other: np.ndarray) -> float:
    total = 0.0
    for i in range(len(one)):
        total += np.float64(one[i]) * np.float64(other[i])
    return total


@summing
def _dots(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Of the first with itself, and with the other: what is read once is not read again."""
    own, both = 0.0, 0.0
    for i in range(len(one)):
        number = np.float64(one[i])
        own += number * number
        both += number * np.float64(other[i])
    return own, both


@compiled
def _add_pairs(rows: np.ndarray, models: int, size: int, sums: np.ndarray) -> None:
    pair = 0
    for model in range(models):
        row = rows[model][:size]
        own, next_one = _dots(row, rows[min(model + 1, models - 1)][:size])
        sums[pair] += own
        if model + 1 < models:
            sums[pair + 1] += next_one
        for other in range(model + 2, models):
            sums[pair + other - model] += _dot(row, rows[other][:size])
        pair += models - model


@compiled
def _inner(where: np.ndarray, kinds: np.ndarray, sums: np.ndarray, count: int) -> bool:
    models = len(where) - 1
    rows = np.zeros((models + 2, TILE), np.float32)
    for start in range(0, count, TILE):
        size = min(TILE, count - start)
        zeros, base = rows[models][:size], rows[models + 1][:size]
        finite = load_delta(where[0], kinds[0], start, zeros, base)
        for model in range(models):
            finite &= load_delta(where[model + 1], kinds[model + 1], start, base, rows[model][:size])
        if not finite:
            return False
        _add_pairs(rows, models, size, sums)
    return True


@compiled
def _of_differences(where: np.ndarray, kinds: np.ndarray, sums: np.ndarray, count: int) -> bool:
    models = len(where)
    rows, narrow = np.empty((models, _WIDE), np.float64), np.empty(_WIDE, np.float32)
    for start in range(0, count, _WIDE):
        size = min(_WIDE, count - start)
        tile, first = narrow[:size], rows[0][:size]
        for model in range(models):
            if not load(where[model], kinds[model], start, tile):
                return False
            row = rows[model][:size]
            if model == 0:
                for i in range(size):
                    row[i] = tile[i]
            else:
                for i in range(size):
                    row[i] = np.float64(tile[i]) - first[i]
        _add_pairs(rows, models, size, sums)
    return True


@compiled
def _add_products(one: np.ndarray, other: np.ndarray, sums: np.ndarray) -> None:
    for i in range(len(sums)):
        sums[i] += np.float64(one[i]) * np.float64(other[i])


@compiled
def _of_columns(where: np.ndarray, kinds: np.ndarray, sums: np.ndarray, count: int) -> bool:
    columns = sums.shape[1]
    rows = np.empty((2, _COLUMNS), np.float32)
    for column in range(0, columns, _COLUMNS):
        size = min(_COLUMNS, columns - column)
        first, second = rows[0][:size], rows[1][:size]
        for place in range(column, count, columns):
            finite = load(where[0], kinds[0], place, first)
            finite &= load(where[1], kinds[1], place, second)
            if not finite:
                return False
            _add_products(first, first, sums[0][column : column + size])
            _add_products(first, second, sums[1][column : column + size])
            _add_products(second, second, sums[2][column : column + size])
    return True
