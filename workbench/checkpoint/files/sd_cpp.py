"""What stable-diffusion.cpp calls and shapes otherwise in the GGUF files that it writes, by names alone.

Source: leejet/stable-diffusion.cpp, model.cpp and name_conversion.cpp; its files say nothing of their architecture.
"""

from __future__ import annotations

from collections.abc import Collection

_NUMBERS = ("", "1.", "2.")  # of text encoders, in whatever order the model has them
_PREFIX = "cond_stage_model.{}transformer."
_T5 = ("encoder.block.", "shared.")
_DEEPER = "text_model.encoder.layers.12."  # than the CLIP of SD 1.x, which has 12 layers
_UNETS = ("model.diffusion_model.input_blocks.", "model.diffusion_model.output_blocks.", "model.diffusion_model.middle_block.")
_PROJECTIONS = (".proj_in.weight", ".proj_out.weight")


def prefixes(names: Collection[str]) -> dict[str, str]:
    """The prefixes of text encoders, and what ComfyUI calls them, where theirs are no usual ones: all but that of SD 1.x."""
    found = {}
    for number in _NUMBERS:
        prefix = _PREFIX.format(number)
        if any(name.startswith(prefix) for name in names):
            of_t5 = tuple(prefix + start for start in _T5)
            clip = "clip_g" if number else "clip_l"
            found[prefix] = "t5xxl" if any(name.startswith(of_t5) for name in names) else clip
    first = _PREFIX.format("")
    if len(found) == 1 and first in found:
        if not any(name.startswith(first + _DEEPER) for name in names):
            return {}
        found[first] = "clip_h"  # of SD 2.x
    return {prefix: f"text_encoders.{encoder}.transformer." for prefix, encoder in found.items()}


def has_matrices(names: Collection[str]) -> bool:
    """Whether it is SD 2.x or SDXL, whose projections into attention are matrices, and written as 1x1 convolutions."""
    deep = any(name.startswith(_UNETS) and ".transformer_blocks.1." in name for name in names)
    return deep or "text_encoders.clip_h.transformer." in prefixes(names).values()


def as_matrix(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that such a projection has in other programs' files."""
    return shape[:2] if name.startswith(_UNETS) and name.endswith(_PROJECTIONS) and shape[2:] == (1, 1) else shape
