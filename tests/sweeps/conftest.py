"""What the tests of `sweeps` share: three models, one renderer that counts what it draws, and a short sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

import workbench as wb
from workbench.render import Renderer

FAMILY = Path(__file__).resolve().parents[2] / "data" / "shapes-sd"
PROMPTS = ["a red heart on a white background", "a yellow moon on a black background"]


class Counting(Renderer):
    """Counts the models that it loads."""

    loads = 0

    def load(self, checkpoint, **options):
        self.loads += 1
        return super().load(checkpoint, **options)


def bright(images, prompts):
    import numpy as np

    return [float(np.asarray(image).mean()) for image in images]


@pytest.fixture(scope="session")
def models():
    return {name: wb.open(FAMILY / f"{name}.safetensors") for name in ("base", "heart", "moon")}


@pytest.fixture
def make(models):
    def make(**options):
        return wb.operators.task_arithmetic(models["base"], [models["heart"], models["moon"]], **options)

    return make


@pytest.fixture(scope="session")
def one_renderer():
    return Counting(FAMILY / "config")


@pytest.fixture
def renderer(one_renderer):
    one_renderer.loads = 0
    return one_renderer


@pytest.fixture
def short(tmp_path, renderer):
    """What every sweep of a test asks for, unless it says otherwise."""
    return {"prompts": PROMPTS[:1], "steps": 1, "folder": tmp_path / "sweeps", "renderer": renderer, "score": bright, "progress": False}
