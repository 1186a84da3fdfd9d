"""Which block of the model a tensor belongs to, named and numbered as its community does. Works on names without prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

_LDM = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)\.")
_DIFFUSERS = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.")
_FLUX = re.compile(r"(double_blocks|single_blocks|transformer_blocks|single_transformer_blocks)\.(\d+)\.")
_FLUX_STACKS = {
    "double_blocks": "double_blocks",
    "transformer_blocks": "double_blocks",
    "single_blocks": "single_blocks",
    "single_transformer_blocks": "single_blocks",
}


@dataclass(frozen=True)
class Block:
    """One block: its stack, its index there, the number that integers in a ramp mean, and its position in depth.

    `alias` is the LDM name (`input_blocks.4`) where the community's name (`IN04`) differs from it.
    """

    name: str
    alias: str
    stack: str
    number: int
    depth: tuple[int, int]

    def matches(self, pattern: str) -> bool:
        """Whether a shell pattern (`IN*`, `double_blocks.1?`) names this block."""
        return fnmatchcase(self.name, pattern) or fnmatchcase(self.alias, pattern)


def unet_block(name: str, input_blocks: int, layers: int) -> Block | None:
    """The U-Net block of a denoiser tensor, in LDM or diffusers names; None outside the three stacks.

    `input_blocks` is how many the architecture has (12, SDXL 9), so that partial checkpoints number alike; `layers` is
    the number of residual layers in each of diffusers' down blocks (2 for every public model).
    """
    if found := _LDM.match(name):
        return _sd_block(found[1], int(found[2]), input_blocks)
    if name.startswith("mid_block."):
        return _sd_block("middle_block", 0, input_blocks)
    if name.startswith("conv_in."):
        return _sd_block("input_blocks", 0, input_blocks)
    if not (found := _DIFFUSERS.match(name)):
        return None
    side, level, kind, index = found[1], int(found[2]), found[3], int(found[4])
    if side == "down_blocks":
        return _sd_block("input_blocks", 1 + level * (layers + 1) + (layers if kind == "downsamplers" else index), input_blocks)
    return _sd_block("output_blocks", level * (layers + 1) + (layers if kind == "upsamplers" else index), input_blocks)


def flux_block(name: str) -> Block | None:
    """The Flux block of a transformer tensor, in BFL or diffusers names; None outside the two stacks."""
    if not (found := _FLUX.match(name)):
        return None
    stack, index = _FLUX_STACKS[found[1]], int(found[2])
    full = f"{stack}.{index}"
    return Block(full, full, stack, index, (0 if stack == "double_blocks" else 1, index))


def _sd_block(stack: str, index: int, input_blocks: int) -> Block:
    if stack == "input_blocks":
        return Block(f"IN{index:02}", f"input_blocks.{index}", "IN", index, (0, index))
    if stack == "middle_block":
        return Block("MID", "middle_block", "MID", input_blocks, (0, input_blocks))
    return Block(f"OUT{index:02}", f"output_blocks.{index}", "OUT", input_blocks + 1 + index, (0, input_blocks + 1 + index))
