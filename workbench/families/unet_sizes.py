"""The config that fits the tensors of a U-Net: another width or depth, other channels, attention elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.errors import RenderError
from workbench.families.shapes import Shapes, changed, groups, largest_divisor, numbered, same, side

_MID = "UNetMidBlock2DCrossAttn"
_DEFAULTS = {"use_linear_projection": False, "mid_block_type": _MID, "class_embed_type": None, "time_embedding_dim": None}
_HEAD = 64  # width of a head in every U-Net that tells its heads by their width
_POOLED = 1280  # width of the pooled text that the published SDXL and its refiner are given


def unet_config(config: Mapping[str, Any], shapes: Shapes, pooled: int | None) -> dict[str, Any]:
    """See `sizes.fit_config`. `pooled` is the width of the pooled text that SDXL is given."""
    levels = numbered(shapes, "down_blocks.")
    widths = [side(shapes, f"down_blocks.{level}.resnets.0.conv1.weight", 0) for level in levels]
    known = [width for width in widths if width is not None]
    if not known or len(known) < len(levels):
        return dict(config)
    found = {
        "in_channels": side(shapes, "conv_in.weight", 1),
        "out_channels": side(shapes, "conv_out.weight", 0),
        "block_out_channels": known,
        "layers_per_block": same([len(numbered(shapes, f"down_blocks.{level}.resnets.")) for level in levels]),
        "norm_num_groups": groups(config.get("norm_num_groups", 32), known),
        **_projection(shapes),
        **_block_types(shapes, len(levels)),
        **_heads(config, known),
        **_embeddings(config, shapes, known[0], pooled),
    }
    fitted = changed(config, found, _DEFAULTS)
    if not any(name.startswith("mid_block.") for name in shapes):
        fitted["mid_block_type"] = None
    return _with_depths(fitted, config, _Depths(shapes, len(levels)))


def _projection(shapes: Shapes) -> dict[str, Any]:
    """Whether attention is entered by a matrix, and how wide the text is that it looks at."""
    entries = [shape for name, shape in shapes.items() if name.endswith(".proj_in.weight")]
    texts = {shape[1] for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight")}
    return {
        "use_linear_projection": len(entries[0]) == 2 if entries else None,
        "cross_attention_dim": texts.pop() if len(texts) == 1 else None,
    }


def _block_types(shapes: Shapes, levels: int) -> dict[str, Any]:
    """With or without attention: each level on the way down, on the way up, and the middle."""

    def types(way: str, name: str) -> list[str]:
        attended = [bool(numbered(shapes, f"{way}_blocks.{level}.attentions.")) for level in range(levels)]
        return [f"CrossAttn{name}" if one else name for one in attended]

    middle = _MID if numbered(shapes, "mid_block.attentions.") else "UNetMidBlock2D"
    return {
        "down_block_types": types("down", "DownBlock2D"),
        "up_block_types": types("up", "UpBlock2D"),
        "mid_block_type": middle,
    }


def _heads(config: Mapping[str, Any], widths: Sequence[int]) -> dict[str, Any]:
    """The number of heads of each level, which diffusers calls `attention_head_dim`; no tensor tells it.

    A level of a published width has the published number. Another one has heads as wide as the published, where that is 64 everywhere.
    """
    published = config["block_out_channels"]
    numbers = config.get("attention_head_dim", 8)
    heads = [numbers] * len(published) if isinstance(numbers, int) else list(numbers)
    by_width = all(width == number * _HEAD for width, number in zip(published, heads, strict=True))
    found = []
    for level, width in enumerate(widths):
        at = min(level, len(heads) - 1)
        if width == published[at]:
            found.append(heads[at])
        elif by_width and width % _HEAD == 0:
            found.append(width // _HEAD)
        else:
            found.append(largest_divisor(width, heads[at]))
    return {"attention_head_dim": same(found) if isinstance(numbers, int) else found}


def _embeddings(config: Mapping[str, Any], shapes: Shapes, width: int, pooled: int | None) -> dict[str, Any]:
    """What is added to every block: the time, and what SDXL and some of SD 2.x are told besides."""
    first = shapes.get("time_embedding.linear_1.weight", (4 * width, width))
    if first[1] != width:
        raise RenderError(
            f"time_embedding.linear_1.weight is {list(first)}, but a U-Net whose first level is {width} wide embeds the time in "
            f"{width} numbers: its tensors are of two models; take both from one"
        )
    classes = side(shapes, "class_embedding.weight", 0)
    unclip = side(shapes, "class_embedding.linear_1.weight", 1)
    return {
        "time_embedding_dim": first[0] if first[0] != 4 * width else None,
        "time_cond_proj_dim": side(shapes, "time_embedding.cond_proj.weight", 1),
        "num_class_embeds": classes,
        "class_embed_type": "projection" if unclip else None,
        "projection_class_embeddings_input_dim": unclip,
        **_added(config, side(shapes, "add_embedding.linear_1.weight", 1), pooled),
    }


def _added(config: Mapping[str, Any], width: int | None, pooled: int | None) -> dict[str, Any]:
    """SDXL is told the pooled text, and the sizes of the picture: six numbers, or the refiner's five, each in so many others."""
    numbers, published = config.get("addition_time_embed_dim"), config.get("projection_class_embeddings_input_dim")
    if width is None or not numbers or not published:
        return {}
    sizes = (published - _POOLED) // numbers
    text = pooled if pooled is not None else _POOLED if width == published else width - sizes * numbers
    each, left = divmod(width - text, sizes)
    if each <= 0 or left:
        raise RenderError(
            f"add_embedding.linear_1.weight takes {width} numbers; with {text} of a pooled text, the {sizes} sizes of a picture would have "
            f"{(width - text) / sizes:g} each, not a whole number above 0: take the text encoder that the U-Net was trained with"
        )
    return {"projection_class_embeddings_input_dim": width, "addition_time_embed_dim": each}


