"""A grid, a picture, a recipe, a merged file and a panel's state give the panel its state back; what is missing is named."""

from __future__ import annotations

import shutil

import pytest
import torch
from PIL import Image

import workbench as wb
from workbench.errors import CheckpointError, InputError, RecipeError, RenderError
from workbench.panels.reopening import reopen
from workbench.panels.state import PanelState, Wanted
from workbench.render.drawn import Drawn
from workbench.render.grid import Grid
from workbench.render.request import Request

NOW = PanelState.start(["other"], Wanted(("a cat",)))


@pytest.fixture
def merge(models):
    opened = [wb.open(models / f"{name}.safetensors") for name in ("heart", "moon")]
    return wb.operators.weighted_average(opened, weights=[0.25, 0.75], rules=[{"component": "vae", "take": "models[1]"}])


@pytest.fixture
def grid(merge, tmp_path):
    """A grid of the merge, as it is saved."""
    request = Request(("a red heart", "a moon"), (3, 4), 7, 2.5)
    pictures = [Image.new("RGB", (8, 8))] * 4
    return Grid((request,), (Drawn("result", merge.recipe),), pictures).save(tmp_path / "grid.png")


def shown(reopened, now=NOW):
    return reopened.state_after(now, {name: name for name in reopened.models})


def check(state):
    assert state.operator == "weighted_average"
    assert state.inputs == {"models": ("heart", "moon")}
    assert state.options == {"weights": [0.25, 0.75]}
    assert [dict(rule) for rule in state.rules] == [{"component": "vae", "take": "models[1]"}]


def test_a_grid_gives_back_its_merge_and_its_pictures(grid):
    found = reopen(grid)
    state = shown(found)
    check(state)
    assert state.models == ("other", "heart", "moon")
    assert (state.wanted.prompts, state.wanted.seeds, state.wanted.steps, state.wanted.guidance) == (
        ("a red heart", "a moon"),
        (3, 4),
        7,
        2.5,
    )
    assert not found.said


def test_a_grid_that_was_dropped_finds_its_models_in_the_folders_of_the_shelf(grid, models):
    found = reopen(grid.read_bytes(), [models], "grid.png")
    check(shown(found))
    assert [path.path for path in found.models.values()] == [models / "heart.safetensors", models / "moon.safetensors"]
    assert all("found by its name alone" in text for text in found.said)


def test_a_recipe_gives_back_its_merge_and_leaves_the_pictures(merge, tmp_path):
    merge.recipe.save(tmp_path / "mine.yaml")
    state = shown(reopen(tmp_path / "mine.yaml"))
    check(state)
    assert state.wanted == NOW.wanted


def test_a_merged_file_finds_renamed_models_by_their_hash(merge, models, tmp_path):
    wb.export(merge, tmp_path / "merged.safetensors", progress=False)
    (models / "heart.safetensors").rename(models / "renamed.safetensors")
    found = reopen(tmp_path / "merged.safetensors", [models])
    check(shown(found))
    assert found.models["heart"].path == models / "renamed.safetensors"
    assert not found.said


def test_a_file_of_the_same_name_with_other_numbers_is_not_taken_for_it(merge, models, tmp_path):
    wb.export(merge, tmp_path / "merged.safetensors", progress=False)
    shutil.copy(models / "base.safetensors", models / "heart.safetensors")
    found = reopen(tmp_path / "merged.safetensors", [models])
    assert list(found.models) == ["moon"]
    assert found.said[0].startswith("heart is missing: no heart.safetensors with sha256 ")


def test_what_is_missing_is_named_and_the_rest_comes_back(grid, models):
    (models / "heart.safetensors").unlink()
    found = reopen(grid, [models])
    state = shown(found)
    assert state.inputs == {"models": ("moon",)}
    assert state.options == {"weights": 0.75}
    assert len(found.said) == 1
    assert found.said[0].startswith("heart is missing: no heart.safetensors where the file says, nor in ")


def test_models_are_called_as_they_are_on_the_shelf(grid):
    found = reopen(grid)
    state = found.state_after(PanelState.start(["heart"], Wanted()), {"heart": "heart 2", "moon": "moon"})
    assert state.models == ("heart", "heart 2", "moon")
    assert state.inputs == {"models": ("heart 2", "moon")}


def test_a_kept_panel_comes_back_whole(make, tmp_path):
    panel = make(keep=tmp_path / "kept.yaml")
    panel.show(panel.state.with_operator("ties").with_option("density", 0.3).with_wanted(prompts=["x"], seeds=[9]))
    assert panel.wait(60)
    found = reopen(tmp_path / "kept.yaml")
    state = shown(found, PanelState.start([], Wanted()))
    assert (state.operator, state.options, state.inputs, state.wanted) == ("ties", {"density": 0.3}, panel.state.inputs, panel.state.wanted)


def test_a_picture_of_a_model_alone_leaves_the_merge(models, tmp_path):
    picture = Grid((Request(("a moon",), (5,)),), (Drawn("moon", None, (models / "moon.safetensors",)),), [Image.new("RGB", (8, 8))])
    state = shown(reopen(picture.save(tmp_path / "one.png")))
    assert state.models == ("other", "moon")
    assert (state.operator, state.inputs) == (NOW.operator, NOW.inputs)
    assert (state.wanted.prompts, state.wanted.seeds, state.wanted.steps) == (("a moon",), (5,), NOW.wanted.steps)


