"""Recipes: Python, file and header hold the same thing, and convert without loss."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from held import Held
from safetensors.torch import save_file

import workbench as wb
from workbench.checkpoint.files import hashing
from workbench.errors import OptionError, RecipeError, UnknownOperatorError
from workbench.merge import operator
from workbench.merge.decorator import registry
from workbench.tensors import Scope, Weight

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
MINIMAL = """
workbench: 1
models: {a: a.safetensors, b: b.safetensors}
merge: {operator: weighted_average, inputs: {models: [a, b]}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "base"):
        shutil.copy(GOLDEN / f"{name}.safetensors", tmp_path)
    return tmp_path


def models(folder: Path) -> list[wb.Checkpoint]:
    return [wb.open(folder / f"{name}.safetensors") for name in ("base", "a", "b")]


def same(one: wb.Merge, other: wb.Merge) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def everything(folder: Path) -> wb.Merge:
    """A merge that uses all a recipe can say: nesting, schedules, rules, seed, precision, dtype."""
    base, a, b = models(folder)
    inner = wb.operators.weighted_average([a, b], weights=[1, 3], seed=7)
    return wb.operators.task_arithmetic(
        base,
        [inner, b],
        weights={"ramp": {"start": [1, 0], "end": [0, 1], "first": "IN01", "elsewhere": 0.5}},
        rules=[{"component": "vae", "take": base}, {"match": "*.bias", "merge": True}],
        seed=3,
        precision="float64",
        dtype="bfloat16",
    )


def test_a_merge_saved_and_loaded_is_the_same_merge(folder):
    merge = everything(folder)
    merge.recipe.save(folder / "recipe.yaml")
    loaded = wb.Recipe.load(folder / "recipe.yaml").build()
    assert same(loaded, merge)
    assert loaded.recipe.to_dict() == merge.recipe.to_dict()


def test_saving_what_was_loaded_changes_nothing(folder):
    everything(folder).recipe.save(folder / "recipe.yaml")
    wb.Recipe.load(folder / "recipe.yaml").save(folder / "again.yaml")
    assert (folder / "again.yaml").read_text() == (folder / "recipe.yaml").read_text()


def test_an_exported_file_gives_its_recipe_back(folder):
    merge = everything(folder)
    exported = wb.export(merge, folder / "out.safetensors", progress=False)
    recipe = wb.Recipe.from_file(exported.path)
    assert same(recipe.build(), merge)
    assert recipe.data.models["a"].sha256 == hashing.sha256(folder / "a.safetensors")


def test_paths_are_relative_to_the_recipe_and_move_with_it(folder, tmp_path_factory):
    everything(folder).recipe.save(folder / "recipe.yaml")
    moved = tmp_path_factory.mktemp("moved") / "models"
    shutil.copytree(folder, moved)
    assert "base: base.safetensors" in (moved / "recipe.yaml").read_text()
    assert wb.Recipe.load(moved / "recipe.yaml").build().sources()[0].parent == moved


def test_models_of_one_name_are_told_apart_and_one_file_is_one_model(folder):
    (folder / "other").mkdir()
    shutil.copy(folder / "b.safetensors", folder / "other" / "a.safetensors")
    a, other = wb.open(folder / "a.safetensors"), wb.open(folder / "other" / "a.safetensors")
    recipe = wb.operators.weighted_average([a, other, wb.open(folder / "a.safetensors")]).recipe
    assert recipe.data.merge.inputs == {"models": ["a", "a-2", "a"]}


def test_default_values_may_be_left_out(folder):
    (folder / "r.yaml").write_text(MINIMAL)
    merge = wb.Recipe.load(folder / "r.yaml").build()
    assert (merge.settings.seed, merge.settings.precision, merge.settings.dtype) == (0, "float32", None)


def test_a_recipe_shows_itself_as_yaml(folder):
    recipe = everything(folder).recipe
    assert "operator: task_arithmetic" in str(recipe)
    assert ">workbench: 1\n" in recipe._repr_html_()


