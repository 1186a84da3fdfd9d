"""mxfp8: 32 elements of float8_e4m3fn share a power of two. Source: OCP Microscaling Formats 1.0; the order is cuBLAS's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from workbench.checkpoint.stored.encoding import Encoding
from workbench.checkpoint.stored.scales import judged
from workbench.checkpoint.stored.tiled_scales import tiled
from workbench.tensors import Flat

if TYPE_CHECKING:
    import torch

MXFP8_BLOCK = 32


@final
@dataclass(frozen=True, kw_only=True)
class MxFp8(Encoding):
    """Each code times two to the power in `scale`."""

    scale: str

    def decoded(self, first: int, last: int) -> torch.Tensor:
        import torch

        codes = self.holder.read(self.key, Flat(first, last)).float().reshape(-1, self.block)
        powers = tiled(self, self.scale, self.shape[1] // self.block, first // self.block, last // self.block)
        return codes.mul_(judged(self, self.scale, powers.view(torch.float8_e8m0fnu).float())[:, None]).reshape(-1)
