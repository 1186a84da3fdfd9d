"""Sums of deltas: what several models learned, put together on their common base."""

from __future__ import annotations

from typing import Annotated

from workbench.merge import PerModel, Range, operator
from workbench.tensors import Deltas, Scope, Weight


@operator(scope=Scope.ELEMENT, keys="base", source="Ilharco et al. 2023, arXiv:2212.04089, section 2")
def task_arithmetic(
    base: Weight,
    models: Deltas,
    *,
    weights: Annotated[PerModel[float], Range(-2, 2, 0.05, "how much of each delta is added", per_block=True)] = 1.0,
) -> Weight:
    """Add what each model learned to the base: base + sum of weight * (model - base).

    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    """
    result = base.clone()
    for delta, weight in zip(models, weights, strict=True):
        result.add_(delta, alpha=weight)
    return result
