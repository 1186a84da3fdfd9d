"""Sums of deltas: what several models learned, made sparse or not, put together on their common base."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch

from workbench import kernels
from workbench.errors import OptionError
from workbench.merge import Flag, OneOf, PerModel, Prepared, Random, Range, operator
from workbench.merge.preparing import Passes
from workbench.operators import sparsify
from workbench.operators.stored_deltas import fused
from workbench.tensors import Deltas, Scope, Weight

_PIECES = {"cpu": 1 << 16}  # elements worked on at once: all that is made of them stays in the cache
_PIECE_GPU = 1 << 24  # enough for a GPU to be busy between two calls
_TIES = "Yadav et al. 2023, arXiv:2306.01708, section 3"
_DARE = "Yu et al. 2023, arXiv:2311.03099, section 3"

Density = Annotated[float, Range(0, 1, 0.01, "share of each delta that is kept", per_block=True)]
Weighting = Annotated[PerModel[float], Range(-2, 2, 0.05, "how much of each delta", per_block=True)]
Sign = Annotated[
    Literal["total", "frequency", "frequency, then total"],
    OneOf("what votes on the sign of an element: the deltas' sum; one vote each, a tie being plus; one vote each, a tie left to the sum"),
]
Normalize = Annotated[
    Literal["number", "weights", "none"],
    OneOf("what deltas that agree are divided by: how many they are, their weights (mergekit's normalize: true), nothing (false)"),
]
Strength = Annotated[float, Range(-2, 2, 0.05, "how much of the merged delta is added", per_block=True)]
Over = Annotated[
    Literal["tensor", "model"],
    OneOf("whether the largest of each tensor are kept, or of the whole model (as the paper's), which is read twice before"),
]


def _scope(prune: str = "magnitude", over: str = "tensor", **_: Any) -> Scope:
    if prune != "magnitude":
        return Scope.ELEMENT
    return Scope.MODEL if over == "model" else Scope.TENSOR


def _thresholds(passes: Passes) -> list[float]:
    """For each model, the magnitude from which on a change is among the largest of all tensors that are read, together."""
    densities = {options["density"] for _, options in passes()}
    if len(densities) > 1:
        raise OptionError(f"density must be the same in every block where the largest of the whole model are kept, got {sorted(densities)}")
    (density,) = densities or {1.0}
    return sparsify.thresholds(lambda: (part for read, _ in passes() for part in read.parts()), density)


@operator(
    scope=_scope,
    keys="base",
    prepare=_thresholds,
    prepared_scope=Scope.ELEMENT,
    fused=fused,
    source=f"MergeFlux, mergeflux-delta.py; TIES: {_TIES}; DARE: {_DARE}",
)
def delta_merge(
    base: Weight,
    models: Deltas,
    *,
    prune: Annotated[
        Literal["magnitude", "none", "random"], OneOf("which elements of a delta are kept: the largest, all, or some at random")
    ] = "magnitude",
    combine: Annotated[
        Literal["disjoint", "sum", "mean"], OneOf("how deltas meet: the mean of those that agree in sign, their sum, their mean")
    ] = "disjoint",
    density: Density = 0.5,
    weights: Weighting = 1.0,
    majority_sign: Sign = "total",
    normalize: Normalize = "number",
    strength: Strength = 1.0,
    rescale: Annotated[bool | None, Flag("divide what is kept by the density; None: if it was chosen at random")] = None,
    over: Over = "tensor",
    random: Random = Random(),
    prepared: Prepared = Prepared(),
) -> Weight:
    """Prune each delta, weight it, combine them, and add the result to the base.

    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    A model that lacks a tensor has a delta of zeros, which counts in the mean, and in the disjoint mean has no say.
    Of two models a vote of frequency is none: where they differ, plus always wins, unless ties are left to the total.
    """
    if not strength:
        return base.clone()  # 0 times NaN is NaN
    if prune == "magnitude" and density and _unchanged(models, prepared.state if over == "tensor" else None):
        return base.clone()  # what nobody changed stays as it is: the largest of zeros take as long to find as others
    smallest = prepared.state or [None] * len(models)
    pairs = enumerate(zip(models, weights, smallest, strict=True))
    keeps = [_keep(prune, delta, density, weight, random, i, known) for i, (delta, weight, known) in pairs]
    scale = sparsify.rescaling(prune, density, rescale)

    def combined(kept: list[torch.Tensor]) -> torch.Tensor:
        return sparsify.times(strength, combined_by(combine, kept, weights, majority_sign, normalize))

    return added(base, models, keeps, [weight * scale for weight in weights], combined)


def _unchanged(models: Sequence[torch.Tensor], smallest: Sequence[float] | None) -> bool:
    """Whether no model changed anything in the whole tensor, of which this may be a part if its thresholds are known."""
    return not any(delta.any() for delta in models) if smallest is None else all(map(math.isinf, smallest))


def added(
    base: torch.Tensor,
    models: Sequence[torch.Tensor],
    keeps: Sequence[sparsify.Keep],
    scales: Sequence[float],
    combine: Callable[[list[torch.Tensor]], torch.Tensor],
) -> torch.Tensor:
    """The base and what is made of the deltas' kept parts, piece by piece."""
    flat = [delta.reshape(-1) for delta in models]
    result = base.clone(memory_format=torch.contiguous_format)
    piece = _PIECES.get(base.device.type, _PIECE_GPU)
    for start in range(0, base.numel(), piece):
        place = slice(start, start + piece)
        kept = [keep(delta[place], place, scale) for keep, delta, scale in zip(keeps, flat, scales, strict=True)]
        result.view(-1)[place] += combine(kept)
    return result


