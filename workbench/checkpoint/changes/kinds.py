"""The kinds of change, told by the parts that a file has for a tensor, and the change that is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workbench.checkpoint.changes.change import LoraChange, LoraParts
from workbench.checkpoint.changes.hadamard import hadamard
from workbench.checkpoint.changes.kronecker import kronecker
from workbench.checkpoint.changes.magnitudes import magnitude
from workbench.checkpoint.changes.products import factors
from workbench.checkpoint.changes.rotations import input_rotation, output_rotation
from workbench.checkpoint.changes.scalings import glora, scaling
from workbench.checkpoint.changes.wholes import bias_of_up, replaced
from workbench.errors import CheckpointError


@dataclass(frozen=True)
class Kind:
    """A kind of change: the parts that it needs, with `|` between those of which one is enough, those that it may have, what makes it.

    `written` are the parts as each tool calls them, for the table in the documents; `given` is whether a DoRA may be made of it.
    """

    name: str
    needs: tuple[str, ...]
    may: tuple[str, ...]
    make: Callable[[LoraParts], LoraChange | str]
    written: str
    against_base: bool = False
    given: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that belong to it alone."""
        return (*(role for need in self.needs for role in need.split("|")), *self.may)


KINDS = (
    Kind("LoRA, LoCon", ("down", "up"), ("mid",), factors, "`lora_up`, `lora_down`, `lora_mid`; `lora_A`, `lora_B`", given=True),
    Kind("LoHa", ("w1_a", "w1_b", "w2_a", "w2_b"), ("t1", "t2"), hadamard, "`hada_w1_a` ... `hada_t2`", given=True),
    Kind("LoKr", ("k1|k1_a", "k2|k2_a"), ("k1_b", "k2_b", "k_t2"), kronecker, "`lokr_w1`, `lokr_w2_a` ... `lokr_t2`", given=True),
    Kind("full, norm", ("diff",), (), lambda parts: parts.roles["diff"], "`diff`, `diff_b`, `w_norm`, `b_norm`"),
    Kind("bias of a LoRA", ("up_bias",), ("of_down",), bias_of_up, "`lora_B.bias`"),
    Kind("new value", ("value",), (), replaced, "norms of BFL's control LoRAs, `set_weight`, PEFT's `modules_to_save`", against_base=True),
    Kind("OFT, Diag-OFT, BOFT", ("oft_blocks",), ("rescale",), output_rotation, "`oft_blocks`, `rescale`", against_base=True),
    Kind("OFT, BOFT of PEFT", ("oft_R|boft_R",), ("boft_s",), input_rotation, "`oft_R`; `boft_R`, `boft_s`", against_base=True),
    Kind("IA3", ("ia3_l|on_input",), ("ia3_weight",), scaling, "`weight` and `on_input`; `ia3_l`", against_base=True),
    Kind("GLoRA", ("a1", "a2", "b1", "b2"), ("bm",), glora, "`a1`, `a2`, `b1`, `b2`, `bm`", against_base=True),
)
_KIND_OF = {role: kind for kind in KINDS for role in kind.parts}
LENGTHS = "magnitude"  # what makes a DoRA of another kind
_BESIDE = {"alpha", LENGTHS}  # parts that several kinds have
_WORDS = {"up": "lora_up", "down": "lora_down"} | {f"w{n}_{x}": f"hada_w{n}_{x}" for n in (1, 2) for x in "ab"}
_WORDS |= {f"k{n}": f"lokr_w{n}" for n in (1, 2)} | {f"k{n}_{x}": f"lokr_w{n}_{x}" for n in (1, 2) for x in "ab"}


def change_of(parts: LoraParts) -> LoraChange | str:
    """The change that these parts are, or the name of the tensor that is the change. Raises CheckpointError for parts that are none."""
    kinds = {_KIND_OF[role].name: role for role in reversed([*parts.roles]) if role not in _BESIDE}
    kind = _KIND_OF[next(iter(kinds.values()))] if kinds else KINDS[0]
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        told = f"{parts.roles[one]!r} changes a tensor that {parts.roles[other]!r} changes too"
        raise CheckpointError(f"{parts.where}: {told}; leave one out")
    _complete(parts, kind)
    made = kind.make(parts)
    if LENGTHS not in parts:
        return made
    if not kind.given or isinstance(made, str):
        told = f"{parts.roles[LENGTHS]!r} is a DoRA's, and {kind.name} has none"
        raise CheckpointError(f"{parts.where}: {told}; the file is damaged, or of a kind that is not known")
    return magnitude(parts, made)


def _complete(parts: LoraParts, kind: Kind) -> None:
    """Raise CheckpointError where parts are missing."""
    there = next(iter(parts.roles.values()))
    needed = [need.split("|") for need in kind.needs]
    for side in ("k1", "k2", "t1", "t2"):
        if kind.name == "LoKr" and f"{side}_a" in parts:
            needed.append([f"{side}_b"])
        elif kind.name == "LoHa" and ("t1" in parts or "t2" in parts) and side.startswith("t"):
            needed.append([side])
    for roles in needed:
        if not any(role in parts for role in roles):
            missing = " or ".join(_WORDS.get(role, role) for role in roles)
            raise CheckpointError(
                f"{parts.where}: {there!r} has no {missing} beside it, so the change of {parts.name!r} is not known; get the whole file"
            )
