"""What the tests of `render` share: the shipped family, one renderer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from held import Held

import workbench as wb
from workbench.checkpoint import Checkpoint
from workbench.render import Renderer

FAMILY = Path(__file__).resolve().parents[2] / "data" / "shapes-sd"


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
