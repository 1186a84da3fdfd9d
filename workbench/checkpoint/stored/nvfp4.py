"""nvfp4: 16 elements of 4 bits share a float8 scale, and the tensor a float32 one, as ComfyUI stores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from workbench.checkpoint.stored.encoding import Encoding
from workbench.checkpoint.stored.scales import judged, judged_spread, scaled
from workbench.checkpoint.stored.tiled_scales import tiled
from workbench.tensors import Flat

if TYPE_CHECKING:
    import torch

NVFP4_BLOCK = 16
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


@final
@dataclass(frozen=True, kw_only=True)
class NvFp4(Encoding):
    """Two codes in each byte, the first in its upper half, times the scale of the block, times that of the tensor.

    Where inputs are smoothed, the weights are meant times `smoothing`, a factor for each column.
    Source: comfy-kitchen 0.2.40, `dequantize_nvfp4`; for `pre_quant_scale` ComfyUI's comfy/ops.py.
    """

    scale: str
    of_blocks: str
    smoothing: str | None

    def decoded(self, first: int, last: int) -> torch.Tensor:
        import torch

        packed = self.holder.read(self.key, Flat(first // 2, last // 2))
        codes = torch.tensor(_E2M1)[torch.stack([packed >> 4, packed & 15], dim=-1).int()].reshape(-1, self.block)
        columns = self.shape[1] // self.block
        found = tiled(self, self.of_blocks, columns, first // self.block, last // self.block)
        of_blocks = judged(self, self.of_blocks, found.view(torch.float8_e4m3fn).float())
        whole = judged_spread(self, self.scale, 0, len(of_blocks))
        totals = scaled(self, self.scale, of_blocks.clone(), whole)  # a zero for the tensor beside blocks that have none
        values = scaled(self, self.of_blocks, codes, totals[:, None]).reshape(-1)
        return values if self.smoothing is None else values.mul_(self._smoothed(self.smoothing, first, last))

    def _smoothed(self, smoothing: str, first: int, last: int) -> torch.Tensor:
        import torch

        factors = self.holder.read(smoothing).float().reshape(-1)
        if not factors.isfinite().all():
            raise self.error("holds NaN or infinity; the file is damaged, fetch it again", smoothing)
        return factors[torch.arange(first, last) % self.shape[1]]
