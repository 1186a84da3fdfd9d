"""Averages whose shares follow from how alike the two models are, column by column."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch

from workbench.merge import Prepared, Range, operator
from workbench.merge.preparing import Passes
from workbench.operators import geometry
from workbench.tensors import Scope, Weight

Share = Annotated[float, Range(0, 1, 0.05, "how much `first` gives way to `second`", per_block=True)]
_SUPERMERGER = "hako-mikan/sd-webui-supermerger"


def _prepared_products(passes: Passes) -> geometry.Products:
    ((read, _),) = passes()
    return geometry.read_products(read, columns=True)


_columnwise = partial(operator, scope=Scope.TENSOR, keys="first", prepare=_prepared_products, prepared_scope=Scope.ROW)


@_columnwise(source=f"{_SUPERMERGER}, 'cosineA'; sd-mecha 1.1.8 add_cosine_a")
def add_cosine_a(first: Weight, second: Weight, *, share: Share = 0.5, prepared: Prepared = Prepared()) -> Weight:
    """Keep `second` where the columns of both are unlike, and `first` the more they are alike.

    (1 - k) first + k second with k = 1 - min(1, max(0, c - share)), c the cosine of two columns (along dimension 0). SuperMerger first
    stretches all cosines of the model from 0 to 1: see `weighted_similarity`. Shapes: both and the result are of one shape.
    """
    (cosine,) = _products(first, second, prepared).cosines()
    return _mixed(first, second, cosine, share)


@_columnwise(source=f"{_SUPERMERGER}, 'cosineB'; sd-mecha 1.1.8 add_cosine_b")
def add_cosine_b(first: Weight, second: Weight, *, share: Share = 0.5, prepared: Prepared = Prepared()) -> Weight:
    """As `add_cosine_a`, with the mean of the columns' cosine and that of the whole tensors.

    Shapes: both and the result are of one shape.
    """
    found = _products(first, second, prepared)
    (cosine,), (whole,) = found.cosines(), geometry.Products({pair: one.sum() for pair, one in found.of.items()}).cosines()
    return _mixed(first, second, (cosine + whole) / 2, share)


def _products(first: torch.Tensor, second: torch.Tensor, prepared: Prepared) -> geometry.Products:
    found: geometry.Products = prepared.state or geometry.products(geometry.row_blocks(*map(_columns, (first, second))), columns=True)
    return found


def _columns(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(tensor.shape or (1,))


def _mixed(first: torch.Tensor, second: torch.Tensor, cosine: torch.Tensor, share: float) -> torch.Tensor:
    return torch.lerp(first, second, 1 - (cosine - share).clamp_(0, 1).to(first))
