"""What the tests of the merge panel share: one renderer, and a panel in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import workbench as wb
from workbench.panels.merge_panel import MergePanel
from workbench.places import DATA

FAMILY = DATA / "shapes-sd"


@pytest.fixture(autouse=True)
def own_settings(tmp_path_factory, monkeypatch) -> None:
    """Nobody's recent folders."""
    folder = tmp_path_factory.mktemp("settings")
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: folder / name)


@pytest.fixture(scope="session")
def renderer() -> wb.Renderer:
    return wb.Renderer(FAMILY / "config")


@pytest.fixture
def models(tmp_path) -> Path:
    """A folder with three models of the family."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("base", "heart", "moon"):
        shutil.copy(FAMILY / f"{name}.safetensors", folder)
    return folder


@pytest.fixture
def make(renderer, models, monkeypatch) -> Callable[..., MergePanel]:
    """A panel of that folder that draws one small picture; the current folder is above it."""
    monkeypatch.chdir(models.parent)

    def panel(checkpoints=models, **given) -> MergePanel:
        made = MergePanel(checkpoints, renderer, **given)
        if not made.state.wanted.prompts:
            made.show(made.state.with_wanted(prompts=["a red heart"], steps=2))
        assert made.wait(60)
        return made

    return panel
