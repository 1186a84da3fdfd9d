"""Sums of deltas in which the models' changes decide together what counts: by their angles, sizes, or in how many there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any

import torch

from workbench.merge import Flag, Prepared, Range, operator
from workbench.merge.preparing import Passes
from workbench.operators import geometry, sparsify
from workbench.tensors import Deltas, Scope, Weight

Epsilon = Annotated[float, Range(0, 1, 1e-5, "a change no larger than this is none")]


def _several(models: int, **_: Any) -> str | None:
    return None if models > 1 else "takes two models or more, whose changes are compared; got 1"


def _stock_scope(filter_wise: bool = False, **_: Any) -> Scope:
    return Scope.ROW if filter_wise else Scope.TENSOR


def _prepared_stock(passes: Passes) -> torch.Tensor:
    ((read, _),) = passes()
    return _towards_mean(geometry.read_products(read).cosines())


def _towards_mean(cosines: Sequence[torch.Tensor]) -> torch.Tensor:
    """How far to go, given the cosines of all pairs of deltas; 0 where that is not defined."""
    count = (1 + math.isqrt(1 + 8 * len(cosines))) // 2
    mean = sum(cosines[1:], start=cosines[0]) / len(cosines)
    below = 1 + (count - 1) * mean
    return torch.where(below == 0, 0, count * mean / below)


def _fused_stock(*, filter_wise: bool, prepared: Prepared) -> Callable[..., bool] | None:
    if filter_wise or prepared.state is None:
        return None
    from workbench.kernels.delta_merges import Combining, Keep, merged

    share = prepared.state.item()

    def loop(out: torch.Tensor, base: torch.Tensor, models: Sequence[torch.Tensor | None]) -> bool:
        how = Combining("mean", "total", "none", [1.0] * len(models), share, 0)
        return merged(out, base, models, [Keep(1.0)] * len(models), how, 0)

    return loop


@operator(
    scope=_stock_scope,
    keys="base",
    prepare=_prepared_stock,
    prepared_scope=Scope.ELEMENT,
    fused=_fused_stock,
    check=_several,
    source="Jang et al. 2024, arXiv:2403.19522, section 4; mergekit 0.1.5",
)
def model_stock(
    base: Weight,
    models: Deltas,
    *,
    filter_wise: Annotated[bool, Flag("a share for each row (what follows dimension 0) instead of one for the tensor")] = False,
    prepared: Prepared = Prepared(),
) -> Weight:
    """Go from the base towards the models' mean as far as the angles between their changes say: the more alike, the farther.

    base + t * mean delta with t = n c / (1 + (n - 1) c), c the mean cosine over all pairs of n deltas; t is 0 where that is not defined.
    Shapes: `base`, each of the n deltas, and the result are of one shape; one of fewer than two dimensions has one share.
    """
    flat = [geometry.vectors(delta, "row" if filter_wise else "tensor")[0] for delta in models]
    if filter_wise:
        units = [geometry.unit(one, 1) for one in flat]
        share = _towards_mean([torch.linalg.vecdot(one, other, dim=1) for one, other in combinations(units, 2)]).unsqueeze(1)
    else:
        share = prepared.state
        share = _towards_mean(geometry.products(geometry.flat_blocks(*models)).cosines()) if share is None else share
    return base + (share * (sum(flat[1:], start=flat[0]) / len(flat))).reshape(base.shape)


@dataclass(frozen=True)
class _Selection:
    """The variance from which on elements of a tensor are selected, and the models' weights, which sum to 1."""

    least: float
    shares: Sequence[float]


def _prepared_selection(passes: Passes) -> _Selection:
    ((read, options),) = passes()

    def blocks() -> Iterator[Sequence[torch.Tensor]]:
        return (block for part in read.parts() for block in geometry.flat_blocks(*part()[1]))

    return _selection(blocks, options["density"], read.entry.info.numel)


def _selection(blocks: Callable[[], Iterable[Sequence[torch.Tensor]]], density: float, numel: int) -> _Selection:
    """Of a tensor of so many elements, whose deltas come in flat blocks, twice."""
    least = _least_varied(_joined(map(_variance, blocks()), numel), density) if density < 1 else 0.0
    sizes: list[float] = []
    for deltas in blocks():
        here = [float(geometry.wide(one).square().sum()) for one in _selected(deltas, least)]
        sizes = [one + other for one, other in zip(sizes or [0.0] * len(here), here, strict=True)]
    total = sum(sizes)
    return _Selection(least, [size / total if total else 1 / len(sizes) for size in sizes])


def _least_varied(variances: torch.Tensor, density: float) -> float:
    """The smallest that is selected, infinity for none; the numbers lose their order."""
    count = int(density * int(variances.count_nonzero()))
    return sparsify.kth_largest(variances, count) if count else math.inf