def test_a_model_is_itself(models):
    found = reopen(models / "moon.safetensors")
    assert list(found.models) == ["moon"]
    assert found.state is None
    assert shown(found) == PanelState(("other", "moon"), NOW.operator, NOW.inputs, wanted=NOW.wanted)


def test_a_model_of_several_files_without_a_recipe_is_not_taken_for_the_first_of_them(models, tmp_path):
    request = Request.of(["a red star"], [0], steps=1)
    several = Drawn("both", files=tuple(sorted(models.glob("*.safetensors"))[:2]))
    found = reopen(Grid((request,), (several,), [Image.new("RGB", (8, 8))]).save(tmp_path / "several.png"))
    assert not found.models
    assert found.said == ("both is made of 2 files, and the picture has no recipe of it: open or make it as before, or export it",)


def test_of_several_merges_in_a_grid_the_first_is_shown_and_that_is_said(merge, tmp_path):
    models = (Drawn("one", merge.recipe), Drawn("two", merge.recipe))
    path = Grid((Request(("a",), (0,)),), models, [Image.new("RGB", (8, 8))] * 2).save(tmp_path / "two.png")
    assert reopen(path).said == ("two.png has 2 merges; this is one; wb.open_grid('two.png').recipes has all",)


@pytest.mark.parametrize(
    ("name", "content", "error", "told"),
    [
        ("notes.txt", b"hello", InputError, "notes.txt: nothing that a panel can reopen"),
        ("photo.png", b"\x89PNG\r\n\x1a\n", RenderError, "carries no grid"),
        ("photo.png", b"no picture", RenderError, "photo.png"),
        ("bad.yaml", b"{", InputError, "bad.yaml: is not YAML"),
        ("other.yaml", b"a: 1", RecipeError, "other.yaml"),
        ("cut.safetensors", b"12345678", CheckpointError, "cut.safetensors"),
        ("", b"", InputError, "nothing that a panel can reopen"),
    ],
)
def test_what_cannot_be_reopened_is_told_by_name(name, content, error, told):
    with pytest.raises(error, match=told):
        reopen(content, name=name)


def test_a_merge_of_merges_is_refused_in_words(models, merge, tmp_path):
    wb.operators.weighted_average([merge, wb.open(models / "base.safetensors")]).recipe.save(tmp_path / "nested.yaml")
    with pytest.raises(RecipeError, match=r"nested\.yaml: its merge has other merges as inputs"):
        reopen(tmp_path / "nested.yaml")
    with pytest.raises(InputError, match="no such file"):
        reopen(tmp_path / "nowhere.txt")


def test_of_a_merged_file_its_header_is_enough(merge, models, tmp_path):
    wb.export(merge, tmp_path / "merged.safetensors", progress=False)
    whole = (tmp_path / "merged.safetensors").read_bytes()
    header = whole[: 8 + int.from_bytes(whole[:8], "little")]
    check(shown(reopen(header, [models], "merged.safetensors", len(whole))))


def test_a_dropped_model_without_a_recipe_is_found_by_its_header(models, tmp_path):
    whole = (models / "moon.safetensors").read_bytes()
    header = whole[: 8 + int.from_bytes(whole[:8], "little")]
    found = reopen(header, [], "moon.safetensors", len(whole), wider=[models.parent])
    assert found.models["moon"].path == models / "moon.safetensors"
    assert found.said == (f"moon.safetensors was found at {models / 'moon.safetensors'}",)
    with pytest.raises(InputError, match=r"moon\.safetensors \(.+ MB\) was not found in no folder, or below"):
        reopen(header, [], "moon.safetensors", len(whole))


def test_a_dropped_pickle_too_large_to_be_sent_is_found_by_name_and_size(models):
    torch.save({"a": torch.ones(2)}, models / "old.ckpt")
    found = reopen(b"", [models], "old.ckpt", (models / "old.ckpt").stat().st_size)
    assert found.models["old"].path == models / "old.ckpt"
    with pytest.raises(InputError, match=r"old\.ckpt .* was not found"):
        reopen(b"", [models], "old.ckpt", 3)


def test_recipes_of_other_programs_are_reopened_and_what_is_left_out_is_told(models, tmp_path):
    for name in ("heart", "moon"):
        shutil.copy(models / f"{name}.safetensors", tmp_path)
    listed = "".join(
        f"  - {{model: {name}.safetensors, parameters: {{weight: {weight}}}}}\n" for name, weight in (("heart", 1), ("moon", 3))
    )
    (tmp_path / "theirs.yaml").write_text(f"merge_method: linear\ntokenizer_source: base\nmodels:\n{listed}")
    found = reopen(tmp_path / "theirs.yaml")
    assert shown(found).operator == "weighted_average"
    assert any("tokenizer_source 'base' is left out" in said for said in found.said)
    lines = [f'model "{name}.safetensors" model_config="sd1-ldm" merge_space="weight"' for name in ("heart", "moon")]
    (tmp_path / "theirs.mecha").write_text("\n".join(["version 0.1.0", *lines, 'merge "slerp" &0 &1 alpha=0.25']))
    assert shown(reopen(tmp_path / "theirs.mecha")).operator == "slerp"
