"""Sums of deltas without outliers: of each model's changes those of middling size are kept (breadcrumbs)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import torch

from workbench.merge import Prepared, Range, operator
from workbench.merge.preparing import Passes
from workbench.operators import sparsify
from workbench.operators.combine import Density, Strength, Weighting, added, combined_by
from workbench.tensors import Deltas, Scope, Weight

_BREADCRUMBS = "Davari and Belilovsky 2023, arXiv:2312.06795, section 3; counted as in mergekit 0.1.5"

Gamma = Annotated[float, Range(0, 1, 0.01, "share of each delta that is left out, largest first", per_block=True)]
Bands = Sequence[tuple[float, float]]  # for each model, the smallest and the largest magnitude that is kept


def _bands(passes: Passes) -> Bands:
    ((read, options),) = passes()
    return sparsify.bands(read.parts, options["density"], options["gamma"])


def _fused(
    *, density: float, gamma: float, weights: Sequence[float], strength: float, prepared: Prepared, combine: str
) -> Callable[..., bool] | None:
    if prepared.state is None:
        return None
    from workbench.kernels.delta_merges import Combining, Keep, merged

    scales = [weight * strength for weight in weights]
    keeps = [
        Keep(scale, below=sparsify.just_below(bottom, torch.float32) if bottom else None, above=top) if scale else Keep(scale, nothing=True)
        for scale, (bottom, top) in zip(scales, prepared.state, strict=True)
    ]
    return partial(merged, keeps=keeps, how=Combining(combine, "total", "none", scales, 1.0, sparsify.NO_WEIGHT), first=0)


@operator(
    scope=Scope.TENSOR,
    keys="base",
    prepare=_bands,
    prepared_scope=Scope.ELEMENT,
    fused=partial(_fused, combine="sum"),
    source=_BREADCRUMBS,
)
def breadcrumbs(
    base: Weight,
    models: Deltas,
    *,
    density: Density = 0.9,
    gamma: Gamma = 0.01,
    weights: Weighting = 1.0,
    strength: Strength = 1.0,
    prepared: Prepared = Prepared(),
) -> Weight:
    """Leave out each model's very largest changes and its smallest; add up the rest.

    `gamma` gives way where it and `density` are more than 1. Shapes: `base`, each of the n deltas, and the result are of one shape;
    `weights` are n numbers.
    """
    return _merged("sum", base, models, density, gamma, [weight * strength for weight in weights], prepared.state)


@operator(
    scope=Scope.TENSOR,
    keys="base",
    prepare=_bands,
    prepared_scope=Scope.ELEMENT,
    fused=partial(_fused, combine="disjoint"),
    source=f"{_BREADCRUMBS}; signs as in TIES: mergekit 0.1.5 breadcrumbs_ties",
)
def breadcrumbs_ties(
    base: Weight,
    models: Deltas,
    *,
    density: Density = 0.9,
    gamma: Gamma = 0.01,
    weights: Weighting = 1.0,
    strength: Strength = 1.0,
    prepared: Prepared = Prepared(),
) -> Weight:
    """Leave out each model's very largest changes and its smallest; add up those that agree in sign.

    They are added, not averaged, as mergekit does here. `gamma` gives way where it and `density` are more than 1.
    Shapes: `base`, each of the n deltas, and the result are of one shape; `weights` are n numbers.
    """
    return _merged("disjoint", base, models, density, gamma, [weight * strength for weight in weights], prepared.state)


def _merged(
    combine: str,
    base: torch.Tensor,
    models: Sequence[torch.Tensor],
    density: float,
    gamma: float,
    scales: Sequence[float],
    known: Bands | None,
) -> torch.Tensor:
    """The base and what is kept of the deltas, whose bands are `known` where these may be parts of tensors."""

    def kept(delta: torch.Tensor, scale: float, band: tuple[float, float] | None) -> sparsify.Keep:
        if not scale:
            return sparsify.nothing  # 0 times NaN is NaN
        return sparsify.middle(delta, density, gamma) if band is None else sparsify.between(*band, delta.dtype)

    bands: Sequence[tuple[float, float] | None] = known or [None] * len(scales)
    keeps = [kept(*one) for one in zip(models, scales, bands, strict=True)]
    return added(base, models, keeps, scales, lambda pieces: combined_by(combine, pieces, scales, "total", "none"))
