"""The pictures that a new panel asks for: the settings of its models' family, and prompts for the families that come with the project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from workbench.checkpoint import Checkpoint
from workbench.families import GENERIC, Pictures
from workbench.panels.state import Wanted
from workbench.places import DATA
from workbench.render.samplers import FLOW_SAMPLERS, SAMPLERS

_USUAL = Pictures(512, 20, 5.0)
_HEART, _STAR = "a red heart on a white background", "a red star on a white background"
_CIRCLE, _MOON = "a yellow circle on a black background", "a yellow moon on a black background"
# what the embedded models know, and settings that do for them
_EMBEDDED = {
    DATA / "shapes-sd": Wanted((_HEART, _MOON), steps=12, guidance=3.0),
    DATA / "shapes-sdxl": Wanted((_HEART, _CIRCLE), steps=16, guidance=3.0),
    DATA / "shapes-z-image": Wanted((_STAR, _CIRCLE), steps=12, guidance=3.0),
}
_PROMPTS = {DATA / "shapes-flux": (_STAR, _CIRCLE)}


def first_wanted(checkpoints: Sequence[Checkpoint]) -> Wanted:
    """The pictures that a new panel asks for: prompts for the embedded models, none for others."""
    for folder, wanted in _EMBEDDED.items():
        if _all_in(folder, checkpoints):
            return wanted
    usual = _usual(checkpoints)
    own = next((prompts for folder, prompts in _PROMPTS.items() if _all_in(folder, checkpoints)), ())
    return replace(Wanted(own), steps=usual.steps, guidance=usual.guidance)


def samplers_of(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The samplers that models of these families may be drawn with."""
    predictions = {one.structure.family.prediction for one in checkpoints if one.structure.family is not GENERIC} or {""}
    known = [FLOW_SAMPLERS if prediction == "flow" else SAMPLERS for prediction in sorted(predictions)]
    return tuple(dict.fromkeys(name for samplers in known for name in samplers))


def _usual(checkpoints: Sequence[Checkpoint]) -> Pictures:
    """The first model's family's, for a guidance embedder if any of them has one."""
    names = tuple(name for one in checkpoints for name in one)
    families = (one.structure.family for one in checkpoints)
    return next((pictures for family in families if (pictures := family.pictures_for(names))), _USUAL)


def _all_in(folder: Path, checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether every one of these models lies in a folder."""
    return bool(checkpoints) and all(one.path is not None and one.path.resolve().is_relative_to(folder.resolve()) for one in checkpoints)
