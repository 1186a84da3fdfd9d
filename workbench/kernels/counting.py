"""Loops over the bits of floats: how many magnitudes have which upper bits, and which lower ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.kernels.compiling import compiled

if TYPE_CHECKING:
    import torch

LOW = 16  # bits of a float32 that are counted apart from the upper ones
_LOW, _LOWER, _MAGNITUDE = np.uint32(LOW), np.uint32((1 << LOW) - 1), np.uint32(0x7FFFFFFF)


def upper(values: torch.Tensor, counts: torch.Tensor) -> None:
    """Count, in int64, each flat float32 value's magnitude by its upper bits, which order them."""
    _upper(values.numpy().view(np.uint32), counts.numpy())


def lower(values: torch.Tensor, top: int, counts: torch.Tensor) -> None:
    """Count by the lower bits those whose upper ones are `top`."""
    _lower(values.numpy().view(np.uint32), np.uint32(top), counts.numpy())


@compiled
def _upper(bits: np.ndarray, counts: np.ndarray) -> None:
    for i in range(len(bits)):
        counts[np.uint32(np.uint32(bits[i] & _MAGNITUDE) >> _LOW)] += 1


@compiled
def _lower(bits: np.ndarray, top: np.uint32, counts: np.ndarray) -> None:
    for i in range(len(bits)):
        magnitude = np.uint32(bits[i] & _MAGNITUDE)
        if np.uint32(magnitude >> _LOW) == top:
            counts[np.uint32(magnitude & _LOWER)] += 1
