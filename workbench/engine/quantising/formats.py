"""The two formats of files that quantised tensors are written in: the types that each has, and what it can hold of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files.ggml_types import plain_type, quantisable
from workbench.checkpoint.files.gguf_writing import shape_in_gguf
from workbench.checkpoint.stored.nvfp4 import NVFP4_BLOCK
from workbench.engine.quantising.comfy_types import Float8ByRow, Float8Scaled, Int8ByRow, NvFp4Quantiser
from workbench.engine.quantising.gguf_blocks import GgufQuantiser
from workbench.engine.quantising.quantiser import Plain, Quantiser
from workbench.errors import ExportError
from workbench.tensors import TensorInfo

GGUF = ".gguf"
_FEW = 1024  # elements below which ComfyUI-GGUF has everything in float32


class WrittenFormat(ABC):
    """A format of files. `hint` is what to say of the types that it has not."""

    hint: str = ""

    @abstractmethod
    def types(self) -> tuple[str, ...]:
        """The names of the types that weights can be quantised to."""

    @abstractmethod
    def readers(self, kind: str) -> str:
        """Which programs read a type, in words."""

    @abstractmethod
    def allotted(self) -> tuple[str, ...]:
        """Those that a budget chooses among."""

    @abstractmethod
    def quantised(self, info: TensorInfo, kind: str, cutting: bool) -> Quantiser | str:
        """How a weight is written as such a type, cut into other rows if need be and allowed; or why it cannot be."""

    @abstractmethod
    def plain(self, path: Path, key: str, info: TensorInfo, dtype: str | None) -> Plain:
        """How it is written otherwise; `dtype` is what was asked for. Raises ExportError where the format has no such dtype."""


@final
class SafetensorsFormat(WrittenFormat):
    """Safetensors with ComfyUI's marks, which its layers of matrices read."""

    hint = "; GGUF's types are written into a file whose name ends in .gguf"

    def types(self) -> tuple[str, ...]:
        return tuple(_COMFY)

    def readers(self, kind: str) -> str:
        return "convert_to_quant's nodes for ComfyUI" if kind in _NOT_COMFYS else "ComfyUI"

    def allotted(self) -> tuple[str, ...]:
        return ("nvfp4", "float8_e4m3fn", "int8_tensorwise")  # what ComfyUI itself reads, of matrices that no e5m2 is better for

    def quantised(self, info: TensorInfo, kind: str, cutting: bool) -> Quantiser | str:
        if len(info.shape) != 2:
            return "no matrices, which ComfyUI reads no scales of"
        if kind == "nvfp4" and info.shape[1] % NVFP4_BLOCK:
            return f"whose rows are not whole blocks of {NVFP4_BLOCK}"
        return _COMFY[kind](info, kind)

    def plain(self, path: Path, key: str, info: TensorInfo, dtype: str | None) -> Plain:
        return Plain.of(info)


_NOT_COMFYS = ("float8_e4m3fn_rowwise",)
_RARE = ("TQ1_0", "TQ2_0", "MXFP4")  # that ComfyUI-GGUF leaves to the library, and others do not read
_COMFY: Mapping[str, Callable[[TensorInfo, str], Quantiser]] = {
    "float8_e4m3fn": Float8Scaled,
    "float8_e4m3fn_rowwise": Float8ByRow,
    "float8_e5m2": Float8Scaled,
    "int8_tensorwise": Int8ByRow,
    "nvfp4": NvFp4Quantiser,
}


@final
class GgufFormat(WrittenFormat):
    """GGUF, as ComfyUI-GGUF writes it."""

    hint = "; the library gguf decodes K-quants and IQ types, but quantises none of them: llama.cpp's llama-quantize does, from F16 or BF16"

    def types(self) -> tuple[str, ...]:
        return tuple(kind.name for kind in quantisable())

    def readers(self, kind: str) -> str:
        if kind in _RARE:
            return "ComfyUI-GGUF, slowly"
        return "ComfyUI-GGUF, stable-diffusion.cpp, diffusers (transformers alone)"

    def allotted(self) -> tuple[str, ...]:
        return tuple(kind.name for kind in quantisable() if kind.code is None and kind.name not in _RARE)

    def quantised(self, info: TensorInfo, kind: str, cutting: bool) -> Quantiser | str:
        found = next(one for one in quantisable() if one.name == kind)
        if found.code is not None:
            return Plain.of(TensorInfo(info.shape, found.code))
        if shape_in_gguf(info.shape, found.block, cutting) is None:
            return f"whose rows are not whole blocks of {found.block}"
        return GgufQuantiser(info, kind, found)

    def plain(self, path: Path, key: str, info: TensorInfo, dtype: str | None) -> Plain:
        """Vectors, what is small, and parameters that are no layer's weight are float32 by default, as ComfyUI-GGUF has them."""
        if not info.is_float:
            if plain_type(info.code) is None:
                told = f"is {info.dtype_name}, which GGUF has not; skip it with a rule, or write .safetensors"
                raise ExportError(f"{path}: {key!r} {told}")
            return Plain.of(info)
        if dtype is None and (len(info.shape) < 2 or info.numel <= _FEW or not key.endswith(".weight")):
            return Plain.of(TensorInfo(info.shape, "F32"))
        if plain_type(info.code) is None:  # float8, which bfloat16 holds exactly
            if dtype is not None:
                raise ExportError(f"{path}: dtype {dtype!r} is none of GGUF's; allowed are float32, float16 and bfloat16")
            return Plain.of(TensorInfo(info.shape, "BF16"))
        return Plain.of(info)


def cuts(checkpoint: Checkpoint) -> bool:
    """Whether tensors may be cut into other rows: those of U-Nets, as ComfyUI-GGUF has it."""
    return checkpoint.structure.denoiser == "unet"


def written_format(path: Path) -> WrittenFormat:
    """The format of a file, by its name."""
    return GgufFormat() if path.suffix == GGUF else SafetensorsFormat()
