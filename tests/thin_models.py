"""Single files as people have them, under their real names, but thin: SD 1.5 and SDXL with random weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from held import Held
from safetensors.torch import save_file

import workbench as wb
from workbench.render.vocabulary import SHIPPED

_VAE = {"block_out_channels": [32, 32, 32, 32]}
_UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 16, "attention_head_dim": 2},
    "sdxl": {
        "block_out_channels": [32, 64, 64],
        "cross_attention_dim": 48,
        "attention_head_dim": [2, 2, 2],
        "transformer_layers_per_block": [1, 2, 3],
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 32 + 6 * 8,
    },
}
_TEXTS = {"sd1": {"text_encoder": 16}, "sdxl": {"text_encoder": 16, "text_encoder_2": 32}}


def write_thin(kind: str, path: Path) -> Path:
    """A whole single file of `"sd1"` or `"sdxl"`, in float16."""
    save_file({key: tensor.half().contiguous() for key, tensor in _tensors(kind).items()}, path, metadata={"format": "pt"})
    return path


@cache
def _tensors(kind: str) -> dict[str, torch.Tensor]:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(len(kind))
        parts = {"unet": UNet2DConditionModel.from_config(_config(kind, "unet", _UNETS[kind]))}
        parts["vae"] = AutoencoderKL.from_config(_config(kind, "vae", _VAE))
        parts |= {part: _text_encoder(kind, part, width) for part, width in _TEXTS[kind].items()}
    names = {f"{part}.{key}": tensor for part, module in parts.items() for key, tensor in module.state_dict().items()}
    return dict(wb.in_layout(Held(names, kind), "LDM"))


def _config(kind: str, part: str, changes: dict[str, Any]) -> dict[str, Any]:
    return json.loads((SHIPPED / kind / part / "config.json").read_text()) | changes


def _text_encoder(kind: str, part: str, width: int) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    changes = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": 2,
        "projection_dim": width,
        "num_hidden_layers": 3,
    }
    made = CLIPTextModel if part == "text_encoder" else CLIPTextModelWithProjection
    return made(CLIPTextConfig.from_dict(_config(kind, part, changes)))
