"""The name of a tensor of Stable Diffusion 1.x in the diffusers and in the LDM (single-file) layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Component = Literal["unet", "vae", "text_encoder"]

PREFIXES: dict[Component, str] = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.text_model.",
}

# diffusers -> LDM, applied to the start of what is left of a name.
_UNET_ENDS = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
}
_UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}
_VAE_MIDDLE = {
    "mid_block.resnets.0.": "mid.block_1.",
    "mid_block.resnets.1.": "mid.block_2.",
    "mid_block.attentions.0.": "mid.attn_1.",
    "conv_norm_out.": "norm_out.",
}
_VAE_ATTENTION = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}
_BLOCK = re.compile(r"(?:(encoder|decoder)\.)?(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_VAE_ATTENTION_WEIGHT = re.compile(r".*mid_block\.attentions\.0\.to_(q|k|v|out\.0)\.weight")


def ldm_names(component: Component, keys: Iterable[str]) -> dict[str, str]:
    """The LDM name of each diffusers key of one component, for any number of levels and layers."""
    keys = list(keys)
    prefix = PREFIXES[component]
    if component == "text_encoder":  # transformers 5 leaves `text_model.` out, earlier ones have it
        return {key: prefix + key.removeprefix("text_model.") for key in keys}
    name = _unet_name if component == "unet" else _vae_name
    return {key: prefix + name(key, keys) for key in keys}


def to_ldm(component: Component, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One component's tensors under their LDM names; the VAE's attention weights become 1x1 convolutions."""
    names = ldm_names(component, tensors)
    as_convolution = component == "vae"
    return {
        names[key]: tensor[..., None, None] if as_convolution and _VAE_ATTENTION_WEIGHT.fullmatch(key) else tensor
        for key, tensor in tensors.items()
    }


def _start(name: str, table: Mapping[str, str]) -> str:
    """The name with its start replaced, when the table has it."""
    for old, new in table.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def _unet_name(key: str, keys: list[str]) -> str:
    block = _BLOCK.fullmatch(key)
    if block is None:
        name = _start(key, _UNET_ENDS)
        start, _, rest = name.partition(".")
        if start != "middle_block" or rest.startswith("1."):
            return name
        return f"{start}.{rest[:2]}{_start(rest[2:], _UNET_RESNET)}"
    _, side, level, kind, index, rest = block.groups()
    layers = sum(bool(re.fullmatch(r"down_blocks\.0\.resnets\.\d+\.conv1\.weight", other)) for other in keys)
    # A level has `layers` entries and one more: on the way down the downsampler, on the way up a layer, the last of
    # which has the upsampler.
    inside = layers if kind in ("downsamplers", "upsamplers") else int(index)
    number = int(level) * (layers + 1) + inside
    stack = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
    if kind == "resnets":
        return f"{stack}.0.{_start(rest, _UNET_RESNET)}"
    if kind == "attentions":
        return f"{stack}.1.{rest}"
    if kind == "downsamplers":
        return f"{stack}.0.op.{rest.removeprefix('conv.')}"
    attended = any(other.startswith(f"up_blocks.{level}.attentions.") for other in keys)
    return f"{stack}.{2 if attended else 1}.{rest}"


def _vae_name(key: str, keys: list[str]) -> str:
    block = _BLOCK.fullmatch(key)
    if block is None:
        side, dot, rest = key.partition(".")
        rest = _start(rest, _VAE_MIDDLE)
        if rest.startswith("mid.attn_1."):
            rest = "mid.attn_1." + _start(rest.removeprefix("mid.attn_1."), _VAE_ATTENTION)
        return f"{side}{dot}{rest}"
    coder, side, level, kind, index, rest = block.groups()
    # LDM counts the decoder's levels from the fine end, diffusers from the coarse one.
    levels = {found[3] for found in map(_BLOCK.fullmatch, keys) if found and found[1] == coder}
    number = int(level) if side == "down" else len(levels) - 1 - int(level)
    if kind == "resnets":
        return f"{coder}.{side}.{number}.block.{index}.{rest.replace('conv_shortcut', 'nin_shortcut')}"
    return f"{coder}.{side}.{number}.{kind.removesuffix('rs')}.{rest}"
