"""Exceptions to a merge, by key pattern or component: take one input's tensor untouched, skip it, or merge after all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from workbench.checkpoint import Checkpoint
from workbench.errors import InputError

COMPONENTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "other")
_FORM = "a rule is {match: pattern} or {component: name} with one of {take: input}, {skip: true}, {merge: true}"


@dataclass(frozen=True)
class Rule:
    """Which tensors (`match`, `component`, or both), and what becomes of them; the first rule that fits decides.

    `take` is the position of a model among the merge's models; `skip` leaves the tensor out; neither merges it.
    """

    match: str | None
    component: str | None
    take: int | None = None
    skip: bool = False

    def fits(self, key: str, canonical: str, component: str) -> bool:
        """Whether it is about a tensor, given its name in the result, its name without prefix, and its component."""
        if self.component is not None and self.component != component:
            return False
        return self.match is None or fnmatchcase(key, self.match) or fnmatchcase(canonical, self.match)


def parse(operator: str, given: Sequence[Mapping[str, Any]], models: Mapping[str, Checkpoint]) -> tuple[Rule, ...]:
    """Rules as a person writes them, judged. `models` maps slots (`base`, `models[0]`) to checkpoints. Raises InputError."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise InputError(f"{operator}: rules must be a list, got {given!r}; {_FORM}")
    return tuple(_parse_one(operator, rule, models) for rule in given)


def _parse_one(operator: str, rule: Mapping[str, Any], models: Mapping[str, Checkpoint]) -> Rule:
    if not isinstance(rule, Mapping):
        raise InputError(f"{operator}: {rule!r} is no rule; {_FORM}")
    actions = set(rule) & {"take", "skip", "merge"}
    if len(actions) != 1 or not set(rule) & {"match", "component"} or set(rule) - {"match", "component"} - actions:
        raise InputError(f"{operator}: {dict(rule)!r} is no rule; {_FORM}")
    match, component = rule.get("match"), rule.get("component")
    if component is not None and component not in COMPONENTS:
        raise InputError(f"{operator}: a rule's component must be one of {', '.join(COMPONENTS)}, got {component!r}")
    if not isinstance(match, (str, type(None))):
        raise InputError(f"{operator}: a rule's match must be a key pattern like '*guidance*', got {match!r}")
    if "take" in rule:
        return Rule(match, component, take=_position(operator, rule["take"], models))
    (action,) = actions
    if rule[action] is not True:
        raise InputError(f"{operator}: a rule's {action} can only be true, got {rule[action]!r}")
    return Rule(match, component, skip=action == "skip")


def _position(operator: str, take: Any, models: Mapping[str, Checkpoint]) -> int:
    """Which of the models a rule takes from: its slot, its name, or the checkpoint itself."""
    for position, (slot, model) in enumerate(models.items()):
        if take is model or (isinstance(take, str) and take == slot):
            return position
    if isinstance(take, str):
        for position, model in enumerate(models.values()):
            if take == model.name:
                return position
    allowed = ", ".join(f"{slot} ({model.name})" for slot, model in models.items())
    raise InputError(f"{operator}: a rule takes from {take!r}, which is none of its inputs: {allowed}")
