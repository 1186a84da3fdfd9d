"""The config that is fitted to a module's tensors builds a module with the same tensors, names and shapes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shipped_configs import FOLDERS, empty, read, tensors

from workbench.errors import RenderError
from workbench.families.sizes import fit_config

PARTS = [
    (folder, part, read(folder, "model_index.json")[part][1])
    for folder in FOLDERS
    for part in ("unet", "transformer", "vae", "text_encoder", "text_encoder_2")
    if read(folder, "model_index.json").get(part, [None])[0]
]
THIN_CLIP = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1, "vocab_size": 300}
THIN_UNET = {"block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 64, "attention_head_dim": 8}
THIN_XL = {"block_out_channels": [64, 128, 192], "cross_attention_dim": 96, "attention_head_dim": [1, 2, 3]}
FLUX = {"num_layers": 2, "num_single_layers": 3, "num_attention_heads": 2, "attention_head_dim": 16, "axes_dims_rope": [4, 6, 6]}
# folder, part, what is changed, the width of the pooled text
VARIANTS: dict[str, tuple[str, str, dict[str, Any], int | None]] = {
    "inpainting": ("sd1", "unet", {"in_channels": 9}, None),
    "SDXL inpainting": ("sdxl", "unet", {"in_channels": 9}, 1280),
    "small-sd": ("sd1", "unet", {"layers_per_block": 1, "mid_block_type": None}, None),
    "SSD-1B": (
        "sdxl",
        "unet",
        {
            "mid_block_type": "UNetMidBlock2D",
            "transformer_layers_per_block": [1, [2, 2], [4, 4]],
            "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
        },
        1280,
    ),
    "Segmind-Vega": ("sdxl", "unet", {"mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": [1, 1, 2]}, 1280),
    "LCM": ("sd1", "unet", {"time_cond_proj_dim": 256}, None),
    "unCLIP": ("sd2", "unet", {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048}, None),
    "upscaler": ("sd2", "unet", {"in_channels": 7, "num_class_embeds": 1000}, None),
    "thin SD 1": ("sd1", "unet", THIN_UNET, None),
    "two levels": (
        "sd1",
        "unet",
        {
            "block_out_channels": [48, 80],
            "norm_num_groups": 16,
            "down_block_types": ["CrossAttnDownBlock2D"] * 2,
            "up_block_types": ["CrossAttnUpBlock2D"] * 2,
        },
        None,
    ),
    "thin SDXL": ("sdxl", "unet", THIN_XL | {"projection_class_embeddings_input_dim": 6 * 8 + 64, "addition_time_embed_dim": 8}, 64),
    "thin refiner": (
        "sdxl-refiner",
        "unet",
        {"block_out_channels": [64] * 4, "attention_head_dim": [1] * 4}
        | {"projection_class_embeddings_input_dim": 5 * 16 + 32, "addition_time_embed_dim": 16},
        32,
    ),
    "time embedding of another width": ("sd1", "unet", THIN_UNET | {"time_embedding_dim": 64}, None),
    "thin VAE": ("sd1", "vae", {"block_out_channels": [16, 32, 48, 48], "norm_num_groups": 16, "latent_channels": 8}, None),
    "shallow VAE": ("sdxl", "vae", {"layers_per_block": 1, "mid_block_add_attention": False, "use_quant_conv": False}, None),
    "VAE of three levels": (
        "flux-dev",
        "vae",
        {
            "block_out_channels": [32, 64, 64],
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
        },
        None,
    ),
    "thin CLIP": ("sd1", "text_encoder", THIN_CLIP, None),
    "thin CLIP with a projection": ("sdxl", "text_encoder_2", THIN_CLIP | {"projection_dim": 32}, None),
    "long CLIP": ("sd1", "text_encoder", {"max_position_embeddings": 248}, None),
    "Flux-lite": ("flux-dev", "transformer", {"num_layers": 8}, None),
    "thin Flux": ("flux-schnell", "transformer", FLUX | {"in_channels": 16, "joint_attention_dim": 64, "pooled_projection_dim": 32}, None),
    "Flux Fill": ("flux-dev", "transformer", {"in_channels": 384, "out_channels": 64}, None),
    "thin T5": (
        "flux-dev",
        "text_encoder_2",
        {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_heads": 4, "num_layers": 2, "vocab_size": 107, "relative_attention_num_buckets": 16},
        None,
    ),
}


@pytest.mark.parametrize(("folder", "part", "class_name"), PARTS, ids=[f"{folder} {part}" for folder, part, _ in PARTS])
def test_published_tensors_have_the_published_config(folder, part, class_name):
    config = read(folder, part, "config.json")
    assert fit_config(class_name, config, tensors(empty(class_name, config))) == config


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_gets_the_config_it_was_built_from(name):
    folder, part, change, pooled = VARIANTS[name]
    class_name, published = read(folder, "model_index.json")[part][1], read(folder, part, "config.json")
    shapes = tensors(empty(class_name, {**published, **change}))
    fitted = fit_config(class_name, published, shapes, pooled)
    assert tensors(empty(class_name, fitted)) == shapes
    assert fitted == {**published, **change}


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_clips_names_may_lie_below_text_model(prefix):
    published = read("sd1", "text_encoder", "config.json")
    shapes = tensors(empty("CLIPTextModel", published | THIN_CLIP))
    spelled = {prefix + name.removeprefix("text_model."): shape for name, shape in shapes.items()}
    assert fit_config("CLIPTextModel", published, spelled) == published | THIN_CLIP


def test_a_guidance_embedder_is_told_by_its_tensors():
    dev, schnell = (read(folder, "transformer", "config.json") for folder in ("flux-dev", "flux-schnell"))
    shapes = tensors(empty("FluxTransformer2DModel", dev))
    assert fit_config("FluxTransformer2DModel", schnell, shapes)["guidance_embeds"] is True
    without = {name: shape for name, shape in shapes.items() if "guidance_embedder" not in name}
    assert fit_config("FluxTransformer2DModel", dev, without)["guidance_embeds"] is False


def test_other_classes_and_parts_without_tensors_keep_their_config():
    config = read("sd1", "unet", "config.json")
    assert fit_config("SomethingElse", config, {"a.weight": (1, 2)}) == config
    assert fit_config("UNet2DConditionModel", config, {}) == config
    assert fit_config("AutoencoderKL", {"a": 1}, {}) == {"a": 1}


def test_a_pooled_text_that_cannot_be_the_unets_is_refused():
    config = read("sdxl", "unet", "config.json")
    shapes = tensors(empty("UNet2DConditionModel", config | THIN_XL | {"projection_class_embeddings_input_dim": 100}))
    with pytest.raises(RenderError, match=r"add_embedding.linear_1.weight takes 100 numbers.*text encoder"):
        fit_config("UNet2DConditionModel", config, shapes, 63)


def test_tensors_of_two_models_are_refused():
    config = read("sd1", "unet", "config.json")
    shapes = tensors(empty("UNet2DConditionModel", config | THIN_UNET)) | {"time_embedding.linear_1.weight": (1280, 320)}
    with pytest.raises(RenderError, match=r"time_embedding.linear_1.weight is \[1280, 320\].*two models"):
        fit_config("UNet2DConditionModel", config, shapes)


@pytest.mark.parametrize("head", [6, 8, 10, 16, 20, 64, 100, 126, 256])
def test_the_axes_of_a_flux_head_are_even_and_add_up(head):
    config = read("flux-dev", "transformer", "config.json")
    shapes = {"x_embedder.weight": (head * 2, 64), "single_transformer_blocks.0.attn.norm_q.weight": (head,)}
    axes = fit_config("FluxTransformer2DModel", config, shapes)["axes_dims_rope"]
    assert sum(axes) == head
    assert all(axis > 0 and axis % 2 == 0 for axis in axes)


@st.composite
def unets(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A shipped U-Net made thin, with attention and depth anywhere."""
    folder = draw(st.sampled_from(["sd1", "sd2", "sdxl"]))
    levels = draw(st.integers(1, 4))
    attended = draw(st.lists(st.booleans(), min_size=levels, max_size=levels))
    depths = draw(st.lists(st.integers(1, 3), min_size=levels, max_size=levels))
    change: dict[str, Any] = {
        "block_out_channels": [8 * one for one in draw(st.lists(st.integers(1, 5), min_size=levels, max_size=levels))],
        "down_block_types": ["CrossAttnDownBlock2D" if one else "DownBlock2D" for one in attended],
        "up_block_types": ["CrossAttnUpBlock2D" if one else "UpBlock2D" for one in reversed(attended)],
        "layers_per_block": draw(st.integers(1, 3) | st.lists(st.integers(1, 2), min_size=levels, max_size=levels)),
        "transformer_layers_per_block": depths,
        "mid_block_type": draw(st.sampled_from(["UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None])),
        "use_linear_projection": draw(st.booleans()),
        "cross_attention_dim": draw(st.sampled_from([8, 24])),
        "in_channels": draw(st.sampled_from([4, 9])),
        "norm_num_groups": 8,
        "attention_head_dim": 2,
    }
    if draw(st.booleans()):  # the attentions of a level differ, and so do both ways
        change |= _asymmetric(draw, change)
    if folder == "sdxl":
        change |= {"addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 24 + 16}
    return folder, change


def _asymmetric(draw: st.DrawFn, change: dict[str, Any]) -> dict[str, Any]:
    """A depth for each attention on its own."""
    levels, layers = len(change["block_out_channels"]), change["layers_per_block"]
    layers = [layers] * levels if isinstance(layers, int) else layers
    depth = st.integers(1, 3)
    return {
        "transformer_layers_per_block": [draw(st.lists(depth, min_size=count, max_size=count)) for count in layers],
        "reverse_transformer_layers_per_block": [draw(st.lists(depth, min_size=count + 1, max_size=count + 1)) for count in layers[::-1]],
    }


@settings(max_examples=12, deadline=None)
@given(unets())
def test_any_thin_unet_is_built_again_from_its_tensors(drawn):
    folder, change = drawn
    published = read(folder, "unet", "config.json")
    shapes = tensors(empty("UNet2DConditionModel", {**published, **change}))
    fitted = fit_config("UNet2DConditionModel", published, shapes, 16 if folder == "sdxl" else None)
    assert tensors(empty("UNet2DConditionModel", fitted)) == shapes