def _keep(
    prune: str, delta: torch.Tensor, density: float, weight: float, random: Random, model: int, smallest: float | None
) -> sparsify.Keep:
    if not weight:
        return sparsify.nothing  # 0 times NaN is NaN
    if prune == "magnitude":
        return sparsify.largest(delta, density) if smallest is None else sparsify.from_single(smallest, delta.dtype)
    if prune == "random":
        return sparsify.random(lambda piece, at, scale: random.kept(piece, density, scale, model=model, at=at.start), density)
    return sparsify.everything


def combined_by(combine: str, deltas: list[torch.Tensor], weights: Sequence[float], majority_sign: str, normalize: str) -> torch.Tensor:
    """What the kept parts of deltas come to together."""
    if combine == "disjoint":
        return _disjoint(deltas, weights, majority_sign, normalize)
    total = sum(deltas[1:], start=deltas[0])
    return total / len(deltas) if combine == "mean" else total


def _disjoint(deltas: list[torch.Tensor], weights: Sequence[float], majority_sign: str, normalize: str) -> torch.Tensor:
    """What the deltas come to whose sign is the elected one; a tied vote elects plus, as in MergeFlux and PEFT."""
    if kernels.fit(*deltas):
        from workbench.kernels import deltas as loops

        found = loops.disjoint(deltas, weights, majority_sign, normalize, sparsify.NO_WEIGHT)
        if found is not None:
            return found
    votes = deltas if majority_sign == "total" else [delta.sign() for delta in deltas]
    vote = sum(votes[1:], start=votes[0])
    if majority_sign == "frequency, then total":
        vote = torch.where(vote == 0, sum(deltas[1:], start=deltas[0]), vote)
    elected = torch.ones_like(deltas[0]).copysign_(vote)
    agreeing = [(delta * elected).clamp_(min=0) for delta in deltas]  # their magnitudes, and 0 for the others
    total = sum(agreeing[1:], start=agreeing[0]).mul_(elected)
    if normalize == "none":
        return total
    if normalize == "number":
        count = sum((magnitude.sign() for magnitude in agreeing[1:]), start=agreeing[0].sign())
        return total.div_(count.clamp_(min=1))
    of_weights = torch.zeros_like(total)
    for magnitude, weight in zip(agreeing, weights, strict=True):
        of_weights.add_(magnitude.sign_(), alpha=weight)
    return total.div_(of_weights.masked_fill_(of_weights.abs() < sparsify.NO_WEIGHT, 1))


