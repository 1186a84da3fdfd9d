"""Whether tensors in two dtypes differ by rounding alone, and so were not trained apart. What follows from it is the caller's."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.tensors import rounded

if TYPE_CHECKING:
    import torch


def only_rounded(one: torch.Tensor, other: torch.Tensor, dtypes: tuple[torch.dtype, torch.dtype]) -> bool:
    """Whether one set of numbers, rounded to the two `dtypes`, can give both tensors.

    Both are of one shape, in a dtype that holds their numbers exactly (float32, float64); `dtypes` are those that they were stored in.
    So it is if one, cast to the dtype of the other, equals it. Where both were rounded from a third (float16 and bfloat16 from
    float32), a cast would round a second time, and each number is taken as the range of those that round to it. In one dtype, and of
    whole numbers, only equal is equal.
    """
    import torch

    if dtypes[0] == dtypes[1] or not all(dtype.is_floating_point for dtype in dtypes):
        return torch.equal(one, other)
    (finer, narrow), (coarser, wide) = sorted(
        ((one, dtypes[0]), (other, dtypes[1])), key=lambda pair: torch.finfo(pair[1]).eps
    )  # of the wide one, steps between numbers are longer
    half = _half_step(finer, narrow)
    below, above = (rounded(edge, wide).to(coarser.dtype) for edge in (finer - half, finer + half))
    return bool(((below <= coarser) & (coarser <= above)).all())


def all_only_rounded(rows: torch.Tensor, dtypes: Sequence[torch.dtype | None]) -> bool:
    """Whether all pairs of several models' values (models x elements) are so; None is the dtype of what was calculated, not stored."""
    pairs = combinations(zip(rows, dtypes, strict=True), 2)
    return all(one[1] is not None and other[1] is not None and only_rounded(one[0], other[0], (one[1], other[1])) for one, other in pairs)


def stored_dtype(model: Checkpoint, key: str) -> torch.dtype | None:
    """The dtype in which a tensor that `read` gives was stored; None for what is calculated, whose numbers are known beyond any."""
    return None if model.origin(key) is None else model.info(key).dtype


def _half_step(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Half the distance from each value to the next number of `dtype`."""
    import torch

    about = torch.finfo(dtype)
    exponent = torch.frexp(values.abs().clamp(min=about.smallest_normal))[1] - 1
    return torch.ldexp(torch.full_like(values, about.eps / 2), exponent)
