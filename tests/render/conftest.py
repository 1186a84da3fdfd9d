"""What the tests of `render` share: the shipped family, one renderer, and checkpoints held in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

import workbench as wb
from workbench.checkpoint import Checkpoint
from workbench.errors import MissingTensorError
from workbench.render import Renderer
from workbench.tensors import Part, TensorInfo, cut, dtype_code

FAMILY = Path(__file__).resolve().parents[2] / "data" / "shapes-sd"


class Held(Checkpoint):
    """Tensors in memory; `reads` counts what is read."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], name: str = "held") -> None:
        self.tensors, self.name, self.metadata, self.reads = dict(tensors), name, {}, 0

    def __iter__(self):
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
        self.reads += 1
        return cut(self.tensors[key], part)

    def sources(self) -> tuple[Path, ...]:
        return ()


@pytest.fixture(scope="session")
def family() -> Path:
    return FAMILY


@pytest.fixture(scope="session")
def base(family: Path) -> Checkpoint:
    return wb.open(family / "base.safetensors")


@pytest.fixture(scope="session")
def heart(family: Path) -> Checkpoint:
    return wb.open(family / "heart.safetensors")


@pytest.fixture
def held() -> Callable[..., Held]:
    return Held


@pytest.fixture
def renderer(family: Path) -> Renderer:
    """A fresh one for each test: what it drew before must not matter."""
    return Renderer(family / "config")
