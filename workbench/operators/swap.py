"""Methods that take elements, rows or frequencies from one of two models, and hold values within bounds."""

from __future__ import annotations

import math
from typing import Annotated

import torch

from workbench.merge import Range, operator
from workbench.operators import sparsify
from workbench.tensors import Scope, Weight, Weights

Width = Annotated[float, Range(0, 1, 0.01, "share of the tensor that is taken", per_block=True)]
Offset = Annotated[float, Range(0, 1, 0.01, "where that begins; beyond the end it goes on from the start", per_block=True)]


@operator(scope=Scope.ELEMENT, keys="first", source="alchemonaut/QuartetAnemoi-70B (NearSwap); mergekit 0.1.5 nearswap")
def nearswap(
    first: Weight,
    second: Weight,
    *,
    t: Annotated[float, Range(0, 10, 1e-4, "distance up to which `second` is taken whole", per_block=True, soft=(0, 0.1))] = 0.001,
) -> Weight:
    """Take `second` where the two lie near each other, and keep `first` the farther they are apart.

    w second + (1 - w) first with w = min(1, t / |first - second|). Shapes: both and the result are of one shape.
    """
    apart = (first - second).abs_()
    share = torch.where(apart > t, t / apart, 1)
    return torch.lerp(first, second, share)


@operator(scope=Scope.ELEMENT, keys="model", source="sd-mecha 1.1.8 clamp")
def clamp(
    model: Weight,
    bounds: Weights,
    *,
    stiffness: Annotated[float, Range(0, 1, 0.05, "how far both bounds are moved towards the middle ones", per_block=True)] = 0.0,
) -> Weight:
    """Hold a model within what several others span, element by element: what no model of them has is cut off.

    Between the smallest and the largest of `bounds`; a stiffness s moves the largest to (1 - s) largest + s (the smallest bound not below
    their mean), and so the smallest. Shapes: `model`, each of the n bounds and the result are of one shape.
    """
    low, high = bounds[0], bounds[0]
    for one in bounds[1:]:
        low, high = torch.minimum(low, one), torch.maximum(high, one)
    if stiffness:
        mean = sum(bounds[1:], start=bounds[0]) / len(bounds)
        above, below = high, low
        for one in bounds:
            above = torch.where(one >= mean, torch.minimum(above, one), above)
            below = torch.where(one <= mean, torch.maximum(below, one), below)
        low, high = torch.lerp(low, below, stiffness), torch.lerp(high, above, stiffness)
    return torch.minimum(torch.maximum(model, low), high)


@operator(scope=Scope.TENSOR, keys="first", source="hako-mikan/sd-webui-supermerger, 'Tensor'; sd-mecha 1.1.8 tensor_sum")
def tensor_sum(first: Weight, second: Weight, *, width: Width = 0.5, offset: Offset = 0.0) -> Weight:
    """Take some rows (places of dimension 0) from `second`, and the others from `first`.

    Of n rows round(offset n) to round((width + offset) n), halves to even; where width + offset > 1 it goes around, and all but
    round((width + offset - 1) n) to round(offset n) are taken. Shapes: both and the result are of one shape.
    """
    if not first.dim():
        return (second if width > 0.5 else first).clone()
    start, stop, around = _region(width, offset, first.shape[0])
    result, inner = (second, first) if around else (first, second)
    result = result.clone()
    result[start:stop] = inner[start:stop]
    return result


@operator(scope=Scope.TENSOR, keys="first", source="sd-mecha 1.1.8 top_k_tensor_sum")
def top_k_tensor_sum(first: Weight, second: Weight, *, width: Width = 1.0, offset: Offset = 0.0) -> Weight:
    """Put the values of `first` into the order of those of `second`: the largest where that has its largest.

    Only values whose magnitude lies between the k-th smallest magnitudes at the region's two ends (of `tensor_sum`, over all elements;
    there is no bound at k = 0), or outside where it goes around; other places keep what they had.
    Shapes: both and the result are of one shape.
    """
    flat = first.reshape(-1)
    if not flat.numel():
        return first.clone()
    start, stop, around = _region(width, offset, flat.numel())
    magnitudes = flat.abs()
    low, high = (sparsify.kth_largest(magnitudes, flat.numel() - k + 1) if k else -1.0 for k in (start, stop))
    del magnitudes
    ordered, rank = flat.sort().values, second.reshape(-1).argsort(stable=True)
    magnitudes = ordered.abs()
    inside = (low <= magnitudes) & (magnitudes <= high)
    del magnitudes
    moved = torch.where(~inside if around else inside, ordered, flat[rank])  # no lists of places: an index takes twice a number's bytes
    result = torch.empty_like(flat).scatter_(0, rank, moved)
    return result.reshape(first.shape)


def _region(width: float, offset: float, count: int) -> tuple[int, int, bool]:
    """Begin and end of a region of so many places, and whether it is what lies outside of them."""
    offset = math.fmod(offset, 1)
    if width + offset <= 1:
        return round(offset * count), round((width + offset) * count), False
    return round((width + offset - 1) * count), round(offset * count), True


@operator(scope=Scope.TENSOR, keys="first", source="sd-mecha 1.1.8 crossover")
def crossover(
    first: Weight,
    second: Weight,
    *,
    t: Annotated[float, Range(0, 1, 0.01, "share of `second`: the highest frequencies first", per_block=True)] = 0.5,
    tilt: Annotated[float, Range(0, 1, 0.05, "0 is a sharp change, at 1 all frequencies are mixed alike", per_block=True)] = 0.0,
) -> Weight:
    """Take the low frequencies of `first` and the high ones of `second`, by Fourier transforms over all dimensions.

    A frequency's distance is the root mean square of its places, 0 to 1, along the dimensions; those beyond 1 - t are `second`'s. With
    0 < tilt < 1 and c = 1 / tan(pi tilt / 2) its share is c distance + c t + t - c, held within 0 and 1.
    Shapes: both and the result are of one shape.
    """
    if tilt == 1 or not first.dim() or not first.numel():
        return torch.lerp(first, second, t)
    share = _share_of_high(_distances(first), t, tilt)
    low, high = torch.fft.rfftn(first), torch.fft.rfftn(second)
    mixed: torch.Tensor = torch.fft.irfftn(low.add_(high.sub_(low).mul_(share)), s=first.shape)
    return mixed


def _share_of_high(distance: torch.Tensor, t: float, tilt: float) -> torch.Tensor:
    if not tilt:
        return (distance > 1 - t).to(distance.dtype)
    slope = 1 / math.tan(math.pi * tilt / 2)
    return (slope * distance + slope * t + t - slope).clamp_(0, 1)


def _distances(tensor: torch.Tensor) -> torch.Tensor:
    """How high each frequency of a real transform is, from 0 to 1: over the dimensions, the last one halved."""
    *others, last = tensor.shape
    half = last // 2 + 1
    places = [_there_and_back(size) for size in others] + [torch.arange(half, dtype=torch.float64) / max(half - 1, 1)]
    total = torch.zeros([*others, half], dtype=torch.float64)
    for dim, place in enumerate(places):
        total += place.square().reshape([-1 if one == dim else 1 for one in range(tensor.dim())])
    return (total / tensor.dim()).sqrt_().to(tensor.device, tensor.dtype)


def _there_and_back(size: int) -> torch.Tensor:
    """From 0 up and down again, as the frequencies of a complex transform lie."""
    up = torch.linspace(0, (size - 1) // 2, size - size // 2, dtype=torch.float64)
    return torch.cat([up, torch.linspace(size // 2, 1, size // 2, dtype=torch.float64)]) / max(size // 2, 1)
