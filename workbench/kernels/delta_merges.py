"""Loops from stored models to a stored merge of their deltas: pruned, weighted, combined, added to the base. No threshold is found here.

As in `mixtures`, what they fill has the bits of the plain torch code, and they say whether everything is finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.kernels.compiling import compiled
from workbench.kernels.deltas import VOTES, disjoint_tile, numbers_of
from workbench.kernels.philox import PER_STEP, kept_tile, limit, words_of
from workbench.kernels.stored import TILE, load, load_delta, places, store

if TYPE_CHECKING:
    import torch

_COMBINED = ("disjoint", "sum", "mean")
_ALL, _NONE, _BAND, _RANDOM = range(4)
_INFINITY, _ZERO = np.uint32(0x7F800000), np.float32(0)


@dataclass(frozen=True)
class Keep:
    """What is kept of a delta, times `scale`: all; magnitudes beyond `below` and up to `above`; or each with the probability `density`,
    drawn by `key`.
    """

    scale: float
    below: float | None = None
    above: float = math.inf
    key: int | None = None
    density: float = 1.0
    nothing: bool = False

    @property
    def kind(self) -> int:
        if self.nothing:
            return _NONE
        if self.below is not None or self.above < math.inf:
            return _BAND
        return _ALL if self.key is None else _RANDOM


@dataclass(frozen=True)
class Combining:
    """How deltas meet: `combine`, `majority_sign`, `normalize` and `strength` of `delta_merge`, and its smallest divisor."""

    combine: str
    vote: str
    divisor: str
    weights: Sequence[float]
    strength: float
    least: float


def merged(
    out: torch.Tensor, base: torch.Tensor, models: Sequence[torch.Tensor | None], keeps: Sequence[Keep], how: Combining, first: int
) -> bool:
    """The base and what is made of the models' differences to it; `first` is the number of the first element's random number."""
    words = [words_of(one.key or 0) for one in keeps]
    numbers, least = numbers_of(how.weights, how.divisor, how.least)
    singles = [[one.scale for one in keeps], [-1 if one.below is None else one.below for one in keeps], [one.above for one in keeps]]
    return bool(
        _merged(
            *places([out, base, *models]),
            np.array([one.kind for one in keeps], np.int64),
            np.asarray(singles, np.float32),
            np.array([limit(one.density) for one in keeps], np.uint32),
            np.array(words, np.uint64).reshape(-1, 2),
            np.uint64(first),
            _COMBINED.index(how.combine),
            VOTES.index(how.vote),
            how.divisor != "none",
            numbers,
            least,
            np.float32(how.strength),
            out.numel(),
        )
    )


@compiled
def _keep(
    row: np.ndarray,
    kind: int,
    scale: np.float32,
    below: np.float32,
    above: np.float32,
    most: np.uint32,
    keys: np.ndarray,
    words: np.ndarray,
    first: np.uint64,
) -> None:
    if kind == _RANDOM:
        kept_tile(row, most, scale, words, keys[0], keys[1], first)
    elif kind == _BAND:
        for i in range(len(row)):
            value = row[i]
            left_out = (value >= -below and value <= below) or value > above or value < -above
            row[i] = (_ZERO if left_out else value) * scale
    elif kind == _ALL:
        for i in range(len(row)):
            row[i] *= scale
    else:
        for i in range(len(row)):
            row[i] = _ZERO * scale


@compiled
def _sum(rows: np.ndarray, size: int, total: np.ndarray) -> None:
    for i in range(size):
        total[i] = rows[0][i]
    for model in range(1, len(rows)):
        row = rows[model][:size]
        for i in range(size):
            total[i] += row[i]


@compiled
def _merged(
    where: np.ndarray,
    stored: np.ndarray,
    kinds: np.ndarray,
    singles: np.ndarray,
    limits: np.ndarray,
    keys: np.ndarray,
    first: np.uint64,
    combine: int,
    vote: int,
    divide: bool,
    numbers: np.ndarray,
    least: np.float32,
    strength: np.float32,
    count: int,
) -> bool:
    models = len(kinds)
    rows, buffers = np.empty((models, TILE), np.float32), np.empty((3, TILE), np.float32)
    held, words = np.empty((2, TILE), np.float32), np.empty((TILE // PER_STEP + 1, 4), np.uint64)
    finite, top = True, np.uint32(0)
    for start in range(0, count, TILE):
        size = min(TILE, count - start)
        base, total = held[0][:size], held[1][:size]
        finite &= load(where[1], stored[1], start, base)
        for model in range(models):
            row = rows[model][:size]
            finite &= load_delta(where[model + 2], stored[model + 2], start, base, row)
            scale, below, above = singles[0, model], singles[1, model], singles[2, model]
            _keep(row, kinds[model], scale, below, above, limits[model], keys[model], words, first + np.uint64(start))
        if combine == 0:
            top = max(top, disjoint_tile(rows, size, numbers, vote, divide, least, buffers, total))
        else:
            _sum(rows, size, total)
            if combine == 2:
                shared = np.float32(models)
                for i in range(size):
                    total[i] /= shared
        for i in range(size):
            base[i] += total[i] * strength
        finite &= store(base, where[0], stored[0], start)
    return bool(finite and top < _INFINITY)
