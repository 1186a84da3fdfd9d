"""Differences of two models, added to a third."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from workbench.merge import PerModel, Range, operator
from workbench.tensors import Deltas, Scope, Weight


def _fused_difference(*, strength: float) -> Callable[..., bool] | None:
    from workbench.kernels.mixtures import added_difference

    return partial(added_difference, strength=strength) if strength else None


@operator(
    scope=Scope.ELEMENT,
    keys="base",
    difference=("tuned", "original"),
    fused=_fused_difference,
    source="AUTOMATIC1111/stable-diffusion-webui, extras.py, 'Add difference': A + (B - C) * M",
)
def add_difference(
    base: Weight,
    tuned: Weight,
    original: Weight,
    *,
    strength: Annotated[float, Range(-2, 2, 0.05, "how much of the difference is added", per_block=True)] = 1.0,
) -> Weight:
    """Add what `tuned` learned on top of `original` to `base`: base + strength * (tuned - original).

    Shapes: all three and the result are of one shape. Where `tuned` and `original` have fewer input channels than `base` (an
    inpainting model), the difference is 0 beyond them.
    """
    return base + strength * (tuned - original) if strength else base.clone()  # 0 times NaN is NaN


@operator(scope=Scope.ELEMENT, keys="base", source="Hu et al. 2021, arXiv:2106.09685, section 4.1: W + B A")
def add_delta(
    base: Weight,
    deltas: Deltas,
    *,
    strengths: Annotated[PerModel[float], Range(-20, 20, 0.05, "how much of each change", per_block=True, soft=(-2, 2))] = 1.0,
) -> Weight:
    """Add changes, such as LoRAs, to a model: base + sum of strength * change.

    Shapes: `base`, each of the n changes and the result are of one shape; `strengths` are n numbers.
    """
    result = base.clone()
    for change, strength in zip(deltas, strengths, strict=True):
        if strength:  # 0 times NaN is NaN
            result.add_(change, alpha=strength)
    return result
