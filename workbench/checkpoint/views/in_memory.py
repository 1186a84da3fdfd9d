"""`InMemory`: tensors that lie in no file, as a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, final

from workbench.checkpoint.base import Checkpoint
from workbench.tensors import Part, TensorInfo, cut, dtype_code

if TYPE_CHECKING:
    import torch


@final
class InMemory(Checkpoint):
    """Tensors by name, as they are; what reads a tensor gets a copy."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], name: str, metadata: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.metadata = dict(metadata or {})
        self._tensors = dict(tensors)

    @property
    def entries(self) -> Mapping[str, torch.Tensor]:
        return self._tensors

    def info(self, key: str) -> TensorInfo:
        tensor = self.entry(key)
        return TensorInfo(tuple(tensor.shape), dtype_code(tensor.dtype))

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        import torch

        return cut(self.entry(key), part).clone(memory_format=torch.contiguous_format)

    def sources(self) -> tuple[Path, ...]:
        return ()