def test_a_changed_model_is_refused_with_both_hashes(folder):
    wb.export(everything(folder), folder / "out.safetensors", progress=False)
    before = hashing.sha256(folder / "a.safetensors")
    save_file({"x": torch.ones(1)}, folder / "a.safetensors")
    with pytest.raises(RecipeError, match=f"model 'a': .*is not the file the recipe was made with: .*{before}"):
        wb.Recipe.from_file(folder / "out.safetensors").build()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (("workbench: 1", "workbench: 2"), RecipeError, "workbench: Input should be 1"),
        (("merge:", "merg:"), RecipeError, "merge: Field required; merg: Extra inputs"),
        (("[a, b]", "[a, bb]"), RecipeError, "there is no model 'bb'; did you mean 'b'"),
        (("a.safetensors", "gone.safetensors"), RecipeError, "model 'a': .*gone.safetensors: there is no such file"),
        (("weighted_average", "weighted_avrage"), UnknownOperatorError, "did you mean 'weighted_average'"),
        (("inputs: {models: [a, b]}", "inputs: {models: [a, b]}, options: {wieghts: 1}"), OptionError, "did you mean 'weights'"),
        (("workbench: 1", "workbench: 1\nprecision: float16"), RecipeError, "precision: Input should be 'float32' or 'float64'"),
        (("workbench: 1", "workbench: 1\noutput: {dtype: int8}"), RecipeError, "output.dtype: Input should be"),
        (("workbench: 1", "workbench: 1\nseed: -1"), RecipeError, "seed: Input should be greater"),
        (("a: a.safetensors", "a: {path: a.safetensors, sha256: xyz}"), RecipeError, "models.a.sha256: String should match"),
        (("workbench: 1", "{"), RecipeError, "is not YAML"),
    ],
)
def test_a_wrong_recipe_names_the_file_and_what_is_wrong(folder, change, error, said):
    (folder / "r.yaml").write_text(MINIMAL.replace(*change))
    with pytest.raises(error, match=said):
        wb.Recipe.load(folder / "r.yaml").build()


def test_a_file_without_a_recipe_says_so(folder):
    with pytest.raises(RecipeError, match=r"a\.safetensors: carries no Workbench recipe"):
        wb.Recipe.from_file(folder / "a.safetensors")


def test_a_recipe_of_a_program_that_is_not_read_is_refused_by_its_type(folder):
    save_file({"x": torch.ones(1)}, folder / "theirs.safetensors", {"sd_merge_recipe": '{"type": "sd-webui-model-mixer"}'})
    with pytest.raises(RecipeError, match=r"its recipe is of type 'sd-webui-model-mixer'; what is read: workbench, webui"):
        wb.Recipe.from_file(folder / "theirs.safetensors")


def test_a_recipe_never_replaces_a_checkpoint(folder):
    before = (folder / "a.safetensors").read_bytes()
    with pytest.raises(RecipeError, match=r"ends in \.yaml"):
        everything(folder).recipe.save(folder / "a.safetensors")
    assert (folder / "a.safetensors").read_bytes() == before


def test_a_merge_of_tensors_in_memory_has_no_recipe():
    merge = wb.operators.weighted_average([Held({"x": torch.ones(1)})])
    with pytest.raises(RecipeError, match="held lies in no file"):
        _ = merge.recipe


@pytest.mark.usefixtures("forgotten")
def test_a_merge_by_an_operator_of_ones_own_is_exported_and_its_recipe_says_what_to_import(folder, monkeypatch):
    @operator(scope=Scope.ELEMENT, keys="base", source="a test")
    def halved(base: Weight) -> Weight:
        """Halve it."""
        return base / 2

    written = wb.export(halved(models(folder)[0]), folder / "out.safetensors", progress=False)
    recipe = wb.Recipe.from_file(written.path)
    assert recipe.data.merge.module == __name__
    assert same(recipe.build(), wb.open(written.path))
    del registry._things["halved", __name__]
    with pytest.raises(UnknownOperatorError, match=rf"there is no operator 'halved' in {__name__}, though that is imported"):
        recipe.build()
    monkeypatch.delitem(sys.modules, __name__)  # as in another process
    with pytest.raises(UnknownOperatorError, match=rf"no operator 'halved' here, .*: import {__name__} first"):
        recipe.build()


def test_a_folder_of_several_files_has_no_sha256(folder):
    save_file({"x": torch.ones(1)}, folder / "m-1.safetensors")
    save_file({"y": torch.ones(1)}, folder / "m-2.safetensors")
    (folder / "m.safetensors.index.json").write_text('{"weight_map": {"x": "m-1.safetensors", "y": "m-2.safetensors"}}')
    (folder / "recipe.yaml").write_text(MINIMAL.replace("a: a.safetensors", f"a: {{path: m.safetensors.index.json, sha256: {'a' * 64}}}"))
    with pytest.raises(RecipeError, match=r"model 'a': m\.safetensors\.index\.json has 2 files, and no sha256 of the whole; take it out"):
        wb.Recipe.load(folder / "recipe.yaml").build()
