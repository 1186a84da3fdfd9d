"""The merge panel without a browser: what it shows, draws, keeps and exports, and what it says of bad input."""

from __future__ import annotations

import html
import re
import shutil
import threading

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import workbench as wb
from workbench.errors import CheckpointError, InputError, RecipeError
from workbench.panels import studio
from workbench.panels.dropped_model import sampled
from workbench.panels.merge_panel import MergePanel
from workbench.places import FLUX_PAIR


def words(panel: MergePanel) -> str:
    return " ".join(text for _, text in panel._words)


def exporting(panel: MergePanel, name: str) -> str:
    panel._outcome._name.value = name
    panel._outcome.export()
    return panel._outcome._said.value


def test_parents_and_result_are_drawn(make):
    panel = make()
    assert list(panel.images) == ["base", "heart", "moon", "result"]
    assert {len(images) for images in panel.images.values()} == {1}
    assert panel._repr_mimebundle_()["application/vnd.jupyter.widget-view+json"]


def test_the_family_is_the_default_and_draws_at_once(renderer):
    panel = MergePanel(renderer=renderer)
    assert panel.wait(60)
    assert panel.state.models == ("base", "heart", "moon", "outline", "pastel", "stripes")
    assert len(panel.images["result"]) == 2


def test_a_flux_pair_draws_at_once_in_the_steps_and_guidance_of_its_kind():
    panel = MergePanel([wb.open(FLUX_PAIR / name) for name in ("schnell", "krea")])
    assert (panel.state.wanted.steps, panel.state.wanted.guidance) == (20, 3.5)
    assert panel.wait(120)
    assert {name: len(images) for name, images in panel.images.items()} == {"schnell": 2, "krea": 2, "result": 2}
    assert [value for _, value in panel._outcome._layout.options] == ["", "diffusers", "BFL", "ComfyUI"]
    schnell = MergePanel([wb.open(FLUX_PAIR / "schnell" / "transformer")])
    assert schnell.state.wanted.steps == 4


def test_preview_and_export_are_equal_to_the_bit(make, renderer, tmp_path):
    panel = make()
    panel.show(panel.state.with_operator("dare_ties").with_option("density", {"ramp": {"start": 0.1, "end": 0.9}}).with_dtype("float16"))
    assert panel.wait(60)
    assert "merged.safetensors" in exporting(panel, "merged.safetensors")
    written = wb.open(tmp_path / "merged.safetensors")
    for key in panel.merge:
        assert torch.equal(written[key], panel.merge[key])
    renderer.load(written, progress=False)
    (drawn,) = renderer.draw(panel.state.wanted.request(), progress=False)
    assert np.array_equal(drawn, panel.images["result"][0])
    assert wb.Recipe.from_file(tmp_path / "merged.safetensors").data.merge == panel.recipe.data.merge


def test_a_file_that_is_there_already_is_replaced_only_if_asked(make):
    panel = make()
    assert "MB" in exporting(panel, "merged.safetensors")
    assert "is there already; give another name, or tick 'overwrite'" in html.unescape(exporting(panel, "merged.safetensors"))
    panel._outcome._overwrite.value = True
    assert "MB" in exporting(panel, "merged.safetensors")


def test_a_merge_is_written_in_the_layout_that_is_chosen_and_says_how(make, tmp_path):
    panel = make()
    shown = panel._outcome._layout
    assert [value for _, value in shown.options] == ["", "diffusers", "LDM"]
    shown.value = "diffusers"
    assert panel.state.layout == "diffusers"
    assert "wb.in_layout(wb.operators.weighted_average(" in panel._outcome._python.value
    assert "MB" in exporting(panel, "merged.safetensors")
    written = wb.open(tmp_path / "merged.safetensors")
    assert written.structure.layout == "diffusers"
    assert torch.equal(written["unet.conv_in.weight"], panel.merge["model.diffusion_model.input_blocks.0.0.weight"])
    assert wb.Recipe.from_file(tmp_path / "merged.safetensors").data.output.layout == panel.recipe.data.output.layout == "diffusers"
    panel.undo()
    assert shown.value == ""


