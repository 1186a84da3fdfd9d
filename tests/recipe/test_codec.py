"""The recipe is one codec: whatever it can say is written and read back the same, as text and as merges."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import workbench as wb
from workbench.checkpoint.files import hashing
from workbench.errors import RecipeError
from workbench.merge.rules import COMPONENTS
from workbench.recipe.schema import RecipeData

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
SHAPES = {
    f"{UNET}input_blocks.1.0.in_layers.2.weight": (4, 3, 3, 3),
    f"{UNET}middle_block.1.proj_in.weight": (4, 6, 1, 1),
    f"{UNET}output_blocks.3.0.skip_connection.bias": (5,),
    f"{UNET}time_embed.0.weight": (3, 4),
    f"{VAE}decoder.conv_in.weight": (3, 2, 3, 3),
    f"{TEXT}final_layer_norm.bias": (4,),
}
NAMES = ("a", "b", "c")
several = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

# what a recipe's text may say

words = st.text(min_size=1, max_size=8)
numbers = st.integers(-(2**63), 2**64) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(st.none() | st.booleans() | numbers | words, lambda one: st.lists(one, max_size=3), max_leaves=4)
encoders = st.fixed_dictionaries({"path": words}, optional={"sha256": st.just("0" * 64)})
source_mappings = st.one_of(
    st.fixed_dictionaries({"constant": numbers}),
    st.fixed_dictionaries({"seed": st.integers(0, 2**64 - 1)}),
    st.fixed_dictionaries({"curve": st.lists(st.tuples(numbers, numbers).map(list), max_size=3)}),
    st.fixed_dictionaries(
        {"prompt": words | st.lists(words, max_size=2)}, optional={"encoder": words | encoders, "hypernetwork": encoders}
    ),
)
at = values | source_mappings
ends = st.one_of(st.none(), st.integers(0, 30), words)
options = st.one_of(
    at,
    st.dictionaries(words, at, max_size=3).map(lambda patterns: {"blocks": patterns}),
    st.fixed_dictionaries({"start": at, "end": at}, optional={"first": ends, "last": ends, "elsewhere": at}).map(
        lambda ramp: {"ramp": ramp}
    ),
)
actions = st.one_of(st.fixed_dictionaries({"take": words}), st.just({"skip": True}), st.just({"merge": True}))
which = st.one_of(
    st.fixed_dictionaries({"match": words}, optional={"component": st.sampled_from(COMPONENTS)}),
    st.fixed_dictionaries({"component": st.sampled_from(COMPONENTS)}),
)
rules = st.tuples(which, actions, st.sampled_from([{}, {"optional": True}])).map(lambda parts: parts[0] | parts[1] | parts[2])
layouts = st.sampled_from(["diffusers", "LDM", "BFL", "ComfyUI"])
seeds = st.integers(0, 2**64 - 1)


def nodes_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    inputs = st.dictionaries(words, inner | st.lists(inner, max_size=3), max_size=2)
    more = {"module": words, "options": st.dictionaries(words, options, max_size=3), "rules": st.lists(rules, max_size=3)}
    return st.fixed_dictionaries({"operator": words, "inputs": inputs}, optional=more | {"seed": seeds, "layout": layouts})


nodes = nodes_of(st.recursive(words, lambda inner: words | nodes_of(inner), max_leaves=4))
files = st.fixed_dictionaries({"path": words}, optional={"layout": layouts, "sha256": st.just("a" * 64)})
recipes = st.fixed_dictionaries(
    {"models": st.dictionaries(words, files | st.just("m.safetensors"), max_size=3), "merge": nodes},
    optional={
        "workbench": st.just(1),
        "output": st.fixed_dictionaries({}, optional={"dtype": st.sampled_from(["float16", "float8_e5m2"]), "layout": layouts}),
        "precision": st.sampled_from(["float32", "float64"]),
        "seed": seeds,
    },
)


@several
@given(recipes)
def test_what_is_written_is_what_is_read(told):
    data = RecipeData.model_validate(told)
    assert RecipeData.model_validate(data.model_dump(mode="json")) == data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        path.write_text(wb.Recipe(data, path.parent).to_yaml(), encoding="utf-8", newline="")
        assert wb.Recipe.load(path).data == data


@several
@given(nodes)
def test_nothing_that_was_said_is_lost(told):
    """What is None or empty says nothing, and need not be written; inside options it does."""
    written = RecipeData.model_validate({"models": {}, "merge": told}).model_dump(mode="json")["merge"]

    def lacking(said: Any, kept: Any, place: str) -> Iterator[str]:
        if isinstance(said, dict) and isinstance(kept, dict):
            for name, value in said.items():
                if name in kept:
                    yield from lacking(value, kept[name], f"{place}.{name}")
                elif value not in (None, {}) or ".options" in place:
                    yield f"{place}.{name}"
        elif isinstance(said, list) and isinstance(kept, list) and len(said) == len(kept):
            for number, pair in enumerate(zip(said, kept, strict=True)):
                yield from lacking(*pair, f"{place}[{number}]")
        elif said != kept:
            yield place

    assert list(lacking(told, written, "merge")) == []


# merges of every form

shares = st.floats(-2, 2, allow_nan=False)
patterns = st.sampled_from(["IN*", "MID", "OUT03", "input_blocks.1"])


def by_block(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The three forms of an option."""
    places = st.sampled_from([{}, {"first": 1, "last": 12}, {"first": "IN01"}, {"first": "IN01", "last": "MID"}])
    ramp = st.tuples(value, value, value, places).map(lambda p: {"ramp": {"start": p[0], "end": p[1], "elsewhere": p[2], **p[3]}})
    blocks = st.tuples(st.dictionaries(patterns, value, max_size=2), value).map(lambda p: {"blocks": {**p[0], "default": p[1]}})
    return value | ramp | blocks


