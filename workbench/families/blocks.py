"""Which block or module of a denoiser a tensor lies in, named and numbered as its community does. Works on names without prefix."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Protocol

from workbench.families.correspondence import Lookup
from workbench.families.unet_names import UnetNames

BASE = "BASE"  # in people's presets: all that lies in no block

_LDM = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)\.")
_DIFFUSERS = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.")
_NUMBERED = re.compile(r"(.*?)\.(\d+)\.(.+)")
_STACK_WORDS = re.compile(r"block|layer|refiner|stage")  # in what a stack of a single block is called


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

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that it is called; presets of block weights say M00 for the middle."""
        return (self.name, self.alias, *(("M00",) if self.name == "MID" else ()))

    def matches(self, pattern: str) -> bool:
        """Whether a shell pattern (`IN*`, `double_blocks.1?`) names this block."""
        return any(fnmatchcase(name, pattern) for name in self.names)


@dataclass(frozen=True)
class Location:
    """Where a tensor lies: in a block of the denoiser, or in a module of it (`time_embed`, `img_in`) beside the blocks, or elsewhere."""

    block: Block | None = None
    module: str | None = None

    def matches(self, pattern: str) -> bool:
        """Whether a shell pattern names the block or the module; `BASE` is all that lies in no block."""
        if self.block is not None:
            return self.block.matches(pattern)
        return pattern == BASE or (self.module is not None and fnmatchcase(self.module, pattern))

    def __str__(self) -> str:
        return self.block.name if self.block else self.module or "no block"


class Blocks(Protocol):
    """How a family's denoiser is made of blocks. `lookup` has the correspondences of the model's layouts."""

    def block(self, name: str, lookup: Lookup) -> Block | None:
        """The block of a tensor, by its name in any layout; None outside all stacks."""

    def module(self, name: str, lookup: Lookup) -> str:
        """The module that a tensor outside the blocks lies in."""


@dataclass(frozen=True)
class UnetBlocks:
    """The blocks of a U-Net of Stable Diffusion; `inputs` is how many it has before its middle, so that parts of it number alike."""

    inputs: int = 12

    def block(self, name: str, lookup: Lookup) -> Block | None:
        """See `Blocks`; the number of layers in diffusers' down blocks (2 in every public model) is the look-up's."""
        if found := _LDM.match(name):
            return self._made(found[1], int(found[2]))
        if name.startswith("mid_block."):
            return self._made("middle_block", 0)
        if name.startswith("conv_in."):
            return self._made("input_blocks", 0)
        if not (found := _DIFFUSERS.match(name)) or not isinstance(lookup, UnetNames):
            return None
        side, level, kind, index, layers = found[1], int(found[2]), found[3], int(found[4]), lookup.layers
        if side == "down_blocks":
            return self._made("input_blocks", 1 + level * (layers + 1) + (layers if kind == "downsamplers" else index))
        return self._made("output_blocks", level * (layers + 1) + (layers if kind == "upsamplers" else index))

    def module(self, name: str, lookup: Lookup) -> str:
        """`time_embed`, `out` and `label_emb` in either layout."""
        return _original(name, lookup).partition(".")[0]

    def _made(self, stack: str, index: int) -> Block:
        if stack == "input_blocks":
            return Block(f"IN{index:02}", f"input_blocks.{index}", "IN", index, (0, index))
        if stack == "middle_block":
            return Block("MID", "middle_block", "MID", self.inputs, (0, self.inputs))
        place = self.inputs + 1 + index
        return Block(f"OUT{index:02}", f"output_blocks.{index}", "OUT", place, (0, place))


class Stacks:
    """Numbered stacks of blocks in order of depth: `layers.#`; several names of one stack, as layouts have them, in a tuple.

    A block is called as its tensors are, or with `one_name` as the first name of its stack is, in every layout.
    """

    def __init__(self, *stacks: str | tuple[str, ...], one_name: bool = False) -> None:
        self._one_name = one_name
        self._stacks = [(one,) if isinstance(one, str) else one for one in stacks]

    def __bool__(self) -> bool:
        return bool(self._stacks)

    @cached_property
    def _known(self) -> list[tuple[re.Pattern[str], str, int]]:
        found = []
        for place, names in enumerate(self._stacks):
            for name in names:
                pattern = re.compile(re.escape(name).replace(r"\#", r"(\d+)") + r"\.")
                found.append((pattern, names[0] if self._one_name else name, place))
        return found

    def block(self, name: str, lookup: Lookup) -> Block | None:
        """See `Blocks`."""
        for pattern, shown, place in self._known:
            if found := pattern.match(name):
                full = shown.replace("#", found[1])
                return Block(full, full, shown.partition("#")[0].rstrip("."), int(found[1]), (place, int(found[1])))
        return None

    def module(self, name: str, lookup: Lookup) -> str:
        """The first part of the name, in families with names of their own that of the original layout."""
        return (_original(name, lookup) if self._one_name else name).partition(".")[0]


def blocks_shown(names: Iterable[str]) -> Blocks:
    """The blocks of a denoiser that no family tells: those of a U-Net of Stable Diffusion, or those that its numbers show."""
    names = list(names)
    return UnetBlocks() if any(_LDM.match(name) or _DIFFUSERS.match(name) for name in names) else numbered_stacks(names)


def numbered_stacks(names: Iterable[str]) -> Stacks:
    """The stacks of a denoiser that nobody has described, by the numbers in its names, in the order in which they appear.

    A stack is a list of modules: `layers.0.attention.qkv.weight`, not the steps of a sequence, `mlp.0.weight`.
    """
    numbers: dict[str, set[str]] = {}
    for name in names:
        if (found := _NUMBERED.match(name)) and "." in found[3]:
            numbers.setdefault(found[1], set()).add(found[2])
    return Stacks(*(f"{path}.#" for path, there in numbers.items() if len(there) > 1 or _STACK_WORDS.search(path.rpartition(".")[2])))


def _original(name: str, lookup: Lookup) -> str:
    one = lookup.find(name)
    return name if one is None else one.original
