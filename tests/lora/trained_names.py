"""Small models with their real names, and the modules of them that kohya's tools train, by the rule in sd-scripts' networks/lora.py."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cache

import torch
from families.key_lists import VARIANTS
from held import Held

import workbench as wb

UNET = {"Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"}
TEXT = {"CLIPAttention", "CLIPMLP"}
_SMALL = {"SDXL": {"transformer_layers_per_block": [1, 2, 2]}}


@cache
def denoiser(variant: str) -> torch.nn.Module:
    """diffusers' own class at a small size, with random weights."""
    import diffusers

    _, kind, settings = VARIANTS[variant]
    with torch.random.fork_rng(), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(0)
        return getattr(diffusers, kind)(**settings | _SMALL.get(variant, {}))


@cache
def clip(projected: bool = False) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 8}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return (CLIPTextModelWithProjection if projected else CLIPTextModel)(CLIPTextConfig(vocab_size=30, **sizes))


def parts(variant: str) -> dict[str, torch.nn.Module]:
    """A pipeline's components that LoRAs are made for, as diffusers calls them."""
    family, kind, _ = VARIANTS[variant]
    found = {"unet" if kind.startswith("UNet") else "transformer": denoiser(variant)}
    encoders = {
        "SD 1.x": {"text_encoder": False},
        "SD 2.x": {"text_encoder": False},
        "SDXL": {"text_encoder": False, "text_encoder_2": True},
    }
    return found | {part: clip(projected) for part, projected in encoders.get(family, {}).items()}


def whole(variant: str) -> Held:
    """The components in one checkpoint, in diffusers' layout."""
    return Held({name: tensor for part, module in parts(variant).items() for name, tensor in _named(part, module)}, variant)


def _named(part: str, module: torch.nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    for name, tensor in module.state_dict().items():
        below = "text_model." if part.startswith("text_encoder") and not name.startswith(("text_model.", "text_projection.")) else ""
        yield f"{part}.{below}{name}", tensor.detach().float()


def tuned(base: wb.Checkpoint, seed: int = 5) -> Held:
    """The model with another change of rank 1 in every matrix."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {key: base.read(key) for key in base}
    for key, tensor in tensors.items():
        if tensor.ndim in (2, 4):
            rows, others = len(tensor), tensor[0].numel()
            change = torch.randn(rows, 1, generator=generator) @ torch.randn(1, others, generator=generator)
            tensors[key] = tensor + 0.1 * change.reshape(tensor.shape)
    return Held(tensors, "tuned")


def kohya_names(root: torch.nn.Module, head: str, targets: set[str]) -> set[str]:
    """What sd-scripts' `create_modules` calls the modules that it makes LoRAs of: `lora_name = prefix + "." + name + "." + child_name`."""
    found = set()
    for name, module in root.named_modules():
        if type(module).__name__ in targets:
            for child_name, child in module.named_modules():
                if type(child).__name__ in ("Linear", "LoRACompatibleLinear", "Conv2d", "LoRACompatibleConv"):
                    below = "" if head == "lora_unet" or name.startswith("text_model.") else "text_model."
                    found.add(f"{head}.{below}{name}.{child_name}".replace(".", "_"))
    return found
