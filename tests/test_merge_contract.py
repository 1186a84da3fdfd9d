"""What takes a merge takes it in any form: as it is, in another layout, and made of merges in another layout."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from held import Held
from safetensors.torch import load_file

import workbench as wb
from workbench import cli
from workbench.conditioning import asked_for
from workbench.errors import InputError, RecipeError
from workbench.panels.merge_panel import MergePanel
from workbench.places import DATA
from workbench.render import Renderer, open_grid

FAMILY = DATA / "shapes-sd"
PROMPT = ["a red heart on a white background"]
average, fft_blend, task_arithmetic = wb.operators.weighted_average, wb.operators.fft_blend, wb.operators.task_arithmetic
Form = Callable[[], wb.Checkpoint]


def opened(name: str) -> wb.Checkpoint:
    return wb.open(FAMILY / f"{name}.safetensors")


def merge() -> wb.Checkpoint:
    rules = [{"component": "vae", "take": "models[0]"}, {"match": "*guidance*", "skip": True, "optional": True}]
    return average([opened("heart"), opened("moon")], weights={"blocks": {"IN*": [1, 0.5], "default": 1.0}}, rules=rules)


def in_another_layout() -> wb.Checkpoint:
    return wb.in_layout(merge(), "diffusers")


def made_of_such() -> wb.Checkpoint:
    return average([in_another_layout(), opened("base")], weights=[2, 1])


def made_of_such_in_the_old_layout() -> wb.Checkpoint:
    return wb.in_layout(average([opened("base"), made_of_such()]), "diffusers")


FORMS = (merge, in_another_layout, made_of_such, made_of_such_in_the_old_layout)
PARENTS = dict(zip(FORMS, [["heart", "moon"]] * 2 + [["weighted_average", "base"], ["base", "weighted_average"]], strict=True))
every_form = pytest.mark.parametrize("form", FORMS, ids=[form.__name__ for form in FORMS])


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(FAMILY / "config")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: folder / name)


def written(checkpoint: wb.Checkpoint, path: Path, **options: object) -> dict[str, torch.Tensor]:
    wb.export(checkpoint, path, progress=False, **options)
    return load_file(path)


def assert_same(one: wb.Checkpoint | dict, other: wb.Checkpoint | dict) -> None:
    assert list(one) == list(other)
    for key in one:
        assert one[key].dtype == other[key].dtype, key
        assert torch.equal(one[key], other[key]), key


@every_form
def test_it_says_what_it_is_made_of(form):
    made, parents = form(), PARENTS[form]
    assert [model.name for model in made.parents] == parents
    assert [model.name for model in made.merge.call.inputs] == parents
    assert made.merge.layout is None
    assert made.recipe.data.output.layout == made.layout


@every_form
def test_its_recipe_makes_it_again_and_says_the_same(form, tmp_path):
    made = form()
    made.recipe.save(tmp_path / "recipe.yaml")
    again = wb.Recipe.load(tmp_path / "recipe.yaml").build()
    assert list(again) == list(made)
    assert [again.info(key) for key in again] == [made.info(key) for key in made]
    assert again.recipe.to_dict() == made.recipe.to_dict()
    for key in list(made)[::40]:
        assert torch.equal(again[key], made[key]), key


@every_form
def test_its_file_carries_a_recipe_that_passes_preflight_and_makes_the_file(form, tmp_path):
    file = written(form(), tmp_path / "made.safetensors", dtype="bfloat16")
    assert {file[key].dtype for key in file} <= {torch.bfloat16, torch.int64}
    carried = wb.open(tmp_path / "made.safetensors").recipe
    again = carried.build()
    assert wb.preflight(again).errors == ()
    assert sorted(again) == sorted(file)
    for key in list(again)[::40]:
        assert torch.equal(again[key], file[key]), key
    assert carried.data.models["moon"].sha256


@every_form
def test_rounded_to_another_dtype_it_is_what_the_export_writes(form, tmp_path):
    made = form()
    rounded = made.with_dtype("bfloat16")
    assert (rounded.layout, rounded.rounding, list(rounded)) == (made.layout, "bfloat16", list(made))
    assert rounded.recipe.data.output.dtype == "bfloat16"
    file = written(made, tmp_path / "made.safetensors", dtype="bfloat16")
    for key in list(rounded)[::40]:
        assert rounded.info(key).dtype == file[key].dtype
        assert torch.equal(rounded[key], file[key]), key


@every_form
def test_a_folder_of_it_carries_its_recipe(form, tmp_path):
    folder = wb.export(wb.in_layout(form(), "diffusers"), tmp_path / "folder", max_shard_size="5GB", progress=False).path
    assert wb.Recipe.from_file(folder).data.merge == form().recipe.data.merge


@every_form
def test_preflight_looks_into_it(form):
    found = wb.preflight(form())
    assert set(found.frame()["model"]) - {"base"} == {"heart", "moon"}
    wrong = {"blocks": {"IN77": [1, 0], "default": 1.0}}
    inner = average([opened("heart"), opened("moon")], weights=wrong)
    inner = wb.in_layout(inner, "diffusers") if form is not merge else inner
    outer = average([inner, opened("base")]) if form in FORMS[2:] else inner
    assert any("no block matches 'IN77'" in text for text in wb.preflight(outer).errors)


@every_form
def test_it_is_an_input_like_any_other(form, tmp_path):
    outer = task_arithmetic(opened("base"), [form(), opened("stripes")], weights=[0.5, 0.25])
    file = written(outer, tmp_path / "outer.safetensors")
    again = wb.Recipe.from_file(tmp_path / "outer.safetensors").build()
    assert again.recipe.data.merge == outer.recipe.data.merge
    for key in list(again)[::40]:
        assert torch.equal(again[key], file[key]), key


@every_form
@pytest.mark.parametrize("asked", [{"dtype": "float16"}, {"precision": "float64"}])
def test_inside_another_merge_it_is_not_rounded_and_says_so(form, asked):
    lost, value = next(iter(asked.items()))
    inner = average([opened("heart"), opened("moon")], **asked)
    for one in (inner, wb.in_layout(inner, "diffusers")):
        with pytest.raises(InputError, match=rf"models\[0\] is a merge with {lost}='{value}'; give {lost} to the outermost merge only"):
            average([one, form()])


@every_form
def test_explain_sets_it_beside_its_parents(form):
    made = form()
    found = wb.explain(made, progress=False)
    assert found.parents == made.merge.call.names
    if made.layout:
        pd.testing.assert_frame_equal(found.frame(), wb.explain(made.merge, progress=False).frame())


@every_form
def test_diff_shows_its_recipe(form):
    found = wb.diff(form(), merge() if form is not merge else in_another_layout(), progress=False)
    differing = {said.what for said in found.recipes}
    if form in FORMS[:2]:
        assert differing == {"output.layout"}
    else:
        assert any(what.startswith("merge.inputs.models[") for what in differing)


@every_form
def test_similarity_takes_it(form):
    frame = wb.compare([opened("base"), form()], progress=False)
    assert len(frame)
    other = form().merge
    pd.testing.assert_frame_equal(frame, wb.compare([opened("base"), other], progress=False))


@every_form
def test_a_grid_keeps_its_recipe(form, tmp_path, renderer):
    grid = wb.ab_grid({"made": form(), "base": opened("base")}, prompts=PROMPT, steps=1, renderer=renderer, scorers=(), progress=False)
    grid.save(tmp_path / "grid.png")
    saved = open_grid(tmp_path / "grid.png")
    assert list(saved.recipes) == ["made"]
    again = saved.recipes["made"]
    assert (again.data.merge, again.data.output) == (form().recipe.data.merge, form().recipe.data.output)
    assert list(again.build()) == list(form())
    assert list(saved.files) == ["base"]


@every_form
def test_a_sweep_keeps_its_recipe_and_makes_it_in_any_process(form, tmp_path, renderer):
    options = {"prompts": PROMPT, "steps": 1, "folder": tmp_path, "renderer": renderer, "progress": False, "score": ()}
    sweep = wb.sweep(lambda at: form(), {"at": [0]}, **options)
    assert not sweep.problems
    assert sweep[0].recipe.data.merge == form().recipe.data.merge
    assert list(sweep[0].job.open()) == list(form())


@every_form
def test_a_panel_merges_it_and_tells_how(form, tmp_path, renderer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = MergePanel({"made": form(), "base": opened("base")}, renderer)
    panel.show(panel.state.with_wanted(prompts=()))
    (inner, other) = panel.recipe.data.merge.inputs["models"]
    assert (inner.operator, inner.layout, other) == ("weighted_average", form().layout, "base")
    names = {"wb": wb}
    line = panel._outcome._python.value.partition('">')[2].removesuffix("</pre>").replace("&#x27;", "'").replace("&quot;", '"')
    assert list(eval(line, names)) == list(panel.merge)


@every_form
def test_the_command_makes_it(form, tmp_path, monkeypatch, capsys):
    recipe = form().recipe.with_output(layout="diffusers")
    recipe.save(tmp_path / "r.yaml")
    assert yaml.safe_load((tmp_path / "r.yaml").read_text(encoding="utf-8"))["output"] == {"layout": "diffusers"}
    for more in (["--dry-run"], []):
        monkeypatch.setattr(sys, "argv", ["workbench", "merge", "r.yaml", "--out", "out.safetensors", "--dtype", "bfloat16", *more])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0, capsys.readouterr().err
    assert "heart" in capsys.readouterr().out
    file = load_file(tmp_path / "out.safetensors")
    expected = wb.in_layout(form(), "diffusers").with_dtype("bfloat16")
    assert sorted(file) == sorted(expected)
    for key in list(expected)[::40]:
        assert torch.equal(file[key], expected[key]), key


def test_spectrum_and_shares_know_a_blend_in_any_layout():
    blend = fft_blend(opened("heart"), opened("moon"), coefficients={"curve": [[0, 1], [1, -1]]})
    turned = wb.in_layout(blend, "diffusers")
    frames = [wb.analysis.spectrum(one, bands=2, progress=False).frame() for one in (blend, turned)]
    pd.testing.assert_frame_equal(*frames)
    assert asked_for.shares(turned).table.equals(asked_for.shares([blend]).table)


def test_what_is_no_merge_has_no_parents_and_only_the_recipe_it_carries(tmp_path):
    for file in (opened("heart"), wb.in_layout(opened("heart"), "diffusers"), Held({"x": torch.ones(1)})):
        assert (file.parents, file.merge, file.recipe) == ((), None, None)
        with pytest.raises(RecipeError, match="is no merge, and so has no recipe"):
            wb.Recipe.of(file)
    written(merge(), tmp_path / "made.safetensors")
    file = wb.open(tmp_path / "made.safetensors")
    assert (file.parents, file.merge) == ((), None)
    assert file.recipe.data.merge == merge().recipe.data.merge
    assert wb.in_layout(file, "diffusers").recipe.data.output.layout == "diffusers"
