"""The config that fits the tensors of one part: where a file differs from the published model, its shapes say by how much."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from workbench.errors import RenderError
from workbench.families.shapes import Shapes, changed, groups, numbered, side
from workbench.families.unet_sizes import unet_config

_HEAD = 64  # width of a head in every published CLIP
_AXES = (16, 56, 56)  # Flux's rotary embedding: of 128 numbers, 16 for the picture's number, 56 for its rows, 56 for its columns


def fit_config(
    class_name: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], pooled: int | None = None
) -> dict[str, Any]:
    """The config of a part with these tensors, given as name in diffusers' layout -> shape; `config` is the published model's.

    What the tensors say is taken from them, all else from `config`; with the published tensors it is `config` again. Classes that are
    not known keep theirs. `pooled` is the width of the pooled text that SDXL's U-Net is given: its second text encoder's projection.

    Raises RenderError for shapes that no config has.
    """
    if class_name == "UNet2DConditionModel":
        return unet_config(config, shapes, pooled)
    fit = _FITS.get(class_name)
    return fit(config, shapes) if fit and shapes else dict(config)


def is_known(class_name: str) -> bool:
    """Whether a class's config can be told by shapes."""
    return class_name == "UNet2DConditionModel" or class_name in _FITS


def _vae(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    levels = numbered(shapes, "encoder.down_blocks.")
    widths = [shapes[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"][0] for level in levels]
    if not widths:
        return dict(config)
    found = {
        "in_channels": side(shapes, "encoder.conv_in.weight", 1),
        "out_channels": side(shapes, "decoder.conv_out.weight", 0),
        "latent_channels": side(shapes, "decoder.conv_in.weight", 1),
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "layers_per_block": len(numbered(shapes, "encoder.down_blocks.0.resnets.")),
        "norm_num_groups": groups(config.get("norm_num_groups", 32), widths),
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "mid_block_add_attention": bool(numbered(shapes, "encoder.mid_block.attentions.")),
    }
    return changed(config, found, dict.fromkeys(("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"), True))


def _clip(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    bare = {name.removeprefix("text_model."): shape for name, shape in shapes.items()}  # which of both is left to the library's version
    width = side(bare, "embeddings.token_embedding.weight", 1)
    found = {
        "vocab_size": side(bare, "embeddings.token_embedding.weight", 0),
        "max_position_embeddings": side(bare, "embeddings.position_embedding.weight", 0),
        "hidden_size": width,
        "num_hidden_layers": len(numbered(bare, "encoder.layers.")) or None,
        "intermediate_size": side(bare, "encoder.layers.0.mlp.fc1.weight", 0),
        "projection_dim": side(bare, "text_projection.weight", 0),
    }
    if width is not None and width != config["hidden_size"]:
        heads: int = config["num_attention_heads"]
        found["num_attention_heads"] = width // _HEAD if width % _HEAD == 0 else _shared_divisor(heads, width)
    return changed(config, found, {})


def _shared_divisor(heads: int, width: int) -> int:
    return next(one for one in range(heads, 0, -1) if heads % one == 0 and width % one == 0)


def _t5(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    table = next((name for name in ("shared.weight", "encoder.embed_tokens.weight") if name in shapes), "")
    attention, hidden = "encoder.block.0.layer.0.SelfAttention.", "encoder.block.0.layer.1.DenseReluDense."
    heads, inner = side(shapes, f"{attention}relative_attention_bias.weight", 1), side(shapes, f"{attention}q.weight", 0)
    found = {
        "vocab_size": side(shapes, table, 0),
        "d_model": side(shapes, table, 1),
        "num_layers": len(numbered(shapes, "encoder.block.")) or None,
        "num_heads": heads,
        "d_kv": inner // heads if inner and heads else None,
        "d_ff": side(shapes, f"{hidden}wi_0.weight", 0) or side(shapes, f"{hidden}wi.weight", 0),
        "relative_attention_num_buckets": side(shapes, f"{attention}relative_attention_bias.weight", 0),
    }
    return changed(config, found, {})


def _flux(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    width, channels = side(shapes, "x_embedder.weight", 0), side(shapes, "x_embedder.weight", 1)
    blocks = ("single_transformer_blocks", "transformer_blocks")
    head = next((one for block in blocks if (one := side(shapes, f"{block}.0.attn.norm_q.weight", 0))), None)
    if width is None or head is None:
        return dict(config)
    out = side(shapes, "proj_out.weight", 0)
    found = {
        "num_layers": len(numbered(shapes, "transformer_blocks.")),
        "num_single_layers": len(numbered(shapes, "single_transformer_blocks.")),
        "in_channels": channels,
        # the published config leaves it to `in_channels`; Fill and Depth take in more than they give
        "out_channels": out // config.get("patch_size", 1) ** 2 if out and out != channels else None,
        "joint_attention_dim": side(shapes, "context_embedder.weight", 1),
        "pooled_projection_dim": side(shapes, "time_text_embed.text_embedder.linear_1.weight", 1),
        "guidance_embeds": any(name.startswith("time_text_embed.guidance_embedder.") for name in shapes),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
    }
    if sum(config.get("axes_dims_rope", _AXES)) != head:
        found["axes_dims_rope"] = _axes(head)
    return changed(config, found, {"guidance_embeds": False})


def _axes(head: int) -> list[int]:
    """Even numbers in Flux's proportions, about 1 : 3.5 : 3.5, that add up to the width of a head."""
    first = max(2, 2 * round(head / 16))
    first += (head - first) % 4  # the rest is two even numbers
    rest = (head - first) // 2
    if head % 2 or rest < 2:
        raise RenderError(f"attn.norm_q.weight has {head} numbers; a head of Flux is an even number wide, at least 6: this is not Flux")
    return [first, rest, rest]


_FITS: dict[str, Callable[[Mapping[str, Any], Shapes], dict[str, Any]]] = {
    "AutoencoderKL": _vae,
    "CLIPTextModel": _clip,
    "CLIPTextModelWithProjection": _clip,
    "T5EncoderModel": _t5,
    "FluxTransformer2DModel": _flux,
}
