"""What can be said of a pair of models: each metric is a few sums over a tensor, and a number that follows from them.

Sums add up over the tensors of a block, so that a block's number is that of all its elements, never a mean of numbers,
unless the metric's own description says so. A new metric is one more entry of `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from workbench.analysis.reading import Tensors

RANK = 8  # leading directions whose overlap is measured
_WORK = 3  # copies of the matrices in memory: as read, centred or squared, and the products

# sums of one tensor: quantities x models x models; models that lack the tensor are NaN
Sums = np.ndarray


@dataclass(frozen=True)
class Measure:
    """Sums of one tensor for all pairs of its models. With `base` the first model is what changes are counted from."""

    sums: Callable[[Tensors, bool], Sums]
    copies: float = 0  # of every model's tensor in float64 that are in memory at once


@dataclass(frozen=True)
class Metric:
    """A number for each pair of models, from the sums of its measure. `unit` is what a colour bar says of it."""

    measure: Measure
    value: Callable[..., np.ndarray]
    unit: str
    undefined: str  # why it is NaN where the sums are there
    apart: Callable[[np.ndarray], np.ndarray] = lambda values: 1 - values  # how far from alike, 0 for a model and itself


def gram(tensors: Tensors, base: bool) -> Sums:
    """|a|^2, |b|^2, a * b and |a - b|^2 of each pair.

    Products are taken of the first model and of what the others differ from it by, so that models close to each other
    lose no digits in their difference; what two models share cancels to the last bit.
    """
    import torch

    count = len(tensors.names)
    products = torch.zeros(count, count, dtype=torch.float64)
    for chunk in tensors.chunks():
        chunk[1:] -= chunk[0]
        products += chunk @ chunk.T
    made = torch.eye(count, dtype=torch.float64)  # each model from the first and the differences
    if base:
        made = made[1:]
    else:
        made[:, 0] = 1
    inner = (made @ products @ made.T).numpy()
    squares = np.diag(inner)
    apart = made[:, None] - made[None]
    differences = torch.einsum("ija,ab,ijb->ij", apart, products, apart).clamp(min=0).numpy()
    return np.stack([np.broadcast_to(squares[:, None], inner.shape), np.broadcast_to(squares, inner.shape), inner, differences])


def signs(tensors: Tensors, base: bool) -> Sums:
    """How many elements have the same sign in both, and how many are zero in neither."""
    import torch

    count = len(tensors.names) - base
    same, both = torch.zeros(2, count, count, dtype=torch.float64)
    for chunk in tensors.chunks():
        values = chunk[1:] - chunk[0] if base else chunk
        signs = values.sign().float()  # counts within a chunk are exact in float32
        there = signs.abs()
        product, counted = signs @ signs.T, there @ there.T
        same += (product + counted) / 2
        both += counted
    return torch.stack([same, both]).numpy()


def alignment(tensors: Tensors, base: bool) -> Sums:
    """Linear CKA of two matrices whose rows are taken as examples, times the elements; and the elements."""
    import torch

    matrices = _matrices(tensors, base)
    sizes = matrices.flatten(1).norm(dim=1)
    matrices -= matrices.mean(1, keepdim=True)
    matrices[matrices.flatten(1).norm(dim=1) <= 1e-12 * sizes] = 0  # equal rows, but for rounding
    _, rows, columns = matrices.shape
    if rows <= columns:
        kernels = matrices @ matrices.mT
        shared = torch.einsum("iab,jab->ij", kernels, kernels)
    else:
        shared = torch.stack([torch.stack([(a.mT @ b).square().sum() for b in matrices]) for a in matrices])
    norms = shared.diagonal().sqrt()
    return _weighted(shared / (norms[:, None] * norms), rows * columns)


def overlap(tensors: Tensors, base: bool) -> Sums:
    """The share of the leading singular directions of one that lies in those of the other, times the elements; and these.

    The directions are those of the shorter side, at most RANK and half as many as there are; a tensor with a side of one
    has none to compare.
    """
    import torch

    matrices = _matrices(tensors, base)
    count, rows, columns = matrices.shape
    if rows > columns:
        matrices = matrices.mT
    rank = min(RANK, min(rows, columns) // 2)
    if not rank:
        return np.full((2, count, count), np.nan)
    values, vectors = torch.linalg.eigh(matrices @ matrices.mT)
    leading = vectors[..., -rank:]
    shared = torch.einsum("iar,jas->ijrs", leading, leading).square().sum((2, 3)) / rank
    enough = values[:, -rank] > values[:, -1] * 1e-12  # fewer directions than that are noise
    shared[~enough] = torch.nan
    shared[:, ~enough] = torch.nan
    return _weighted(shared, rows * columns)


def _matrices(tensors: Tensors, base: bool) -> torch.Tensor:
    matrices = tensors.matrices()
    return matrices[1:].sub_(matrices[0]) if base else matrices


def _weighted(values: torch.Tensor, numel: int) -> Sums:
    import torch

    return torch.stack([values * numel, torch.where(values.isnan(), torch.nan, float(numel))]).numpy()


def over(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the denominator is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, numerator / denominator)


def _off_one(ratios: np.ndarray) -> np.ndarray:
    return np.abs(1 - ratios)


_GRAM, _SIGNS = Measure(gram), Measure(signs)
_A_ZERO, _B_ZERO, _ZERO = "the first is all zero", "the second is all zero", "one of the two is all zero"

METRICS = {
    # rounding must not leave the range
    "cosine": Metric(_GRAM, lambda a, b, ab, d: np.clip(over(ab, np.sqrt(a * b)), -1, 1), "cosine", _ZERO),
    "distance": Metric(_GRAM, lambda a, b, ab, d: np.sqrt(over(d, a)), "distance over the first's norm", _A_ZERO, apart=np.asarray),
    "norm_ratio": Metric(_GRAM, lambda a, b, ab, d: np.sqrt(over(b, a)), "norm over the first's", _A_ZERO, apart=_off_one),
    "scale": Metric(_GRAM, lambda a, b, ab, d: over(ab, b), "factor of least distance", _B_ZERO, apart=_off_one),
    "sign_agreement": Metric(_SIGNS, over, "share of equal signs", "no element is zero in neither"),
    "cka": Metric(Measure(alignment, _WORK), over, "linear CKA", "all rows are equal in one of the two"),
    "subspace_overlap": Metric(Measure(overlap, _WORK), over, "overlap of leading directions", "too few directions to compare"),
}
