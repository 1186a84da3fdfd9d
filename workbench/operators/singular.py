"""Sums of deltas in the singular vectors of their matrices. Methods that work element by element are in `combine`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch

from workbench.merge import OneOf, Range, operator
from workbench.tensors import Deltas, Scope, Weight

ROUNDING = 1e-6  # of the largest singular value: what is below is float32's rounding, and no direction

Strength = Annotated[float, Range(-2, 2, 0.05, "how much of the result is added", per_block=True)]
Convolutions = Annotated[
    Literal["plain", "matrix"], OneOf("convolutions are averaged like norms and biases, or are matrices: dimension 0 by all others")
]


@operator(scope=Scope.TENSOR, keys="base", source="Gargiulo et al. 2024, arXiv:2412.00081, section 3 (TSV-Merge)")
def tsv_merge(
    base: Weight,
    models: Deltas,
    *,
    strength: Strength = 1.0,
    convolutions: Convolutions = "plain",
    directions: Annotated[
        int | None, Range(1, 65536, 1, "singular vectors kept of each delta; None: the smaller side over the number of models")
    ] = None,
) -> Weight:
    """Keep each model's strongest singular vectors, and make those of all models orthogonal to each other.

    What has no matrix gets the mean of the deltas. A singular vector without a singular value is none, so that changes of low rank have
    one answer. One SVD for each model and two for all of them, of whole tensors.
    Shapes: `base`, each of the n deltas, and the result are of one shape.
    """
    if not _is_matrix(base, convolutions):
        return _with_mean(base, models, strength)
    count = min(base.shape[0], base[0].numel()) // len(models) if directions is None else directions
    parts = [_strongest(delta.flatten(1), count) for delta in models]
    left, values, right = (torch.cat(columns, dim) for columns, dim in zip(zip(*parts, strict=True), (1, 0, 0), strict=True))
    if not len(values):
        return base.clone()
    return base + strength * ((_polar(left) * values) @ _polar(right)).reshape(base.shape)


@operator(scope=Scope.TENSOR, keys="base", source="Marczak et al. 2025, arXiv:2502.04959, section 4 (Iso-C)")
def iso_c(base: Weight, models: Deltas, *, strength: Strength = 1.0, convolutions: Convolutions = "plain") -> Weight:
    """Add up the deltas, and make all directions of the sum equally strong: their mean.

    What has no matrix gets the mean of the deltas. A singular vector without a singular value is none, so that changes of low rank have
    one answer. One SVD of a whole tensor.
    Shapes: `base`, each of the n deltas, and the result are of one shape.
    """
    if not _is_matrix(base, convolutions):
        return _with_mean(base, models, strength)
    left, values, right = _strongest(sum(models[1:], start=models[0]).flatten(1))
    if not len(values):
        return base.clone()
    return base + (strength * values.mean() * (left @ right)).reshape(base.shape)


def _is_matrix(tensor: torch.Tensor, convolutions: str) -> bool:
    return tensor.numel() > 0 and (tensor.dim() == 2 or (tensor.dim() > 2 and convolutions == "matrix"))


def _with_mean(base: torch.Tensor, models: Sequence[torch.Tensor], strength: float) -> torch.Tensor:
    return base + strength / len(models) * sum(models[1:], start=models[0])


def _strongest(matrix: torch.Tensor, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """At most `count` singular vectors and values, the strongest: rows x k, k, k x columns."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = int((values > ROUNDING * values[0]).sum())
    kept = kept if count is None else min(kept, count)
    return left[:, :kept], values[:kept], right[:kept]


def _polar(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix whose singular values are 1 (the orthogonal factor of the polar decomposition); 0 where it has none."""
    left, _, right = _strongest(matrix)
    return left @ right
