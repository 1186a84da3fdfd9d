"""The real names of every family's tensors, with shapes made small: those of diffusers' own classes, and the originals of their files."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch

import workbench as wb
from workbench.families import registry

_UNET = {
    "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "attention_head_dim": 4, "cross_attention_dim": 8, "layers_per_block": 2,
}  # fmt: skip
_SDXL = _UNET | {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (8, 8, 8),
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 32,
}
_REFINER = _SDXL | {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (8, 8, 8, 8),
    "transformer_layers_per_block": 4,
}
_HEADS = {"attention_head_dim": 8, "num_attention_heads": 2}
_SD3 = {"num_layers": 3, "caption_projection_dim": 16, "joint_attention_dim": 8, "pooled_projection_dim": 8}
_FLUX = {"num_layers": 3, "num_single_layers": 4, "joint_attention_dim": 8, "pooled_projection_dim": 8, "axes_dims_rope": (2, 2, 4)}
_WAN = {"num_layers": 3, "attention_head_dim": 12, "num_attention_heads": 2, "text_dim": 8, "freq_dim": 8, "ffn_dim": 16}
# variant -> family, class, settings; widths are as small as the class allows
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "SD 1.x": ("SD 1.x", "UNet2DConditionModel", _UNET),
    "SD 2.x": ("SD 2.x", "UNet2DConditionModel", _UNET | {"use_linear_projection": True}),
    "SD 2.x unCLIP": (
        "SD 2.x",
        "UNet2DConditionModel",
        _UNET | {"use_linear_projection": True, "class_embed_type": "projection", "projection_class_embeddings_input_dim": 8},
    ),
    "SD 2.x upscaler": (
        "SD 2.x",
        "UNet2DConditionModel",
        _UNET
        | {
            "use_linear_projection": True,
            "num_class_embeds": 10,
            "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 3),
            "up_block_types": (*("CrossAttnUpBlock2D",) * 3, "UpBlock2D"),
        },
    ),
    "SDXL": ("SDXL", "UNet2DConditionModel", _SDXL),
    "SDXL refiner": ("SDXL refiner", "UNet2DConditionModel", _REFINER),
    "Kolors": ("Kolors", "UNet2DConditionModel", _SDXL | {"encoder_hid_dim": 8, "encoder_hid_dim_type": "text_proj"}),
    "SD 3": ("SD 3", "SD3Transformer2DModel", _HEADS | _SD3),
    "SD 3.5 medium": ("SD 3", "SD3Transformer2DModel", _HEADS | _SD3 | {"dual_attention_layers": (0, 1), "qk_norm": "rms_norm"}),
    "Flux": ("Flux", "FluxTransformer2DModel", _HEADS | _FLUX),
    "Flux dev": ("Flux", "FluxTransformer2DModel", _HEADS | _FLUX | {"guidance_embeds": True}),
    "Flux.2": (
        "Flux.2",
        "Flux2Transformer2DModel",
        _HEADS | {"num_layers": 2, "num_single_layers": 4, "joint_attention_dim": 8, "in_channels": 8, "axes_dims_rope": (2, 2, 2, 2)},
    ),
    "Chroma": (
        "Chroma",
        "ChromaTransformer2DModel",
        _HEADS
        | {"num_layers": 2, "num_single_layers": 3, "joint_attention_dim": 8, "axes_dims_rope": (2, 2, 4)}
        | {"approximator_hidden_dim": 8, "approximator_layers": 2},
    ),
    "Qwen-Image": (
        "Qwen-Image",
        "QwenImageTransformer2DModel",
        _HEADS | {"num_layers": 3, "joint_attention_dim": 8, "axes_dims_rope": (2, 2, 4)},
    ),
    "Z-Image": (
        "Z-Image",
        "ZImageTransformer2DModel",
        {"n_layers": 3, "dim": 24, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 8, "axes_dims": [4, 4, 4], "axes_lens": [8, 8, 8]},
    ),
    "Krea 2": (
        "Krea 2",
        "Krea2Transformer2DModel",
        _HEADS
        | {"num_layers": 3, "num_key_value_heads": 1, "intermediate_size": 16, "text_hidden_dim": 16, "timestep_embed_dim": 8}
        | {"text_num_attention_heads": 2, "text_num_key_value_heads": 2, "text_intermediate_size": 16, "axes_dims_rope": (2, 2, 4)},
    ),
    "Wan": ("Wan", "WanTransformer3DModel", _WAN),
    "Wan from pictures": ("Wan", "WanTransformer3DModel", _WAN | {"image_dim": 8, "added_kv_proj_dim": 24}),
    "Lumina 2": (
        "Lumina 2",
        "Lumina2Transformer2DModel",
        {"num_layers": 3, "hidden_size": 36, "num_attention_heads": 3, "num_kv_heads": 1, "cap_feat_dim": 8, "multiple_of": 8}
        | {"axes_dim_rope": (4, 4, 4)},
    ),
    "HiDream": (
        "HiDream",
        "HiDreamImageTransformer2DModel",
        _HEADS
        | {"num_layers": 2, "num_single_layers": 3, "caption_channels": [8, 8], "text_emb_dim": 8, "llama_layers": [0, 1]}
        | {"patch_size": 2, "in_channels": 4},
    ),
    "AuraFlow": (
        "AuraFlow",
        "AuraFlowTransformer2DModel",
        _HEADS
        | {"num_mmdit_layers": 2, "num_single_dit_layers": 3, "joint_attention_dim": 8, "caption_projection_dim": 16}
        | {"pos_embed_max_size": 4},
    ),
    "Sana": (
        "Sana",
        "SanaTransformer2DModel",
        _HEADS
        | {"num_layers": 3, "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16}
        | {"caption_channels": 8, "in_channels": 4, "out_channels": 4},
    ),
    "PixArt": (
        "PixArt",
        "PixArtTransformer2DModel",
        _HEADS | {"num_layers": 3, "cross_attention_dim": 16, "caption_channels": 8, "norm_num_groups": 4},
    ),
    "HunyuanVideo": (
        "HunyuanVideo",
        "HunyuanVideoTransformer3DModel",
        _HEADS
        | {"num_layers": 2, "num_single_layers": 3, "num_refiner_layers": 2, "text_embed_dim": 8, "pooled_projection_dim": 8}
        | {"rope_axes_dim": (2, 2, 4)},
    ),
    "LTX-Video": (
        "LTX-Video",
        "LTXVideoTransformer3DModel",
        _HEADS | {"num_layers": 3, "cross_attention_dim": 16, "caption_channels": 8, "in_channels": 8, "out_channels": 8},
    ),
    "Cosmos": (
        "Cosmos",
        "CosmosTransformer3DModel",
        {"num_layers": 3, "attention_head_dim": 12, "num_attention_heads": 2, "text_embed_dim": 8, "adaln_lora_dim": 8}
        | {"extra_pos_embed_type": None},
    ),
}


@cache
def diffusers_names(variant: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a small model of diffusers' own class."""
    import diffusers

    _, kind, settings = VARIANTS[variant]
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # of what diffusers itself does in an old way
        return {name: tuple(tensor.shape) for name, tensor in getattr(diffusers, kind)(**settings).state_dict().items()}


@cache
def original_names(variant: str) -> dict[str, tuple[int, ...]]:
    """The same model as its authors' files have it, by the layouts known here; `test_contract` proves these with diffusers' converters."""
    from held import Held

    tensors = {name: torch.empty(shape, device="meta") for name, shape in diffusers_names(variant).items()}
    view = wb.in_layout(Held(tensors, variant), "original")
    return {name: view.info(name).shape for name in view}


CONVERTED = [variant for variant, (family, *_) in VARIANTS.items() if not getattr(registry()[family].conversion, "reason", "")]
