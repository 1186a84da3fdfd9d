"""What a block map tells of each block, as the block editor shows it: a colour, a number, a sentence. No widget is here."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from workbench.checkpoint import Checkpoint
from workbench.errors import InputError
from workbench.figures.look import COLOURS
from workbench.merge.schedules import Depth
from workbench.panels.judging import components_of
from workbench.panels.labels import MENU, labels
from workbench.panels.state import PanelState
from workbench.sweeps.block_map_result import ALONE, LEFT_OUT, TUNED, BlockMap, Effect
from workbench.wording import few, listed

_MORE, _LESS = COLOURS[0], COLOURS[3]
_PALEST = 12  # percent of a colour that still shows on either page


def mapped(block_map: BlockMap, checkpoints: Mapping[str, Checkpoint]) -> str:
    """What the model that a block map is of is called on the shelf. Raises InputError where it is not there."""
    told = block_map.names[1]
    for name, one in checkpoints.items():
        if told in (name, one.name):
            return name
    raise InputError(f"the block map is of {told!r}, and no model here is called so; there are: {few(checkpoints)}")


def check_blocks(block_map: BlockMap, depth: Depth, components: Collection[str]) -> None:
    """Raise InputError for the map of a model of another family: one with blocks that these models do not have."""
    measured = dict.fromkeys([one.block for one in block_map.effects if one.block != TUNED] + list(block_map.same))
    strange = [name for name in measured if name not in {*depth.names, *depth.modules, *components}]
    if strange or not set(measured) & set(depth.names):
        told = f"it has {listed(strange)}" if strange else "it has none of their blocks"
        raise InputError(f"the block map is of {block_map.names[1]}, a model of another family than those that are merged: {told}")


def shown_effects(
    block_map: BlockMap | None, state: PanelState, checkpoints: Mapping[str, Checkpoint], depth: Depth
) -> tuple[dict[str, Any] | None, str]:
    """What the editors draw, and of which model; None where there is no map, or its model is not merged, or others than its family are."""
    if block_map is None:
        return None, ""
    try:
        name = mapped(block_map, checkpoints)
        check_blocks(block_map, depth, components_of(state, checkpoints))
    except InputError:
        return None, ""
    return (effects_by_block(block_map, depth), name) if name in state.used else (None, "")


def effects_by_block(block_map: BlockMap, depth: Depth) -> dict[str, Any]:
    """What the editor draws for each of its places, the last of which is for all that is in no block."""
    tuned = block_map.names[1]
    alone = {one.block: one for one in block_map.effects if one.way == ALONE}
    out = {one.block: one for one in block_map.effects if one.way == LEFT_OUT}
    known = [abs(one.effect) for name, one in alone.items() if name in depth.names and math.isfinite(one.effect)]
    most = max(known, default=0.0)
    both = any(one.effect < 0 for one in alone.values())
    places = [_place(name, alone.get(name), out.get(name), name in block_map.same, most) for name in depth.names]
    beside = [name for name in (*alone, *block_map.same) if name not in {*depth.names, TUNED}]
    told = "; ".join(_told(name, alone.get(name), out.get(name), name in block_map.same) for name in beside) or "Not measured"
    return {
        "title": f"What each block of {labels([tuned], MENU)[tuned]} does alone: {block_map.measure}",
        "places": [*places, {"known": False, "effect": "", "told": told, "colour": ""}],
        "scale": [_colour(share) for share in ((-1, 0, 1) if both else (0, 1))],
        "least": f"{-most:.2g}" if both else "0",
        "most": f"{most:.2g}",
    }


def _place(name: str, alone: Effect | None, out: Effect | None, same: bool, most: float) -> Mapping[str, Any]:
    effect = 0.0 if same else alone.effect if alone else math.nan
    known = math.isfinite(effect)
    colour = _colour(effect / most if most else 0.0) if known else ""
    return {"known": known, "effect": f"{effect:.2g}" if known else "?", "told": _told(name, alone, out, same), "colour": colour}


def _told(name: str, alone: Effect | None, out: Effect | None, same: bool) -> str:
    """A sentence on one block."""
    if same:
        return f"{name}: the same in both models"
    if alone is None:
        return f"{name}: not measured"
    ways = [f"{one.way} {_number(one)}" for one in (alone, out) if one is not None]
    return f"{name}: {', '.join(ways)}"


def _number(one: Effect) -> str:
    if not math.isfinite(one.effect):
        return f"not measured{f' ({one.problem})' if one.problem else ''}"
    return f"{one.effect:.3g}{f' ± {one.spread:.2g}' if math.isfinite(one.spread) else ''}"


def _colour(share: float) -> str:
    """Blue where a block does more, orange where it takes away; the paler, the less."""
    strength = _PALEST + (100 - _PALEST) * min(abs(share), 1.0)
    return f"color-mix(in srgb, {_LESS if share < 0 else _MORE} {strength:.0f}%, transparent)"
