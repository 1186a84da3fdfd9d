"""Merges of models in several layouts: they think in the first's tensors, and say what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from held import Held
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench.errors import MergeError
from workbench.tensors import Flat

FAMILY = Path(__file__).resolve().parents[2] / "data" / "shapes-sd"
FLUX = Path(__file__).resolve().parents[1] / "vectors" / "flux_guidance"
QKV = "double_blocks.0.img_attn.qkv.weight"
QUERY, KEY, VALUE = (f"transformer_blocks.0.attn.to_{one}.weight" for one in "qkv")
SINGLE = "single_transformer_blocks.1.attn.to_q.weight"
UNWHOLE = ("to_q.weight", "proj_mlp.weight")  # what the vectors have of fusions
GUIDANCE = "guidance_in.in_layer"
average, ties = wb.operators.weighted_average, wb.operators.ties


def flux(seed: int, *, guidance: bool = False) -> dict[str, torch.Tensor]:
    """A few tensors of a Flux in diffusers' names."""
    shapes = {
        **{f"transformer_blocks.0.attn.to_{one}.{end}": (4, 4)[: 1 + (end == "weight")] for one in "qkv" for end in ("weight", "bias")},
        **{f"single_transformer_blocks.1.{name}.weight": (4, 4) for name in ("attn.to_q", "attn.to_k", "attn.to_v")},
        "single_transformer_blocks.1.proj_mlp.weight": (16, 4),
        "norm_out.linear.weight": (8, 4),
        "time_text_embed.timestep_embedder.linear_1.weight": (4, 2),
        "x_embedder.bias": (4,),
    }
    if guidance:
        shapes |= {"time_text_embed.guidance_embedder.linear_1.weight": (4, 2)}
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def both(seed: int, name: str, **more: bool) -> dict[str, Held]:
    """One model in both layouts, each with tensors of its own."""
    tensors = flux(seed, **more)
    return {"diffusers": Held(tensors, name), "BFL": Held(dict(wb.in_layout(Held(tensors), "BFL")), name)}


def test_a_model_and_its_copy_in_another_layout_are_equal_to_the_bit(tmp_path):
    base = wb.open(FAMILY / "base.safetensors")
    save_file(dict(wb.in_layout(base, "diffusers")), tmp_path / "copy.safetensors")
    copy = wb.open(tmp_path / "copy.safetensors")
    assert (base.structure.layout, copy.structure.layout) == ("LDM", "diffusers")
    merge = average([base, copy])
    assert list(merge) == list(base)
    assert not wb.preflight(merge).warnings
    assert all(torch.equal(merge[key], base[key]) for key in base)
    assert all(torch.equal(average([copy, base])[key], copy[key]) for key in list(copy)[::7])
    assert wb.diff(base, copy).identical


@pytest.mark.parametrize("first", ["diffusers", "BFL"])
@pytest.mark.parametrize("second", ["diffusers", "BFL"])
def test_a_merge_thinks_in_the_first_ones_tensors(first, second):
    one, other = both(0, "one"), both(1, "other")
    options = {"weights": [0.7], "density": 0.3}
    merge = ties(one[first], [other[second]], **options)
    plain = ties(one[first], [other[first]], **options)
    assert list(merge) == list(one[first])
    for key in merge:
        assert torch.equal(merge[key], plain[key])
    # the threshold is that of the first's tensor: of queries, keys and values together, or of each
    apart = ties(one["diffusers"], [other["diffusers"]], **options)
    together = torch.equal(torch.cat([apart[name] for name in (QUERY, KEY, VALUE)]), ties(one["BFL"], [other["BFL"]], **options)[QKV])
    assert not together


