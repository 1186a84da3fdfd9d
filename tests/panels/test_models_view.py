"""The browser of files, without a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.panels.models_view import ModelsView


@pytest.fixture
def told() -> list:
    return []


@pytest.fixture
def view(models: Path, told: list) -> ModelsView:
    (models / "more").mkdir()
    (models / "more" / "one.safetensors").touch()
    (models / "notes.txt").touch()
    (models / "pipeline").mkdir()
    (models / "pipeline" / "model_index.json").touch()
    return ModelsView(models, told.append, told.append, lambda: told.append("again"))


def choose(view: ModelsView, entry: str) -> None:
    view._entries.set_state({"index": view._entries.options.index(entry)})


def test_folders_are_gone_into_and_out_of(view, models):
    assert view._entries.options == ("..", "more/", "pipeline/", "base.safetensors", "heart.safetensors", "moon.safetensors")
    choose(view, "more/")
    assert view._entries.options == ("..", "one.safetensors")
    choose(view, "..")
    assert view._folder.value == str(models.resolve())


@pytest.mark.parametrize("entry", ["moon.safetensors", "pipeline/"])
def test_a_checkpoint_is_added(view, models, told, entry):
    assert view._button.disabled
    choose(view, entry)
    assert not view._button.disabled
    view._button.click()
    assert told == [models / entry]


def test_a_folder_that_is_none_is_said(view):
    view._folder.value = "nowhere"
    assert "is no folder" in view._said.value
    assert view._entries.options == ()


def test_the_shelf_tells_its_order(view, told):
    view.show(["base", "moon"])
    told.clear()
    view._shelf.value = ["moon", "base"]
    assert told == [["moon", "base"]]