def test_a_control_changes_the_merge_and_undo_takes_it_back(make):
    panel = make()
    before = panel.images["result"]
    panel._merging._form.controls["weights"].value = [0.0, 1.0, 0.0]
    assert panel.wait(60)
    assert panel.merge.options == {"weights": [0.0, 1.0, 0.0]}
    assert panel.images["result"] != before
    panel.undo()
    assert panel.merge.options == {}
    assert panel._merging._form.controls["weights"].value == 1.0
    assert panel.images["result"] == before
    panel.redo()
    assert panel.merge.options == {"weights": [0.0, 1.0, 0.0]}


def test_only_what_changed_is_drawn(make, monkeypatch):
    panel = make()
    drawn = []
    real = panel._pictures.studio.draw
    monkeypatch.setattr(panel._pictures.studio, "draw", lambda model, *rest: drawn.append(model.name) or real(model, *rest))
    panel.show(panel.state.with_operator("ties"))
    assert panel.wait(60)
    assert drawn == ["ties"]
    panel.undo()
    assert panel.wait(60)
    assert drawn == ["ties"]


def test_old_pictures_are_dimmed_until_the_new_ones_are_there(make, monkeypatch):
    panel, goes_on = make(), threading.Event()
    real = panel._pictures.studio.draw
    monkeypatch.setattr(panel._pictures.studio, "draw", lambda *given: goes_on.wait(60) and real(*given))
    panel.show(panel.state.with_operator("ties"))
    column = panel._pictures.columns._columns["result"]
    assert "wb-stale" in column._dom_classes
    assert "wb-stale" not in panel._pictures.columns._columns["heart"]._dom_classes
    goes_on.set()
    assert panel.wait(60)
    assert "wb-stale" not in column._dom_classes


def test_a_move_during_work_cancels_it(make, monkeypatch):
    panel, begun, seen = make(), threading.Event(), []
    real = panel._pictures.studio.draw

    def slow(model, request, cancelled, *told):
        if not seen:
            seen.append(model.options["density"])
            begun.set()
            while not cancelled():
                pass
        return real(model, request, cancelled, *told)

    panel.show(panel.state.with_operator("ties"))
    assert panel.wait(60)
    monkeypatch.setattr(panel._pictures.studio, "draw", slow)
    panel.show(panel.state.with_option("density", 0.1))
    assert begun.wait(60)
    panel.show(panel.state.with_option("density", 0.9))
    assert panel.wait(60)
    assert seen == [0.1]
    assert panel._pictures.studio.known(studio.key_of(panel.merge, panel.state.wanted.request())) == panel.images["result"]


def test_two_panels_take_turns_with_one_renderer(make, monkeypatch, renderer):
    inside, most = [], []
    real = renderer.draw

    def watched(*given, **named):
        inside.append(1)
        most.append(len(inside))
        try:
            return real(*given, **named)
        finally:
            inside.pop()

    monkeypatch.setattr(renderer, "draw", watched)
    one, other = make(), make()
    for density in (0.2, 0.4, 0.6):
        for panel in (one, other):
            panel.show(panel.state.with_operator("ties").with_option("density", density))
    assert one.wait(60)
    assert other.wait(60)
    assert max(most) == 1
    assert np.array_equal(one.images["result"][0], other.images["result"][0])


def test_snapshots_and_history(make):
    panel = make()
    panel.keep_as("average")
    panel.show(panel.state.with_operator("ties"), "method")
    panel.back_to("average")
    frame = panel.history()
    assert list(frame["change"])[-2:] == ["method", "back to average"]
    assert list(frame["operator"])[-2:] == ["ties", "weighted_average"]
    assert frame["now"].sum() == 1
    assert frame["snapshot"].iloc[-1] == "average"
    with pytest.raises(RecipeError, match="no snapshot 'best'; there are: average"):
        panel.back_to("best")


