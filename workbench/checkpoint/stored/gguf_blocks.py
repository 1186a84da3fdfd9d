"""GGUF: blocks of 32 to 256 elements with their own scales, in some thirty types, decoded by the `gguf` library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from workbench.checkpoint.files.ggml_types import GgmlType, decoded
from workbench.checkpoint.files.gguf_file import GgufFile
from workbench.checkpoint.stored.encoding import Encoding
from workbench.tensors import Flat

if TYPE_CHECKING:
    import torch


@final
@dataclass(frozen=True, kw_only=True)
class GgufBlocks(Encoding):
    """Blocks of one of GGUF's types."""

    type: GgmlType

    def decoded(self, first: int, last: int) -> torch.Tensor:
        begin, end = (place // self.block * self.type.nbytes for place in (first, last))
        return decoded(self.holder.read(self.key, Flat(begin, end)), self.type)


def gguf_encodings(file: GgufFile) -> dict[str, GgufBlocks]:
    """The quantised tensors of a file."""
    return {
        key: GgufBlocks(file, key, tensor.shape, tensor.kind.name, block=tensor.kind.block, type=tensor.kind)
        for key, tensor in file.entries.items()
        if tensor.kind.code is None
    }
