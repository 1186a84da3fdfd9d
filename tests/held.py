"""A checkpoint in memory, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from workbench.checkpoint import Checkpoint
from workbench.errors import MissingTensorError
from workbench.tensors import Part, Space, TensorInfo, cut, dtype_code


class Held(Checkpoint):
    """Tensors in memory; `reads` lists the names and parts that were read."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], name: str = "held", space: Space = Space.WEIGHT) -> None:
        self.tensors, self.name, self.metadata, self.space = dict(tensors), name, {}, space
        self.reads: list[tuple[str, Part]] = []

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, key: object) -> bool:
        return key in self.tensors

    def info(self, key: str) -> TensorInfo:
        if key not in self.tensors:
            raise MissingTensorError(key)
        return TensorInfo(tuple(self.tensors[key].shape), dtype_code(self.tensors[key].dtype))

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        self.reads.append((key, part))
        return cut(self.tensors[key], part).clone()

    def sources(self) -> tuple[Path, ...]:
        return ()
