"""DELLA: changes are dropped at random, the smaller ones of a row likelier. What is dropped by size alone is in `combine`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch

from workbench.merge import OneOf, Random, Range, operator
from workbench.operators import sparsify
from workbench.operators.combine import Strength, Weighting, agreeing
from workbench.tensors import Deltas, Scope, Weight

_DELLA = "Deep et al. 2024, arXiv:2406.11617, section 3; rescale='norm': mergekit 0.1.5"

Density = Annotated[float, Range(0, 1, 0.01, "share of each delta that is kept", per_block=True)]
Epsilon = Annotated[float, Range(0, 0.5, 0.01, "how much likelier the largest of a row is kept", per_block=True)]
Rescale = Annotated[
    Literal["norm", "probability"], OneOf("what is kept is scaled to the delta's sum of magnitudes, or each element by its probability")
]


def _within(density: float, epsilon: float, **_: Any) -> str | None:
    if density - epsilon > 0 and density + epsilon < 1:
        return None
    return f"density - epsilon and density + epsilon are probabilities between 0 and 1, got {density} and {epsilon}"


@operator(scope=Scope.TENSOR, keys="base", check=_within, source=_DELLA)
def della(
    base: Weight,
    models: Deltas,
    *,
    density: Density = 0.5,
    epsilon: Epsilon = 0.15,
    weights: Weighting = 1.0,
    strength: Strength = 1.0,
    rescale: Rescale = "norm",
    random: Random = Random(),
) -> Weight:
    """Drop changes at random, the smaller ones of a row likelier, and scale up the rest; average those that agree in sign.

    Divided by the weights that agree (`ties` divides by their number). The paper scales by the probability, mergekit to the norm.
    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    """
    total, weight_of = agreeing(_kept(models, density, epsilon, weights, rescale, random), weights)
    if not strength:
        return base.clone()  # 0 times NaN is NaN
    return base + strength * total / weight_of.masked_fill_(weight_of.abs() < sparsify.NO_WEIGHT, 1)


@operator(scope=Scope.TENSOR, keys="base", check=_within, source=_DELLA)
def della_linear(
    base: Weight,
    models: Deltas,
    *,
    density: Density = 0.5,
    epsilon: Epsilon = 0.15,
    weights: Weighting = 1.0,
    strength: Strength = 1.0,
    rescale: Rescale = "norm",
    random: Random = Random(),
) -> Weight:
    """Drop changes at random, the smaller ones of a row likelier, and scale up the rest; add them up.

    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    """
    kept = _kept(models, density, epsilon, weights, rescale, random)
    return base + strength * sum(kept[1:], start=kept[0]) if strength else base.clone()  # 0 times NaN is NaN


def _kept(
    models: Sequence[torch.Tensor], density: float, epsilon: float, weights: Sequence[float], rescale: str, random: Random
) -> list[torch.Tensor]:
    """What is left of each delta, times its weight."""
    pairs = enumerate(zip(models, weights, strict=True))
    return [
        _left_of(delta, i, density, epsilon, rescale, random) * weight if weight else torch.zeros_like(delta)
        for i, (delta, weight) in pairs
    ]


def _left_of(delta: torch.Tensor, model: int, density: float, epsilon: float, rescale: str, random: Random) -> torch.Tensor:
    kept, probability = sparsify.by_rank(delta, random.uniform(delta, model), density, epsilon)
    if rescale == "probability":
        return kept / probability
    left = kept.abs().sum()
    return kept * (delta.abs().sum() / left) if left else kept
