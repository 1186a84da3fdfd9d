"""Which pictures are wanted: seeds at random and back, what is behind "more", lists of prompts, alternatives, where they are drawn."""

from __future__ import annotations

import html

import pytest

import workbench as wb
from workbench.errors import RenderError
from workbench.panels.settings_view import in_a_line
from workbench.panels.state import Wanted
from workbench.panels.wanted_view import WantedView
from workbench.places import DATA
from workbench.render.shared import Placement, renderer_for

FAMILY = DATA / "shapes-sd"


@pytest.fixture
def told():
    return []


@pytest.fixture
def view(told):
    """A view that shows what it tells, as a panel does."""
    made = WantedView(lambda wanted: (told.append(wanted), made.show(wanted)), lambda text: told.append(text), ["DDIM", "Euler"])
    made.show(Wanted(("a star",), (3, 4)))
    return made


def test_a_random_seed_replaces_the_seeds_and_again_goes_back(view, told):
    assert view._again.disabled
    view._random.click()
    (fresh,) = told[-1].seeds
    assert view._seeds.value == str(fresh)
    assert 0 <= fresh < 2**32
    view._again.click()
    assert told[-1].seeds == (3, 4)
    view._again.click()
    assert told[-1].seeds == (fresh,), "and there again"


def test_the_folded_line_tells_what_is_behind_it(view):
    assert view._more.titles == ("more: 20 steps, guidance 5",)
    assert view._more.selected_index is None
    view._settings._size.value = "512"
    view._settings._sampler.value = "Euler"
    assert view._more.titles == ("more: 20 steps, guidance 5, 512 x 512, Euler",)
    all_of_it = Wanted(steps=1, guidance=2.5, negative="x", clip_skip=1, device="cpu", dtype="float32", offload="model")
    assert in_a_line(all_of_it) == "1 step, guidance 2.5, clip skip 1, a negative prompt, on cpu, float32, offload by part"


def test_alternatives_stay_as_typed_and_are_counted_in_the_question(view, told):
    view._prompts.value = "a {red|blue} star"
    assert told[-1].prompts == ("a {red|blue} star",)
    assert told[-1].request().prompts == ("a red star", "a blue star")
    view._prompts.value = "{a|b|c}{1|2|3}{x|y|z}{p|q}"
    assert view._question.value.startswith("108 pictures of each model: 54 prompts x 2 seeds")
    assert told[-1].prompts == ("a {red|blue} star",)
    view._prompts.value = "a {red star"
    assert "has a { without its }" in told[-1]


def test_prompts_come_from_a_file_by_its_path_or_chosen(view, told, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("# two\na cat\na dog\n")
    view._settings._path.value = str(file)
    assert told[-1].prompts == ("a cat", "a dog")
    assert view._prompts.value == "a cat\na dog"
    chosen = view._settings.widget.children[-1].children[-1]
    chosen._received({"name": "more.txt"}, [memoryview(b"a fox")])
    assert told[-1].prompts == ("a fox",)
    chosen._received({"name": "cat.png"}, [b"\x89PNG\r\n\x1a\n\0"])
    assert told[-1] == "cat.png: is no text in UTF-8; a list of prompts has one on each line"
    view._settings._path.value = str(tmp_path / "none.txt")
    assert "none.txt: cannot be read" in told[-1]
    chosen._received({"name": "all.txt"}, [b"x\n" * 40])
    assert view._question.value.startswith("80 pictures of each model: 40 prompts")
    view._asking.children[1].click()
    assert len(told[-1].prompts) == 40


def test_other_fields_change_what_they_say_and_nothing_else(view, told):
    view._settings._steps.value = 7
    view._settings._dtype.value = "bfloat16"
    view._settings._offload.value = "model"
    assert told[-1] == Wanted(("a star",), (3, 4), steps=7, dtype="bfloat16", offload="model")
    view._settings._dtype.value = ""
    assert told[-1].dtype is None


def test_a_device_that_is_not_here_is_shown_and_told(view):
    view.show(Wanted(("a star",), device="cuda:7"))
    assert ("cuda:7 (not here)", "cuda:7") in view._settings._device.options
    with pytest.raises(RenderError, match=r"device .cuda:7. is not here; there are: .*cpu"):
        _ = Wanted(device="cuda:7").placement
    with pytest.raises(RenderError, match="dtype must be"):
        _ = Wanted(dtype="int8").placement
    with pytest.raises(RenderError, match="offload must be"):
        _ = Wanted(offload="all").placement


def test_a_renderer_that_a_panel_was_given_says_where_it_draws(make):
    panel = make()
    settings = panel._wanted._settings
    assert (settings._device.value, settings._dtype.value, settings._offload.value) == ("cpu", "float32", "")
    assert settings._device.disabled
    assert "a renderer of its own" in settings._device.tooltip
    before = panel.images["result"][0]
    panel.show(panel.state.with_wanted(device="cuda:7"))
    assert panel.wait(60)
    assert panel.images["result"][0] is before
    settings._steps.value = 3
    assert panel.state.wanted.device == "cuda:7", "what is not the field's stays"


def test_pictures_in_another_dtype_are_other_pictures_and_the_pipeline_before_goes(make):
    heart, moon = (wb.open(FAMILY / f"{name}.safetensors") for name in ("heart", "moon"))
    panel = wb.MergePanel([heart, moon], keep="panel.yaml")
    panel.show(panel.state.with_wanted(prompts=["a red heart"], steps=2))
    assert panel.wait(60)
    exact = panel.images["result"][0]
    panel._wanted._settings._dtype.value = "bfloat16"
    assert panel.wait(60)
    assert "in bfloat16" in html.unescape(panel._pictures.status.value)
    assert panel.images["result"][0] != exact
    (renderer,) = panel._pictures.studio.renderers
    assert renderer is renderer_for(heart, Placement(dtype="bfloat16"))
    again = wb.MergePanel([heart, moon], keep="panel.yaml")
    assert again.state.wanted.dtype == "bfloat16"
    again.close()
    panel.undo()
    assert panel.wait(60)
    assert panel.images["result"][0] is exact, "what was drawn is known"
    panel.close()
