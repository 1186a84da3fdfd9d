"""mergekit's files: each merge has the numbers of the merge written in our own way; what has no counterpart is refused or told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from strange_values import changed

import workbench as wb
from workbench.errors import RecipeError
from workbench.recipe import of_mergekit

ops = wb.operators


@pytest.fixture
def load(sd_models: Callable[..., Path]) -> Callable[[str], wb.Recipe]:
    """Writes a mergekit file beside three models, and loads it."""
    folder = sd_models()

    def make(text: str) -> wb.Recipe:
        (folder / "mergekit.yaml").write_text(text)
        return wb.Recipe.load(folder / "mergekit.yaml")

    return make


@pytest.fixture
def models(load: object, tmp_path: Path) -> list[wb.Checkpoint]:
    """The base, a and b."""
    return [wb.open(tmp_path / f"{name}.safetensors") for name in ("base", "a", "b")]


def same(made: wb.Checkpoint, ours: wb.Checkpoint) -> bool:
    return list(made) == list(ours) and all(torch.equal(made[key], ours[key]) for key in ours)


def of_deltas(method: str, parameters: str = "", a: str = "weight: 0.5", b: str = "weight: 0.25") -> str:
    """A file as mergekit's README has them, of a base and two models."""
    return f"""
models:
  - model: base.safetensors
    # no parameters necessary for base model
  - model: a.safetensors
    parameters: {{{a}}}
  - model: b.safetensors
    parameters: {{{b}}}
merge_method: {method}
base_model: base.safetensors
parameters: {{{parameters}}}
dtype: float32
"""


def kept(density: float) -> dict[str, str]:
    return {"a": f"weight: 0.5, density: {density}", "b": f"weight: 0.25, density: {density}"}


