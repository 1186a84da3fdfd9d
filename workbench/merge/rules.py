"""Exceptions to a merge, by key pattern or component: take one input's tensor untouched, skip it, or merge after all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, final

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

from workbench.errors import InputError
from workbench.merge.call import Call

COMPONENTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4", "other")
_ACTIONS = ("take", "skip", "merge")
_FORM = (
    "a rule is {match: pattern} or {component: name} with one of {take: input}, {skip: true}, {merge: true}, "
    "and {optional: true} if it may fit nothing"
)


@final
class Rule(BaseModel):
    """Which tensors (`match`, `component`, or both), and what becomes of them; the first rule that fits decides.

    `take` is an input's slot (`base`, `models[0]`); in a recipe it may be a model's name. `skip` leaves the tensor out, `merge` merges
    it. An `optional` rule may fit no tensor. Read from data and written as data by the fields that it has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str | None = None
    component: str | None = None
    take: str | None = None
    skip: bool = False
    merge: bool = False
    optional: bool = False

    @model_validator(mode="before")
    @classmethod
    def _judged(cls, given: Any) -> Any:
        """Raise ValueError, in words, for what is no rule."""
        if isinstance(given, Mapping) and (complaint := complaint_of(given)):
            raise ValueError(complaint)
        return given

    @model_serializer
    def _told(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value}

    def fits(self, names: Collection[str], component: str) -> bool:
        """Whether it is about a tensor, given its names in every layout, and its component."""
        if self.component is not None and self.component != component:
            return False
        return self.match is None or any(fnmatchcase(name, self.match) for name in names)


def complaint_of(given: Any) -> str | None:
    """What is wrong with a rule as a person writes it; None when nothing is."""
    if not isinstance(given, Mapping):
        return f"{given!r} is no rule; {_FORM}"
    actions = set(given) & {*_ACTIONS}
    if len(actions) != 1 or not set(given) & {"match", "component"} or set(given) - {"match", "component", "optional"} - actions:
        return f"{dict(given)!r} is no rule; {_FORM}"
    match, component = given.get("match"), given.get("component")
    if component is not None and component not in COMPONENTS:
        return f"a rule's component must be one of {', '.join(COMPONENTS)}, got {component!r}"
    if match is None and component is None:
        return f"{dict(given)!r} is no rule; {_FORM}"
    if match is not None and not (match and isinstance(match, str)):
        return f"a rule's match must be a key pattern like '*guidance*', got {match!r}"
    for flag in set(given) & {"skip", "merge", "optional"}:
        if given[flag] is not True:
            return f"a rule's {flag} can only be true, got {given[flag]!r}"
    if not isinstance(given.get("take", ""), str):
        return f"a rule takes from {given['take']!r}, which is no name of an input"
    return None


def parse(given: Sequence[Rule | Mapping[str, Any]], call: Call) -> tuple[Rule, ...]:
    """Rules, or what a person writes for them, judged against the call they are for. Raises InputError."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise InputError(f"{call.operator.name}: rules must be a list, got {given!r}; {_FORM}")
    return tuple(_parse_one(rule, call) for rule in given)


def _parse_one(rule: Rule | Mapping[str, Any], call: Call) -> Rule:
    given = rule.model_dump() if isinstance(rule, Rule) else rule
    if isinstance(given, Mapping) and "take" in given:
        given = {**given, "take": _slot(given["take"], call)}
    if complaint := complaint_of(given):
        raise InputError(f"{call.operator.name}: {complaint}")
    return Rule.model_validate(given)


def _slot(take: Any, call: Call) -> str:
    """Which of the models a rule takes from, given its slot, its name, or the checkpoint itself."""
    for known in (call.inputs, tuple(call.models), call.names):
        for slot, one in zip(call.models, known, strict=True):
            if take is one or (isinstance(take, str) and take == one):
                return slot
    allowed = ", ".join(f"{slot} ({name})" for slot, name in zip(call.models, call.names, strict=True))
    raise InputError(
        f"{call.operator.name}: a rule takes from {take!r}, which is none of its inputs: {allowed}; to take from another "
        "model, put this merge and it into weighted_average(..., weights=[1, 0]) with the rule"
    )
