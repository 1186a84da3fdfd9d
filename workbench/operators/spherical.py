"""Means along the sphere: directions are turned, not shortened. Averages along straight lines are in `averages`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch

from workbench.merge import Flag, Missing, OneOf, Prepared, Range, operator
from workbench.merge.preparing import Passes
from workbench.operators import geometry, spans
from workbench.operators.averages import Shares, sums_to_something
from workbench.tensors import Deltas, Scope, Weight, Weights

_STRAIGHT = 0.9995  # mergekit's: a cosine beyond which slerp is linear
_PARALLEL = 1e-6  # a sine up to which two vectors are, or opposite, and the way is straight
_NO_ANGLE = 1e-5  # a sine up to which it is, with `renormalise`: the way is the same, and between opposites there is none

T = Annotated[float, Range(-1, 2, 0.01, "how far from `first` to `second`", per_block=True, soft=(0, 1))]
Over = Annotated[
    geometry.Over, OneOf("what one vector is: the whole tensor, a row (all that follows dimension 0), or a column (along dimension 0)")
]

# what two tensors, or their rows or columns, are multiplied by and summed, and whether the way is straight instead
_Turn = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _prepared_products(passes: Passes) -> geometry.Products:
    ((read, _),) = passes()
    return geometry.read_products(read)


def _factors(found: geometry.Products, t: float, renormalise: bool) -> tuple[float, float] | None:
    """What the tensors are multiplied by and summed; None where there is no angle to turn by, and the way is straight."""
    turn, long, other_long = found.angle(), found.length(0), found.length(1)
    sine = turn.sin()
    if renormalise:
        if not torch.minimum(long, other_long) > 0 or not sine > _NO_ANGLE:
            return None
    elif turn.cos().abs() > _STRAIGHT:
        return None
    first, second = ((1 - t) * turn).sin() / sine, (t * turn).sin() / sine
    if renormalise:
        length = torch.lerp(long, other_long, t)
        first, second = first * length / long, second * length / other_long
    return first.item(), second.item()


def _fused_turn(*, t: float, renormalise: bool, prepared: Prepared) -> Callable[..., bool] | None:
    if t in (0, 1) or prepared.state is None:
        return None
    from workbench.kernels import mixtures

    factors = _factors(prepared.state, t, renormalise)
    if factors is None:
        return partial(mixtures.between, share=t)
    return lambda out, first, second: mixtures.weighted_sum(out, [first, second], factors)


@operator(
    scope=Scope.TENSOR,
    keys="first",
    prepare=_prepared_products,
    prepared_scope=Scope.ELEMENT,
    fused=_fused_turn,
    source="Shoemake 1985; mergekit 0.1.5 slerp; renormalise: sd-mecha 1.1.8 slerp",
)
def slerp(
    first: Weight,
    second: Weight,
    *,
    t: T = 0.5,
    renormalise: Annotated[bool, Flag("turn the directions and interpolate the lengths, rather than let tensors keep their own")] = False,
    prepared: Prepared = Prepared(),
) -> Weight:
    """Go from one model to the other along the sphere: the direction turns evenly, and the result is not shortened as by averaging.

    (sin((1-t)a) first + sin(ta) second) / sin(a), where a is the angle between the tensors laid flat; linear where |cos(a)| > 0.9995,
    and with `renormalise` only where sin(a) is at most 1e-5. A tensor of zeros stands at a right angle to all.
    Shapes: both and the result are of one shape.
    """
    if t in (0, 1):
        return (second if t else first).clone()  # 0 times NaN is NaN
    factors = _factors(prepared.state or geometry.products(geometry.flat_blocks(first, second)), t, renormalise)
    if factors is None:
        return torch.lerp(first, second, t)
    return (first * factors[0]).add_(second, alpha=factors[1])


def _two(models: int, **_: Any) -> str | None:
    return None if models == 2 else f"takes two models, got {models}"


def _weighted_scope(over: geometry.Over, **_: Any) -> Scope:
    return Scope.ROW if over == "row" else Scope.TENSOR


def _prepared_turn(passes: Passes) -> _Turn:
    ((read, options),) = passes()
    columns = options["over"] == "column" and len(read.entry.info.shape) > 1
    return _turn(geometry.read_products(read, columns), _share(options["weights"]))


def _fused_weighted(*, weights: Sequence[float], over: geometry.Over, prepared: Prepared) -> Callable[..., bool] | None:
    t = _share(weights)
    if over != "tensor" or prepared.state is None or t in (0, 1):
        return None
    from workbench.kernels import mixtures

    first, second, straight = (one.item() for one in prepared.state)
    if straight:
        return lambda out, models: mixtures.between(out, models[0], models[1], t)
    return lambda out, models: mixtures.weighted_sum(out, models, [first, second])


_weighted = partial(operator, scope=_weighted_scope, check=_two, prepare=_prepared_turn, prepared_scope=Scope.ROW)


@_weighted(keys="union", fused=_fused_weighted, source="mergekit 0.1.5 nuslerp without a base")
def nuslerp(models: Weights, *, weights: Shares = 1.0, over: Over = "tensor", prepared: Prepared = Prepared()) -> Weight:
    """Go from one model to the other along the sphere: the whole tensor, or each row or column by an angle of its own.

    As `slerp` with t = weights[1] / (weights[0] + weights[1]), a half where they sum to 0; straight only between parallels and opposites.
    Shapes: both models and the result are of one shape; one of fewer than two dimensions is one vector.
    """
    return _turned(models, _share(weights), over, prepared.state)


@_weighted(keys="base", source="mergekit 0.1.5 nuslerp with a base")
def delta_nuslerp(base: Weight, models: Deltas, *, weights: Shares = 1.0, over: Over = "tensor", prepared: Prepared = Prepared()) -> Weight:
    """Go from what one model learned to what the other did along the sphere, and add that to the base.

    base + nuslerp of both deltas; one of zeros stands at a right angle to all.
    Shapes: `base`, both deltas and the result are of one shape; one of fewer than two dimensions is one vector.
    """
    return base + _turned(models, _share(weights), over, prepared.state)


def _prepared_mean(passes: Passes) -> list[float]:
    ((read, options),) = passes()
    return _centre(geometry.read_products(read), **options)


def _fused_mean(*, prepared: Prepared, **_: Any) -> Callable[..., bool] | None:
    if prepared.state is None or not any(prepared.state):
        return None
    from workbench.kernels.mixtures import weighted_sum

    used = {i: factor for i, factor in enumerate(prepared.state) if factor}
    return lambda out, models: weighted_sum(out, [models[i] for i in used], [*used.values()])


@operator(
    scope=Scope.TENSOR,
    keys="union",
    missing=Missing.OMIT,
    check=sums_to_something,
    prepare=_prepared_mean,
    prepared_scope=Scope.ELEMENT,
    fused=_fused_mean,
    source="Karcher 1977; arXiv:2603.04972; mergekit 0.1.5 karcher",
)
def karcher_mean(
    models: Weights,
    *,
    weights: Shares = 1.0,
    iterations: Annotated[int, Range(1, 1000, 1, "steps along the sphere at most")] = 10,
    tolerance: Annotated[float, Range(0, 0.1, 1e-6, "an angle or a step below it is none, and so is a length")] = 1e-5,
    prepared: Prepared = Prepared(),
) -> Weight:
    """Average the models' directions on the sphere, where distances are angles, and their lengths apart from that.

    From the normalised mean m, steps along the sphere by the sum of w a / sin(a) (u - cos(a) m) over the unit tensors u at angles a from
    it; times the mean length; in float64, by the models' inner products. A tensor no longer than `tolerance` has a say in the length alone.
    Shapes: the n models and the result are of one shape.
    """
    found = prepared.state
    if found is None:
        found = _centre(geometry.products(geometry.flat_blocks(*models)), weights, iterations, tolerance)
    return spans.point(models, found)


def _centre(products: geometry.Products, weights: Sequence[float], iterations: int, tolerance: float) -> list[float]:
    """The models' factors of their mean; 0 for those of weight 0, for 0 times NaN is NaN."""
    used = [i for i, weight in enumerate(weights) if weight]
    span, factors = spans.Span(products, used), [0.0] * len(weights)
    shares = np.array(weights)[used] / sum(weights)
    sizes = span.lengths(span.points)
    known = ~(sizes <= tolerance)
    if len(used) == 1:
        factors[used[0]] = 1.0
    elif known.any():
        units = span.points[known] / sizes[known, None]
        found = _mean_direction(span, units, shares[known], iterations, tolerance) * (shares @ sizes)
        for i, factor in zip(used, found.tolist(), strict=True):
            factors[i] = factor
    return factors


