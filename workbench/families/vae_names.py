"""The names of a VAE in the LDM and in the diffusers layout, and what older diffusers called its attention."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from workbench.families.correspondence import Correspondence, Form, Table

_PARTS = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "conv_shortcut"}
_PROJECTIONS = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_ATTENTION = re.compile(r"(?<=mid_block\.attentions\.0\.)(query|key|value|proj_attn)(?=\.)")
_LEVEL = re.compile(r"(?<=^decoder\.up\.)\d+(?=\.)")
_LEVELS = re.compile(r"decoder\.(?:up|up_blocks)\.(\d+)\.")
_DEEP = re.compile(r"(?:en|de)coder\.(?:down|up)_blocks\.\d+\.\d+\.")  # Sana's, which has one layout, and names of either here


def _coder(coder: str) -> dict[str, str]:
    blocks = {"down.#.block.#": "down_blocks.#.resnets.#", "up.#.block.#": "up_blocks.#.resnets.#"}
    blocks |= {f"mid.block_{i + 1}": f"mid_block.resnets.{i}" for i in range(2)}
    names = {f"{ldm}.{part}.*": f"{ours}.{name}.*" for ldm, ours in blocks.items() for part, name in _PARTS.items()}
    names |= {f"{side}.#.{side}sample.conv.*": f"{side}_blocks.#.{side}samplers.0.conv.*" for side in ("down", "up")}
    names |= {"mid.attn_1.norm.*": "mid_block.attentions.0.group_norm.*", "norm_out.*": "conv_norm_out.*"}
    names |= {f"mid.attn_1.{part}.*": f"mid_block.attentions.0.{name}.*" for part, name in _PROJECTIONS.items()}
    return {f"{coder}.{ldm}": f"{coder}.{ours}" for ldm, ours in names.items()}


_CODERS = ("encoder", "decoder")
_TABLE = Table(
    {ldm: ours for coder in _CODERS for ldm, ours in _coder(coder).items()},
    {f"{coder}.mid.attn_1.{part}.*": Form.CONVOLUTION for coder in _CODERS for part in _PROJECTIONS},
)


@dataclass(frozen=True)
class VaeNames:
    """The names of one VAE in both layouts. LDM counts the decoder's `levels` from the fine end, diffusers from the coarse one.

    One of no levels is not Stable Diffusion's: its layouts are not known.
    """

    levels: int

    def find(self, name: str) -> Correspondence | None:
        """See `Lookup.find`."""
        one = _TABLE.find(self._counted_otherwise(name)) if self.levels else None
        return one and replace(one, original=self._counted_otherwise(one.original))

    def _counted_otherwise(self, name: str) -> str:
        return _LEVEL.sub(lambda level: str(self.levels - 1 - int(level[0])), name)


def vae_names(names: Iterable[str]) -> VaeNames:
    """How a VAE with these names counts its levels."""
    names = list(names)
    if any(map(_DEEP.match, names)):
        return VaeNames(0)
    return VaeNames(1 + max((int(found[1]) for name in names if (found := _LEVELS.match(name))), default=0))


def modern(name: str) -> str:
    """The name that diffusers has today for what it called otherwise before."""
    return _OLD_ATTENTION.sub(lambda old: _OLD[old[0]], name)
