"""`Rotated`: weights that were multiplied by a Hadamard matrix, group by group of a row, before they were stored (ConvRot)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from workbench.checkpoint.stored.encoding import Encoding

if TYPE_CHECKING:
    import torch


@final
@dataclass(frozen=True, kw_only=True)
class Rotated(Encoding):
    """What `inner` gives, with every `block` of elements rotated back.

    The regular Hadamard matrix is its own inverse: Kronecker products of one of 4 x 4, over the root of its size. It is multiplied with
    as so many sums of four, which are the same in every part of a tensor; a product of matrices is not.
    Source: comfy-kitchen 0.2.40, int8_tensorwise with `convrot`.
    """

    inner: Encoding

    def decoded(self, first: int, last: int) -> torch.Tensor:
        import torch

        values, levels = self.inner.decoded(first, last), round(math.log(self.block, 4))
        for level in range(levels):
            a, b, c, d = values.reshape(-1, 4, 4 ** (levels - 1 - level)).unbind(1)
            plus, minus, more, less = a + b, a - b, c + d, c - d
            values = torch.stack([plus + less, plus - less, minus + more, more - minus], dim=1)
        return values.reshape(-1).div_(2**levels)


def is_power_of_four(size: int) -> bool:
    """Whether there is a regular Hadamard matrix of this size that is made of those of 4 x 4."""
    return size >= 4 and size & (size - 1) == 0 and size.bit_length() % 2 == 1
