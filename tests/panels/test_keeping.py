"""A panel's state in a file, and as a line of Python."""

from __future__ import annotations

import pytest
import yaml

import workbench as wb
from workbench.errors import RecipeError
from workbench.operators import own
from workbench.panels import keeping
from workbench.panels.judging import judge
from workbench.panels.python_line import python_line
from workbench.panels.shelf import Shelf
from workbench.panels.state import PanelState, Wanted


@pytest.fixture
def shelf(models) -> Shelf:
    return Shelf(models)


@pytest.fixture
def state(shelf) -> PanelState:
    return PanelState.start(tuple(shelf.checkpoints), Wanted(("a: star", "ein grünes Herz"), (0, 4), 7, 2.5))


@pytest.mark.parametrize("name", own())
def test_what_is_saved_is_what_is_loaded(tmp_path, shelf, state, name):
    state = state.with_operator(name).with_dtype("float16").with_layout("diffusers").with_seed(3)
    file = tmp_path / "kept" / "panel.yaml"
    file.parent.mkdir()
    keeping.save(file, state, {"one": state}, shelf.checkpoints)
    kept = keeping.load(file)
    assert kept.state == state
    assert kept.snapshots == {"one": state}
    assert {name: path.resolve() for name, path in kept.paths.items()} == {n: c.path for n, c in shelf.checkpoints.items()}


def test_a_model_from_the_hub_is_kept_by_its_address(tmp_path, shelf, state):
    name, fetched = next(iter(shelf.checkpoints.items()))
    fetched.address = "hf://org/model@0123/m.safetensors"
    keeping.save(tmp_path / "panel.yaml", state, {}, shelf.checkpoints)
    kept = keeping.load(tmp_path / "panel.yaml")
    assert kept.paths[name] == fetched.address
    assert yaml.safe_load((tmp_path / "panel.yaml").read_text())["recipe"]["models"][name] == fetched.address


def test_a_model_in_another_layout_is_kept_in_it(tmp_path, shelf):
    name, model = next(iter(shelf.checkpoints.items()))
    both = Shelf({name: model, "turned": wb.in_layout(model, "diffusers")})
    state = PanelState.start(tuple(both.checkpoints), Wanted())
    keeping.save(tmp_path / "panel.yaml", state, {}, both.checkpoints)
    kept = keeping.load(tmp_path / "panel.yaml")
    assert [list(kept.open(one)) for one in both.checkpoints] == [list(one) for one in both.checkpoints.values()]
    recipe = yaml.safe_load((tmp_path / "panel.yaml").read_text(encoding="utf-8"))["recipe"]
    assert recipe["models"]["turned"] == {"path": recipe["models"][name], "layout": "diffusers"}


def test_options_by_block_and_model_and_rules_are_kept(tmp_path, shelf, state):
    ramp = {"ramp": {"start": [1, 0], "end": [0, 1], "first": 1, "last": "OUT02", "elsewhere": [0.5, 0.5]}}
    state = state.with_operator("ties").with_option("weights", ramp).with_rules([{"component": "vae", "take": "base"}])
    keeping.save(tmp_path / "panel.yaml", state, {}, shelf.checkpoints)
    assert keeping.load(tmp_path / "panel.yaml").state == state


def test_the_recipe_in_the_file_is_one_that_the_command_takes(tmp_path, shelf, state):
    keeping.save(tmp_path / "panel.yaml", state.with_operator("ties"), {}, shelf.checkpoints)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(yaml.safe_load((tmp_path / "panel.yaml").read_text())["recipe"]))
    assert wb.preflight(wb.Recipe.load(recipe).build()).ok


def test_a_state_with_an_empty_input_is_kept(tmp_path, shelf, state):
    state = state.with_operator("ties").with_models(["heart", "moon"])
    keeping.save(tmp_path / "panel.yaml", state, {}, shelf.checkpoints)
    assert keeping.load(tmp_path / "panel.yaml").state == state


@pytest.mark.parametrize(
    "text", ["", "[", "panel: 2", "panel: 1", "panel: 1\nmodels: [{name: a}]\nrecipe: {merge: {operator: no}}\nsnapshots: {}"]
)
def test_a_damaged_file_is_named(tmp_path, text):
    file = tmp_path / "panel.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=r"panel\.yaml.*holds no panel's state"):
        keeping.load(file)


@pytest.mark.parametrize("name", own())
def test_the_line_of_python_makes_the_same_merge(shelf, state, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    state = state.with_operator(name).with_dtype("bfloat16").with_seed(5)
    recipe = judge(state, shelf.checkpoints).merge.recipe
    assert "\n" not in python_line(recipe)
    assert eval(python_line(recipe), {"wb": wb}).recipe.to_dict() == recipe.to_dict()


def test_the_line_of_python_goes_into_merges_of_merges(shelf, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    base, heart, moon = shelf.checkpoints.values()
    inner = wb.operators.dare_ties(base, [heart, moon], density={"blocks": {"IN*": 0.2, "default": 0.7}}, seed=2)
    outer = wb.operators.nearest(base, inner, moon, rules=[], seed=4)
    line = python_line(outer.recipe)
    assert line.startswith("wb.operators.nearest(wb.open('models/base.safetensors'), wb.operators.dare_ties(")
    assert eval(line, {"wb": wb}).recipe.to_dict() == outer.recipe.to_dict()


def test_a_method_that_is_no_more_is_forgotten_and_the_others_stay(tmp_path, shelf, state):
    file = tmp_path / "panel.yaml"
    keeping.save(file, state.with_operator("ties").with_operator("nearest"), {}, shelf.checkpoints)
    file.write_text(file.read_text(encoding="utf-8").replace("operator: ties", "operator: of_a_notebook"), encoding="utf-8")
    assert list(keeping.load(file).state.setups) == ["weighted_average"]