def _joined(parts: Iterable[torch.Tensor], numel: int) -> torch.Tensor:
    """The numbers of the parts of a tensor of so many elements, flat."""
    found, done = torch.empty(0), 0
    for part in parts:
        found = found if done else part.new_empty(numel)
        found[done : done + part.numel()] = part.reshape(-1)
        done += part.numel()
    return found


def _variance(deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """Over the models, of each element; by Welford's algorithm in float64, as torch's own, which takes ten times as long."""
    mean = geometry.wide(deltas[0])
    squares = torch.zeros_like(mean)
    for count, delta in enumerate(deltas[1:], 2):
        off = geometry.wide(delta) - mean
        mean = mean + off / count
        squares += off * (geometry.wide(delta) - mean)
    return (squares / len(deltas)).to(deltas[0].dtype)


def _selected(deltas: Sequence[torch.Tensor], least: float) -> Sequence[torch.Tensor]:
    """The deltas, 0 where they vary less; NaN stays."""
    if not least:
        return deltas
    out = _variance(deltas) < least
    return [delta.masked_fill(out, 0) for delta in deltas]


@operator(
    scope=Scope.TENSOR,
    keys="base",
    prepare=_prepared_selection,
    prepared_scope=Scope.ELEMENT,
    prepare_holds=True,
    source="Wan et al. 2024, arXiv:2408.07990, section 3 (SCE); mergekit 0.1.5 sce",
)
def sce(
    base: Weight,
    models: Deltas,
    *,
    density: Annotated[float, Range(0, 1, 0.01, "share of elements kept, most varied first")] = 1.0,
    prepared: Prepared = Prepared(),
) -> Weight:
    """Select the elements in which the models differ most, weight each model by the size of its changes, erase the minority's signs.

    Of the m elements whose variance over the models is not 0, int(density m) are kept and those that tie with the least of them, at density
    1 all; a model's weight is the mean square of its delta there; elements not of the sign of the deltas' sum are left out, and the rest is
    averaged by the weights. Shapes: `base`, each of the n deltas, and the result are of one shape.
    """
    found = prepared.state or _selection(lambda: geometry.flat_blocks(*models), density, base.numel())
    deltas = torch.stack([*_selected(models, found.least)])
    shares = torch.tensor(found.shares, dtype=base.dtype, device=base.device).reshape(-1, *[1] * base.dim())
    agree = deltas.sign() == torch.where(deltas.sum(0) >= 0, 1, -1)
    divisor = (shares * agree).sum(0)
    return base + (shares * agree * deltas).sum(0) / divisor.masked_fill_(divisor == 0, 1)


@operator(scope=Scope.ELEMENT, keys="base", source="arXiv:2601.13572 (RAM); mergekit 0.1.5 ram")
def ram(base: Weight, models: Deltas, *, epsilon: Epsilon = 1e-5) -> Weight:
    """Keep whole what one model alone changed; average what several did, over those that did.

    For sparse changes, as reinforcement learning makes them: dense ones are averaged.
    Shapes: `base`, each of the n deltas, and the result are of one shape.
    """
    changed = [delta.abs() > epsilon for delta in models]
    return base + _mean_of_changes(models, changed)


def _prepared_counts(passes: Passes) -> list[tuple[int, int]]:
    ((read, options),) = passes()
    return _sole_and_shared((part()[1] for part in read.parts()), options["epsilon"])


def _sole_and_shared(parts: Iterable[Sequence[torch.Tensor]], epsilon: float) -> list[tuple[int, int]]:
    """Of each of several deltas, how many elements it alone changed, and how many it and others did."""
    counts: list[tuple[int, int]] = []
    for deltas in parts:
        changed = torch.stack([delta.abs() > epsilon for delta in deltas]).flatten(1)
        alone = changed.sum(0) == 1
        sole = (changed & alone).sum(1).tolist()
        every = changed.sum(1).tolist()
        here = [(one, many - one) for one, many in zip(sole, every, strict=True)]
        counts = [(a + c, b + d) for (a, b), (c, d) in zip(counts or [(0, 0)] * len(here), here, strict=True)]
    return counts


@operator(
    scope=Scope.TENSOR,
    keys="base",
    prepare=_prepared_counts,
    prepared_scope=Scope.ELEMENT,
    source="arXiv:2601.13572 (RAM+); counts per tensor as in mergekit 0.1.5 ramplus_tl",
)
def ram_plus(
    base: Weight,
    models: Deltas,
    *,
    r: Annotated[float, Range(0, 10, 0.05, "how much sole changes are scaled up", per_block=True)] = 0.1,
    alpha: Annotated[float, Range(0, 10, 0.05, "most that the ratio of shared to sole changes counts", per_block=True)] = 0.2,
    epsilon: Epsilon = 1e-5,
    prepared: Prepared = Prepared(),
) -> Weight:
    """As `ram`, with a model's sole changes scaled up by how many of its changes it shares: 1 + r min(shared / sole, alpha).

    Shapes: `base`, each of the n deltas, and the result are of one shape.
    """
    changed = [delta.abs() > epsilon for delta in models]
    counts = prepared.state or _sole_and_shared(([one.reshape(-1) for one in models],), epsilon)
    alone = sum((one.to(base.dtype) for one in changed[1:]), start=changed[0].to(base.dtype)) == 1
    result = base + _mean_of_changes(models, changed)
    for delta, one, (sole, shared) in zip(models, changed, counts, strict=True):
        if sole:
            result += r * min(shared / sole, alpha) * delta * (one & alone)
    return result


def _mean_of_changes(models: Sequence[torch.Tensor], changed: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of those that changed an element, 0 where none did."""
    total, count = torch.zeros_like(models[0]), torch.zeros_like(models[0])
    for delta, one in zip(models, changed, strict=True):
        total += torch.where(one, delta, 0)
        count += one
    return total / count.clamp_(min=1)


@operator(
    scope=Scope.ELEMENT,
    keys="base",
    check=lambda models, threshold, **_: (
        f"threshold must be at most the number of models, {models}, got {threshold}" if threshold > models else None
    ),
    source="Wang et al. 2024, arXiv:2405.07813, section 4 (TALL masks, consensus); nik-dim/tall_masks",
)
def consensus(
    base: Weight,
    models: Deltas,
    *,
    mask_lambda: Annotated[float, Range(0, 10, 0.05, "how large a change is beside the others' sum to be its own", per_block=True)] = 0.4,
    threshold: Annotated[int, Range(1, 64, 1, "how many models must call an element their own for it to stay")] = 2,
    strength: Annotated[float, Range(-2, 2, 0.05, "how much of the sum is added", per_block=True)] = 0.3,
) -> Weight:
    """Add up the deltas, and keep the elements that several models call their own: changes of one model alone and of none go.

    The mask of a model is |delta| > mask_lambda |sum of the others|. Shapes: `base`, each of the n deltas, and the result are of one shape.
    """
    total = sum(models[1:], start=models[0])
    agree = torch.zeros_like(base)
    for delta in models:
        agree += delta.abs() > mask_lambda * (total - delta).abs()
    return base + strength * total * (agree >= threshold) if strength else base.clone()  # 0 times NaN is NaN


def _prepared_least(passes: Passes) -> float:
    ((read, _),) = passes()
    return _least_important(_joined((_importance(*part()) for part in read.parts()), read.entry.info.numel))


def _importance(base: torch.Tensor, tuned: torch.Tensor) -> torch.Tensor:
    """Of each change: its size times how far the row's softmax moved."""
    one, other = (tensor.reshape(1, -1) if tensor.dim() < 2 else tensor.flatten(1) for tensor in (tuned, base))
    likely, before = (tensor.softmax(1) + 1e-8 for tensor in (one, other))
    divergence = (likely * (likely / before).log()).sum(1, keepdim=True)
    return ((one - other).abs() * divergence).reshape(base.shape)


def _least_important(importance: torch.Tensor) -> float:
    """That of the least that is taken; the numbers lose their order."""
    last = importance.numel() - 1
    low, middle, high = (sparsify.kth_largest(importance, last + 1 - int(share * last)) for share in (0.25, 0.5, 0.75))
    return middle + 1.5 * (high - low)


@operator(
    scope=Scope.TENSOR,
    keys="base",
    prepare=_prepared_least,
    prepared_scope=Scope.ROW,
    prepare_holds=True,
    source="arcee-ai/mergekit 0.1.5 arcee_fusion; quantiles of all elements",
)
def arcee_fusion(base: Weight, tuned: Weight, *, prepared: Prepared = Prepared()) -> Weight:
    """Take the tuned model's elements where it changed most of what the row says, and the base's elsewhere.

    Importance: |tuned - base| times the Kullback-Leibler divergence of the rows' softmaxes, tuned's from base's; taken from the median
    plus 1.5 times the distance of the quartiles on. A row is all that follows dimension 0, a vector is one row.
    Shapes: both and the result are of one shape.
    """
    if not base.numel():
        return base.clone()
    importance = _importance(base, tuned)
    least = _least_important(importance.clone()) if prepared.state is None else prepared.state
    return torch.where(importance >= least, tuned, base)
