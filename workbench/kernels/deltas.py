"""Loops over the deltas of several models: trimmed by magnitude, and the mean of those that agree in sign. No threshold is found here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.kernels.compiling import compiled

if TYPE_CHECKING:
    import torch

_BLOCK = 1024  # elements of every model that are worked on at once: they stay in the first cache
_ZERO, _MINUS_ZERO, _ONE = np.float32(0), np.float32(-0.0), np.float32(1)
VOTES = ("total", "frequency", "frequency, then total")
_SIGN, _MAGNITUDE, _INFINITY, _BITS_OF_ONE = np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(0x7F800000), np.uint32(0x3F800000)


def trimmed(values: torch.Tensor, below: float, scale: float) -> torch.Tensor:
    """`hardshrink(values, below) * scale` of a flat float32 tensor: what is beyond `below` stays, all else is 0."""
    import torch

    out = torch.empty_like(values)
    _trimmed(values.numpy(), np.float32(below), np.float32(scale), out.numpy())
    return out


def numbers_of(weights: Sequence[float], divisor: str, least: float) -> tuple[np.ndarray, np.float32]:
    """What each delta that agrees counts in the divisor, and below what the sum of that does not divide."""
    by_number = divisor == "number"
    counted = np.asarray([1] * len(weights) if by_number else weights, dtype=np.float32)
    return counted, np.float32(0.5 if by_number else least)  # a number below 0.5 is none


def disjoint(deltas: Sequence[torch.Tensor], weights: Sequence[float], vote: str, divisor: str, least: float) -> torch.Tensor | None:
    """What the deltas, flat float32 tensors, come to whose sign is the elected one; None where their sum is not finite everywhere.

    `vote` and `divisor` are `majority_sign` and `normalize` of `ties`; weights that sum to less than `least` do not divide.
    """
    import torch

    numbers, least_number = numbers_of(weights, divisor, least)
    out = torch.empty_like(deltas[0])
    stacked = torch.stack([*deltas]).numpy()
    finite = _disjoint(stacked, numbers, VOTES.index(vote), divisor != "none", least_number, out.numpy())
    return out if finite else None


@compiled
def _trimmed(values: np.ndarray, below: np.float32, scale: np.float32, out: np.ndarray) -> None:
    for i in range(len(values)):
        value = values[i]
        out[i] = (_ZERO if value >= -below and value <= below else value) * scale


@compiled
def _add(values: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(out)):
        out[i] += values[i]


@compiled
def _add_sign(values: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(out)):
        out[i] += np.float32(values[i] > _ZERO) - np.float32(values[i] < _ZERO)


@compiled
def _largest(bits: np.ndarray) -> np.uint32:
    """The largest bits of a magnitude."""
    found = np.uint32(0)
    for i in range(len(bits)):
        found = max(found, np.uint32(bits[i] & _MAGNITUDE))  # numba would make 64 bits of it
    return found


@compiled
def _decide_ties(vote: np.ndarray, sums: np.ndarray) -> None:
    for i in range(len(vote)):
        vote[i] = sums[i] if vote[i] == _ZERO else vote[i]


@compiled
def _elect(vote: np.ndarray) -> None:
    """The sign as a number; that of a zero is its own."""
    bits = vote.view(np.uint32)
    for i in range(len(bits)):
        bits[i] = np.uint32(np.uint32(bits[i] & _SIGN) | _BITS_OF_ONE)


@compiled
def _agreeing(values: np.ndarray, elected: np.ndarray, weight: np.float32, total: np.ndarray, weight_of: np.ndarray) -> None:
    """Add the magnitudes that have the elected sign, and `weight` where there is one."""
    for i in range(len(values)):
        magnitude = values[i] * elected[i]
        total[i] += magnitude if magnitude > _ZERO else _ZERO
        weight_of[i] += weight if magnitude > _ZERO else _ZERO


@compiled
def _divide(total: np.ndarray, weight_of: np.ndarray, least: np.float32) -> None:
    for i in range(len(total)):
        total[i] /= _ONE if abs(weight_of[i]) < least else weight_of[i]


@compiled
def disjoint_tile(
    rows: np.ndarray, size: int, weights: np.ndarray, vote_of: int, divide: bool, least: np.float32, buffers: np.ndarray, total: np.ndarray
) -> np.uint32:
    """Fill `total` from the first `size` elements of the rows, one a model; the largest bits of a magnitude of their sums."""
    sums, elected, divisor = buffers[0][:size], buffers[1][:size], buffers[2][:size]
    sums[:], elected[:] = _MINUS_ZERO, _MINUS_ZERO  # which changes nothing that is added to it
    for model in range(len(rows)):
        _add(rows[model][:size], sums)
        if vote_of:
            _add_sign(rows[model][:size], elected)
    top = _largest(sums.view(np.uint32))
    if vote_of == 0:
        elected[:] = sums
    elif vote_of == 2:
        _decide_ties(elected, sums)
    _elect(elected)
    total[:], divisor[:] = _ZERO, _ZERO
    for model in range(len(rows)):
        _agreeing(rows[model][:size], elected, weights[model], total, divisor)
    for i in range(size):
        total[i] *= elected[i]
    if divide:
        _divide(total, divisor, least)
    return top


@compiled
def _disjoint(deltas: np.ndarray, weights: np.ndarray, vote_of: int, divide: bool, least: np.float32, out: np.ndarray) -> bool:
    models, count = deltas.shape
    buffers, rows = np.empty((3, _BLOCK), np.float32), np.empty((models, _BLOCK), np.float32)
    top = np.uint32(0)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        for model in range(models):
            rows[model][:size] = deltas[model][start : start + size]
        top = max(top, disjoint_tile(rows, size, weights, vote_of, divide, least, buffers, out[start : start + size]))
    return bool(top < _INFINITY)
