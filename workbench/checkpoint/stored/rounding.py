"""How much was lost when tensors were stored, estimated from their numbers alone: the originals are not known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_EXACT = ("float32", "float64")
_DIGITS = {"float16": 10, "bfloat16": 7, "float8_e4m3fn": 3, "float8_e5m2": 2, "mxfp8": 3}  # bits of the fraction
# Codes in uneven steps: the squared error of normally distributed numbers over their squares, measured with the formats' own definitions
_UNEVEN = {"NF4": 0.0085, "FP4": 0.0149, "nvfp4": 0.0090, "NVFP4": 0.0090, "MXFP4": 0.0125}
_UNKNOWN = (
    "IQ",
    "scaled int8, rotated",
    "scaled int4, rotated",
)  # how kinds begin: tables of vectors, and no grid
_FINE = 8  # bits of a weight from which 32 numbers show a step; with fewer 16 do, which share a scale in every format


def lost_when_stored(kind: str, bits: float, values: torch.Tensor) -> float | None:
    """The expected sum of squared errors of flat float32 `values` that are stored as `kind`, in `bits` each; None where it cannot be told.

    Numbers are taken to be spread evenly over the interval that rounds to the same one, so a step s makes an error of s**2 / 12 (Widrow).
    Steps of floats are known, and of even codes the least distance of two values that share a scale. Within 15 % for normally
    distributed weights; what lies beyond the largest code is not seen.
    """
    if kind.startswith(_UNKNOWN) or not len(values):
        return None
    name = kind.rpartition(" ")[2]
    if name in _EXACT:
        return 0.0
    if name in _DIGITS:
        return _of_floats(values, _DIGITS[name])
    return _UNEVEN[kind] * float(values.double().square().sum()) if kind in _UNEVEN else _of_steps(values, 32 if bits >= _FINE else 16)


def _of_floats(values: torch.Tensor, digits: int) -> float:
    import torch

    _, exponents = torch.frexp(values)
    steps = torch.exp2(exponents.double() - 1 - digits) * (values != 0)
    return float(steps.square().sum()) / 12


def _of_steps(values: torch.Tensor, size: int) -> float | None:
    groups = values[: len(values) // size * size].reshape(-1, size)
    if not len(groups):
        return None
    gaps = groups.sort(1).values.diff(dim=1)
    steps = gaps.masked_fill(gaps <= 0, float("inf")).amin(1)
    return float(steps[steps.isfinite()].double().square().sum()) / 12 * len(values) / len(groups)
