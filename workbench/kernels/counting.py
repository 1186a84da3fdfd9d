"""Loops over the bits of floats: how many magnitudes have which upper bits, and whether a value is none or infinite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.kernels.compiling import compiled

if TYPE_CHECKING:
    import torch

LOW = 16  # bits of a float32 that are counted apart from the upper ones
_INFINITIES: dict[str, Any] = {"float16": np.uint16(0x7C00), "bfloat16": np.uint16(0x7F80), "float32": np.uint32(0x7F800000)}  # as bits
_LOW, _LOWER, _MAGNITUDE = np.uint32(LOW), np.uint32((1 << LOW) - 1), np.uint32(0x7FFFFFFF)


def upper(values: torch.Tensor, counts: torch.Tensor) -> None:
    """Count, in int64, each flat float32 value's magnitude by its upper bits, which order them."""
    _upper(values.numpy().view(np.uint32), counts.numpy())


def lower(values: torch.Tensor, top: int, counts: torch.Tensor) -> None:
    """Count by the lower bits those whose upper ones are `top`."""
    _lower(values.numpy().view(np.uint32), np.uint32(top), counts.numpy())


def finite(values: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite, of a contiguous tensor of float16, bfloat16 or float32."""
    import torch

    infinity = _INFINITIES[str(values.dtype).removeprefix("torch.")]
    integers = torch.int16 if values.element_size() == 2 else torch.int32
    bits = values.reshape(-1).view(integers).numpy()
    return _largest(bits.view(infinity.dtype), infinity.dtype.type(torch.iinfo(integers).max)) < int(infinity)


@compiled
def _upper(bits: np.ndarray, counts: np.ndarray) -> None:
    for i in range(len(bits)):
        counts[(bits[i] & _MAGNITUDE) >> _LOW] += 1


@compiled
def _lower(bits: np.ndarray, top: np.uint32, counts: np.ndarray) -> None:
    for i in range(len(bits)):
        magnitude = bits[i] & _MAGNITUDE
        if magnitude >> _LOW == top:
            counts[magnitude & _LOWER] += 1


@compiled
def _largest(bits: np.ndarray, magnitude: np.unsignedinteger) -> int:
    found = magnitude ^ magnitude  # 0, of their type
    for i in range(len(bits)):
        found = max(found, bits[i] & magnitude)
    return int(found)
