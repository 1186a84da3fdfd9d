"""Whose VAE and text encoders a merge keeps, as the rules that say so. No widget is here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from workbench.panels.state import PanelState

PARTS: Mapping[str, tuple[str, ...]] = {
    "VAE": ("vae",),
    "text encoders": ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4"),
}


def kept_from(state: PanelState, components: Collection[str]) -> str:
    """The model whose components come into the result untouched; empty where they are merged, or come from several."""
    takes = [rule.get("take") for component in components for rule in _rules(state) if _is_about(rule, [component])]
    if len(takes) != len(components) or len(set(takes)) != 1:
        return ""
    return slots(state).get(str(takes[0]), str(takes[0]) if takes[0] in state.used else "")


def with_kept(state: PanelState, components: Sequence[str], model: str) -> PanelState:
    """The state whose result has these components of a model; empty merges them."""
    others = [rule for rule in _rules(state) if not _is_about(rule, components)]
    by_slot = {name: slot for slot, name in slots(state).items()}
    take = by_slot[model] if model in slots(state) else model  # a model may be called as another's slot is
    new = [{"component": component, "take": take} for component in components] if model else []
    return state.with_rules([*new, *others])


def slots(state: PanelState) -> dict[str, str]:
    """The model in each place of the inputs, by what rules call that place."""
    found: dict[str, str] = {}
    for slot in state.declaration.inputs:
        names = state.inputs.get(slot.name, ())
        found |= {f"{slot.name}[{i}]" if slot.many else slot.name: name for i, name in enumerate(names)}
    return found


def _rules(state: PanelState) -> Sequence[Mapping[str, Any]]:
    return state.declaration.rules if state.rules is None else state.rules


def _is_about(rule: Mapping[str, Any], components: Collection[str]) -> bool:
    return rule.get("component") in components and "match" not in rule
