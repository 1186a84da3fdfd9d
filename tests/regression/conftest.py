"""What the tests of `regression` share: the embedded SD models, a renderer of them, and short drawings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import workbench as wb

FAMILY = Path(__file__).resolve().parents[2] / "data" / "shapes-sd"


@pytest.fixture(scope="session")
def models() -> dict[str, wb.Checkpoint]:
    return {name: wb.open(FAMILY / f"{name}.safetensors") for name in ("base", "heart", "moon")}


@pytest.fixture(scope="session")
def drawn(models) -> dict[str, Any]:
    """What a regression needs beside models: prompts, a renderer, few steps."""
    return {"renderer": wb.Renderer(FAMILY / "config", device="cpu"), "steps": 2, "progress": False}


@pytest.fixture(scope="session")
def loras(models) -> list[wb.Checkpoint]:
    return [wb.lora.extract(models[name], models["base"], rank=4, dtype="float32", progress=False) for name in ("heart", "moon")]
