"""`apply`: LoRAs with a strength each, as the ordinary merge `add_delta`. The arithmetic is the operator's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files.opening import open_input
from workbench.errors import InputError, MergeWarning, OptionError, warn
from workbench.families import Location
from workbench.merge import Merge, schedules
from workbench.recipe import preflight

_WHO = "apply"
Strength = float | Mapping[str, Any]


def apply(base: Checkpoint, loras: Sequence[tuple[Checkpoint | str | PathLike[str], Strength]]) -> Merge:
    """`base` with LoRAs added, each at its strength: a number, or one that differs by block, as in any option of a merge.

    `wb.lora.apply(base, [(style, 0.8), (face, {"blocks": {"OUT*": 1.0, "default": 0.3}})])` is
    `wb.operators.add_delta(base, [style, face], strengths=...)`, and its recipe says so. A LoRA may be given by its path, and an IA3,
    which is nothing without a model, can only be had so. A DoRA, OFT, BOFT, GLoRA or IA3 at strength s moves every number s times as
    far as at 1.

    Raises InputError for what is no pair of LoRA and strength, CheckpointError for a path that cannot be opened, OptionError for a
    strength that makes no sense, and MergeError for a LoRA that does not fit the model. Warns of tensors of a LoRA that it does not have.
    """
    from workbench.operators import add_delta

    pairs = _pairs(loras)
    deltas, strengths = [lora for lora, _ in pairs], [strength for _, strength in pairs]
    merge = add_delta(base, deltas)
    preflight(merge).raise_errors()
    merge = add_delta(base, deltas, strengths=_together(strengths, merge))
    found = preflight(merge)
    found.raise_errors()
    for text in found.warnings:
        warn(text, MergeWarning)
    return merge


def _pairs(loras: object) -> list[tuple[Checkpoint, Strength]]:
    told = f"{_WHO} takes pairs of a LoRA and its strength in a list, such as [(lora, 0.8)]"
    if isinstance(loras, str | Mapping) or not isinstance(loras, Sequence) or not loras:
        raise InputError(f"{told}; got {loras!r}")
    for pair in loras:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"{told}; got {pair!r} in it")
        if isinstance(pair[1], Sequence):
            raise OptionError(f"{_WHO}: a LoRA has one strength, a number or one by block; got {pair[1]!r}")
    return [(open_input(lora) if isinstance(lora, str | PathLike) else lora, strength) for lora, strength in loras]


def _together(strengths: Sequence[Strength], merge: Merge) -> Any:
    """One option of the merge from the strengths of several LoRAs: as it is given where they agree on its form, else block by block."""
    if not any(isinstance(strength, Mapping) for strength in strengths):
        return list(strengths)
    if all(strength == strengths[0] for strength in strengths):
        return strengths[0]
    option = merge.call.operator.option("strengths")
    try:
        parsed = [schedules.parse(strength, option) for strength in strengths]
        bound = [schedule.bind(merge.depth) for schedule in parsed]
    except OptionError as error:
        raise OptionError(f"{_WHO}: a strength {error}") from None
    places = {block.name: Location(block) for block in merge.depth.blocks}
    places |= {module: Location(module=module) for module in merge.depth.modules}
    each = {name: [at(place) for at in bound] for name, place in places.items()}
    return {"blocks": {**each, "default": [at(Location()) for at in bound]}}
