"""`delta_merge` and what it is made into, from models as they are stored, in one pass: what is asked of the compiled loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from workbench.merge import Prepared, Random
from workbench.operators import sparsify

if TYPE_CHECKING:
    from workbench.kernels.delta_merges import Keep


def fused(
    *,
    prune: str = "magnitude",
    combine: str = "disjoint",
    density: float = 0.5,
    weights: Sequence[float],
    majority_sign: str = "total",
    normalize: str = "number",
    strength: float = 1.0,
    rescale: bool | None = None,
    over: str = "tensor",
    random: Random = Random(),
    prepared: Prepared = Prepared(),
) -> Callable[..., bool] | None:
    """The loop for these options; of the largest of a tensor only where it is known from which magnitude on they are."""
    smallest = prepared.state or [None] * len(weights)
    if not strength or (prune == "magnitude" and (not prepared.state or all(map(math.isinf, smallest)))):
        return None
    from workbench.kernels.delta_merges import Combining, merged

    scale = sparsify.rescaling(prune, density, rescale)
    pairs = enumerate(zip(weights, smallest, strict=True))
    keeps = [_kept(prune, density, weight * scale, random.key(i), known) for i, (weight, known) in pairs]
    how = Combining(combine, majority_sign, normalize, weights, strength, sparsify.NO_WEIGHT)
    return partial(merged, keeps=keeps, how=how, first=random.start)


def _kept(prune: str, density: float, scale: float, key: int, smallest: float | None) -> Keep:
    from workbench.kernels.delta_merges import Keep

    if not scale or (prune == "random" and not density) or (smallest is not None and math.isinf(smallest)):
        return Keep(scale, nothing=True)
    if smallest:
        return Keep(scale, below=sparsify.just_below(smallest, torch.float32))
    return Keep(scale, key=key, density=density) if prune == "random" and density < 1 else Keep(scale)
