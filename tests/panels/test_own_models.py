"""A panel that is pointed at a folder of a person's own files: it finds out what draws them, says how far it is, stops, and lets go."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest
from thin_models import write_thin

import workbench as wb
from workbench.panels.drawing_view import DrawingView
from workbench.panels.settings_view import pixels, size_in_words
from workbench.places import DATA
from workbench.render.drawing import Step
from workbench.render.shared import renderer_for

FAMILY = DATA / "shapes-sd"
QUICK = {"steps": 1, "width": 64, "height": 64}


def unets() -> int:
    from diffusers import UNet2DConditionModel

    gc.collect()
    return sum(type(one) is UNet2DConditionModel for one in gc.get_objects())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An SD 1.5 file and an SDXL file, side by side, and one that is broken."""
    made = tmp_path_factory.mktemp("models")
    write_thin("sd1", made / "dream.safetensors")
    write_thin("sdxl", made / "pony.safetensors")
    (made / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    return made


def test_a_folder_of_sd_15_and_sdxl_files_makes_pictures_after_nothing_but_a_prompt(folder):
    panel = wb.MergePanel(folder)
    assert panel.state.inputs == {"models": ("dream",)}, "what cannot be merged with the first is not"
    assert any("torn.safetensors" in text for _, text in panel._words), "what cannot be opened is said"
    panel.show(panel.state.with_wanted(prompts=["a cat"], **QUICK))
    assert panel.wait(120)
    assert {name: [image.size for image in images] for name, images in panel.images.items()} == {
        name: [(64, 64)] for name in ("dream", "pony", "result")
    }
    assert "Drawn in" in panel._pictures.status.value
    assert "on cpu" in panel._pictures.status.value
    assert np.array_equal(panel.images["dream"][0], panel.images["result"][0])
    panel.show(panel.state.with_input("models", ["dream", "pony"]))
    assert panel.wait(60)
    assert any("only models of one architecture" in text for _, text in panel._words)
    panel.close()


def test_a_picture_is_as_large_as_the_model_was_made_for_unless_told_otherwise(folder):
    for name, edge in (("dream", 512), ("pony", 1024)):
        renderer = renderer_for(wb.open(folder / f"{name}.safetensors"))
        assert renderer.size == (edge, edge)


def test_negative_prompt_size_and_sampler_go_into_the_pictures(make):
    panel = make()
    drawn = {}
    for name, change in {
        "plain": {},
        "negative": {"negative": "a red circle"},
        "size": {"width": 96, "height": 64},
        "sampler": {"sampler": "Euler"},
        "clip": {"clip_skip": 1},
    }.items():
        panel.show(panel.state.with_wanted(prompts=["a red heart"], steps=2, **change))
        assert panel.wait(60)
        assert "wb-stale" not in panel._pictures.columns._columns["result"]._dom_classes, (name, panel._pictures.status.value)
        drawn[name] = panel.images["result"][0]
        panel.undo()
    assert drawn["size"].size == (96, 64)
    assert len({image.tobytes() for image in drawn.values()}) == 5


def test_a_size_that_cannot_be_is_said_and_the_panel_goes_on(make):
    panel = make()
    panel._wanted._settings._size.value = "12 by 9"
    assert "size: '12 by 9' is none" in panel._pictures.status.value.replace("&#x27;", "'")
    panel._wanted._settings._size.value = "60"
    assert panel.wait(60)
    assert "width must be divisible by 8" in panel._pictures.status.value
    panel._wanted._settings._size.value = "72"
    assert panel.wait(60)
    assert panel.images["result"][0].size == (72, 72)


@pytest.mark.parametrize(("text", "size"), [("", (None, None)), ("768", (768, 768)), ("1024 x 768", (1024, 768)), ("64×32", (64, 32))])
def test_sizes_are_read_as_people_write_them(text, size):
    assert pixels(text) == size
    assert pixels(size_in_words(*size)) == size


def test_panels_over_the_same_models_share_one_pipeline_and_the_last_that_closes_frees_it():
    before = unets()
    panels = [wb.MergePanel([FAMILY / "heart.safetensors", FAMILY / "moon.safetensors"]) for _ in range(3)]
    assert all(panel.wait(60) for panel in panels)
    assert all(panel.images["result"] for panel in panels)
    assert unets() == before + 1
    for panel in panels[:-1]:
        panel.close()
    assert unets() == before + 1
    panels[-1].close()
    assert unets() == before


def test_what_is_drawn_can_be_stopped_and_drawn_again(make):
    panel = make()
    begun, go_on = threading.Event(), threading.Event()
    real = panel._pictures.studio.draw

    def slow(model, request, cancelled, *told):
        begun.set()
        while not (cancelled() or go_on.is_set()):
            time.sleep(0.01)
        return real(model, request, cancelled, *told)

    panel._pictures.studio.draw = slow
    panel.show(panel.state.with_wanted(steps=3))
    assert begun.wait(60)
    panel.stop()
    assert panel.wait(60)
    assert panel._pictures.status._button.description == "Draw"
    assert "wb-stale" in panel._pictures.columns._columns["result"]._dom_classes
    go_on.set()
    panel._pictures.status._button.click()
    assert panel.wait(60)
    assert "Drawn" in panel._pictures.status.value
    assert "wb-stale" not in panel._pictures.columns._columns["result"]._dom_classes


def test_long_drawing_says_how_far_it_is_and_how_long_it_takes(monkeypatch):
    now = iter([0.0, 0.5, 1.0, 10.0])
    monkeypatch.setattr("workbench.panels.drawing_view.time.monotonic", lambda: next(now))
    view = DrawingView(lambda: None, lambda: None)
    view.begin(2)
    step = Step((), 4, 1, 5, 10, lambda: None)
    assert not view.drawing("heart", step), "what is quick shows no bar"
    assert view.reading("heart", "unet", 30, 686)
    assert "heart: reading the unet, 30 of 686 tensors" in view._far.value
    view.drawn()
    assert view.drawing("moon", step)
    assert "moon: picture 1 of 4, step 5 of 10; about 8 s left" in view._far.value


def test_a_preview_is_shown_while_a_picture_is_drawn(make, monkeypatch):
    monkeypatch.setattr("workbench.panels.drawing_view._QUICK", 0)
    monkeypatch.setattr("workbench.panels.drawing_view._PACE", 0)
    panel, shown = make(), []
    monkeypatch.setattr(panel._pictures.columns, "preview", lambda name, images: shown.append((name, len(images))))
    panel.show(panel.state.with_wanted(seeds=[3], steps=4))
    assert panel.wait(60)
    assert shown.count(("result", 1)) == 4
