"""What a long day brings: folders that vanish, a full disk, hundreds of models, endless prompts. The panel says so, and goes on."""

from __future__ import annotations

import errno
import html
import os
import shutil

import ipywidgets as widgets
import pytest
from PIL import Image

from workbench.panels.gallery_panel import Gallery


def words(panel) -> str:
    return html.unescape(panel._merging._words.value)


def status(panel) -> str:
    return html.unescape(panel._pictures.status.value)


def test_two_panels_in_one_cell_are_two_and_each_says_what_is_its_own(make):
    one, other = make(), make()
    cell = widgets.VBox([one.widget, other.widget])
    other._merging._method.value = "ties"
    other._merging._rules.value = "vae base"
    assert "'vae base' is no rule" in words(other)
    assert (one.state.operator, "no rule" in words(one)) == ("weighted_average", False)
    assert one.wait(60)
    assert other.wait(60)
    one.close()
    other.undo()
    assert other.wait(60)
    assert other.images["result"]
    assert len(cell.children) == 2


def test_a_folder_of_models_that_vanishes_is_said_and_found_again_when_it_is_back(make, models, tmp_path):
    panel = make()
    models.rename(tmp_path / "elsewhere")
    panel.show(panel.state.with_option("weights", [0.1, 0.2, 0.7]))
    assert panel.wait(60)
    assert "changed or vanished since it was opened" in words(panel)
    panel.read_again()
    assert "is gone" in words(panel)
    panel.show(panel.state.with_operator("ties"))
    assert panel.wait(60)
    (tmp_path / "elsewhere").rename(models)
    panel.read_again()
    assert panel.wait(60)
    assert "gone" not in words(panel)
    assert panel.merge.recipe.data.merge.operator == "ties"
    assert "wb-stale" not in panel._pictures.columns._columns["result"]._dom_classes


def test_a_full_disk_keeps_no_pictures_says_so_and_the_panel_draws_on(make, monkeypatch, tmp_path):
    panel = make()

    def full(*given, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr("workbench.checkpoint.files.writing.create_locked", full)
        panel.show(panel.state.with_wanted(seeds=[5]))
        assert panel.wait(60)
        assert "No space left on device" in status(panel)
        assert "shown, but not kept" in status(panel)
        assert panel.images["result"]
    panel.show(panel.state.with_wanted(seeds=[6]))
    assert panel.wait(60)
    assert "not kept" not in status(panel)
    assert {one.seed for one in Gallery("out/gallery").pictures} == {0, 6}


def test_a_gallery_that_was_deleted_by_hand_is_said_or_begun_anew(make, tmp_path):
    panel = make()
    gallery = Gallery("out/gallery", panel)
    shutil.rmtree(tmp_path / "out" / "gallery")
    gallery._asked({"do": "take", "with": [1]}, ())
    assert "index.sqlite" in gallery.said or "no picture 1" in gallery.said
    panel.show(panel.state.with_wanted(seeds=[5]))
    assert panel.wait(60)
    assert panel.images["result"]
    assert "not kept" not in status(panel)
    gallery.refresh()
    assert {one.seed for one in gallery.pictures} == {5}


@pytest.mark.parametrize("name", ["cat.png", "cat.jpg", "cat"])
def test_a_dropped_picture_of_something_else_is_told(make, tmp_path, name):
    panel = make()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")
    before = panel.state
    panel.reopen((tmp_path / "cat.png").read_bytes() if name != "cat" else b"meow", name)
    assert name in words(panel)
    assert panel.state == before


def test_three_hundred_models_are_chosen_from_and_three_are_merged(make, models):
    for number in range(297):
        os.link(models / "moon.safetensors", models / f"an_experiment_with_a_long_name_{number:03}.safetensors")
    panel = make()
    assert len(panel.state.models) == 300
    assert len(panel.state.used) == 3
    assert set(panel.images) == {*panel.state.used, "result"}
    menu = panel._merging._form.controls["input models"]
    menu.value = (*menu.value, "an_experiment_with_a_long_name_296")
    assert panel.wait(60)
    assert panel.images["an_experiment_with_a_long_name_296"]


def test_a_prompt_of_five_thousand_letters_is_drawn_and_kept(make):
    panel = make()
    prompt = "a red heart, " * 385
    panel._wanted._prompts.value = prompt
    assert panel.wait(60)
    assert panel.state.wanted.prompts == (prompt.strip(),)
    assert panel.images["result"]
    assert "…' has more than the 16 tokens a model reads: its end is ignored" in status(panel)
    assert len(status(panel)) < 300
    assert Gallery("out/gallery").pictures[0].prompt == prompt.strip()


def test_a_thousand_seeds_are_asked_about_and_can_be_stopped(make):
    panel = make()
    panel._wanted._seeds.value = "0-999"
    assert "1,000 pictures of each model: 1 prompt x 1,000 seeds" in panel._wanted._question.value
    panel._wanted._asking.children[1].click()
    panel.stop()
    assert panel.wait(60)
    assert panel._pictures.status._button.description == "Draw"
    panel.undo()
    assert panel.wait(60)
    assert len(panel.images["result"]) == 1
