"""Compiled loops over elements, for the CPU, by numba where it is installed. No method is here.

`fit` says whether those on float32 can be used, `read_stored` and `fit_stored` those that read and write numbers as files store them.

Each gives, bit for bit, what the plain torch code beside its call gives, but for the last bits of sums in float64 (`products`); without
numba that is what runs. docs/decisions/0029, 0030.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

STORED = ("float32", "float16", "bfloat16")  # dtypes that loops over stored numbers know


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


def read_stored() -> bool:
    """Whether there are loops over stored numbers: the processor converts float16, and multiplies and adds at once as torch's own do."""
    return available() and _converts()


@functools.cache
def _converts() -> bool:
    import torch

    return torch.backends.cpu.get_cpu_capability().startswith("AVX")


def fit_stored(*tensors: torch.Tensor) -> bool:
    """Whether they can work on these: on the CPU, contiguous, without gradients, of STORED dtypes."""
    return read_stored() and all(
        dtype_name(one) in STORED and one.device.type == "cpu" and one.is_contiguous() and not one.requires_grad for one in tensors
    )


def dtype_name(tensor: torch.Tensor) -> str:
    """`float16` of torch.float16."""
    return str(tensor.dtype).removeprefix("torch.")
