"""The names of the U-Net of Stable Diffusion in the LDM (single-file) and in the diffusers layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from workbench.families.correspondence import Correspondence, Slice

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
_LABELS = {"linear_1.": "label_emb.0.0.", "linear_2.": "label_emb.0.2.", "weight": "label_emb.weight"}
_UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_DIFFUSERS_LAYER = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.")
_LDM_BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.(\d+)\.(.+)")
_LDM_DOWN = re.compile(r"input_blocks\.(\d+)\.0\.op\.")
_LDM_ATTENTION = re.compile(r"output_blocks\.(\d+)\.1\.(?:transformer_blocks|proj_|norm)")
_RESNET_BACK = {ldm: ours for ours, ldm in _UNET_RESNET.items()}
_RESNET_PART = re.compile(r"(mid_block\.resnets\.\d\.)(.+)")


def _start(name: str, table: Mapping[str, str]) -> str:
    """The name with its start replaced, when the table has it."""
    for old, new in table.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name


@dataclass(frozen=True)
class UnetNames:
    """The names of one U-Net in both layouts: with `layers` residual layers to a down block, and attention in up blocks `attended`.

    On the way down a level has its layers and then the downsampler; on the way up a layer more, the last with the upsampler.
    """

    layers: int
    attended: frozenset[int]
    labels: str = "add_embedding"  # what diffusers calls LDM's label_emb

    @cached_property
    def _labels(self) -> dict[str, str]:
        return {f"{self.labels}.{ours}": ldm for ours, ldm in _LABELS.items()}

    def find(self, name: str) -> Correspondence | None:
        """See `Lookup.find`."""
        if (ldm := self.ldm(name)) != name:
            return Correspondence(ldm, (Slice(name),))
        if (ours := self.diffusers(name)) != name:
            return Correspondence(name, (Slice(ours),))
        return None

    def unknown(self) -> list[str]:
        """See `Lookup.unknown`: what it does not count keeps its name."""
        return []

    def ldm(self, name: str) -> str:
        """The LDM name of a diffusers name."""
        block = _BLOCK.fullmatch(name)
        if block is None:
            name = _start(name, _UNET_ENDS | self._labels)
            start, _, rest = name.partition(".")
            if start != "middle_block" or rest.startswith("1."):
                return name
            return f"{start}.{rest[:2]}{_start(rest[2:], _UNET_RESNET)}"
        side, level, kind, index, rest = block.groups()
        number = int(level) * (self.layers + 1) + (self.layers if kind in ("downsamplers", "upsamplers") else int(index))
        stack = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
        if kind == "resnets":
            return f"{stack}.0.{_start(rest, _UNET_RESNET)}"
        if kind == "attentions":
            return f"{stack}.1.{rest}"
        if kind == "downsamplers":
            return f"{stack}.0.op.{rest.removeprefix('conv.')}"
        return f"{stack}.{2 if int(level) in self.attended else 1}.{rest}"

    def diffusers(self, name: str) -> str:
        """The diffusers name of an LDM name."""
        block = _LDM_BLOCK.fullmatch(name)
        if block is None or name.startswith("input_blocks.0."):
            name = _start(name, {ldm: ours for ours, ldm in (_UNET_ENDS | self._labels).items()})
            return _RESNET_PART.sub(lambda found: found[1] + _start(found[2], _RESNET_BACK), name)
        side, number, part, rest = block[1], int(block[2]), block[3], block[4]
        level, index = divmod(number - 1 if side == "input" else number, self.layers + 1)
        stack = f"{'down' if side == 'input' else 'up'}_blocks.{level}"
        if side == "input" and index == self.layers:
            return f"{stack}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        if part == "0":
            return f"{stack}.resnets.{index}.{_start(rest, _RESNET_BACK)}"
        return f"{stack}.upsamplers.0.{rest}" if rest.startswith("conv.") else f"{stack}.attentions.{index}.{rest}"


def unet_names(keys: Iterable[str]) -> UnetNames:
    """How a U-Net with these names counts its layers, told by what there is: all of them, or the few of a LoRA."""
    layers: dict[str, int] = {}
    attended, ldm_downs, ldm_attended = set(), [], set()
    for key in keys:
        if found := _DIFFUSERS_LAYER.match(key):
            side, level, kind, index = found[1], int(found[2]), found[3], int(found[4])
            layers[side] = max(layers.get(side, 0), index + (side == "down"))
            if side == "up" and kind == "attentions":
                attended.add(level)
        elif found := _LDM_DOWN.match(key):
            ldm_downs.append(int(found[1]))
        elif found := _LDM_ATTENTION.match(key):
            ldm_attended.add(int(found[1]))
    if layers:  # of one side alone, as in public models
        return UnetNames(max(layers.values()) if len(layers) == 2 else max([*layers.values(), 2]), frozenset(attended))
    count = min(ldm_downs) - 1 if ldm_downs else 2
    return UnetNames(count, frozenset(number // (count + 1) for number in ldm_attended))


@dataclass(frozen=True)
class UnetConversion:
    """How the layouts of a U-Net are converted: by counting its layers. `labels` is what diffusers calls LDM's label_emb."""

    labels: str = "add_embedding"
    costly: bool = False
    reason: str = ""

    def lookup(self, names: Iterable[str]) -> UnetNames:
        """See `Conversion.lookup`."""
        return replace(unet_names(names), labels=self.labels)