@operator(
    scope=Scope.ELEMENT,
    keys="base",
    fused=partial(fused, prune="none", combine="sum"),
    source="Ilharco et al. 2023, arXiv:2212.04089, section 2",
)
def task_arithmetic(base: Weight, models: Deltas, *, weights: Weighting = 1.0) -> Weight:
    """Add what each model learned to the base: base + sum of weight * (model - base).

    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    """
    return delta_merge.function(base, models, prune="none", combine="sum", weights=weights)


@operator(scope=_scope, keys="base", prepare=_thresholds, prepared_scope=Scope.ELEMENT, fused=fused, source=_TIES)
def ties(
    base: Weight,
    models: Deltas,
    *,
    density: Density = 0.5,
    weights: Weighting = 1.0,
    majority_sign: Sign = "total",
    normalize: Normalize = "number",
    strength: Strength = 1.0,
    over: Over = "tensor",
    prepared: Prepared = Prepared(),
) -> Weight:
    """Keep each model's largest changes; average those that agree in sign.

    mergekit's `ties` is normalize="weights", its lambda `strength`. Of two models a vote of frequency is none: plus always wins.
    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    """
    voting = {"majority_sign": majority_sign, "normalize": normalize, "strength": strength}
    return delta_merge.function(base, models, density=density, weights=weights, over=over, prepared=prepared, **voting)


@operator(
    scope=_scope,
    keys="base",
    prepare=_thresholds,
    prepared_scope=Scope.ELEMENT,
    fused=partial(fused, combine="sum"),
    source=f"{_TIES}, trimming only; PEFT's magnitude_prune",
)
def magnitude_prune(
    base: Weight,
    models: Deltas,
    *,
    density: Density = 0.5,
    weights: Weighting = 1.0,
    over: Over = "tensor",
    prepared: Prepared = Prepared(),
) -> Weight:
    """Keep each model's largest changes; add them up.

    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    """
    return delta_merge.function(base, models, combine="sum", density=density, weights=weights, over=over, prepared=prepared)


@operator(scope=Scope.ELEMENT, keys="base", fused=partial(fused, prune="random", combine="sum"), source=_DARE)
def dare_linear(base: Weight, models: Deltas, *, density: Density = 0.5, weights: Weighting = 1.0, random: Random = Random()) -> Weight:
    """Drop changes at random and scale up the rest; add them up.

    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    """
    return delta_merge.function(base, models, prune="random", combine="sum", density=density, weights=weights, random=random)


@operator(scope=Scope.ELEMENT, keys="base", fused=partial(fused, prune="random"), source=f"{_DARE}, combined as in TIES")
def dare_ties(
    base: Weight,
    models: Deltas,
    *,
    density: Density = 0.5,
    weights: Weighting = 1.0,
    majority_sign: Sign = "total",
    normalize: Normalize = "number",
    strength: Strength = 1.0,
    random: Random = Random(),
) -> Weight:
    """Drop changes at random and scale up the rest; average those that agree in sign.

    mergekit's `dare_ties` is normalize="none", its lambda `strength`. Of two models a vote of frequency is none: plus always wins.
    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    """
    voting = {"majority_sign": majority_sign, "normalize": normalize, "strength": strength}
    return delta_merge.function(base, models, prune="random", density=density, weights=weights, random=random, **voting)


def agreeing(deltas: Sequence[torch.Tensor], weights: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the weighted deltas of the sign of their sum (0: plus), and the sum of the weights of those."""
    elected = torch.where(sum(deltas[1:], start=deltas[0]) >= 0, 1, -1)
    total, weight_of = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = delta.sign() == elected
        total += delta * agrees
        weight_of.add_(agrees, alpha=weight)
    return total, weight_of
