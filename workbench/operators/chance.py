"""DELLA: changes are dropped at random, the smaller ones of a row likelier. What is dropped by size alone is in `combine`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch

from workbench.merge import OneOf, Prepared, Random, Range, operator
from workbench.merge.preparing import Passes
from workbench.operators import geometry, sparsify
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


def _scope(rescale: str, **_: Any) -> Scope:
    return Scope.TENSOR if rescale == "norm" else Scope.ROW


def _prepared_scales(passes: Passes) -> list[float]:
    ((read, options),) = passes()

    def pairs() -> Iterator[tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]]:
        for part in read.parts():
            deltas = part()[1]
            yield deltas, [kept for kept, _ in _drawn(deltas, options["density"], options["epsilon"], options["weights"], part.random)]

    return _scales(pairs())


_chance = partial(operator, scope=_scope, keys="base", check=_within, prepare=_prepared_scales, prepared_scope=Scope.ROW, source=_DELLA)


@_chance()
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
    prepared: Prepared = Prepared(),
) -> Weight:
    """Drop changes at random, the smaller ones of a row likelier, and scale up the rest; average those that agree in sign.

    Divided by the weights that agree (`ties` divides by their number). The paper scales by the probability, mergekit to the norm.
    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    """
    total, weight_of = agreeing(_kept(models, density, epsilon, weights, rescale, random, prepared.state), weights)
    if not strength:
        return base.clone()  # 0 times NaN is NaN
    return base + strength * total / weight_of.masked_fill_(weight_of.abs() < sparsify.NO_WEIGHT, 1)


@_chance()
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
    prepared: Prepared = Prepared(),
) -> Weight:
    """Drop changes at random, the smaller ones of a row likelier, and scale up the rest; add them up.

    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    """
    kept = _kept(models, density, epsilon, weights, rescale, random, prepared.state)
    return base + strength * sum(kept[1:], start=kept[0]) if strength else base.clone()  # 0 times NaN is NaN


def _kept(
    models: Sequence[torch.Tensor],
    density: float,
    epsilon: float,
    weights: Sequence[float],
    rescale: str,
    random: Random,
    scales: Sequence[float] | None,
) -> list[torch.Tensor]:
    """What is left of each delta, scaled, times its weight."""
    drawn = _drawn(models, density, epsilon, weights, random)
    if rescale == "probability":
        scaled = [kept / probability for kept, probability in drawn]
    else:
        left = [kept for kept, _ in drawn]
        scales = scales or _scales(zip(geometry.row_blocks(*models), geometry.row_blocks(*left), strict=True))
        scaled = [kept * scale for kept, scale in zip(left, scales, strict=True)]
    return [one * weight if weight else torch.zeros_like(one) for one, weight in zip(scaled, weights, strict=True)]  # 0 times NaN is NaN


def _drawn(
    models: Sequence[torch.Tensor], density: float, epsilon: float, weights: Sequence[float], random: Random
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What chance leaves of each delta, and the elements' probabilities; of weight 0, all."""
    return [
        sparsify.by_rank(delta, random.uniform(delta, i), density, epsilon) if weight else (delta, torch.ones_like(delta))
        for i, (delta, weight) in enumerate(zip(models, weights, strict=True))
    ]


def _scales(pairs: Iterable[tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]]) -> list[float]:
    """What makes the sums of magnitudes of what is left as large as those of the deltas; of both, block by block."""
    sums = torch.stack([torch.stack([_sizes(deltas), _sizes(left)]) for deltas, left in pairs]).sum(0)
    return torch.where(sums[1] == 0, 1, sums[0] / sums[1]).tolist()


def _sizes(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([geometry.wide(tensor).abs().sum() for tensor in tensors])