def test_a_panel_that_is_kept_comes_back(make, tmp_path):
    panel = make(keep="panel.yaml")
    panel.show(panel.state.with_operator("ties").with_option("density", {"blocks": {"IN*": 0.2, "default": 0.6}}))
    panel.keep_as("good")
    again = make(keep="panel.yaml")
    assert again.state == panel.state
    assert again._timeline.snapshots == panel._timeline.snapshots
    assert again.state.setups == panel.state.setups
    assert again.recipe.to_dict() == panel.recipe.to_dict()
    assert yaml.safe_load((tmp_path / "panel.yaml").read_text())["recipe"]["merge"]["operator"] == "ties"


def test_a_model_that_was_added_comes_back_and_one_that_is_gone_is_named(make, models, tmp_path):
    panel = make([models / "base.safetensors"], keep="panel.yaml")
    panel.add(models / "heart.safetensors")
    panel.add(models / "moon.safetensors")
    (models / "moon.safetensors").unlink()
    again = make([models / "base.safetensors"], keep="panel.yaml")
    assert again.state.models == ("base", "heart")
    assert "moon was there when this panel was kept" in words(again)


def test_no_checkpoints(make):
    panel = make([])
    assert "choose among the models, after adding files" in words(panel)
    assert panel._outcome._button.disabled
    with pytest.raises(RecipeError, match="needs models"):
        _ = panel.merge


def test_a_model_is_added_while_the_panel_is_open(make, models):
    panel = make([])
    panel.add(models / "heart.safetensors")
    panel.show(panel.state.with_input("models", ["heart"]))
    assert panel.wait(60)
    assert list(panel.images) == ["heart", "result"]
    panel.add(models / "nothing.safetensors")
    assert "there is no such file" in panel._models.files.said
    assert panel._chooser.selected_index == 0


@pytest.mark.parametrize(("given", "error"), [(5, InputError), ("nowhere", InputError), (["nowhere.safetensors"], CheckpointError)])
def test_checkpoints_that_are_none(given, error):
    with pytest.raises(error):
        MergePanel(given)


def test_a_file_that_vanishes_and_comes_back(make, models):
    panel = make()
    moved = (models / "heart.safetensors").rename(models / "elsewhere.safetensors")
    panel.show(panel.state.with_operator("ties"))
    assert panel.wait(60)
    assert "heart.safetensors changed or vanished" in words(panel)
    assert panel._outcome._button.disabled
    moved.rename(models / "heart.safetensors")
    panel.read_again()
    assert panel.wait(60)
    assert panel._judged.ok
    assert not panel._outcome._button.disabled


def test_an_incompatible_pair_leaves_the_controls_and_says_why(make, models):
    panel = make()
    save_file({"double_blocks.0.img_mod.lin.weight": torch.zeros(3, 2)}, models / "flux.safetensors")
    panel.add(models / "flux.safetensors")
    panel.show(panel.state.with_operator("ties").with_input("models", ["flux"]))
    assert panel.wait(60)
    assert "only models of one architecture can be merged" in panel._merging._words.value
    assert panel._outcome._button.disabled
    assert set(panel._merging._form.controls) >= {"density", "weights"}
    panel.undo()
    assert panel.wait(60)
    assert not panel._outcome._button.disabled


def test_options_that_make_no_sense_together_are_said(make):
    panel = make()
    panel.show(panel.state.with_option("weights", 0.0))
    assert "weights must not sum to 0" in panel._merging._words.value
    assert panel._outcome._button.disabled


def test_empty_prompts_leave_the_rest_as_it_is(make):
    panel = make()
    panel.show(panel.state.with_wanted(prompts=[]))
    assert panel.wait(60)
    assert panel._pictures.status.value == "Write a prompt to see pictures."
    assert "MB" in exporting(panel, "merged.safetensors")


