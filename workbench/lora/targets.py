"""Which tensors of a model a LoRA is made of, and in what form it holds the change of each. No weight is read here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from workbench.checkpoint import Checkpoint
from workbench.errors import InputError
from workbench.lora.module_names import unread
from workbench.merge.rules import COMPONENTS, Rule

Include = str | Sequence[str] | None

_ADAPTED = ("unet", "transformer", "text_encoder", "text_encoder_2")  # what LoRAs are made for
_TABLE = re.compile(r"(token|position)_embedding\.weight$")  # looked up and not multiplied: nothing loads a LoRA of it


class LoraForm(Enum):
    """How a LoRA holds the change of a tensor: as two factors, whole, or not at all."""

    FACTORS = "factors"
    WHOLE = "whole"
    NOT = "not"


def targets(model: Checkpoint, include: Include, whole: bool, who: str) -> dict[str, LoraForm]:
    """How each tensor that is asked for would be held; of those nobody asked for by name, also which cannot be.

    `include` is None for what LoRAs are trained for (see `module_names.unread`), a component, a pattern of names, or several of
    these; `whole` also takes norms and biases. Raises InputError for an `include` that is none of these.
    """
    rules = asked_for(model, include, who)
    found: dict[str, LoraForm] = {}
    for key in model:
        shape = model.info(key).shape
        fitting = [rule for rule in rules if fits(rule, model, key)]
        if not fitting:
            continue
        named_so = any(rule.match is not None for rule in fitting)
        if key.endswith(".weight") and len(shape) in (2, 4) and (named_so or not _TABLE.search(key)):
            usual = not unread(model.structure, key, "kohya") and not _is_depthwise(shape)
            found[key] = LoraForm.FACTORS if usual or include is not None else LoraForm.NOT
        elif whole and key.endswith((".weight", ".bias")) and len(shape) == 1:
            found[key] = LoraForm.WHOLE
        else:
            found[key] = LoraForm.NOT
    return found


def _is_depthwise(shape: tuple[int, ...]) -> bool:
    """Whether it is a convolution of every channel by itself, for which PEFT makes LoRAs of a few ranks only."""
    return len(shape) == 4 and shape[1] == 1 and shape[0] > 1


def factored(model: Checkpoint, who: str) -> set[str]:
    """The tensors of a model that LoRAs hold as factors, unless they are asked for others."""
    return {key for key, form in targets(model, None, False, who).items() if form is LoraForm.FACTORS}


def asked_for(model: Checkpoint, include: Include, who: str) -> list[Rule]:
    """Which tensors are asked for. Raises InputError for what is no component and fits no name."""
    if include is None:
        adapted = [name for name in _ADAPTED if name in model.components] or list(model.components)
        return [Rule(component=component, merge=True) for component in adapted]
    asked = [include] if isinstance(include, str) else include
    if not isinstance(asked, Sequence) or not asked or not all(isinstance(one, str) for one in asked):
        raise InputError(f"{who}: include takes components or patterns of tensor names, got {include!r}; {about(model)}")
    return [Rule(component=one, merge=True) if one in COMPONENTS else Rule(match=one, merge=True) for one in asked]


def fits(rule: Rule, model: Checkpoint, key: str) -> bool:
    """Whether a rule means a tensor."""
    return rule.fits(model.structure.spellings(key), model.structure.component(key))


def about(model: Checkpoint) -> str:
    """What there is to ask for, in words."""
    return f"{model.name} has the components {', '.join(model.components)}, and {next(iter(model), 'no tensor')!r} is its first tensor"
