"""ComfyUI's types: codes with a scale for the tensor, for each row, or for blocks, marked as ComfyUI marks them.

Source: comfy-kitchen 0.2.40 and ComfyUI's comfy/quant_ops.py, as they are read in `checkpoint.stored`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from workbench.checkpoint.stored.nvfp4 import E2M1, NVFP4_BLOCK
from workbench.checkpoint.stored.tiled_scales import tiled_places, tiled_shape
from workbench.engine.quantising.quantiser import Encoded, Quantiser
from workbench.tensors import TensorInfo, dtype_code, rounded

if TYPE_CHECKING:
    import torch

_MOST_OF_INT8 = 127.0
_MOST_OF_E2M1, _MOST_OF_E4M3 = 6.0, 448.0
_SMALLEST = 2.0**-126  # a scale below which float32 has few digits: what is so small is written as zero


@dataclass(frozen=True)
class ComfyQuantiser(Quantiser):
    """A matrix of codes and what stands beside it; `kind` is ComfyUI's name of the format."""

    def marked(self, name: str, codes: TensorInfo, beside: Mapping[str, TensorInfo]) -> Mapping[str, TensorInfo]:
        """The tensors of the file: the codes, what is beside them by the end of its name, and the mark."""
        module = name.removesuffix(".weight")
        ends = {f"{module}.{end}": info for end, info in beside.items()}
        return {name: codes, **ends, f"{module}.comfy_quant": TensorInfo((len(self.mark()),), "U8")}

    def mark(self) -> bytes:
        return json.dumps({"format": self.kind}).encode()

    def mark_tensor(self) -> torch.Tensor:
        import torch

        return torch.frombuffer(bytearray(self.mark()), dtype=torch.uint8)

    def by_row(self, first: int, codes: torch.Tensor, scales: torch.Tensor, values: torch.Tensor) -> Encoded:
        """Whole rows with a scale each; the mark is written with the first."""
        mark = self.mark_tensor()[: None if first == 0 else 0]
        return Encoded(((first, codes), (first // self.unit * scales.element_size(), scales), (0, mark)), values)


@final
@dataclass(frozen=True)
class Float8Scaled(ComfyQuantiser):
    """Float8 times one scale, that of the tensor's largest value."""

    @property
    def unit(self) -> int:
        return max(self.info.numel, 1)

    def stored(self, name: str) -> Mapping[str, TensorInfo]:
        return self.marked(name, TensorInfo(self.info.shape, dtype_code(self.kind)), {"weight_scale": TensorInfo((), "F32")})

    def encode(self, values: torch.Tensor, first: int) -> Encoded:
        import torch

        dtype: torch.dtype = getattr(torch, self.kind)
        scale = scale_of(values.float().abs().amax(), torch.finfo(dtype).max)
        codes = rounded(values.float() / scale, dtype)
        return Encoded(((0, codes), (0, scale), (0, self.mark_tensor())), (codes.float() * scale).to(values.device))


@final
@dataclass(frozen=True)
class Float8ByRow(ComfyQuantiser):
    """Float8 times a scale for each row, that of its largest value; ComfyUI itself reads one for the tensor alone.

    Source: silveroxides' convert_to_quant, whose nodes read it.
    """

    @property
    def unit(self) -> int:
        return max(math.prod(self.info.shape[1:]), 1)

    def stored(self, name: str) -> Mapping[str, TensorInfo]:
        return self.marked(name, TensorInfo(self.info.shape, "F8_E4M3"), {"weight_scale": TensorInfo(self.info.shape[:1], "F32")})

    def encode(self, values: torch.Tensor, first: int) -> Encoded:
        import torch

        rows = values.float().reshape(-1, self.unit)
        scales = scale_of(rows.abs().amax(1, keepdim=True), _MOST_OF_E4M3)
        codes = rounded(rows / scales, torch.float8_e4m3fn)
        return self.by_row(first, codes, scales, (codes.float() * scales).reshape(-1))


@final
@dataclass(frozen=True)
class Int8ByRow(ComfyQuantiser):
    """Int8 times a scale for each row, that of its largest value."""

    @property
    def unit(self) -> int:
        return max(math.prod(self.info.shape[1:]), 1)

    def stored(self, name: str) -> Mapping[str, TensorInfo]:
        return self.marked(name, TensorInfo(self.info.shape, "I8"), {"weight_scale": TensorInfo((self.info.shape[0], 1), "F32")})

    def encode(self, values: torch.Tensor, first: int) -> Encoded:
        import torch

        rows = values.float().reshape(-1, self.unit)
        scales = scale_of(rows.abs().amax(1, keepdim=True), _MOST_OF_INT8)
        codes = (rows / scales).round_().clamp_(-_MOST_OF_INT8, _MOST_OF_INT8).nan_to_num_().to(torch.int8)
        return self.by_row(first, codes, scales, (codes.float() * scales).reshape(-1))


@final
@dataclass(frozen=True)
class NvFp4Quantiser(ComfyQuantiser):
    """Codes of 4 bits, times a float8 scale for 16 of them, times one for the tensor."""

    @property
    def unit(self) -> int:
        return max(self.info.numel, 1)

    def stored(self, name: str) -> Mapping[str, TensorInfo]:
        rows, columns = self.info.shape
        beside = {
            "weight_scale": TensorInfo(tiled_shape(rows, columns // NVFP4_BLOCK), "F8_E4M3"),
            "weight_scale_2": TensorInfo((), "F32"),
        }
        return self.marked(name, TensorInfo((rows, columns // 2), "U8"), beside)

    def encode(self, values: torch.Tensor, first: int) -> Encoded:
        import torch

        blocks = values.float().reshape(-1, NVFP4_BLOCK)
        whole = scale_of(blocks.abs().amax(), _MOST_OF_E4M3 * _MOST_OF_E2M1)
        of_blocks = rounded(blocks.abs().amax(1) / _MOST_OF_E2M1 / whole, torch.float8_e4m3fn)
        totals = (of_blocks.float() * whole)[:, None]
        found = nearest_e2m1(torch.where(totals > 0, blocks / totals, 0.0))
        decoded = (torch.tensor(E2M1, device=values.device)[found.int()] * totals).reshape(-1)
        pairs = found.reshape(-1, 2)
        packed = pairs[:, 0] << 4 | pairs[:, 1]
        return Encoded(((0, packed), (0, self._tiled(of_blocks)), (0, whole), (0, self.mark_tensor())), decoded)

    def _tiled(self, of_blocks: torch.Tensor) -> torch.Tensor:
        """The scales in the order of tiles, zero where these are only filled."""
        import torch

        rows, columns = self.info.shape[0], self.info.shape[1] // NVFP4_BLOCK
        out = torch.zeros(math.prod(tiled_shape(rows, columns)), dtype=torch.uint8)
        out[tiled_places(torch.arange(rows * columns), columns)] = of_blocks.view(torch.uint8).cpu()
        return out.view(torch.float8_e4m3fn)


def scale_of(most: torch.Tensor, largest_code: float) -> torch.Tensor:
    """The scale with which the largest value has the largest code; 1 where all is zero, or there is NaN or infinity."""
    import torch

    scale = most / largest_code
    return torch.where(scale.isfinite() & (scale >= _SMALLEST), scale, 1.0)


def nearest_e2m1(values: torch.Tensor) -> torch.Tensor:
    """The codes of the nearest numbers of 4 bits; ties to the even code."""
    import torch

    steps = torch.tensor(E2M1[:8], device=values.device)
    middles = (steps[1:] + steps[:-1]) / 2
    size = values.abs()
    down, up = (torch.bucketize(size, middles, right=right) for right in (False, True))
    codes = torch.where(down % 2 == 0, down, up)  # they differ at a tie alone
    return (codes + 8 * values.signbit()).to(torch.uint8)
