"""Numbers as files store them, in compiled loops: float16, bfloat16 and float32 become tiles of float32, and tiles become those again.

A loop that reads stored numbers and writes them, with all that is calculated between in the processor's first cache, touches memory
twice. `load` and `store` say whether all numbers were finite: what is to be said of others is left to the plain code. To be imported
only where `read_stored` has said yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from workbench.kernels import STORED, dtype_name
from workbench.kernels.compiling import compiled
from workbench.kernels.instructions import from_half, shorts, singles, to_half

if TYPE_CHECKING:
    import torch

TILE = 2048  # elements of a tile: those of a few models, in float32, stay in the first cache
_NOTHING = len(STORED)  # a tensor that a model lacks: zeros
_FLOAT, _HALF = 0, 1
_MAGNITUDE, _INFINITY = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
_MAGNITUDE_HALF, _INFINITY_HALF, _INFINITY_BRAIN = np.uint16(0x7FFF), np.uint16(0x7C00), np.uint16(0x7F80)
_BEYOND_BRAIN = np.uint32(0x7F7F8000)  # what rounds to infinity, and all beyond
_SIXTEEN, _ROUND, _ONE, _ZERO = np.uint32(16), np.uint32(0x7FFF), np.uint32(1), np.float32(0)


def places(tensors: Sequence[torch.Tensor | None]) -> tuple[np.ndarray, np.ndarray]:
    """Where tensors lie in memory and how their numbers are stored, for loops; whoever calls them keeps the tensors."""
    addresses = [0 if one is None else one.data_ptr() for one in tensors]
    kinds = [_NOTHING if one is None else STORED.index(dtype_name(one)) for one in tensors]
    return np.array(addresses, np.int64), np.array(kinds, np.int64)


@compiled
def _singles_over(given: np.ndarray, filled: np.ndarray) -> bool:
    given_bits, bits, top = given.view(np.uint32), filled.view(np.uint32), np.uint32(0)
    for i in range(len(bits)):
        bits[i] = given_bits[i]
        top = max(top, np.uint32(given_bits[i] & _MAGNITUDE))
    return bool(top < _INFINITY)


@compiled
def _halves_in(stored: np.ndarray, tile: np.ndarray) -> bool:
    top = np.uint16(0)
    for i in range(len(tile)):
        tile[i] = from_half(stored[i])
        top = max(top, np.uint16(stored[i] & _MAGNITUDE_HALF))
    return bool(top < _INFINITY_HALF)


@compiled
def _halves_out(tile: np.ndarray, stored: np.ndarray) -> bool:
    top = np.uint16(0)
    for i in range(len(tile)):
        half: np.uint16 = to_half(tile[i])
        stored[i] = half
        top = max(top, np.uint16(half & _MAGNITUDE_HALF))
    return bool(top < _INFINITY_HALF)


@compiled
def _brains_in(stored: np.ndarray, tile: np.ndarray) -> bool:
    bits, top = tile.view(np.uint32), np.uint16(0)
    for i in range(len(tile)):
        bits[i] = np.uint32(stored[i]) << _SIXTEEN
        top = max(top, np.uint16(stored[i] & _MAGNITUDE_HALF))
    return bool(top < _INFINITY_BRAIN)


@compiled
def _brains_out(tile: np.ndarray, stored: np.ndarray) -> bool:
    bits, top = tile.view(np.uint32), np.uint32(0)
    for i in range(len(tile)):
        number = bits[i]
        odd = np.uint32(np.uint32(number >> _SIXTEEN) & _ONE)
        stored[i] = np.uint16(np.uint32(number + np.uint32(_ROUND + odd)) >> _SIXTEEN)  # to the nearest, or the even one of two
        top = max(top, np.uint32(number & _MAGNITUDE))
    return bool(top < _BEYOND_BRAIN)


@compiled
def load(address: int, kind: int, start: int, tile: np.ndarray) -> bool:
    """Fill a tile with the numbers from `start` on of a stored tensor; whether all are finite."""
    stop = start + len(tile)
    if kind == _FLOAT:
        return bool(_singles_over(carray(singles(address), stop)[start:], tile))
    stored = carray(shorts(address), stop)[start:]
    return bool(_halves_in(stored, tile) if kind == _HALF else _brains_in(stored, tile))


@compiled
def load_delta(address: int, kind: int, start: int, base: np.ndarray, tile: np.ndarray) -> bool:
    """The same minus the base's tile; zeros of a model that lacks the tensor, and so did not change it."""
    finite = True
    if kind == _NOTHING:
        for i in range(len(tile)):
            tile[i] = _ZERO
    else:
        finite = load(address, kind, start, tile)
        for i in range(len(tile)):
            tile[i] -= base[i]
    return finite


@compiled
def store(tile: np.ndarray, address: int, kind: int, start: int) -> bool:
    """Write a tile's numbers, rounded to the nearest, as those of a stored tensor from `start` on; whether all are finite then."""
    stop = start + len(tile)
    if kind == _FLOAT:
        return bool(_singles_over(tile, carray(singles(address), stop)[start:]))
    stored = carray(shorts(address), stop)[start:]
    return bool(_halves_out(tile, stored) if kind == _HALF else _brains_out(tile, stored))