@pytest.mark.parametrize("operator", ["dare_linear", "weighted_average"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_part_of_a_mixed_merge_is_a_part_of_the_whole(operator, data):
    one, other = both(0, "one")[data.draw(st.sampled_from(["diffusers", "BFL"]))], both(1, "other")["diffusers"]
    merge = wb.operators.dare_linear(one, [other], density=0.5, seed=3) if operator == "dare_linear" else average([one, other])
    key = data.draw(st.sampled_from(list(merge)))
    whole = merge[key].reshape(-1)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert torch.equal(merge.read(key, Flat(start, stop)), whole[start:stop])


@pytest.mark.parametrize("first", ["diffusers", "BFL"])
@pytest.mark.parametrize(
    "pattern", ["*guidance*", "guidance_in.*", "time_text_embed.guidance_embedder.*", "*guidance_embedder.linear_1.weight"]
)
def test_a_rule_matches_in_any_layout(first, pattern):
    one, other = both(0, "one"), both(1, "other", guidance=True)
    second = "BFL" if first == "diffusers" else "diffusers"
    merge = average([one[first], other[second]], rules=[{"match": pattern, "take": "other"}])
    key = {"diffusers": "time_text_embed.guidance_embedder.linear_1.weight", "BFL": f"{GUIDANCE}.weight"}[first]
    assert torch.equal(merge[key], other[first][key])
    assert not wb.preflight(merge).warnings
    without = average([one[first], other[second]], rules=[{"match": pattern, "skip": True}])
    assert set(without) == set(one[first])


def test_a_rule_about_one_piece_means_the_tensor_that_it_is_part_of():
    one, other = both(0, "one"), both(1, "other")
    merge = average([one["BFL"], other["diffusers"]], rules=[{"match": "*.attn.to_k.weight", "take": "other"}])
    assert torch.equal(merge[QKV], other["BFL"][QKV])


def test_a_tensor_that_is_there_only_in_part_is_an_error_with_the_rule_that_mends_it():
    one, broken = both(0, "one")["BFL"], flux(1)
    del broken[KEY]
    broken = Held(broken, "broken")
    merge = average([one, broken])
    (error,) = wb.preflight(merge).errors
    assert f"'{QKV}'" in error
    assert f"broken has '{QUERY}', '{VALUE}', and not '{KEY}'" in error
    assert f"add the rule {{match: '{QKV}', take: 'models[0]'}}" in error
    with pytest.raises(MergeError, match="cannot be had"):
        merge.read(QKV)
    mended = average([one, broken], rules=[{"match": QKV, "take": "models[0]"}])
    assert wb.preflight(mended).ok
    assert torch.equal(mended[QKV], one[QKV])


def test_what_only_a_part_is_there_of_and_nobody_else_has_is_left_out_and_said():
    one = {key: tensor for key, tensor in wb.in_layout(Held(flux(0)), "BFL").items() if "qkv" not in key}
    broken = flux(1)
    del broken[KEY]
    merge = average([Held(one, "one"), Held(broken, "broken")])
    assert set(merge) == {*one, QKV.replace("weight", "bias")}
    (warning,) = wb.preflight(merge).warnings
    assert f"'{QKV}' is not in the result: '{QKV}' cannot be had: broken has" in warning


def test_models_of_different_depth_are_named_by_block():
    deep = Held(flux(0) | {"transformer_blocks.1.attn.to_out.0.bias": torch.zeros(4)}, "deep")
    (warning,) = wb.preflight(wb.operators.ties(both(0, "one")["BFL"], [deep])).warnings
    assert "'double_blocks.1.img_attn.proj.bias' is not in the result: it is only in deep" in warning


def test_blocks_are_the_same_in_both_layouts():
    one, other = both(0, "one"), both(1, "other")
    weights = {"blocks": {"double_blocks.0": [1.0, 0.0], "single_blocks.1": [0.0, 1.0], "default": [0.5, 0.5]}}
    for first in one:
        merge = average([one[first], other["BFL"]], weights=weights)
        assert {merge.block(key) for key in merge} == {"double_blocks.0", "single_blocks.1", None}
        assert torch.equal(wb.in_layout(merge, "BFL")[QKV], one["BFL"][QKV])
        assert torch.equal(wb.in_layout(merge, "diffusers")[SINGLE], other["diffusers"][SINGLE])


@pytest.mark.parametrize("take", ["schnell", "krea"])
def test_the_guidance_vectors_hold_in_the_other_layout_too(take):
    schnell, krea = (
        Held({key: tensor for key, tensor in load_file(FLUX / f"{name}.safetensors").items() if not key.endswith(UNWHOLE)}, name)
        for name in ("schnell", "krea")
    )
    expected = average([schnell, krea], rules=[{"match": "*guidance*", "take": take}])
    there = Held(dict(wb.in_layout(krea, "ComfyUI")), "krea")
    assert all(key.startswith("model.diffusion_model.") for key in there)
    assert any("guidance" in key for key in expected) is (take == "krea")
    mixed = average([schnell, there], rules=[{"match": "*guidance*", "take": take}])
    assert list(mixed) == list(expected)
    assert all(torch.equal(mixed[key], expected[key]) for key in expected)


@pytest.mark.parametrize("first", range(4))
def test_text_encoders_meet_whoever_wrote_them(first):
    key, projections = "encoder.layers.0.layer_norm1.bias", "encoder.layers.0.self_attn.{}_proj.weight"
    ours = {key: torch.ones(2), **{projections.format(one): torch.full((2, 2), float(i)) for i, one in enumerate("qkv")}}
    fused = torch.cat([ours[projections.format(one)] for one in "qkv"])
    models = [
        Held(ours, "transformers 5"),
        Held({f"text_model.{name}": tensor for name, tensor in ours.items()}, "transformers 4"),
        Held({f"text_encoder.{name}": tensor for name, tensor in ours.items()}, "pipeline"),
        Held(
            {
                "cond_stage_model.model.transformer.resblocks.0.ln_1.bias": torch.ones(2),
                "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight": fused,
            },
            "single file",
        ),
    ]
    models.insert(0, models.pop(first))
    merge = average(models)
    assert list(merge) == list(models[0])
    assert not wb.preflight(merge).findings
    assert all(torch.equal(merge[name], models[0][name]) for name in merge)


def test_analysis_sets_layouts_side_by_side():
    one, other = both(0, "one"), both(1, "other")
    assert wb.diff(one["BFL"], one["diffusers"]).identical
    assert wb.diff(one["diffusers"], other["BFL"]).keys("changed") == list(one["diffusers"])
    for measure in (
        lambda models: wb.analysis.similarity(models, progress=False),
        lambda models: wb.explain(average(models), progress=False),
    ):
        mixed, same = (measure([one["BFL"], other[layout]]).frame() for layout in ("diffusers", "BFL"))
        assert len(mixed)
        assert mixed.equals(same)


def test_a_mixed_merge_is_exported_in_any_layout_with_a_recipe_that_makes_it_again(tmp_path):
    for name, seed, layout in (("one", 0, "diffusers"), ("other", 1, "BFL")):
        save_file(dict(both(seed, name)[layout]), tmp_path / f"{name}.safetensors")
    one, other = (wb.open(tmp_path / f"{name}.safetensors") for name in ("one", "other"))
    merge = ties(one, [other], density=0.4)
    view = wb.in_layout(merge, "BFL")
    path = wb.export(view, tmp_path / "merged.safetensors", dtype="bfloat16").path
    assert {key: tensor.dtype for key, tensor in load_file(path).items()} == dict.fromkeys(view, torch.bfloat16)
    assert all(torch.equal(tensor, view[key].bfloat16()) for key, tensor in load_file(path).items())
    recipe = wb.Recipe.from_file(path)
    assert (recipe.data.output.layout, recipe.data.output.dtype) == ("BFL", "bfloat16")
    written = path.read_bytes()
    wb.export(recipe.build(), path, overwrite=True)
    assert path.read_bytes() == written
    assert [finding["model"] for finding in wb.preflight(view).models] == ["one", "other"]


def test_an_input_in_another_layout_is_in_the_recipe(tmp_path):
    save_file(flux(0), tmp_path / "one.safetensors")
    one = wb.open(tmp_path / "one.safetensors")
    merge = average([wb.in_layout(one, "BFL"), one])
    assert QKV in merge
    recipe = merge.recipe
    recipe.save(tmp_path / "recipe.yaml")
    assert [model.layout for model in recipe.data.models.values()] == ["BFL", None]
    again = wb.Recipe.load(tmp_path / "recipe.yaml").build()
    assert list(again) == list(merge)
    assert torch.equal(again[QKV], merge[QKV])