W: dict[str, Any] = {"weights": [0.5, 0.25]}
LAMBDA = {"parameters": "lambda: 0.8"}
CASES: dict[str, tuple[dict[str, str], str, dict[str, Any]]] = {
    "task_arithmetic": ({}, "task_arithmetic", W),
    "task_arithmetic lambda": (LAMBDA, "task_arithmetic", {"weights": [0.4, 0.2]}),
    "task_arithmetic normalize": ({"parameters": "normalize: true"}, "task_arithmetic", {"weights": [0.666666666667, 0.333333333333]}),
    "ties": (kept(0.5), "ties", W | {"density": 0.5, "normalize": "weights"}),
    "ties defaults": ({}, "ties", W | {"density": 1.0, "normalize": "weights"}),
    "ties normalize": (kept(0.5) | {"parameters": "normalize: false, lambda: 0.8"}, "ties",
                       W | {"density": 0.5, "normalize": "none", "strength": 0.8}),
    "dare_ties": (kept(0.5), "dare_ties", W | {"density": 0.5, "normalize": "none"}),
    "dare_ties rescale": (kept(0.5) | {"parameters": "rescale: false"}, "delta_merge",
                          W | {"density": 0.5, "normalize": "none", "prune": "random", "rescale": False}),
    "dare_linear": (kept(0.5) | LAMBDA, "dare_linear", {"weights": [0.4, 0.2], "density": 0.5}),
    "della": ({"parameters": "density: 0.6, epsilon: 0.2, lambda: 0.9"}, "della", W | {"density": 0.6, "epsilon": 0.2, "strength": 0.9}),
    "della whole": ({}, "ties", W | {"density": 1.0, "normalize": "weights"}),
    "della_linear": ({"parameters": "density: 0.6"}, "della_linear", W | {"density": 0.6, "epsilon": 0.15}),
    "della_linear whole": ({}, "task_arithmetic", W),
    "breadcrumbs": (kept(0.6) | {"parameters": "gamma: 0.1"}, "breadcrumbs", W | {"density": 0.6, "gamma": 0.1}),
    "breadcrumbs_ties": (kept(0.6), "breadcrumbs_ties", W | {"density": 0.6, "gamma": 0.01}),
    "sce": ({"a": "", "b": "", "parameters": "select_topk: 0.4"}, "sce", {"density": 0.4}),
    "model_stock": ({"a": "", "b": "", "parameters": "filter_wise: true"}, "model_stock", {"filter_wise": True}),
    "nuslerp": ({"parameters": "nuslerp_flatten: false, nuslerp_row_wise: true"}, "delta_nuslerp", W | {"over": "column"}),
    "ram": ({"a": "", "b": ""}, "ram", {}),
    "ramplus_tl": ({"a": "", "b": "", "parameters": "r: 0.5"}, "ram_plus", {"r": 0.5}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_merge_of_changes_is_ours_with_mergekits_defaults(load, models, case):
    given, operator, options = CASES[case]
    base, a, b = models
    recipe = load(of_deltas(case.split()[0], **given))
    assert recipe.data.merge.operator == operator
    assert same(recipe.build(), ops.find(operator)(base, [a, b], **options, dtype="float32"))


PAIR = "models: [{model: a.safetensors}, {model: b.safetensors}]\n"
WEIGHED = "models: [{model: a.safetensors, parameters: {weight: 1}}, {model: b.safetensors, parameters: {weight: 3}}]\n"
PAIRS: dict[str, tuple[str, Callable[..., wb.Merge]]] = {
    "linear": (WEIGHED + "merge_method: linear", lambda base, a, b: ops.weighted_average([a, b], weights=[1, 3])),
    "linear of shares": (
        WEIGHED.replace("1}", "0.25}").replace("3}", "0.75}") + "merge_method: linear\nparameters: {normalize: false}",
        lambda base, a, b: ops.weighted_average([a, b], weights=[0.25, 0.75]),
    ),
    "linear with a base that is a model too": (
        WEIGHED + "merge_method: linear\nbase_model: base.safetensors\nparameters: {weight: 2}",
        lambda base, a, b: ops.weighted_average([a, b, base], weights=[1, 3, 2]),
    ),
    "slerp from the base": (
        PAIR + "merge_method: slerp\nbase_model: b.safetensors\nparameters: {t: [{value: 0.3}]}",
        lambda base, a, b: ops.slerp(b, a, t=0.3),
    ),
    "slerp of some tensors": (
        PAIR + "merge_method: slerp\nbase_model: a.safetensors\n"
        "parameters: {t: [{filter: time_embed, value: 1}, {filter: middle, value: 0}, {filter: gone, value: 1}, {value: 0.3}]}",
        lambda base, a, b: ops.slerp(
            a, b, t=0.3, rules=[{"match": "*time_embed*", "take": "second"}, {"match": "*middle*", "take": "first"}]
        ),
    ),
    "slerp of slices": (
        "slices: [{sources: [{model: a.safetensors, layer_range: [0, 32]}, {model: b.safetensors, layer_range: [0, 32]}]}]\n"
        "merge_method: slerp\nbase_model: a.safetensors\nparameters: {t: 0.5}",
        lambda base, a, b: ops.slerp(a, b, t=0.5),
    ),
    "nearswap": (
        PAIR + "merge_method: nearswap\nbase_model: a.safetensors\nparameters: {t: 0.02}",
        lambda base, a, b: ops.nearswap(a, b, t=0.02),
    ),
    "arcee_fusion": (PAIR + "merge_method: arcee_fusion\nbase_model: a.safetensors", lambda base, a, b: ops.arcee_fusion(a, b)),
    "nuslerp": (WEIGHED + "merge_method: nuslerp", lambda base, a, b: ops.nuslerp([a, b], weights=[1, 3])),
    "karcher": (
        PAIR + "merge_method: karcher\nparameters: {max_iter: 5, tol: 0.001}",
        lambda base, a, b: ops.karcher_mean([a, b], iterations=5, tolerance=0.001),
    ),
    "passthrough": ("models: [{model: a.safetensors}]\nmerge_method: passthrough", lambda base, a, b: ops.weighted_average([a])),
    "gradients": (
        "models: [{model: a.safetensors, parameters: {weight: [0.5, 1]}}, {model: b.safetensors, parameters: {weight: [1, 0.75, 0.5]}}]\n"
        "merge_method: linear",
        lambda base, a, b: ops.weighted_average([a, b], weights={"ramp": {"start": [0.5, 1], "end": [1, 0.5], "elsewhere": [0.5, 1]}}),
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_merge_of_models_is_ours(load, models, case):
    text, ours = PAIRS[case]
    assert same(load(text).build(), ours(*models))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PAIR + "merge_method: multislerp", "merge_method 'multislerp' has no counterpart.*slerp"),
        (PAIR + "merge_method: ties", "ties needs base_model, which is not there; write base_model"),
        (PAIR + "merge_method: slerp\nbase_model: a.safetensors", "t is missing, and slerp has no default; write t under parameters"),
        (PAIR + "merge_method: nearswap\nbase_model: a.safetensors", "t of b is missing, and nearswap has no default; write t for it"),
        (of_deltas("ties", a="weight: 1, lambda: 2"), "lambda stands under the model a; write it under parameters"),
        (of_deltas("ties", a="weight: 1, density: 0.5", b="weight: 1, density: 0.4"), r"density differs from model to model: \[0.5, 0.4\]"),
        (of_deltas("ties", a="wieght: 1"), "the parameters of a has the key 'wieght'; did you mean 'weight'"),
        (of_deltas("ties", b="weight: heavy"), "weight must be a number, got 'heavy'"),
        (of_deltas("ties", "normalize: 1"), "normalize must be true or false, got 1"),
        (of_deltas("ties", "rescale: true"), "rescale true has no counterpart"),
        (of_deltas("della", "density: 0.6, normalize: false"), "normalize false has no counterpart in della"),
        (of_deltas("breadcrumbs_ties", "normalize: true"), "normalize true has no counterpart in breadcrumbs_ties"),
        (of_deltas("ties", "density: [0.2, 0.9, 0.1]"), r"density \[0.2, 0.9, 0.1\] is a gradient with bends; write density by block"),
        (PAIR + "merge_method: slerp\nbase_model: a.safetensors\nparameters: {t: [{filter: self_attn, value: 0.5}, {value: 1}]}",
         r"t depends on the tensor's name, filter 'self_attn'; .*\{match: '\*self_attn\*', take: model\}"),
        (WEIGHED + "merge_method: linear\nparameters: {normalize: false}", r"the weights \[1.0, 3.0\] do not sum to 1; write weights that"),
        ("slices: [{sources: [{model: a.safetensors, layer_range: [0, 16]}]}, {sources: [{model: b.safetensors, layer_range: [8, 24]}]}]\n"
         "merge_method: passthrough", "2 slices put layers together anew"),
        ("slices: [{sources: [{model: a.safetensors, layer_range: [4, 16]}]}]\nmerge_method: passthrough", "is not .0, number of layers"),
        ("modules: {}\nmerge_method: linear", "modules have no counterpart"),
        (PAIR + "merge_method: linear\nparameters: {weight: 1}\ndtype: int8", "dtype 'int8' is none that is written; it can be float32"),
        (PAIR.replace("a.safetensors", "org/name+org/lora") + "merge_method: karcher", r"models\[0\].model 'org/name.org/lora' adds a"),
        (PAIR + "merge_method: karcher\nallow_crimes: true", "the recipe has the key 'allow_crimes'"),
        ("merge_method: linear", "it must have models or slices"),
        ("merge_method: linear\nmodels: [a.safetensors]", r"models\[0\] must be a mapping, got 'a.safetensors'"),
        (PAIR + "merge_method: arcee_fusion\nbase_model: base.safetensors", "arcee_fusion takes 1 models beside the base, got"),
        (PAIR + "merge_method: karcher\nparameters: {tol: [0, 1]}", "tol differs by layer"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_with_its_key_and_value(load, text, said):
    with pytest.raises(RecipeError, match=said) as found:
        load(text)
    assert "mergekit.yaml: mergekit's recipe: " in str(found.value)


def test_what_is_left_out_is_told_by_the_recipe_its_file_and_preflight(load, tmp_path):
    text = of_deltas("ties", "int8_mask: true, epsilon: 0.1", **kept(0.5)).replace("float32", "bfloat16")
    recipe = load(text + "tokenizer_source: union\nout_dtype: float16")
    told = "\n".join(recipe.notes)
    for said in (
        "tokenizer_source 'union' is left out",
        "int8_mask is left out",
        "epsilon is left out: ties does not",
        "calculates in bfloat16",
    ):
        assert said in told
    assert recipe.data.output.dtype == "float16"
    merge = recipe.build()
    notes = wb.preflight(merge.with_dtype("float32")).notes
    assert all(any(note in one for one in notes) for note in recipe.notes)
    merge.recipe.save(tmp_path / "ours.yaml")
    assert "# mergekit's recipe: int8_mask is left out" in (tmp_path / "ours.yaml").read_text()
    again = wb.Recipe.load(tmp_path / "ours.yaml")
    assert again == recipe.relative_to(again.folder)
    assert same(again.build(), merge)


def test_models_lie_beside_the_file_or_else_on_the_hub(load, tmp_path):
    (tmp_path / "org").mkdir()
    save_file({"x": torch.ones(1)}, tmp_path / "org" / "here")
    text = "models: [{model: org/here}, {model: org/name@main}, {model: {model: {path: org/third, revision: v2}}}, {model: ./gone/x}"
    recipe = load(text + "]\nmerge_method: karcher")
    found = {name: model.path for name, model in recipe.data.models.items()}
    assert found == {"here": "org/here", "name": "hf://org/name@main", "third": "hf://org/third@v2", "x": "./gone/x"}
    assert sum("taken from the hub" in note for note in recipe.notes) == 2


@pytest.mark.parametrize(
    "text",
    [
        of_deltas("ties", "density: 0.5, normalize: true, lambda: 1"),
        "slices: [{sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]}]\n"
        "merge_method: slerp\nbase_model: a\nparameters: {t: [{filter: x, value: 1}, {value: [0, 1]}]}",
    ],
)
def test_whatever_stands_in_a_file_is_read_or_refused(text):
    for found in changed(yaml.safe_load(text)):
        with suppress(RecipeError):
            of_mergekit.read(found, lambda path: True) if isinstance(found, dict) else None
