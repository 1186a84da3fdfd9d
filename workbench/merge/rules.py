"""Exceptions to a merge, by key pattern or component: take one input's tensor untouched, skip it, or merge after all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from workbench.errors import InputError
from workbench.merge.call import Call

COMPONENTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4", "other")
_FORM = (
    "a rule is {match: pattern} or {component: name} with one of {take: input}, {skip: true}, {merge: true}, "
    "and {optional: true} if it may fit nothing"
)


@dataclass(frozen=True)
class Rule:
    """Which tensors (`match`, `component`, or both), and what becomes of them; the first rule that fits decides.

    `take` is the position of a model among the merge's models; `skip` leaves the tensor out; neither merges it. An `optional` rule may
    fit no tensor.
    """

    match: str | None
    component: str | None
    take: int | None = None
    skip: bool = False
    optional: bool = False

    def fits(self, names: Collection[str], component: str) -> bool:
        """Whether it is about a tensor, given its names in every layout, and its component."""
        if self.component is not None and self.component != component:
            return False
        return self.match is None or any(fnmatchcase(name, self.match) for name in names)


def parse(given: Sequence[Mapping[str, Any]], call: Call) -> tuple[Rule, ...]:
    """Rules as a person writes them, judged against the call they are for. Raises InputError."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise InputError(f"{call.operator.name}: rules must be a list, got {given!r}; {_FORM}")
    return tuple(_parse_one(rule, call) for rule in given)


def _parse_one(rule: Mapping[str, Any], call: Call) -> Rule:
    operator = call.operator.name
    if not isinstance(rule, Mapping):
        raise InputError(f"{operator}: {rule!r} is no rule; {_FORM}")
    actions = set(rule) & {"take", "skip", "merge"}
    if len(actions) != 1 or not set(rule) & {"match", "component"} or set(rule) - {"match", "component", "optional"} - actions:
        raise InputError(f"{operator}: {dict(rule)!r} is no rule; {_FORM}")
    match, component = rule.get("match"), rule.get("component")
    if component is not None and component not in COMPONENTS:
        raise InputError(f"{operator}: a rule's component must be one of {', '.join(COMPONENTS)}, got {component!r}")
    if not isinstance(match, (str, type(None))):
        raise InputError(f"{operator}: a rule's match must be a key pattern like '*guidance*', got {match!r}")
    for flag in set(rule) & {"skip", "merge", "optional"}:
        if rule[flag] is not True:
            raise InputError(f"{operator}: a rule's {flag} can only be true, got {rule[flag]!r}")
    take = _position(rule["take"], call) if "take" in rule else None
    return Rule(match, component, take, skip="skip" in rule, optional="optional" in rule)


def _position(take: Any, call: Call) -> int:
    """Which of the models a rule takes from: its slot, its name, or the checkpoint itself."""
    for known in (call.inputs, tuple(call.models), call.names):
        for position, one in enumerate(known):
            if take is one or (isinstance(take, str) and take == one):
                return position
    allowed = ", ".join(f"{slot} ({name})" for slot, name in zip(call.models, call.names, strict=True))
    raise InputError(f"{call.operator.name}: a rule takes from {take!r}, which is none of its inputs: {allowed}")
