"""Philox 4x64-10 (Salmon et al. 2011), the bits of NumPy's generator of that name. Which key and which place is the caller's.

One step of the counter gives eight numbers of 24 bits: the upper ones of each half of four words, the lower half first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from workbench.kernels.compiling import compiled

if TYPE_CHECKING:
    import torch

PER_STEP = 8  # numbers of one step
_BLOCK = 2048  # numbers that are drawn at once: they stay in the first cache
_SCALE = np.float32(2**-24)
_ZERO, _ONE = np.float32(0), np.float32(1)
UNUSED = np.uint32(8)  # lower bits of a half that a float32 has no room for
_HALF, _LOWER = np.uint64(32), np.uint64(0xFFFFFFFF)
_FACTORS = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_KEYS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_WORD = (1 << 64) - 1


def uniform(count: int, key: int, start: int) -> torch.Tensor:
    """So many float32 numbers in [0, 1), from the one numbered `start` on."""
    import torch

    step, skipped = divmod(start, PER_STEP)
    out = torch.empty(count)
    _uniform(out.numpy(), *words_of(key), np.uint64(step), skipped)
    return out


def kept(values: torch.Tensor, key: int, start: int, density: float, scale: float) -> torch.Tensor:
    """`values * (uniform(len(values), key, start) < density) * scale` of a flat float32 tensor, in one pass."""
    import torch

    out = torch.empty_like(values)
    _kept(values.numpy(), limit(density), np.float32(scale), out.numpy(), *words_of(key), np.uint64(start))
    return out


def limit(density: float) -> np.uint32:
    """Whole numbers of 24 bits below it are those that `uniform` makes numbers below the density of."""
    return np.uint32(math.ceil(float(np.float32(density)) * 2**24))


def words_of(key: int) -> tuple[np.uint64, np.uint64]:
    """The lower and the upper half of a generator's key."""
    return np.uint64(key & _WORD), np.uint64(key >> 64)


@compiled
def _product(one: np.uint64, other: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The upper and the lower 64 bits of a product."""
    one_low, one_high, other_low, other_high = one & _LOWER, one >> _HALF, other & _LOWER, other >> _HALF
    middle = one_high * other_low + ((one_low * other_low) >> _HALF)
    lower = one_low * other_high + (middle & _LOWER)
    return one_high * other_high + (middle >> _HALF) + (lower >> _HALF), one * other


@compiled
def _draw(words: np.ndarray, key: np.uint64, key_above: np.uint64, step: np.uint64) -> None:
    """Fill rows of four words, one for each step after `step`."""
    for row in range(len(words)):
        a, b, c, d = step + np.uint64(row + 1), np.uint64(0), np.uint64(0), np.uint64(0)
        one, two = key, key_above
        for _ in range(10):
            a_high, a_low = _product(_FACTORS[0], a)
            c_high, c_low = _product(_FACTORS[1], c)
            a, b, c, d = c_high ^ b ^ one, c_low, a_high ^ d ^ two, a_low
            one, two = one + _KEYS[0], two + _KEYS[1]
        words[row, 0], words[row, 1], words[row, 2], words[row, 3] = a, b, c, d


@compiled
def _uniform(out: np.ndarray, key: np.uint64, key_above: np.uint64, step: np.uint64, skipped: int) -> None:
    words = np.empty((_BLOCK // PER_STEP, 4), np.uint64)
    halves = words.reshape(-1).view(np.uint32)
    done = 0
    while done < len(out):
        _draw(words, key, key_above, step)
        count = min(_BLOCK - skipped, len(out) - done)
        drawn, filled = halves[skipped : skipped + count], out[done : done + count]
        for i in range(count):
            filled[i] = np.float32(drawn[i] >> UNUSED) * _SCALE
        step, done, skipped = step + np.uint64(_BLOCK // PER_STEP), done + count, 0


@compiled
def numbers_of_tile(count: int, words: np.ndarray, key: np.uint64, key_above: np.uint64, first: np.uint64) -> np.ndarray:
    """Those of `count` elements from the one numbered `first` on, in the upper 24 of 32 bits; `words` has room for a step more."""
    skipped = int(first % np.uint64(PER_STEP))
    steps = (count + skipped + PER_STEP - 1) // PER_STEP
    _draw(words[:steps], key, key_above, first // np.uint64(PER_STEP))
    return words.reshape(-1).view(np.uint32)[skipped : skipped + count]


@compiled
def kept_tile(
    values: np.ndarray, below: np.uint32, scale: np.float32, words: np.ndarray, key: np.uint64, key_above: np.uint64, first: np.uint64
) -> None:
    """Have of a tile whose first element is numbered `first` what is kept, times `scale`; `words` has room for a step more."""
    drawn = numbers_of_tile(len(values), words, key, key_above, first)
    for i in range(len(values)):
        values[i] = values[i] * (_ONE if np.uint32(drawn[i] >> UNUSED) < below else _ZERO) * scale


@compiled
def _kept(
    values: np.ndarray, below: np.uint32, scale: np.float32, out: np.ndarray, key: np.uint64, key_above: np.uint64, first: np.uint64
) -> None:
    words = np.empty((_BLOCK // PER_STEP + 1, 4), np.uint64)
    for start in range(0, len(values), _BLOCK):
        given, tile = values[start : start + _BLOCK], out[start : start + _BLOCK]
        for i in range(len(given)):
            tile[i] = given[i]
        kept_tile(tile, below, scale, words, key, key_above, first + np.uint64(start))
