"""What names say: architecture, component, layout, block; the same of one tensor in every layout and under every prefix.

The names are those of diffusers' own models, and of the LDM layout as `layouts` (proven against diffusers' converter) writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import pytest
import torch
from held import Held
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.checkpoint.names.buffers import is_marker
from workbench.checkpoint.names.structure import Structure, structure_of
from workbench.checkpoint.views.layouts import like
from workbench.families.unet_names import unet_names
from workbench.families.vae_names import vae_names

Ranks = Mapping[str, int]


def structure(names: Iterable[str], ranks: Ranks | None = None) -> Structure:
    return structure_of(names, lambda name: (ranks or {}).get(name, 1))


def ranks_of(model: torch.nn.Module) -> dict[str, int]:
    return {name: tensor.ndim for name, tensor in model.state_dict().items()}


def ldm_names(component: str, keys: Iterable[str]) -> dict[str, str]:
    """The LDM name, with prefix, of each diffusers name of a U-Net or a VAE."""
    names, prefix = (unet_names(keys), "model.diffusion_model.") if component == "unet" else (vae_names(keys), "first_stage_model.")
    return {key: prefix + (one.original if (one := names.find(key)) else key) for key in keys}


def without_prefix(name: str) -> str:
    return name.removeprefix("model.diffusion_model.").removeprefix("first_stage_model.")


def unet(**config: object) -> dict[str, int]:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return ranks_of(UNet2DConditionModel(**config))


@pytest.fixture(scope="module")
def unets() -> dict[str, dict[str, int]]:
    """Names and ranks of each U-Net, full size, as diffusers writes it."""
    xl = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    small = {
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
    }
    return {"SD 1.x": unet(), "SD 2.x": unet(use_linear_projection=True), "SDXL": unet(**xl), "small": unet(**small)}


@pytest.fixture(scope="module")
def flux() -> list[str]:
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        return list(ranks_of(FluxTransformer2DModel(num_layers=3, num_single_layers=4, guidance_embeds=True)))


@pytest.fixture(scope="module")
def vae() -> list[str]:
    from diffusers import AutoencoderKL

    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    with torch.device("meta"):
        return list(ranks_of(AutoencoderKL(down_block_types=down, up_block_types=up, block_out_channels=(32,) * 4)))


@pytest.fixture(scope="module")
def text_encoder() -> list[str]:
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        return list(ranks_of(CLIPTextModel(CLIPTextConfig(num_hidden_layers=2))))


BFL = [
    "img_in.weight", "txt_in.weight", "time_in.in_layer.weight", "vector_in.out_layer.bias", "guidance_in.in_layer.weight",
    *(f"double_blocks.{i}.img_attn.qkv.weight" for i in range(3)), *(f"double_blocks.{i}.txt_mlp.0.bias" for i in range(3)),
    *(f"single_blocks.{i}.linear1.weight" for i in range(4)), "final_layer.linear.weight", "final_layer.adaLN_modulation.1.bias",
]  # fmt: skip
WITH_OUTPUT = {"SD 1.x": 12, "SD 2.x": 12, "SDXL": 9}


@pytest.mark.parametrize("name", WITH_OUTPUT)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "unet."])
def test_a_unet_is_known_by_its_names_in_both_layouts_under_any_prefix(unets, name, prefix):
    ldm = ldm_names("unet", unets[name])
    for layout, renamed in (("diffusers", {key: key for key in ldm}), ("LDM", {key: without_prefix(new) for key, new in ldm.items()})):
        found = structure(names := [prefix + new for new in renamed.values()], dict(zip(names, unets[name].values(), strict=True)))
        assert (found.family.name, found.layout, found.components) == (name, layout, ("unet",))
        assert found.layouts == {"denoiser": "diffusers" if layout == "diffusers" else "original"}
        assert {found.bare(key) for key in names} == {("denoiser", new) for new in renamed.values()}
        for key, (ours, theirs) in zip(names, ldm.items(), strict=True):
            assert {ours, without_prefix(theirs)} <= found.spellings(key)


@pytest.mark.parametrize("name", ["SD 1.x", "SD 2.x", "SDXL", "small"])
def test_a_tensor_lies_in_the_same_block_in_both_layouts(unets, name):
    ldm = ldm_names("unet", unets[name])
    ours, theirs = structure(ldm, unets[name]), structure(ldm.values(), {ldm[key]: rank for key, rank in unets[name].items()})
    assert {key: ours.block(key) for key in ldm} == {key: theirs.block(new) for key, new in ldm.items()}


@pytest.mark.parametrize(("name", "inputs", "outputs"), [("SD 1.x", 12, 12), ("SD 2.x", 12, 12), ("SDXL", 9, 9), ("small", 4, 4)])
def test_blocks_are_named_and_numbered_as_their_community_does(unets, name, inputs, outputs):
    found = structure(unets[name], unets[name])
    blocks = sorted({block for key in unets[name] if (block := found.block(key))}, key=lambda block: block.depth)
    assert [block.name for block in blocks] == [
        *(f"IN{i:02}" for i in range(inputs)), "MID", *(f"OUT{i:02}" for i in range(outputs)),
    ]  # fmt: skip
    middle = WITH_OUTPUT.get(name, 12)
    assert [block.number for block in blocks] == [*range(inputs), middle, *range(middle + 1, middle + 1 + outputs)]
    aliases = {block.name: block.alias for block in blocks}
    assert [aliases[block] for block in ("IN01", "MID", "OUT00")] == ["input_blocks.1", "middle_block", "output_blocks.0"]
    outside = {found.location(key).module for key in unets[name] if found.block(key) is None}
    assert outside == {"time_embed", "out", *(["label_emb"] if name == "SDXL" else [])}


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_part_of_a_unet_has_its_blocks_numbered_as_the_whole(unets, data):
    name = data.draw(st.sampled_from(list(WITH_OUTPUT)))
    whole = structure(unets[name], unets[name])
    side = data.draw(st.sampled_from(["down", "up"]))
    keys = [key for key in unets[name] if key.startswith(f"{side}_blocks.")]
    some = data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=5))
    # what tells SDXL apart may be missing from a part; numbers inside each stack may not depend on it
    found = structure(some, unets[name])
    assert [found.block(key).name for key in some] == [whole.block(key).name for key in some]


def test_a_part_with_what_tells_sdxl_apart_has_its_middle_at_nine():
    found = structure(["model.diffusion_model.label_emb.0.0.weight", "model.diffusion_model.middle_block.0.in_layers.0.weight"])
    assert found.block("model.diffusion_model.middle_block.0.in_layers.0.weight").number == 9


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_flux_is_known_by_its_own_names(prefix):
    names = [prefix + name for name in BFL]
    found = structure(names)
    assert (found.family.name, found.layout, found.components, found.prediction) == ("Flux", "BFL", ("transformer",), "flow")
    assert {found.bare(name) for name in names} == {("denoiser", name) for name in BFL}


@pytest.mark.parametrize("name", BFL)
def test_a_name_that_other_transformers_have_too_tells_no_flux(name):
    assert structure([name]).family.name == "generic"


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_flux_is_known_by_its_diffusers_names(flux, prefix):
    found = structure([prefix + name for name in flux])
    assert (found.family.name, found.layout, found.components) == ("Flux", "diffusers", ("transformer",))
    assert {found.bare(prefix + name) for name in flux} == {("denoiser", name) for name in flux}


def test_the_two_stacks_of_flux_share_their_numbers_in_both_layouts(flux):
    for names, stacks in ((BFL, ("double_blocks", "single_blocks")), (flux, ("transformer_blocks", "single_transformer_blocks"))):
        found = structure(names)
        for stack, full, count in zip(stacks, ("double_blocks", "single_blocks"), (3, 4), strict=True):
            blocks = {found.block(name) for name in names if name.startswith(f"{stack}.")}
            assert {(block.name, block.stack, block.number) for block in blocks} == {(f"{full}.{i}", full, i) for i in range(count)}
        assert all(found.block(name) is None for name in names if not name.startswith(stacks))


def test_the_second_stack_of_flux_lies_after_the_first():
    found = structure(BFL)
    depths = [found.block(f"{name}.weight").depth for name in ("double_blocks.2.img_attn.qkv", "single_blocks.0.linear1")]
    assert depths == sorted(depths)


ENTIRE = {
    "SD 1.x": ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."),
    "diffusers": ("unet.", "vae.", "text_encoder.text_model."),
    "SDXL": ("model.diffusion_model.", "first_stage_model.", "conditioner.embedders.0.transformer.text_model."),
}


@pytest.mark.parametrize("form", ENTIRE)
def test_a_whole_checkpoint_falls_into_its_components(unets, vae, text_encoder, form):
    parts = [unets["SDXL" if form == "SDXL" else "SD 1.x"], vae, [key.removeprefix("text_model.") for key in text_encoder]]
    if form != "diffusers":
        for place, kind in enumerate(("unet", "vae")):
            parts[place] = [without_prefix(new) for new in ldm_names(kind, parts[place]).values()]
    names = {prefix + key: (component, key) for prefix, component, keys in zip(
        ENTIRE[form], ("denoiser", "vae", "text_encoder"), parts, strict=True) for key in keys}  # fmt: skip
    found = structure(names, dict.fromkeys(names, 4))
    assert found.family.name == {"diffusers": "SD 1.x"}.get(form, form)
    assert found.components == ("unet", "vae", "text_encoder")
    assert {key: found.bare(key) for key in names} == names
    assert all(found.block(key) is None for key in names if found.component(key) != "unet")


@pytest.mark.parametrize("prefix", ["cond_stage_model.transformer.", "conditioner.embedders.0.transformer.", "text_encoder.", ""])
def test_text_encoders_have_one_bare_name_with_and_without_text_model(text_encoder, prefix):
    for key in text_encoder:
        bare = key.removeprefix("text_model.")
        for name in (prefix + bare, f"{prefix}text_model.{bare}"):
            assert structure([name]).bare(name) == ("text_encoder", bare)


def test_a_vae_in_a_file_of_its_own_is_a_vae(vae):
    for names in (vae, [name.removeprefix("first_stage_model.") for name in ldm_names("vae", vae).values()]):
        found = structure(names)
        assert (found.components, found.family.name, found.layout) == (("vae",), "generic", "plain")
        assert {found.bare(name) for name in names} == {("vae", name) for name in names}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("cond_stage_model.model.transformer.resblocks.0.ln_1.weight", "SD 2.x"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", "SD 1.x"),
        ("conditioner.embedders.1.model.ln_final.bias", "SDXL"),
        ("conditioner.embedders.0.transformer.text_model.final_layer_norm.bias", "SDXL"),
        ("model.diffusion_model.label_emb.0.0.weight", "SDXL"),
        ("unet.add_embedding.linear_1.weight", "SDXL"),
        ("input_blocks.4.1.transformer_blocks.1.attn1.to_k.weight", "SDXL"),
        ("encoder.block.0.layer.0.SelfAttention.k.weight", "generic"),
        ("weight", "generic"),
    ],
)
def test_one_telling_tensor_is_enough(key, expected):
    assert structure([key]).family.name == expected


@pytest.mark.parametrize("rank", [2, 4])
def test_sd_2_is_told_from_sd_1_without_a_text_encoder_by_the_rank_of_its_projections(rank):
    key = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
    checkpoint = Held({key: torch.zeros([1] * rank)})
    assert checkpoint.architecture == ("SD 2.x" if rank == 2 else "SD 1.x")
    assert not checkpoint.reads


@pytest.mark.parametrize(("key", "prediction"), [("v_pred", "v"), ("edm_vpred.sigma_max", "v"), ("ztsnr", "epsilon"), ("x", "epsilon")])
def test_a_marker_says_what_a_model_predicts(key, prediction):
    assert structure([key, "model.diffusion_model.input_blocks.0.0.bias"]).prediction == prediction


@pytest.mark.parametrize(
    ("key", "marker"),
    [
        ("v_pred", True), ("ztsnr", True), ("edm_vpred.sigma_max", True), ("edm_vpred.sigma_min", True), ("scaled_fp8", True),
        ("cond_stage_model.transformer.text_model.embeddings.position_ids", True), ("model.diffusion_model.scaled_fp8", True),
        ("my_v_pred", False), ("v_pred.weight", False), ("embeddings.position_embedding.weight", False),
    ],
)  # fmt: skip
def test_markers_are_known_by_their_names(key, marker):
    assert is_marker(key) is marker


@given(name=st.from_regex(re.compile(r"[a-z_.0-9]{1,60}"), fullmatch=True))
def test_any_name_comes_apart_into_prefix_and_rest(name):
    found = structure([name]).name(name)
    assert found.prefix + found.rest == name
    assert structure([name]).block(name) is None or found.component == "denoiser"


def test_a_tensor_of_another_model_is_spelled_with_this_ones_prefix():
    first = structure(
        ["model.diffusion_model.input_blocks.1.0.in_layers.0.weight", "cond_stage_model.transformer.text_model.final_layer_norm.bias"]
    )
    for theirs, spelled in {
        "output_blocks.1.0.in_layers.0.bias": "model.diffusion_model.output_blocks.1.0.in_layers.0.bias",
        "text_encoder.final_layer_norm.weight": "cond_stage_model.transformer.text_model.final_layer_norm.weight",
        "vae.decoder.conv_in.weight": None,  # it has no VAE
    }.items():
        assert first.spell(*structure([theirs]).bare(theirs)) == spelled


@pytest.mark.parametrize("name", ["SD 1.x", "SD 2.x", "SDXL", "small"])
def test_unet_names_survive_the_way_to_ldm_and_back(unets, name):
    to_ldm = unet_names(unets[name])
    ldm = {key: to_ldm.ldm(key) for key in unets[name]}
    assert len(set(ldm.values())) == len(ldm)
    assert unet_names(ldm.values()) == to_ldm
    assert {key: to_ldm.diffusers(rest) for key, rest in ldm.items()} == {key: key for key in ldm}


def test_the_few_names_of_a_lora_tell_as_much(unets):
    some = [key for key in unets["small"] if ".attn2.to_q." in key]
    assert {unet_names(some).ldm(key) for key in some} == {unet_names(unets["small"]).ldm(key) for key in some}


@pytest.mark.parametrize("first", ["diffusers", "LDM"])
def test_unets_of_both_layouts_merge_tensor_by_tensor_in_the_first_ones_names(first):
    diffusers = {"down_blocks.0.resnets.1.conv1.weight": 1.0, "up_blocks.3.attentions.2.proj_in.weight": 2.0, "conv_out.bias": 3.0}
    ldm = {"input_blocks.2.0.in_layers.2.weight": 3.0, "output_blocks.11.1.proj_in.weight": 4.0, "time_embed.0.bias": 5.0}
    models = {
        "diffusers": Held({key: torch.tensor([value]) for key, value in diffusers.items()}, "diffusers"),
        "LDM": Held({f"model.diffusion_model.{key}": torch.tensor([value]) for key, value in ldm.items()}, "LDM"),
    }
    order = [models.pop(first), *models.values()]
    merge = wb.operators.weighted_average(order, rules=[{"match": "*time_embed*", "take": "LDM"}])
    numbers = {key: merge.read(key).item() for key in merge}
    expected = {"diffusers": [*diffusers, "time_embedding.linear_1.bias"], "LDM": [*order[0], "model.diffusion_model.out.2.bias"]}[first]
    values = {"diffusers": [2.0, 3.0, 3.0, 5.0], "LDM": [2.0, 3.0, 5.0, 3.0]}[first]
    assert numbers == dict(zip(expected, values, strict=True))


def test_what_lies_beside_a_vae_in_its_own_file_is_no_part_of_a_denoiser():
    names = ["decoder.conv_in.weight", "loss.logvar", "loss.perceptual_loss.lin0.model.1.weight"]
    vae = Held({name: torch.ones(2) for name in names})
    first = Held({"model.diffusion_model.middle_block.0.x": torch.ones(2), "first_stage_model.decoder.conv_in.weight": torch.ones(2)})
    assert list(like(vae, first)) == ["first_stage_model.decoder.conv_in.weight", *names[1:]]