def test_rules_that_cannot_be_read_are_said(make):
    panel = make()
    panel._merging._rules.value = "{component: vae, take: base"
    assert "cannot be read" in panel._merging._words.value
    panel._merging._rules.value = "{component: vae, take: 'models[0]'}"
    assert len(panel.merge.rules) == 1


def test_a_model_that_no_pipeline_holds_is_still_merged(make, models):
    for name in ("one", "two"):
        save_file({"double_blocks.0.img_mod.lin.weight": torch.ones(3, 2)}, models / f"{name}.safetensors")
    panel = make([models / "one.safetensors", models / "two.safetensors"])
    assert "is Flux; this renderer's pipeline, StableDiffusionPipeline, draws SD 1.x" in html.unescape(panel._pictures.status.value)
    assert "MB" in exporting(panel, "merged.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("density", 3, r"density must be in \[0, 1\], got 3"),
        ("density", "much", "got 'much'"),
        ("density", {"ramp": {"start": 0, "end": 1, "first": "IN77"}}, "there is no block 'IN77'"),
        ("density", {"ramp": {"start": 0}}, "a ramp needs start and end"),
        ("density", {"noise": 3}, "density must be a value"),
        ("weights", [1, 2, 3, 4], "weights needs one value or 2"),
        ("majority_sign", "loudest", "got 'loudest'"),
    ],
)
def test_a_value_that_the_operator_does_not_take_is_said_and_can_be_undone(make, name, value, said):
    panel = make()
    panel.show(panel.state.with_operator("ties"))
    panel.show(panel.state.with_option(name, value))
    assert re.search(said, words(panel))
    assert panel._outcome._button.disabled
    panel.undo()
    assert panel.wait(60)
    assert panel._judged.ok


def test_a_model_that_is_renamed_is_so_in_everything_that_was_done_and_when_the_panel_comes_back(make):
    panel = make(keep="panel.yaml")
    panel.show(panel.state.with_rules([{"component": "vae", "take": "moon"}]))
    panel.keep_as("first")
    merge = panel.recipe.data.merge
    panel.rename("moon", "night sky")
    assert panel.state.models == ("base", "heart", "night sky")
    assert panel.recipe.data.merge == merge
    panel.back_to("first")
    assert panel.state.inputs == {"models": ("base", "heart", "night sky")}
    again = make(keep="panel.yaml")
    assert again.state == panel.state
    assert again._judged.ok
    with pytest.raises(InputError, match="another model is"):
        panel.rename("base", "heart")
    with pytest.raises(InputError, match="that is no name"):
        panel.rename("base", " ")


def test_undo_brings_the_old_name_back_and_redo_the_new_one(make, models):
    panel = make()
    panel.keep_as("first")
    panel.rename("moon", "night sky")
    panel.show(panel.state.with_option("weights", [1.0, 1.0, 0.5]))
    panel.undo()
    panel.undo()
    assert panel.state.models == ("base", "heart", "moon")
    assert list(panel._shelf.checkpoints) == ["base", "heart", "moon"]
    assert panel._timeline.snapshots["first"].models == ("base", "heart", "moon")
    assert panel._judged.ok
    panel.redo()
    assert panel.state.models == ("base", "heart", "night sky")
    panel.redo()
    assert panel.state.many == ("base", "heart", "night sky")
    assert panel.merge.options == {"weights": [1.0, 1.0, 0.5]}
    assert list(panel.history()["change"])[-2] == "moon is called night sky"


def test_a_model_that_took_a_name_meanwhile_gives_it_back(make, models):
    panel = make()
    panel.rename("moon", "night sky")
    (models / "more").mkdir()
    panel.add(shutil.copy(models / "heart.safetensors", models / "more" / "moon.safetensors"))
    assert panel.state.models == ("base", "heart", "night sky", "moon")
    panel.undo()
    panel.undo()
    assert panel.state.models == ("base", "heart", "moon")
    assert panel._shelf.checkpoints["moon"].path == models / "moon.safetensors"
    panel.redo()
    panel.redo()
    assert [panel._shelf.checkpoints[name].path.parent.name for name in panel.state.models] == ["models", "models", "models", "more"]


