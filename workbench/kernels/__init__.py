"""Compiled loops over elements, for the CPU, by numba where it is installed: `fit` says whether they can be used. No method is here.

Each gives, bit for bit, what the plain torch code beside its call gives; without numba that is what runs. docs/decisions/0029.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@functools.cache
def available() -> bool:
    """Whether numba is there, and goes with this NumPy and Python."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def fit(*tensors: torch.Tensor) -> bool:
    """Whether compiled loops can work on these: float32 on the CPU, contiguous, without gradients."""
    import torch

    return available() and all(
        one.dtype is torch.float32 and one.device.type == "cpu" and one.is_contiguous() and not one.requires_grad for one in tensors
    )
