"""Layouts, full-sized: diffusers' own converters bring every name, shape and row back to where a view took it from.

Labels stand for the weights: every row holds a number of its own, so that what comes out of a converter tells where it came from.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from held import Held

import workbench as wb
from workbench.checkpoint.views.layouts import like

# as diffusers and transformers publish them, less what is default there
SD15_UNET = {"cross_attention_dim": 768, "attention_head_dim": 8}
SD21_UNET = {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}
SDXL_UNET = {
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [320, 640, 1280],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD_VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
}
FLUX_VAE = SD_VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768}
OPEN_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16, "projection_dim": 512}
OPEN_CLIP_BIG = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "projection_dim": 1280}
T5_XXL = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "feed_forward_proj": "gated-gelu"}
FLUX = {"num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 4096}


# component -> class and configuration
PIPELINES = {
    "SD 1.5": {"unet": ("UNet2DConditionModel", SD15_UNET), "vae": ("AutoencoderKL", SD_VAE), "text_encoder": ("CLIPTextModel", CLIP_L)},
    "SD 2.1": {
        "unet": ("UNet2DConditionModel", SD21_UNET),
        "vae": ("AutoencoderKL", SD_VAE),
        "text_encoder": ("CLIPTextModel", OPEN_CLIP_H),
    },
    "SDXL": {
        "unet": ("UNet2DConditionModel", SDXL_UNET),
        "vae": ("AutoencoderKL", SD_VAE),
        "text_encoder": ("CLIPTextModel", CLIP_L),
        "text_encoder_2": ("CLIPTextModelWithProjection", OPEN_CLIP_BIG),
    },
    "Flux schnell": {
        "transformer": ("FluxTransformer2DModel", FLUX),
        "vae": ("AutoencoderKL", FLUX_VAE),
        "text_encoder": ("CLIPTextModel", CLIP_L),
        "text_encoder_2": ("T5EncoderModel", T5_XXL),
    },
}
PIPELINES["Flux dev"] = PIPELINES["Flux schnell"] | {"transformer": ("FluxTransformer2DModel", FLUX | {"guidance_embeds": True})}
ORIGINAL = {name: "ComfyUI" if name.startswith("Flux") else "LDM" for name in PIPELINES}
ARCHITECTURES = {"SD 1.5": "SD 1.x", "SD 2.1": "SD 2.x", "SDXL": "SDXL", "Flux schnell": "Flux", "Flux dev": "Flux"}
Shapes = dict[str, tuple[int, ...]]


def built(kind: str, config: dict[str, Any]) -> torch.nn.Module:
    """A model of diffusers or transformers, of shapes alone."""
    import diffusers
    import transformers

    with torch.device("meta"):
        if hasattr(diffusers, kind):
            return getattr(diffusers, kind)(**config)
        made = transformers.T5Config if kind.startswith("T5") else transformers.CLIPTextConfig
        return getattr(transformers, kind)(made(**config))


@pytest.fixture(scope="module")
def models() -> dict[str, dict[str, torch.nn.Module]]:
    return {name: {part: built(*made) for part, made in parts.items()} for name, parts in PIPELINES.items()}


def folder(parts: dict[str, torch.nn.Module]) -> Shapes:
    """Name and shape of every tensor of a pipeline folder; CLIP's below `text_model.`, as transformers 4 writes them."""
    return {
        f"{part}.{'text_model.' if hasattr(model, 'embeddings') else ''}{name}": tuple(tensor.shape)
        for part, model in parts.items()
        for name, tensor in model.state_dict().items()
    }


def labelled(shapes: Shapes) -> Held:
    """A checkpoint in which every row holds its own number. All dimensions but the first are 1, but of what is transposed."""
    start, tensors = 0, {}
    for key, shape in shapes.items():
        small = shape if "text_projection" in key else (*shape[:1], *[1] * (len(shape) - 1))
        tensors[key] = torch.arange(start, start + shape[0], dtype=torch.float32).reshape(-1, *[1] * (len(shape) - 1)).expand(small)
        start += shape[0]
    return Held(tensors, "model")


