"""The contract of every family, on real key lists made small: told from all others, split into blocks, merged, converted both ways."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from held import Held
from key_lists import CONVERTED, VARIANTS, diffusers_names, original_names

import workbench as wb
from workbench import families
from workbench.families import GENERIC, Names, registry
from workbench.families.tracing import Traced

average = wb.operators.weighted_average
MODELS = [family for family in registry().values() if family.is_model]
U_NETS = [variant for variant, (family, *_) in VARIANTS.items() if registry()[family].denoiser == "unet"]


def held(shapes: dict[str, tuple[int, ...]], name: str = "model", seed: int = 0) -> Held:
    generator = torch.Generator().manual_seed(seed)
    return Held({key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}, name)


def bare(name: str) -> str:
    return name.removeprefix("model.diffusion_model.").removeprefix("net.")


def names_of(variant: str, layout: str) -> dict[str, tuple[int, ...]]:
    return diffusers_names(variant) if layout == "diffusers" else original_names(variant)


BOTH = [(variant, layout) for variant in VARIANTS for layout in ("diffusers", "original") if layout == "diffusers" or variant in CONVERTED]


def test_every_family_of_models_has_a_key_list_here():
    assert {family.name for family in MODELS} == {family for family, *_ in VARIANTS.values()}


@pytest.mark.parametrize("family", MODELS, ids=lambda family: family.name)
def test_a_family_says_everything_that_others_ask_of_it(family):
    assert family.model
    assert family.pipeline
    assert family.configs.startswith("hf://")
    assert family.pictures is not None
    assert family.blocks is not None
    assert family.dtype in ("float16", "bfloat16")
    assert family.prediction in ("epsilon", "flow", "unknown")
    assert family.specification((), "unknown") is not None


def test_what_diffusers_calls_a_family_is_there():
    import diffusers

    for family in MODELS:
        assert hasattr(diffusers, family.model), family.name
        assert hasattr(diffusers, family.pipeline), family.name


@pytest.mark.parametrize(("variant", "layout"), BOTH)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_model_is_told_by_its_names_and_by_no_other_familys(variant, layout, prefix):
    names = {bare(key): shape for key, shape in names_of(variant, layout).items()}
    model = held({prefix + key: shape for key, shape in names.items()})
    family = registry()[VARIANTS[variant][0]]
    assert model.architecture == family.name
    assert model.structure.conflict is None
    assert model.components == (family.denoiser,)
    asked = Names(f"{key}:{len(shape)}" if key.endswith("proj_in.weight") else key for key, shape in names.items())
    assert [other.name for other in registry().values() if other.told(asked)] == [family.name]


@pytest.mark.parametrize("layout", ["diffusers", "original"])
@pytest.mark.parametrize("variant", CONVERTED)
def test_a_model_without_its_first_blocks_is_told_all_the_same(variant, layout):
    """Stacks from 1 on, as in a file that lost its first."""
    model = held(names_of(variant, layout))
    lacking = {model.structure.block(key).name for key in model if model.structure.block(key) and model.structure.block(key).number == 0}
    rest = {key: model.info(key).shape for key in model if model.block(key) not in lacking}
    assert held(rest).architecture == VARIANTS[variant][0]


def test_a_family_that_claims_anothers_names_makes_both_doubtful(monkeypatch):
    monkeypatch.setattr(families, "_registered", {})
    families.register(dataclasses.replace(registry()["Z-Image"], name="Mine"))
    model = held(original_names("Z-Image"))
    assert model.architecture == "generic"
    assert "Z-Image" in model.structure.conflict
    assert "Mine" in model.structure.conflict


def test_a_file_of_two_models_is_no_family_and_says_so():
    both = held(original_names("Z-Image") | original_names("Wan"), "both")
    assert both.architecture == "generic"
    (error,) = wb.preflight(average([both, both])).errors
    assert "both: " in error
    assert "is of Wan and " in error
    assert "is of Z-Image" in error
    with pytest.raises(wb.errors.CheckpointError, match="tensors of several models"):
        wb.in_layout(both, "diffusers")


@pytest.mark.parametrize(("variant", "layout"), BOTH)
def test_a_model_merged_with_itself_is_itself_in_its_own_names(variant, layout):
    model = held(names_of(variant, layout))
    merge = average([model, model])
    assert wb.preflight(merge).errors == ()
    assert list(merge) == list(model)
    assert all(torch.equal(merge[key], model[key]) for key in model)


@pytest.mark.parametrize(("variant", "layout"), BOTH)
def test_a_ramp_goes_through_the_blocks_of_every_family(variant, layout):
    shapes = names_of(variant, layout)
    zeros, ones = (Held({key: torch.full(shape, value) for key, shape in shapes.items()}, str(value)) for value in (0.0, 1.0))
    merge = average([zeros, ones], weights={"ramp": {"start": [1, 0], "end": [0, 1], "elsewhere": [1, 0]}})
    assert wb.preflight(merge).errors == ()
    found = {block.name: set() for block in merge.depth.blocks}
    for key in merge:
        if block := merge.block(key):
            found[block] |= set(merge[key].unique().tolist())
        else:
            assert merge[key].unique().tolist() == [0.0]
    assert all(len(values) == 1 for values in found.values())
    assert {0.0, 1.0} <= set().union(*found.values())


@pytest.mark.parametrize("variant", CONVERTED)
def test_a_model_comes_back_from_the_other_layout_bit_for_bit(variant):
    for first, second in (("diffusers", "original"), ("original", "diffusers")):
        model = held(names_of(variant, first))
        there = wb.in_layout(model, second)
        assert {key: there.info(key).shape for key in there} == names_of(variant, second)
        copy = Held(dict(there), "copy")
        for back in (wb.in_layout(there, first), wb.in_layout(copy, first)):
            assert back.keys() == model.keys()
            assert all(torch.equal(back[key], model[key]) for key in model)


@pytest.mark.parametrize("variant", CONVERTED)
def test_models_in_two_layouts_merge_tensor_by_tensor_in_the_first_ones_names(variant):
    one, other = held(diffusers_names(variant), "one", 1), held(diffusers_names(variant), "other", 2)
    plain = average([one, other])
    for first, second in ((one, wb.in_layout(other, "original")), (wb.in_layout(one, "original"), other)):
        merge = average([first, Held(dict(second), "other")])
        assert wb.preflight(merge).errors == ()
        assert list(merge) == list(first)
        same = wb.in_layout(merge, "diffusers")
        assert all(torch.equal(same[key], plain[key]) for key in plain)


@pytest.mark.parametrize("variant", [variant for variant in CONVERTED if variant not in U_NETS])
def test_a_change_in_one_layout_reaches_a_model_in_the_other(variant):
    base = held(original_names(variant), "base")
    module = next(key for key in diffusers_names(variant) if "to_k.weight" in key)
    change = Held({f"transformer.{module}": torch.ones(diffusers_names(variant)[module])}, "change", wb.tensors.Space.DELTA)
    there = wb.in_layout(wb.operators.add_delta(base, [change]), "diffusers")
    before = wb.in_layout(base, "diffusers")
    moved = {key for key in before if not torch.equal(there[key], before[key])}
    assert moved == {module}
    assert torch.equal(there[module], before[module] + 1)


# Their converters know widths by heart, so these take true numbers of rows; others any.
WIDE = {
    "Chroma": {".linear1.": 21504},
    "Lumina 2": {".qkv.": 3840},
    "HunyuanVideo": {".linear1.": 21504},
    "Flux": {".linear1.": 21504},
    "Flux dev": {".linear1.": 21504},
}
DROPPED = {"Sana": ("pos_embed", "y_embedder.y_embedding")}  # what a file holds and no model needs
NO_CONVERTER = ("HiDream", "Qwen-Image")  # diffusers has the same names
TRACED = [variant for variant in CONVERTED if variant not in (*U_NETS, *NO_CONVERTER)]


@pytest.mark.parametrize("variant", TRACED)
def test_diffusers_own_converter_makes_the_same_of_it_row_by_row(variant):
    """Independent of `Traced`, and the test of Flux's table: every tensor of diffusers' class is made, with the rows that a view has."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    _, kind, _ = VARIANTS[variant]
    start, tensors = 0, {}
    for key, shape in original_names(variant).items():
        rows = next((rows for part, rows in WIDE.get(variant, {}).items() if part in key), 24)
        shape = (rows, *(1 for _ in shape[1:]))
        tensors[key] = torch.arange(start, start + rows, dtype=torch.float32).reshape(shape)
        start += rows
    view = wb.in_layout(Held(tensors, variant), "diffusers")
    dropped = {name: torch.zeros(1) for name in DROPPED.get(variant, ())}
    convert = SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"]
    found = convert(checkpoint={key: one.clone() for key, one in tensors.items()} | dropped)
    assert set(found) == set(diffusers_names(variant)) == set(view)
    for key, tensor in found.items():
        assert torch.equal(view[key], tensor), key