def test_files_are_put_into_the_merge_at_once(make, models):
    panel = make([models / "base.safetensors"])
    (models / "torn.safetensors").write_bytes(b"x")
    panel.add(models / "heart.safetensors", models / "torn.safetensors", models / "moon.safetensors", merge=True)
    assert panel.state.inputs == {"models": ("base", "heart", "moon")}
    assert "torn.safetensors" in panel._models.files.said
    panel.undo()
    assert panel.state.inputs == {"models": ("base",)}, "one step back takes all of one action"
    panel.show(panel.state.with_operator("add_difference"))
    assert panel.state.inputs == {"base": ("base",), "tuned": (), "original": ()}
    panel.add(models / "heart.safetensors", models / "moon.safetensors", models / "base.safetensors", merge=True)
    assert panel.state.used == ("base", "heart", "moon")
    assert "base is in the merge already" in panel._models.files.said
    (models / "more").mkdir()
    panel.add(shutil.copy(models / "heart.safetensors", models / "more" / "sun.safetensors"), merge=True)
    assert "sun is among the models, and not in the merge" in panel._models.files.said
    assert "sun" in panel.state.models


def test_a_plain_model_that_is_dropped_is_found_and_merged(make, models):
    panel = make([models / "base.safetensors"])
    content, samples = as_dropped(models / "heart.safetensors")
    panel.reopen(content, "heart.safetensors", (models / "heart.safetensors").stat().st_size, samples)
    assert panel.state.inputs == {"models": ("base", "heart")}
    assert f"heart.safetensors was found at {models / 'heart.safetensors'}" in html.unescape(panel._merging._words.value)
    (models / "below").mkdir()
    moon = (models / "moon.safetensors").rename(models / "below" / "night.safetensors")
    content, samples = as_dropped(moon)
    panel._dropped(content, "moon.safetensors", moon.stat().st_size, samples)
    assert panel.state.inputs == {"models": ("base", "heart", "night")}, "heart and base have its size and header as well"
    assert "moon.safetensors was found at" in panel._models.files.said
    panel._dropped(content, "moon.safetensors", moon.stat().st_size, samples[::-1])
    assert "was not found in" in panel._models.files.said
    panel._dropped(b"", "cat.png", 3, b"")
    assert "cat.png: is no model" in panel._models.files.said


def as_dropped(path):
    """What a browser sends of a file."""
    with path.open("rb") as file:
        samples = sampled(file, path.stat().st_size)
    content = path.read_bytes()
    return content[: 8 + int.from_bytes(content[:8], "little")], samples


def test_a_name_that_is_taken_is_said(make):
    panel = make()
    panel._naming.renaming.children[2].click()
    assert "choose the model" in panel._merging._words.value
    panel._naming._models.value, panel._naming._new.value = "base", "heart"
    panel._naming.renaming.children[2].click()
    assert "base cannot be called &#x27;heart&#x27;: another model is" in panel._merging._words.value


def test_a_result_is_used_as_a_model_and_comes_back(make):
    panel = make(keep="panel.yaml")
    panel.show(panel.state.with_input("models", ["heart", "moon"]))
    key = next(iter(panel.merge))
    first = panel.merge[key]
    panel._naming._name.value = "both"
    panel._naming.using.children[2].click()
    assert panel.state.models == ("base", "heart", "moon", "both")
    panel.show(panel.state.with_input("models", ["base", "both"]).with_option("weights", [0.0, 1.0]))
    assert panel.wait(60)
    assert torch.equal(panel.merge[key], first)
    assert "weighted_average" in str(panel.recipe.data.merge.inputs)
    again = make(keep="panel.yaml")
    assert again.state == panel.state
    assert torch.equal(again.merge[key], first)