def by_diffusers(part: str, model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What diffusers makes of the tensors of a single file for one component, under the names in `folder`."""
    from diffusers.loaders import single_file_utils as known

    prefixes = {"text_encoder": "cond_stage_model.model.", "text_encoder_2": "conditioner.embedders.1.model."}
    if part == "transformer":
        flux = {key: tensor for key, tensor in tensors.items() if key.startswith("model.diffusion_model.")}
        found = known.convert_flux_transformer_checkpoint_to_diffusers(flux)
    elif part == "unet":
        found = known.convert_ldm_unet_checkpoint(tensors, model.config)
    elif part == "vae":
        found = known.convert_ldm_vae_checkpoint(tensors, model.config)
    elif any(key.startswith(prefixes[part]) for key in tensors):
        found = known.convert_open_clip_checkpoint(model, tensors, prefixes[part])
    else:
        found = known.convert_ldm_clip_checkpoint(tensors, "text_encoders.clip_l.transformer.")
    return {f"{part}.{name}": tensor for name, tensor in found.items() if tensor is not None}


@pytest.mark.parametrize("name", PIPELINES)
def test_diffusers_converts_what_a_view_makes_back_to_what_it_was_row_by_row(models, name):
    parts = dict(models[name])
    if ARCHITECTURES[name] == "Flux":
        del parts["text_encoder_2"]  # T5 has the same names everywhere; diffusers has no converter
    source = labelled(folder(parts))
    single = wb.in_layout(source, ORIGINAL[name])
    assert (single.architecture, single.structure.layout) == (ARCHITECTURES[name], "BFL" if "Flux" in name else "LDM")
    tensors = dict(single)
    found = {}
    for part, model in parts.items():
        found |= by_diffusers(part, model, dict(tensors))
    assert found.keys() == source.keys()
    for key, tensor in source.items():
        assert found[key].shape == tensor.shape, key
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("name", PIPELINES)
def test_every_name_and_shape_survives_the_way_and_back(models, name):
    source = Held({key: torch.empty(shape, device="meta") for key, shape in folder(models[name]).items()}, name)
    assert (source.architecture, source.structure.layout) == (ARCHITECTURES[name], "diffusers")
    single = wb.in_layout(source, ORIGINAL[name])
    assert single.components == source.components
    assert not any(key.startswith(tuple(f"{part}." for part in models[name] if part != "vae")) for key in single)
    back = wb.in_layout(single, "diffusers")
    assert {key: back.info(key).shape for key in back} == {key: source.info(key).shape for key in source}
    assert sum(single.info(key).numel for key in single) == sum(source.info(key).numel for key in source)
    assert wb.in_layout(source, "diffusers") is source
    assert wb.in_layout(single, ORIGINAL[name]) is single


def test_the_published_single_files_have_these_names(models):
    """A few names and shapes of each that everybody knows: the converters would let a wrong prefix through."""
    known = {
        "SD 1.5": {
            "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc2.bias": (768,),
            "first_stage_model.decoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
            "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
            "model.diffusion_model.output_blocks.8.2.conv.weight": (640, 640, 3, 3),
        },
        "SD 2.1": {
            "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight": (3072, 1024),
            "cond_stage_model.model.positional_embedding": (77, 1024),
        },
        "SDXL": {
            "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (768,),
            "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_bias": (3840,),
            "conditioner.embedders.1.model.text_projection": (1280, 1280),
            "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
        },
        "Flux dev": {
            "model.diffusion_model.double_blocks.18.txt_attn.qkv.weight": (9216, 3072),
            "model.diffusion_model.single_blocks.37.linear1.weight": (21504, 3072),
            "model.diffusion_model.final_layer.adaLN_modulation.1.weight": (6144, 3072),
            "model.diffusion_model.guidance_in.in_layer.weight": (3072, 256),
            "text_encoders.t5xxl.transformer.encoder.block.23.layer.1.DenseReluDense.wi_0.weight": (10240, 4096),
            "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
        },
    }  # fmt: skip
    for name, tensors in known.items():
        source = Held({key: torch.empty(shape, device="meta") for key, shape in folder(models[name]).items()}, name)
        single = wb.in_layout(source, ORIGINAL[name])
        assert {key: single.info(key).shape for key in tensors} == tensors


def test_a_component_alone_is_named_as_in_its_own_file(models):
    flux = Held({key: torch.empty(t.shape, device="meta") for key, t in models["Flux dev"]["transformer"].state_dict().items()}, "krea")
    bfl = wb.in_layout(flux, "BFL")
    assert {"img_in.weight", "double_blocks.0.img_attn.qkv.weight", "guidance_in.out_layer.bias"} <= set(bfl)
    assert len(bfl) == 780
    assert set(wb.in_layout(wb.in_layout(bfl, "ComfyUI"), "diffusers")) == set(flux)
    vae = Held({key: torch.empty(t.shape, device="meta") for key, t in models["SDXL"]["vae"].state_dict().items()}, "vae")
    ldm = wb.in_layout(vae, "LDM")
    assert "encoder.down.0.block.0.norm1.weight" in ldm
    assert set(wb.in_layout(ldm, "diffusers")) == set(vae)


@pytest.mark.parametrize("first", ["BFL", "diffusers"])
def test_a_full_sized_merge_of_both_layouts_is_judged_without_reading(models, first):
    def held(name: str, layout: str) -> Held:
        tensors = {key: tensor.bfloat16() for key, tensor in models[f"Flux {name}"]["transformer"].state_dict().items()}
        view = wb.in_layout(Held(tensors), layout)
        return Held({key: torch.empty(view.info(key).shape, dtype=torch.bfloat16, device="meta") for key in view}, name)

    inputs = held("schnell", first), held("dev", "diffusers" if first == "BFL" else "BFL")
    ramp = {"ramp": {"start": [1, 0], "end": [0, 1], "first": "double_blocks.4", "last": "double_blocks.18"}}
    merge = wb.operators.weighted_average(inputs, weights=ramp, rules=[{"match": "*guidance*", "take": "dev"}])
    found = wb.preflight(merge)
    assert (found.errors, found.warnings, found.notes) == ((), (), ())
    assert list(merge)[: len(inputs[0])] == list(inputs[0])
    assert len(merge) == {"BFL": 780, "diffusers": 1160}[first]
    assert len({merge.block(key) for key in merge}) == 19 + 38 + 1
    assert not any(model.reads for model in inputs)


def test_older_names_of_attention_become_todays(models):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    today = list(models["SD 1.5"]["vae"].state_dict())

    def former(name: str) -> str:
        return next((name.replace(f".{new}.", f".{was}.") for new, was in old.items() if f"attentions.0.{new}." in name), name)

    held = Held({former(name): torch.empty(1, device="meta") for name in today}, "old")
    assert sorted(wb.in_layout(held, "diffusers")) == sorted(today)
    assert set(like(Held({name: torch.empty(1) for name in today}, "new"), held)) == set(held)


@pytest.mark.parametrize("names", ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.final_layer_norm.weight"])
@pytest.mark.parametrize("prefix", ["", "text_encoder_2.", "text_encoders.t5xxl.transformer."])
def test_t5_is_the_second_text_encoder_and_no_vae(names, prefix):
    assert Held({f"{prefix}{names}": torch.empty(1)}).components == ("text_encoder_2",)