points = st.lists(st.floats(0, 1), min_size=1, max_size=3, unique=True).map(lambda found: {"curve": [[x, 0.5] for x in sorted(found)]})
vectors = st.one_of(
    st.lists(shares, min_size=1, max_size=4),
    points,
    st.integers(0, 2**64 - 1).map(lambda seed: {"seed": seed}),
    shares.map(lambda one: {"constant": one}),
)
blended = (
    by_block(st.lists(shares, min_size=3, max_size=3))
    | vectors
    | st.tuples(patterns, vectors, vectors).map(lambda found: {"blocks": {found[0]: found[1], "default": found[2]}})
)
exceptions = st.lists(
    st.tuples(
        st.sampled_from([{"component": "vae"}, {"match": "*middle_block*"}, {"match": "*.bias", "component": "text_encoder"}]),
        st.sampled_from([{"take": 0}, {"take": 1}, {"skip": True}, {"merge": True}]),
        st.sampled_from([{}, {"optional": True}]),
    ).map(lambda parts: parts[0] | parts[1] | parts[2]),
    max_size=3,
)


@st.composite
def merges(draw: Callable[..., Any], models: dict[str, wb.Checkpoint], deep: int = 2, **outermost: Any) -> wb.Checkpoint:
    """A merge of two models or merges, by an operator with options and rules of every form."""
    inputs = [
        draw(merges(models, deep - 1)) if deep > 1 and draw(st.booleans()) else models[draw(st.sampled_from(sorted(models)))] for _ in "12"
    ]
    ops, pair = wb.operators, st.lists(st.floats(0.1, 2), min_size=2, max_size=2)
    chosen = draw(st.sampled_from(["weighted_average", "dare_ties", "delta_merge", "fft_blend"]))
    named: dict[str, Any] = {"seed": draw(st.just(0) | seeds), **outermost}
    if draw(st.booleans()):
        named["rules"] = [rule | ({"take": inputs[rule["take"]]} if "take" in rule else {}) for rule in draw(exceptions)]
    if chosen == "weighted_average":
        made = ops.weighted_average(inputs, weights=draw(by_block(pair)), **named)
    elif chosen == "fft_blend":
        made = ops.fft_blend(*inputs, coefficients=draw(blended), smooth=draw(st.booleans()), **named)
    elif chosen == "dare_ties":
        made = ops.dare_ties(inputs[0], inputs[1:], density=draw(by_block(st.floats(0, 1))), **named)
    else:
        made = ops.delta_merge(inputs[0], inputs[1:], rescale=draw(st.sampled_from([None, True])), **named)
    return wb.in_layout(made, "diffusers") if draw(st.booleans()) else made


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, wb.Checkpoint]:
    """Three small SD 1.x models, and one of them in another layout."""
    folder, found = tmp_path_factory.mktemp("models"), {}
    for number, name in enumerate(NAMES):
        numbers = torch.Generator().manual_seed(number)
        save_file({key: torch.randn(shape, generator=numbers) for key, shape in SHAPES.items()}, folder / f"{name}.safetensors")
        found[name] = wb.open(folder / f"{name}.safetensors")
    return found | {"turned": wb.in_layout(wb.open(folder / "c.safetensors"), "diffusers")}