def _mean_direction(span: spans.Span, units: np.ndarray, weights: np.ndarray, iterations: int, tolerance: float) -> np.ndarray:
    """That of points of length 1."""
    total, tolerance = weights.sum(), max(tolerance, _PARALLEL)  # nothing nearer is told apart
    shares = weights / total if total else np.full(len(units), 1 / len(units))
    centre = shares @ units
    size = span.lengths(centre)
    centre = centre / size if size >= tolerance else units[0]
    for _ in range(iterations):
        step = np.zeros_like(centre)
        for unit, share in zip(units, shares, strict=True):
            angle = span.angle(centre, unit)
            if angle >= tolerance and math.sin(angle) > _PARALLEL:
                step += share * angle / math.sin(angle) * (unit - math.cos(angle) * centre)
        size = span.lengths(step)
        if size < tolerance:
            break
        centre = math.cos(size) * centre + math.sin(size) / size * step
        centre /= span.lengths(centre)
    return np.asarray(centre)


def _share(weights: Sequence[float]) -> float:
    """How far to go from the first of two."""
    total = sum(weights)
    return weights[1] / total if total else 0.5


def _turn(found: geometry.Products, t: float) -> _Turn:
    angle = found.angle()
    sine = angle.sin()
    return ((1 - t) * angle).sin() / sine, (t * angle).sin() / sine, ~(sine > _PARALLEL)


def _turned(models: Sequence[torch.Tensor], t: float, over: geometry.Over, turn: _Turn | None) -> torch.Tensor:
    """From the first of two tensors to the second."""
    first, second = models
    if t in (0, 1):
        return (second if t else first).clone()  # 0 times NaN is NaN
    if first.dim() < 2 or over == "tensor":
        found, other, straight = turn or _turn(geometry.products(geometry.flat_blocks(first, second)), t)
        return torch.lerp(first, second, t) if straight else (first * found.item()).add_(second, alpha=other.item())
    if over == "row":
        turn = _turn(geometry.row_products(first, second), t)
    elif turn is None:
        turn = _turn(geometry.products(geometry.row_blocks(first, second), columns=True), t)
    found, other, straight = (one.to(first.device) for one in turn)
    turned = first * found.to(first.dtype) + second * other.to(first.dtype)
    return torch.where(straight, torch.lerp(first, second, t), turned)