def test_opening_telling_and_merging_in_one_layout_load_no_diffusers(tmp_path):
    import subprocess
    import sys

    from safetensors.torch import save_file

    save_file(dict(held(original_names("Z-Image"))), tmp_path / "z.safetensors")
    code = (
        f"import sys, workbench as wb; c = wb.open({str(tmp_path / 'z.safetensors')!r}); assert c.architecture == 'Z-Image';"
        "m = wb.operators.weighted_average([c, c], rules=[{'match': '*cap_embedder*', 'take': 'models[0]'}]);"
        "assert wb.preflight(m).ok and c.structure.layout == 'original'; assert 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_rule_in_the_names_of_the_other_layout_is_understood():
    one, other = (held(original_names("Z-Image"), name, seed) for seed, name in enumerate(("one", "other")))
    merge = average([one, other], rules=[{"match": "layers.0.attention.to_q.weight", "take": "other"}])
    assert wb.preflight(merge).errors == ()
    assert torch.equal(merge["layers.0.attention.qkv.weight"], other["layers.0.attention.qkv.weight"])
    assert not torch.equal(merge["layers.1.attention.qkv.weight"], other["layers.1.attention.qkv.weight"])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            {"blocks.0.mlp.fc1.weight": (4, 4), "blocks.0.cross_attn.kv_linear.weight": (8, 4)},
            "diffusers has no converter for its single files",
        ),
        (
            {"llm_adapter.blocks.0.x.weight": (4, 4), "blocks.0.adaln_modulation_self_attn.1.weight": (4, 4)},
            "has no converter for a Cosmos",
        ),
        ({"layers.0.a.weight": (4, 4), "layers.1.a.weight": (4, 4)}, "of no architecture whose layouts are known"),
        ({"cap_pad_token": (1, 4)}, "do not tell whether it is in Z-Image's original layout"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(names, said):
    with pytest.raises(wb.errors.CheckpointError, match=said):
        wb.in_layout(held(dict.fromkeys(names, (4, 4))), "diffusers")


@pytest.mark.parametrize("family", [family for family in registry().values() if not family.is_model], ids=lambda family: family.name)
def test_what_goes_with_a_model_is_told_as_what_it_is_and_not_merged_with_models(family):
    names = {
        "ControlNet": ["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"],
        "IP-Adapter": ["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"],
        "embedding": ["emb_params"],
    }[family.name]
    other = held(dict.fromkeys(names, (4, 4)), "other")
    assert other.architecture == family.name
    (error,) = wb.preflight(average([held(diffusers_names("SD 1.x"), "unet"), other])).errors
    assert f"unet is SD 1.x, other is {family.name}" in error


def test_what_nobody_has_described_has_the_blocks_that_its_numbers_show():
    shapes = {f"stages.{i}.mixer.weight": (2, 2) for i in range(3)} | {f"encoder_x.blocks.{i}.a.b.bias": (2,) for i in range(2)}
    shapes |= {"head.0.weight": (2, 2), "head.2.weight": (2, 2), "stem.proj.weight": (2, 2)}
    model = held(shapes)
    assert model.structure.family is GENERIC
    assert list(dict.fromkeys(map(model.block, model))) == [
        "stages.0",
        "stages.1",
        "stages.2",
        "encoder_x.blocks.0",
        "encoder_x.blocks.1",
        None,
    ]
    assert {model.structure.location(key).module for key in model} == {None, "head", "stem"}
    assert model.components == ("transformer",)


def test_the_conversions_that_cost_an_import_are_the_traced_ones():
    assert all(isinstance(family.conversion, Traced) == family.conversion.costly for family in registry().values())
