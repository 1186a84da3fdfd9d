"""Turning one model's neurons towards another's. Nothing else is here."""

from __future__ import annotations

from typing import Annotated

import torch

from workbench.merge import Range, operator
from workbench.operators.geometry import svd
from workbench.tensors import Scope, Weight


@operator(scope=Scope.TENSOR, keys="first", source="Schoenemann 1966 (orthogonal Procrustes); sd-mecha 1.1.8 rotate")
def rotate(
    first: Weight,
    second: Weight,
    *,
    alignment: Annotated[float, Range(0, 1, 0.05, "how far the neurons of `first` are turned to those of `second`", per_block=True)] = 1.0,
    t: Annotated[float, Range(0, 1, 0.05, "share of `second`, turned back, that is mixed in before", per_block=True)] = 0.0,
    centralization: Annotated[float, Range(0, 1, 0.05, "how much of the mean neuron is taken off before turning", per_block=True)] = 1.0,
) -> Weight:
    """Turn the neurons of `first` all together so that they come as near to those of `second` as turning can bring them.

    As a matrix (convolutions of more than one place: the first two dimensions by the last two; else dimension 0 by the rest), less the
    columns' means times `centralization`: first Q^alignment, Q the orthogonal matrix nearest to taking `first` to `second`, before that
    `t` of the way to second Q^T; plus the means, interpolated by `alignment`. Vectors, and equal tensors, are linear in `t`. Where there
    are fewer neurons than columns, what they do not span stays; part of a turn is then the nearest frame to the mean of both frames.
    One SVD of the smaller side, and for part of a turn the eigenvalues of Q. Shapes: both and the result are of one shape.
    """
    if first.dim() < 2 or not first.numel() or torch.equal(first, second) or not (alignment or t):
        return torch.lerp(first, second, t)
    kernels = first.dim() == 4 and first.shape[-1] > 1
    shape = (-1, first.shape[2:].numel() if kernels else first.shape[1:].numel())
    one, other = first.reshape(shape), second.reshape(shape)
    means = [centralization * tensor.mean(0) for tensor in (one, other)]
    turned = _turned(one - means[0], other - means[1], alignment, t)
    return (turned + torch.lerp(means[0], means[1], alignment)).reshape(first.shape)


def _turned(first: torch.Tensor, second: torch.Tensor, alignment: float, t: float) -> torch.Tensor:
    if first.shape[0] < first.shape[1]:
        return _turned_in_span(first, second, alignment, t)
    left, _, right = svd(first.mT @ second)
    if alignment < 1 and torch.linalg.det(left) * torch.linalg.det(right) < 0:
        left[:, -1] *= -1  # a reflection has no part
    turn = left @ right
    return torch.lerp(first, second @ turn.mT, t) @ _power(turn, alignment)


def _power(turn: torch.Tensor, alignment: float) -> torch.Tensor:
    """Part of a rotation: its eigenvalues' angles times `alignment`."""
    if alignment == 1:
        return turn
    values, vectors = torch.linalg.eig(turn)
    part: torch.Tensor = torch.linalg.solve(vectors, vectors * values**alignment, left=False).real
    return part


def _turned_in_span(first: torch.Tensor, second: torch.Tensor, alignment: float, t: float) -> torch.Tensor:
    """With fewer neurons than columns: their frame `own` is taken to `other`, and what is at a right angle to it stays."""
    basis, triangle = torch.linalg.qr(second.mT)
    left, _, right = svd(first.mT @ triangle.mT)
    own, other = left, basis @ right.mT
    mixed = torch.lerp(first, _moved(second, other, own), t)
    if alignment < 1:
        one, _, two = svd(torch.lerp(own, other, alignment))
        other = one @ two
    return _moved(mixed, own, other)


def _moved(vectors: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Rows with what they have along the frame `end` taken off, and what they have along `start` put there."""
    return vectors + (vectors @ start - vectors @ end) @ end.mT
