"""Differences of two models added to a third, element by element as far as that one does not have them already."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated

import torch

from workbench.merge import Prepared, Range, operator
from workbench.merge.preparing import Passes
from workbench.operators import geometry
from workbench.tensors import Scope, Weight

_SUPERMERGER = 1.8  # hako-mikan/sd-webui-supermerger's factor of what is trained

Strength = Annotated[float, Range(-2, 2, 0.05, "how much of it is added", per_block=True)]
_DIFFERENCE = ("tuned", "original")


@operator(
    scope=Scope.ELEMENT,
    keys="base",
    difference=_DIFFERENCE,
    source="hako-mikan/sd-webui-supermerger, 'trainDifference'; sd-mecha 1.1.8 train_difference_mask",
)
def train_difference(base: Weight, tuned: Weight, original: Weight, *, strength: Strength = 1.0) -> Weight:
    """Add what `tuned` learned on top of `original` to `base` as training it would: less where `base` lies near `tuned` already.

    base + 1.8 strength (tuned - original) |tuned - base| / (|tuned - base| + |tuned - original|), 0 / 0 being 0.
    Shapes: all three and the result are of one shape.
    """
    learned, missing = tuned - original, (tuned - base).abs_()
    change = _SUPERMERGER * learned * _ratio(missing, missing + learned.abs())
    return _added(base, change, strength)


@operator(scope=Scope.ELEMENT, keys="base", difference=_DIFFERENCE, source="sd-mecha 1.1.8 add_opposite_mask")
def add_opposite(base: Weight, tuned: Weight, original: Weight, *, strength: Strength = 1.0) -> Weight:
    """Add what `tuned` learned on top of `original` where `base` went the other way, and less the more it went the same way.

    base + 2 strength (tuned - original) |base - tuned| / (|base - tuned| + |base + tuned - 2 original|), 0 / 0 being 0.
    Shapes: all three and the result are of one shape.
    """
    apart, together = (base - tuned).abs_(), (base + tuned - 2 * original).abs_()
    return _added(base, 2 * (tuned - original) * _ratio(apart, apart + together), strength)


@operator(scope=Scope.ELEMENT, keys="base", difference=_DIFFERENCE, source="sd-mecha 1.1.8 add_strict_opposite_mask")
def add_strict_opposite(base: Weight, tuned: Weight, original: Weight, *, strength: Strength = 1.0) -> Weight:
    """Add what `tuned` learned on top of `original` only where `base` went the other way.

    base + 2 strength (tuned - original) max(0, (original - base)(tuned - original) / max(|base - original|, |tuned - original|)^2).
    Shapes: all three and the result are of one shape.
    """
    learned, before = tuned - original, base - original
    largest = torch.maximum(learned.abs(), before.abs())
    opposite = (-_ratio(before, largest) * _ratio(learned, largest)).clamp_(min=0)
    return _added(base, 2 * learned * opposite, strength)


def _prepared_products(passes: Passes) -> tuple[float, float]:
    ((read, _),) = passes()
    return _products(part() for part in read.parts())


def _products(parts: Iterable[Sequence[torch.Tensor]]) -> tuple[float, float]:
    """<x, y> and <x, x> of what `base` learned and what `tuned` did, summed over parts."""
    both, own = 0.0, 0.0
    for base, tuned, original in parts:
        have, learned = (geometry.wide(one - original).reshape(-1) for one in (base, tuned))
        both, own = both + float(have @ learned), own + float(have @ have)
    return both, own


@operator(
    scope=Scope.TENSOR,
    keys="base",
    difference=_DIFFERENCE,
    prepare=_prepared_products,
    prepared_scope=Scope.ELEMENT,
    source="sd-mecha 1.1.8 perpendicular_component",
)
def add_perpendicular(
    base: Weight, tuned: Weight, original: Weight, *, strength: Strength = 1.0, prepared: Prepared = Prepared()
) -> Weight:
    """Add the part of what `tuned` learned that is new to `base`: at a right angle to what that learned, whole tensors taken flat.

    With x = base - original and y = tuned - original: base + strength (y - x <x, y> / <x, x>); where x is 0, `base`.
    Shapes: all three and the result are of one shape.
    """
    both, own = prepared.state or _products(geometry.flat_blocks(base, tuned, original))
    if not own:
        return base.clone()
    return _added(base, (tuned - original).sub_(base - original, alpha=both / own), strength)


@operator(
    scope=Scope.ROW,
    keys="base",
    source="the untitledmerger, 'Add Dissimilarities'; hako-mikan/sd-webui-supermerger, extract_super",
)
def add_dissimilarity(
    base: Weight,
    first: Weight,
    second: Weight,
    *,
    t: Annotated[float, Range(0, 1, 0.01, "share of `second` in what is added", per_block=True)] = 0.5,
    gamma: Annotated[float, Range(0.05, 100, 0.05, "larger adds more of rows that are alike", per_block=True, soft=(0.05, 15))] = 1.0,
    strength: Strength = 1.0,
) -> Weight:
    """Add the two models' average to the base, row by row as far as the two are unlike.

    base + strength ((1 - t) first + t second)(1 - ((c + 1) / 2)^gamma), c the cosine of `first` and `second` along the last dimension: of
    the weights themselves, not of what was learned. Shapes: all three and the result are of one shape.
    """
    one, other = (tensor.reshape(tensor.shape or (1,)) for tensor in (first, second))
    unlike = 1 - ((geometry.cosine(one, other, -1) + 1) / 2) ** gamma
    return _added(base, (torch.lerp(one, other, t) * unlike).reshape(base.shape), strength)


@operator(scope=Scope.ELEMENT, keys="base", source="sd-mecha 1.1.8 multiply_quotient")
def multiply_quotient(base: Weight, tuned: Weight, original: Weight, *, strength: Strength = 1.0) -> Weight:
    """Multiply the base by what `tuned` is over `original`, to the power of how far the two went opposite ways in logarithms.

    With x = ln|base / original| and y = ln|tuned / original|: base Re((tuned / original)^e), e = strength max(0, -x y / max(|x|, |y|)^2);
    where that is no number (a 0 among the three), `base`. Shapes: all three and the result are of one shape.
    """
    quotient = tuned / original
    have, learned = (base / original).abs().log_(), quotient.abs().log_()
    largest = torch.maximum(have.abs(), learned.abs())
    power = strength * (-(have / largest) * (learned / largest)).clamp_(min=0)
    turned = torch.where(quotient < 0, (math.pi * power).cos(), 1)  # the real part of a negative number's power
    result = base * (power * learned).exp() * turned
    return torch.where(result.isfinite() & power.isfinite(), result, base)


def _added(base: torch.Tensor, change: torch.Tensor, strength: float) -> torch.Tensor:
    return base + strength * change if strength else base.clone()  # 0 times NaN is NaN


def _ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """A quotient, where 0 / 0 is 0."""
    return above / below.masked_fill(below == 0, 1)
