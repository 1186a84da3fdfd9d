"""Means along the sphere: directions are turned, not shortened. Averages along straight lines are in `averages`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import torch

from workbench.merge import Flag, Missing, OneOf, Prepared, Range, operator
from workbench.merge.preparing import Passes
from workbench.operators import geometry
from workbench.operators.averages import Shares, sums_to_something
from workbench.tensors import Deltas, Scope, Weight, Weights

_STRAIGHT = 0.9995  # mergekit's: a cosine beyond which slerp is linear
_NO_ANGLE = 1e-5  # a sine up to which it is, with `renormalise`: the way is the same, and between opposites there is none

T = Annotated[float, Range(-1, 2, 0.01, "how far from `first` to `second`", per_block=True, soft=(0, 1))]
Over = Annotated[
    geometry.Over, OneOf("what one vector is: the whole tensor, a row (all that follows dimension 0), or a column (along dimension 0)")
]


def _prepared_turn(passes: Passes) -> geometry.Products:
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
    prepare=_prepared_turn,
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


@operator(scope=Scope.TENSOR, keys="union", check=_two, source="mergekit 0.1.5 nuslerp without a base")
def nuslerp(models: Weights, *, weights: Shares = 1.0, over: Over = "tensor") -> Weight:
    """Go from one model to the other along the sphere: the whole tensor, or each row or column by an angle of its own.

    As `slerp` with t = weights[1] / (weights[0] + weights[1]), a half where they sum to 0; linear only where the two are parallel.
    Shapes: both models and the result are of one shape; one of fewer than two dimensions is one vector.
    """
    return _weighted(models, weights, over)


@operator(scope=Scope.TENSOR, keys="base", check=_two, source="mergekit 0.1.5 nuslerp with a base")
def delta_nuslerp(base: Weight, models: Deltas, *, weights: Shares = 1.0, over: Over = "tensor") -> Weight:
    """Go from what one model learned to what the other did along the sphere, and add that to the base.

    base + nuslerp of both deltas; one of zeros stands at a right angle to all.
    Shapes: `base`, both deltas and the result are of one shape; one of fewer than two dimensions is one vector.
    """
    return base + _weighted(models, weights, over)


@operator(
    scope=Scope.TENSOR,
    keys="union",
    missing=Missing.OMIT,
    check=sums_to_something,
    source="Karcher 1977; arXiv:2603.04972; mergekit 0.1.5 karcher",
)
def karcher_mean(
    models: Weights,
    *,
    weights: Shares = 1.0,
    iterations: Annotated[int, Range(1, 1000, 1, "steps along the sphere at most")] = 10,
    tolerance: Annotated[float, Range(0, 0.1, 1e-6, "an angle or a step below it is none, and so is a length")] = 1e-5,
) -> Weight:
    """Average the models' directions on the sphere, where distances are angles, and their lengths apart from that.

    From the normalised mean m, steps along the sphere by the sum of w a / sin(a) (u - cos(a) m) over the unit tensors u at angles a from
    it; times the mean length. A tensor no longer than `tolerance` has a say in the length alone.
    Shapes: the n models and the result are of one shape.
    """
    flat = [(geometry.vectors(model, "tensor")[0], weight) for model, weight in zip(models, weights, strict=True) if weight]
    sized = [(one, geometry.length(one, 1).item(), weight) for one, weight in flat]  # without those of weight 0: 0 times NaN is NaN
    if len(flat) == 1:
        return flat[0][0].reshape(models[0].shape).clone()
    known = [(one / size, weight) for one, size, weight in sized if not size <= tolerance]
    if not known:
        return torch.zeros_like(models[0])
    scale: float = sum(size * weight for _, size, weight in sized) / sum(weights)
    result: torch.Tensor = scale * _centre(known, iterations, tolerance)
    return result.reshape(models[0].shape)


def _centre(units: Sequence[tuple[torch.Tensor, float]], iterations: int, tolerance: float) -> torch.Tensor:
    """The mean direction of unit vectors with weights."""
    total = sum(weight for _, weight in units)
    shares = [(unit, weight / total if total else 1 / len(units)) for unit, weight in units]
    begin = torch.stack([share * unit for unit, share in shares]).sum(0)
    centre: torch.Tensor = geometry.unit(begin, 1) if geometry.length(begin, 1).item() >= tolerance else shares[0][0]
    for _ in range(iterations):
        step = torch.zeros_like(centre)
        for unit, share in shares:
            angle = geometry.angle(centre, unit, 1).item()
            if angle >= tolerance and math.sin(angle):
                step.add_(unit - math.cos(angle) * centre, alpha=share * angle / math.sin(angle))
        size = geometry.length(step, 1).item()
        if size < tolerance or not size:
            break
        centre = geometry.unit(math.cos(size) * centre + math.sin(size) / size * step, 1)
    return centre


def _weighted(models: Sequence[torch.Tensor], weights: Sequence[float], over: geometry.Over) -> torch.Tensor:
    """From the first of two tensors to the second, by their weights' ratio."""
    total = sum(weights)
    t = weights[1] / total if total else 0.5
    if t in (0, 1):
        return models[int(t)].clone()  # 0 times NaN is NaN
    (first, dim), (second, _) = (geometry.vectors(model, over) for model in models)
    turn = geometry.angle(first, second, dim)
    result = torch.where(turn.sin() ** 2 > 1e-16, _turned(first, second, turn, t), torch.lerp(first, second, t))
    return result.reshape(models[0].shape)


def _turned(first: torch.Tensor, second: torch.Tensor, turn: torch.Tensor, t: float) -> torch.Tensor:
    """`t` of the angle `turn` from `first` to `second`; not a number where there is none."""
    return (((1 - t) * turn).sin() * first + (t * turn).sin() * second) / turn.sin()
