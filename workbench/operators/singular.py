"""Sums of deltas in the singular vectors of their matrices. Methods that work element by element are in `combine`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch

from workbench.merge import OneOf, Range, operator
from workbench.operators.geometry import svd
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


@operator(scope=Scope.TENSOR, keys="base", source="Marczak et al. 2025, arXiv:2502.04959, section 4 (Iso-CTS)")
def iso_cts(
    base: Weight,
    models: Deltas,
    *,
    common_fraction: Annotated[float, Range(0, 1, 0.05, "share of the directions that are the sum's, not one model's")] = 0.8,
    strength: Strength = 1.0,
    convolutions: Convolutions = "plain",
) -> Weight:
    """Keep the strongest directions of the deltas' sum, give the rest to what each model has beside them, and make all equally strong.

    Of r directions k = r - round((r - common_fraction r) / T) T are the sum's (at least 0), of T models; each delta, less its part in the
    sum's left ones, has (r - k) / T. All are made orthogonal, and have the mean of all singular values.
    What has no matrix gets the mean of the deltas. An SVD for each model and three more, of whole tensors.
    Shapes: `base`, each of the n deltas, and the result are of one shape.
    """
    if not _is_matrix(base, convolutions):
        return _with_mean(base, models, strength)
    flat = [delta.flatten(1) for delta in models]
    most, count = min(flat[0].shape), len(models)
    each = min(round((most - int(common_fraction * most)) / count), most // count)
    common = _strongest(sum(flat[1:], start=flat[0]), most - each * count)
    own = [_strongest(delta - common[0] @ (common[0].mT @ delta), each) for delta in flat]
    left, values, right = (torch.cat(columns, dim) for columns, dim in zip(zip(common, *own, strict=True), (1, 0, 0), strict=True))
    if not len(values):
        return base.clone()
    return base + (strength * values.mean() * (_polar(left) @ _polar(right))).reshape(base.shape)


@operator(scope=Scope.TENSOR, keys="base", source="arXiv:2602.05536, equation 8 and algorithm 1 (SVC); lyymuwu/SVC")
def svc(
    base: Weight,
    merged: Weight,
    models: Deltas,
    *,
    alpha: Annotated[float, Range(0.05, 2, 0.05, "least that a direction counts; below 1 scales up weak ones", per_block=True)] = 1.0,
    convolutions: Convolutions = "plain",
) -> Weight:
    """Finish a merge: scale down the directions of its change that the models share, and that were added up once for each.

    With merged - base = sum of s_i u_i v_i and a = u_i delta_j, p = <s_i v_i, a> / <a, a> (0 where a is 0): s_i becomes
    s_i T / sum over the T models of max(alpha, p). Only matrices change; all else stays as merged. One SVD of a whole tensor.
    Shapes: `base`, `merged`, each of the n deltas, and the result are of one shape.
    """
    if not _is_matrix(base, convolutions):
        return merged.clone()
    left, values, right = _strongest((merged - base).flatten(1))
    if not len(values):
        return merged.clone()
    counted = torch.zeros_like(values)
    for delta in models:
        part = left.mT @ delta.flatten(1)
        size = part.square().sum(1)
        projected = values * (right * part).sum(1) / size.masked_fill(size == 0, 1)
        counted += projected.clamp_(min=alpha)
    return base + ((left * (values * len(models) / counted)) @ right).reshape(base.shape)


@operator(scope=Scope.TENSOR, keys="base", source="Eckart and Young 1936; sd-mecha 1.1.8 truncate_rank")
def truncate_rank(
    base: Weight,
    tuned: Weight,
    *,
    rank: Annotated[int, Range(1, 65536, 1, "directions kept of the change", per_block=True, soft=(1, 128))] = 8,
) -> Weight:
    """Keep of what `tuned` learned its strongest directions alone, as a LoRA of that rank would.

    base + the best approximation of that rank of tuned - base, dimension 0 by the rest; a vector is `tuned`. One SVD of a whole tensor.
    Shapes: both and the result are of one shape.
    """
    if not _is_matrix(base, "matrix"):
        return tuned.clone()
    left, values, right = _strongest((tuned - base).flatten(1), rank)
    return base + ((left * values) @ right).reshape(base.shape)


def _is_matrix(tensor: torch.Tensor, convolutions: str) -> bool:
    return tensor.numel() > 0 and (tensor.dim() == 2 or (tensor.dim() > 2 and convolutions == "matrix"))


def _with_mean(base: torch.Tensor, models: Sequence[torch.Tensor], strength: float) -> torch.Tensor:
    return base + strength / len(models) * sum(models[1:], start=models[0])


def _strongest(matrix: torch.Tensor, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """At most `count` singular vectors and values, the strongest: rows x k, k, k x columns."""
    left, values, right = svd(matrix)
    kept = int((values > ROUNDING * values[0]).sum())
    kept = kept if count is None else min(kept, count)
    return left[:, :kept], values[:kept], right[:kept]


def _polar(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix whose singular values are 1 (the orthogonal factor of the polar decomposition); 0 where it has none."""
    left, _, right = _strongest(matrix)
    return left @ right
