"""Differences of two models, added to a third."""

from __future__ import annotations

from typing import Annotated

from workbench.merge import Range, operator
from workbench.tensors import Scope, Weight


@operator(
    scope=Scope.ELEMENT,
    keys="base",
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

    Shapes: all three and the result are of one shape.
    """
    return base + strength * (tuned - original)
