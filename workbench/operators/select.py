"""Methods that take each element, or each column, from one of the models, rather than mix all alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch

from workbench import kernels
from workbench.merge import Missing, Prepared, Range, operator
from workbench.merge.preparing import Passes
from workbench.operators import geometry
from workbench.tensors import Scope, Weight

_LOSSLESSMIX = "recoilme/losslessmix"
_ANCHORS_VAE = ({"component": "vae", "take": "anchor"},)
_TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
_TINY = 1e-8  # as in torch.nn.CosineSimilarity: a column of zeros is like none

Alpha = Annotated[float, Range(0.01, 10, 0.01, "scale of `first` in the distance to the anchor", per_block=True)]
Beta = Annotated[float, Range(0.01, 10, 0.01, "scale of `second` in the distance to the anchor", per_block=True)]


def _fused_choice(farthest: bool, *, alpha: float, beta: float) -> Callable[..., bool]:
    from workbench.kernels.mixtures import chosen

    return partial(chosen, alpha=alpha, beta=beta, farthest=farthest)


@operator(
    scope=Scope.ELEMENT,
    keys="union",
    missing=Missing.CANDIDATE,
    rules=_ANCHORS_VAE,
    fused=partial(_fused_choice, False),
    source=f"{_LOSSLESSMIX}, losslessmix.py",
)
def nearest(anchor: Weight, first: Weight, second: Weight, *, alpha: Alpha = 1.0, beta: Beta = 1.0) -> Weight:
    """Take, element by element, the value of `first` or `second` that lies nearer to `anchor`.

    Second where |anchor - alpha * first| > |anchor - beta * second|, else first. The values are taken unscaled.
    Shapes: all three and the result are of one shape.
    """
    return _chosen(anchor, first, second, alpha, beta, False)


@operator(
    scope=Scope.ELEMENT,
    keys="union",
    missing=Missing.CANDIDATE,
    rules=_ANCHORS_VAE,
    fused=partial(_fused_choice, True),
    source=f"{_LOSSLESSMIX}, losslessmix.py, --maxdiff",
)
def farthest(anchor: Weight, first: Weight, second: Weight, *, alpha: Alpha = 1.0, beta: Beta = 1.0) -> Weight:
    """Take, element by element, the value of `first` or `second` that lies farther from `anchor`.

    First where |anchor - alpha * first| > |anchor - beta * second|, else second. The values are taken unscaled.
    Shapes: all three and the result are of one shape.
    """
    return _chosen(anchor, first, second, alpha, beta, True)


def _chosen(anchor: torch.Tensor, first: torch.Tensor, second: torch.Tensor, alpha: float, beta: float, farthest: bool) -> torch.Tensor:
    """The elements of whichever lies nearer to the anchor, or farther from it; of `first` at equal distances, or then of `second`."""
    if kernels.fit(anchor, first, second):
        from workbench.kernels import choices

        return choices.chosen(anchor, first, second, alpha, beta, farthest)
    first_is_farther = (anchor - alpha * first).abs_() > (anchor - beta * second).abs_()
    return torch.where(first_is_farther != farthest, second, first)


def _likeness(columns: geometry.Products, share: float) -> torch.Tensor | float:
    """The weight of `a` for every column, in float64, or one number when float32 does not tell the columns apart."""
    similarity: torch.Tensor = columns.of[0, 1] / (columns.length(0) * columns.length(1)).clamp_(min=_TINY)
    ordered = similarity.reshape(-1).sort().values
    # the 1st percentile of all, and the 99th of those above it: where the original cuts
    low = math.ceil((ordered.numel() - 1) / 100)
    high = low + 99 * (ordered.numel() - 1 - low) // 100
    if not ordered[low].float() < ordered[high].float():
        return 1 - share
    weight: torch.Tensor = ((similarity - ordered[low]) / (ordered[high] - ordered[low]) - share).clamp_(0, 1)
    return weight


def _prepared_likeness(passes: Passes) -> torch.Tensor | float:
    ((read, options),) = passes()
    if len(read.entry.info.shape) < 2:
        return float(1 - options["share"])
    weight = _likeness(geometry.read_products(read, columns=True), options["share"])
    return weight.to(torch.float32) if isinstance(weight, torch.Tensor) else weight


def _fused_similarity(*, share: float, prepared: Prepared) -> Callable[..., bool] | None:
    from workbench.kernels.mixtures import between_columns

    weight = prepared.state
    of_columns = isinstance(weight, torch.Tensor) and kernels.fit(weight)
    return (lambda out, a, b: between_columns(out, b, a, weight)) if of_columns else None


@operator(
    scope=Scope.TENSOR,
    keys="a",
    prepare=_prepared_likeness,
    prepared_scope=Scope.ROW,
    fused=_fused_similarity,
    rules=[{"component": component, "take": "a"} for component in ("vae", *_TEXT_ENCODERS)],
    source=f"{_LOSSLESSMIX}, weightedsim.py; what differs: docs/decisions/0005",
)
def weighted_similarity(
    a: Weight,
    b: Weight,
    *,
    share: Annotated[
        float, Range(0, 1, 0.05, "how much `a` gives way; at 1 only the columns most alike keep any of it", per_block=True)
    ] = 0.5,
    prepared: Prepared = Prepared(),
) -> Weight:
    """Keep `a` where the two models' columns are alike, and turn to `b` where they differ.

    A column (dimension 0 at one place of the others) has the weight k = clip(s - share, 0, 1) of `a` and 1 - k of `b`; s is
    the cosine of the two columns, on a scale from 0 to 1 between the tensor's 1st and 99th percentile. Where nothing can be
    told apart (fewer than two dimensions, or all columns equally alike), `a` has 1 - share.
    Shapes: both and the result are of one shape.
    """
    weight = prepared.state
    if weight is None:
        weight = (
            1 - share if a.dim() < 2 or a.numel() == 0 else _likeness(geometry.products(geometry.row_blocks(a, b), columns=True), share)
        )
    if isinstance(weight, torch.Tensor):
        return torch.lerp(b, a, weight.to(a))
    if weight in (0, 1):
        return (a if weight else b).clone()  # 0 times NaN is NaN
    return torch.lerp(b, a, weight)