@several
@given(st.data())
def test_a_merge_its_recipe_and_what_is_built_of_it_say_the_same(models, data):
    outermost = {"precision": data.draw(st.sampled_from(["float32", "float64"])), "dtype": data.draw(st.sampled_from([None, "float16"]))}
    made = data.draw(merges(models, 3, **outermost))
    recipe = wb.Recipe.of(made, {path: hashing.sha256(path) for path in made.sources()})
    with tempfile.TemporaryDirectory() as folder:
        recipe.save(Path(folder, "recipe.yaml"))
        again = wb.Recipe.load(Path(folder, "recipe.yaml")).build()
    assert again.recipe.data == made.recipe.data
    assert all(file.sha256 for file in recipe.data.models.values())
    assert list(again) == list(made)
    assert again.merge.rules == made.merge.rules
    if wb.preflight(made).ok:
        for key in made:  # a density of next to nothing may make NaN
            torch.testing.assert_close(again[key], made[key], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("optional", [{}, {"optional": True}])
def test_the_rules_of_a_merge_are_rules_for_another(models, optional):
    rules = [
        {"component": "vae", "take": models["b"], **optional},
        {"match": "*.bias", "skip": True},
        {"match": "x", "merge": True, **optional},
    ]
    made = wb.operators.weighted_average([models["a"], models["b"]], rules=rules)
    again = wb.operators.weighted_average([models["a"], models["b"]], rules=made.rules)
    assert again.rules == made.rules
    assert again.recipe.data == made.recipe.data
    moved = wb.operators.weighted_average([models["a"], models["c"]], rules=made.rules)
    assert torch.equal(moved[f"{VAE}decoder.conv_in.weight"], models["c"][f"{VAE}decoder.conv_in.weight"])


@pytest.mark.parametrize(
    ("merge", "said"),
    [
        ({"operatr": "x", "inputs": {}}, r"merge\.operator: Field required; merge\.operatr: Extra inputs .*; did you mean 'operator'\?"),
        ({"operator": "x", "inputs": {"models": ["a", {"operator": "y"}]}}, r"merge\.inputs\.models\.1\.inputs: Field required$"),
        (
            {"options": {"w": {"ramp": {"start": 1, "ennd": 2}}}},
            r"options\.w\.ramp\.end: Field required; .*ramp\.ennd: .*did you mean 'end'\?",
        ),
        (
            {"options": {"w": {"ramp": {"start": 1, "end": 2, "first": True}}}},
            r"options\.w\.ramp\.first\.int: Input should be a valid integer",
        ),
        ({"options": {"w": {"blocks": [1, 2]}}}, r"options\.w\.blocks: Input should be a valid dictionary"),
        ({"rules": [{"match": "x"}]}, r"merge\.rules\.0: \{'match': 'x'\} is no rule; a rule is \{match: pattern\} or"),
        ({"rules": [{"component": "vea", "skip": True}]}, r"rules\.0: a rule's component must be one of unet, .*, got 'vea'"),
        ({"rules": [{"match": "x", "take": "a", "optional": False}]}, r"rules\.0: a rule's optional can only be true, got False"),
        ({"rules": [{"match": 3, "skip": True}]}, r"rules\.0: a rule's match must be a key pattern like '\*guidance\*', got 3"),
        ({"layout": "diffuser"}, r"merge\.layout: Input should be 'diffusers',"),
        ({"seed": -1}, r"merge\.seed: Input should be greater than or equal to 0"),
    ],
)
def test_what_is_no_recipe_is_said_where_and_why(tmp_path, merge, said):
    whole = {"models": {}, "merge": {"operator": "x", "inputs": {}} | merge if "operatr" not in merge else merge}
    (tmp_path / "r.yaml").write_text(str(whole).replace("True", "true").replace("False", "false"), encoding="utf-8")
    with pytest.raises(RecipeError, match=said):
        wb.Recipe.load(tmp_path / "r.yaml")


def test_names_in_any_script_are_written_as_they_are(tmp_path, models):
    recipe = wb.operators.weighted_average([models["a"], models["b"]]).recipe
    renamed = {"größe": recipe.data.models["a"], "模型": recipe.data.models["b"]}
    node = recipe.data.merge.model_copy(update={"inputs": {"models": ["größe", "模型"]}})
    wb.Recipe(recipe.data.model_copy(update={"models": renamed, "merge": node}), recipe.folder).save(tmp_path / "r.yaml")
    assert "größe".encode() in (tmp_path / "r.yaml").read_bytes()
    assert [model.name for model in wb.Recipe.load(tmp_path / "r.yaml").build().parents] == ["größe", "模型"]
