"""Loops that take each element from one of two tensors: by a mask, or by the distance to a third."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.kernels.compiling import compiled

if TYPE_CHECKING:
    import torch


def masked(mask: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`where(mask, one, other)` of a mask of bools and float32 tensors of one shape, many times as fast."""
    import torch

    out = torch.empty_like(one)
    _mask(*[tensor.reshape(-1).numpy() for tensor in (mask, one, other, out)])
    return out


def chosen(anchor: torch.Tensor, first: torch.Tensor, second: torch.Tensor, alpha: float, beta: float, farthest: bool) -> torch.Tensor:
    """`where((|anchor - alpha first| > |anchor - beta second|) != farthest, second, first)` of float32 tensors, in one pass."""
    import torch

    out = torch.empty_like(anchor)
    models = [tensor.reshape(-1).numpy() for tensor in (first, second)]
    choose(anchor.reshape(-1).numpy(), models[0], models[1], out.reshape(-1).numpy(), np.float32(alpha), np.float32(beta), farthest)
    return out


@compiled
def _mask(mask: np.ndarray, one: np.ndarray, other: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(out)):
        here, there = one[i], other[i]
        out[i] = here if mask[i] else there


@compiled
def choose(
    anchor: np.ndarray, first: np.ndarray, second: np.ndarray, out: np.ndarray, alpha: np.float32, beta: np.float32, farthest: bool
) -> None:
    for i in range(len(out)):
        one, other = first[i], second[i]
        away = abs(anchor[i] - alpha * one) > abs(anchor[i] - beta * other)
        out[i] = other if away != farthest else one
