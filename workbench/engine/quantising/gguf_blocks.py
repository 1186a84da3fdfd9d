"""GGUF's types that the `gguf` library can quantise: blocks with their own scales. The file they go into is not known here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from workbench.checkpoint.files.ggml_types import GgmlType, decoded, encoded
from workbench.engine.quantising.quantiser import Encoded, Quantiser
from workbench.tensors import TensorInfo

if TYPE_CHECKING:
    import torch


@final
@dataclass(frozen=True)
class GgufQuantiser(Quantiser):
    """Blocks of one of GGUF's types."""

    type: GgmlType

    @property
    def unit(self) -> int:
        return self.type.block

    def stored(self, name: str) -> Mapping[str, TensorInfo]:
        return {name: TensorInfo((self.info.numel // self.type.block * self.type.nbytes,), "U8")}

    def encode(self, values: torch.Tensor, first: int) -> Encoded:
        blocks = encoded(values.float().cpu(), self.type)
        begin = first // self.type.block * self.type.nbytes
        return Encoded(((begin, blocks),), decoded(blocks, self.type).to(values.device))
