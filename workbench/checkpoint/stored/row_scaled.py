"""Codes times one scale for the tensor, or one for each row: fp8 as ComfyUI scales it, int8, and `convrot_w4a4`'s packed int4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from workbench.checkpoint.stored.encoding import Encoding
from workbench.checkpoint.stored.scales import judged_spread, scaled, spread
from workbench.tensors import Flat

if TYPE_CHECKING:
    import torch


@final
@dataclass(frozen=True, kw_only=True)
class RowScaled(Encoding):
    """Each code, less the one in `zero`, times the scale in `scale`, and times `factor`."""

    scale: str
    zero: str | None = None
    factor: float = 1.0

    def decoded(self, first: int, last: int) -> torch.Tensor:
        codes = self.holder.read(self.key, Flat(first, last)).float()
        if self.zero is not None:
            codes.sub_(spread(self, self.zero, first, last))
        values = scaled(self, self.scale, codes, judged_spread(self, self.scale, first, last))
        return values if self.factor == 1 else values.mul_(self.factor)


@final
@dataclass(frozen=True, kw_only=True)
class PackedRowScaled(Encoding):
    """Two signed codes of 4 bits in each byte, the first in its lower half, each times the scale in `scale`."""

    scale: str

    def decoded(self, first: int, last: int) -> torch.Tensor:
        import torch

        packed = self.holder.read(self.key, Flat(first // 2, last // 2)).view(torch.int8)
        codes = torch.stack([packed << 4 >> 4, packed >> 4], dim=-1).reshape(-1).float()  # shifted right with the sign
        return scaled(self, self.scale, codes, judged_spread(self, self.scale, first, last))