class _Depths:
    """How many transformer layers each attention has: by level on the way down, by block on the way up, and in the middle."""

    def __init__(self, shapes: Shapes, levels: int) -> None:
        self.down = [_block_depths(shapes, f"down_blocks.{level}.") for level in range(levels)]
        self.up = [_block_depths(shapes, f"up_blocks.{level}.") for level in range(levels)]
        self.middle = next(iter(_block_depths(shapes, "mid_block.")), None)

    def of_level(self, level: int) -> set[int]:
        """The depths of all that one number for this level would decide; the last level's decides the middle's as well."""
        last = level == len(self.down) - 1
        return {*self.down[level], *self.up[-1 - level], *([self.middle] if last and self.middle is not None else [])}


def _block_depths(shapes: Shapes, block: str) -> list[int]:
    return [len(numbered(shapes, f"{block}attentions.{one}.transformer_blocks.")) for one in numbered(shapes, f"{block}attentions.")]


def _with_depths(fitted: dict[str, Any], config: Mapping[str, Any], depths: _Depths) -> dict[str, Any]:
    """The config with its transformer layers: a number for each level, or lists where the attentions of a level differ."""
    written = config.get("transformer_layers_per_block", 1)
    levels = len(depths.down)
    published = [written] * levels if isinstance(written, int) else [*written, *[1] * levels][:levels]
    found = [depths.of_level(level) for level in range(levels)]
    if all(len(one) <= 1 for one in found):
        numbers = [next(iter(one), shipped) for one, shipped in zip(found, published, strict=True)]
        if numbers != published or (not isinstance(written, int) and len(written) != levels):
            fitted["transformer_layers_per_block"] = same(numbers)
        return fitted
    down = [one or shipped for one, shipped in zip(depths.down, published, strict=True)]
    if depths.middle is not None and not depths.down[-1]:
        down[-1] = depths.middle
    fitted["transformer_layers_per_block"] = down
    fitted["reverse_transformer_layers_per_block"] = [one or 1 for one in depths.up]
    return fitted
