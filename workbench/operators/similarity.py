"""Averages whose shares follow from how alike the two models are, column by column."""

from __future__ import annotations

from typing import Annotated

import torch

from workbench.merge import Range, operator
from workbench.operators import geometry
from workbench.tensors import Scope, Weight

Share = Annotated[float, Range(0, 1, 0.05, "how much `first` gives way to `second`", per_block=True)]
_SUPERMERGER = "hako-mikan/sd-webui-supermerger"


@operator(scope=Scope.TENSOR, keys="first", source=f"{_SUPERMERGER}, 'cosineA'; sd-mecha 1.1.8 add_cosine_a")
def add_cosine_a(first: Weight, second: Weight, *, share: Share = 0.5) -> Weight:
    """Keep `second` where the columns of both are unlike, and `first` the more they are alike.

    (1 - k) first + k second with k = 1 - min(1, max(0, c - share)), c the cosine of two columns (along dimension 0). SuperMerger first
    stretches all cosines of the model from 0 to 1: see `weighted_similarity`. Shapes: both and the result are of one shape.
    """
    one, other = _columns(first), _columns(second)
    return _mixed(one, other, geometry.cosine(one, other, 0), share).reshape(first.shape)


@operator(scope=Scope.TENSOR, keys="first", source=f"{_SUPERMERGER}, 'cosineB'; sd-mecha 1.1.8 add_cosine_b")
def add_cosine_b(first: Weight, second: Weight, *, share: Share = 0.5) -> Weight:
    """As `add_cosine_a`, with the mean of the columns' cosine and that of the whole tensors.

    Shapes: both and the result are of one shape.
    """
    one, other = _columns(first), _columns(second)
    whole = geometry.cosine(one.reshape(1, -1), other.reshape(1, -1), 1).item() if one.numel() else 1.0
    return _mixed(one, other, (geometry.cosine(one, other, 0) + whole) / 2, share).reshape(first.shape)


def _columns(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(tensor.shape or (1,))


def _mixed(first: torch.Tensor, second: torch.Tensor, cosine: torch.Tensor, share: float) -> torch.Tensor:
    return torch.lerp(first, second, 1 - (cosine - share).clamp_(0, 1))
