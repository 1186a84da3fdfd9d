"""What the tests of `searches` share: three models and their renderer."""

from __future__ import annotations

import pytest

import workbench as wb
from workbench.places import DATA


@pytest.fixture(scope="session")
def models():
    return {name: wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in ("base", "heart", "moon")}


@pytest.fixture(scope="session")
def renderer():
    return wb.Renderer(DATA / "shapes-sd" / "config")
