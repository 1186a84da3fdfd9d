"""Every picture that a panel draws is kept, and gives the panel its state back."""

from __future__ import annotations

import pytest

from workbench.sweeps.picture_store import PictureStore


@pytest.fixture
def store(tmp_path):
    return PictureStore(tmp_path / "out" / "gallery")


def test_every_picture_that_is_drawn_is_kept_with_its_recipe(make, store):
    panel = make()
    found = store.find()
    assert {one.model for one in found} == {*panel.state.used, "result"}, panel._pictures.status.value
    (result,) = store.find(method="weighted_average")
    assert (result.prompt, result.seed, result.models) == ("a red heart", 0, panel.state.used)
    pixels = panel.images["result"][0].tobytes()
    from PIL import Image

    assert Image.open(result.path).tobytes() == pixels


def test_a_kept_picture_gives_the_panel_its_state_back(make, store):
    panel = make()
    before = panel.state
    panel.show(before.with_option("weights", [0.2, 0.3, 0.5]).with_wanted(prompts=["a yellow moon"]))
    panel.wait(60)
    panel.reopen(store.find("red", method="weighted_average")[0].path)
    panel.wait(60)
    assert panel.state == before
    panel.undo()
    assert panel.state.wanted.prompts == ("a yellow moon",)


def test_a_folder_that_cannot_be_written_is_told_and_the_panel_draws_on(make, tmp_path):
    (tmp_path / "file").write_text("")
    panel = make(gallery=tmp_path / "file")
    assert len(panel.images["result"]) == 1
    assert "shown, but not kept" in panel._pictures.status.value
    assert panel._pictures.status.value.count("not kept") == 1


def test_without_a_gallery_nothing_is_written(make, tmp_path):
    make(gallery=None)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_reopened_is_told_and_the_state_stays(make, tmp_path):
    panel = make()
    before = panel.state
    panel.reopen(b"hello", "notes.txt")
    assert panel.state == before
    assert "notes.txt: nothing that a panel can reopen" in panel._merging._words.value
