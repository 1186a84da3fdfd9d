"""Averages of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from workbench.merge import Missing, PerModel, Range, operator
from workbench.tensors import Scope, Weight, Weights

if TYPE_CHECKING:
    import torch


Shares = Annotated[
    PerModel[float], Range(-10, 10, 0.05, "share of each model; divided by their sum", per_block=True, soft=(0, 1), shares=True)
]


def sums_to_something(weights: list[float], **_: Any) -> str | None:
    """What is wrong with weights that are divided by their sum."""
    if abs(sum(weights)) < 1e-9:
        return f"weights must not sum to 0, since they are divided by their sum, got {weights}"
    return None


def _fused_average(*, weights: Sequence[float]) -> Callable[..., bool]:
    from workbench.kernels.mixtures import weighted_sum

    total = sum(weights)
    shares = {i: weight / total for i, weight in enumerate(weights) if weight}
    return lambda out, models: weighted_sum(out, [models[i] for i in shares], [*shares.values()])


@operator(
    scope=Scope.ELEMENT,
    keys="union",
    missing=Missing.OMIT,
    check=sums_to_something,
    fused=_fused_average,
    source="Wortsman et al. 2022, arXiv:2203.05482, section 2; renormalised over the holders as in MergeFlux",
)
def weighted_average(models: Weights, *, weights: Shares = 1.0) -> Weight:
    """Average the models, each with its weight; a tensor that only some hold is the average of those.

    Shapes: `models` are n tensors of one shape, `weights` n numbers; the result has that shape.
    """
    total = sum(weights)
    first, *others = [(model, weight / total) for model, weight in zip(models, weights, strict=True) if weight]  # 0 times NaN is NaN
    result: torch.Tensor = first[0] * first[1]
    for model, share in others:
        result.add_(model, alpha=share)
    return result
