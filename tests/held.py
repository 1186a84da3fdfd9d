"""A checkpoint in memory, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from workbench.checkpoint import Checkpoint
from workbench.tensors import Part, Space, TensorInfo, cut, dtype_code


class Held(Checkpoint):
    """Tensors in memory; `reads` lists the names and parts that were read."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], name: str = "held", space: Space = Space.WEIGHT) -> None:
        self.tensors, self.name, self.metadata, self.space = dict(tensors), name, {}, space
        self.reads: list[tuple[str, Part]] = []

    @property
    def entries(self) -> Mapping[str, torch.Tensor]:
        return self.tensors

    def info(self, key: str) -> TensorInfo:
        return TensorInfo(tuple(self.entry(key).shape), dtype_code(self.entry(key).dtype))

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        self.reads.append((key, part))
        return cut(self.entry(key), part).clone()

    def sources(self) -> tuple[Path, ...]:
        return ()
