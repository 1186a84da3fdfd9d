"""What writing loses: of a tensor's numbers, and of what a merge changed in them. Sums that add up over pieces, tensors and blocks."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

from workbench.engine.quantising.quantiser import Quantiser

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Loss:
    """Sums over values: how many saturated; the squares of the values and of their errors; of the change that a merge makes the square,
    its product with what is left of it and the square of what that is off, how many values it is to change, and how many it does.
    """

    beyond: int = 0
    square: float = 0.0
    wrong: float = 0.0
    wanted: float = 0.0
    left: float = 0.0
    off: float = 0.0
    changed: int = 0
    moved: int = 0

    def __add__(self, other: Loss) -> Loss:
        return Loss(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))

    def times(self, factor: float) -> Loss:
        """That of so many times the values, of which these are a sample; counts are of the sample."""
        return replace(self, **{name: factor * getattr(self, name) for name in ("square", "wrong", "wanted", "left", "off")})

    def none(self) -> Loss:
        """That of the same values where nothing is lost."""
        return Loss(square=self.square, wanted=self.wanted, left=self.wanted)

    @property
    def error(self) -> float:
        """The relative error: the root of the mean squared error, over that of the mean squared value."""
        return math.sqrt(self.wrong / self.square) if self.square else 0.0

    @property
    def kept(self) -> float | None:
        """The share of a merge's change that is left, along the change; None where none was measured."""
        return self.left / self.wanted if self.wanted else None

    @property
    def change_error(self) -> float | None:
        """The relative error of the change: 1 where it is lost, or as much noise as change; None where none was measured."""
        return math.sqrt(self.off / self.wanted) if self.wanted else None


def lost(quantiser: Quantiser, piece: torch.Tensor, result: torch.Tensor, was: torch.Tensor | None, first: int) -> Loss:
    """What writing a piece loses, given the numbers of the model that the merge starts from, where it has one."""
    if not quantiser.lossy:
        return Loss()
    exact = piece if piece.element_size() > 2 else piece.float()
    beyond = 0 if (limit := quantiser.limit) is None else int((exact.abs() > limit).sum())
    written = result.to(exact.device, exact.dtype)
    square, wrong = _dot(exact, exact), _dot(exact - written, exact - written)
    if was is None:
        return Loss(beyond, square, wrong)
    wanted = exact - was
    kept = written - quantiser.encode(was, first).values.to(exact.device, exact.dtype)
    changed = wanted != 0
    counts = int(changed.sum()), int((changed & (kept != 0)).sum())
    return Loss(beyond, square, wrong, _dot(wanted, wanted), _dot(kept, wanted), _dot(kept - wanted, kept - wanted), *counts)


def _dot(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one * other).nan_to_num_(0, 0, 0).double().sum())
