"""What becomes of each tensor of a merge: which inputs hold it, what stands in where one does not, which rule applies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.architecture import is_marker
from workbench.checkpoint.blocks import Block
from workbench.checkpoint.viewing import incomplete
from workbench.merge.call import Call
from workbench.merge.declaration import UNION, Missing
from workbench.merge.rules import Rule
from workbench.tensors import Space, TensorInfo


@dataclass(frozen=True)
class Problem:
    """What an operator has no answer for, said of a tensor, and the model a rule could take it from."""

    said: str
    holder: str

    def text(self, key: str) -> str:
        return f"{key!r} {self.said}; {mending({'match': key}, self.holder)}"


def mending(which: Mapping[str, str], holder: str) -> str:
    """The rules that would decide otherwise for the tensors that `which` describes; `holder` is a slot that has them."""
    spelled = ", ".join(f"{name}: {value!r}" for name, value in which.items())
    return f"add the rule {{{spelled}, take: {holder!r}}}, or {{{spelled}, skip: true}}"


@dataclass(frozen=True)
class Entry:
    """One tensor of the result. `names` has its name in each model, viewed in the first's layout, or None.

    `take` is the model it comes from untouched, and `unasked` why, if no rule says so.
    """

    key: str
    component: str
    block: Block | None
    info: TensorInfo
    names: tuple[str | None, ...]
    take: int | None = None
    unasked: str | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class Plan:
    """Every tensor of the result in order, those that are left out, with the reason, and the rules that decided nothing."""

    entries: Mapping[str, Entry]
    left_out: Mapping[str, str]
    idle: tuple[Rule, ...]


def plan_merge(call: Call, rules: tuple[Rule, ...]) -> Plan:
    """Plan every tensor without reading one. The names are those of the first input's layout."""
    entries: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    used = set()
    keys = call.operator.keys
    reference = call.viewed if keys == UNION else [call.viewed[call.slots[keys][0]]]
    ends = [_ends(model) for model in call.viewed]
    for key, holder in _union([*reference, *call.viewed]):
        structure = holder.structure
        rule = next((rule for rule in rules if rule.fits(structure.spellings(key), structure.component(key))), None)
        if not any(key in model for model in reference) and not _asked_for(call, rule, key):
            continue
        used.add(rule)
        entry = _entry(call, rule, key, holder, ends)
        if isinstance(entry, str):
            left_out[key] = entry
        else:
            entries[key] = entry
    for i, model in enumerate(call.viewed):
        only = f"it is only in {call.names[i]}, and the result has the tensors of {keys}"
        reasons = dict.fromkeys(model, only) | {key: one.why for key, one in incomplete(model).items()}
        left_out |= {key: why for key, why in reasons.items() if key not in entries and key not in left_out}
    return Plan(entries, left_out, tuple(rule for rule in rules if rule not in used))


def _asked_for(call: Call, rule: Rule | None, key: str) -> bool:
    """Whether a rule skips a tensor that the result would not have of itself, or takes it from a model that has it."""
    return rule is not None and (rule.skip or (rule.take is not None and key in call.viewed[call.position(rule.take)]))


def _union(models: Sequence[Checkpoint]) -> Iterator[tuple[str, Checkpoint]]:
    """Each tensor once, in the order of the first model that holds it, with that model."""
    seen = set()
    for model in models:
        for key in model:
            if key not in seen:
                seen.add(key)
                yield key, model


def _ends(model: Checkpoint) -> dict[int, int]:
    """The last position in each of a whole model's stacks of blocks; none of changes, which may be of a few blocks only."""
    found = (model.structure.block(key) for key in model) if model.space is Space.WEIGHT else ()
    ends: dict[int, int] = {}
    for stack, position in (block.depth for block in found if block):
        ends[stack] = max(position, ends.get(stack, -1))
    return ends


def _entry(call: Call, rule: Rule | None, key: str, holder: Checkpoint, ends: Sequence[Mapping[int, int]]) -> Entry | str:
    """The plan for one tensor, or why it is left out."""
    structure = holder.structure
    names = tuple(key if key in model else None for model in call.viewed)
    if rule and rule.skip:
        return "a rule skips it"
    if rule:
        take, unasked = None if rule.take is None else call.position(rule.take), None
    else:
        take, unasked = _untouched(call, names)
    if take is not None and names[take] is None:
        return f"a rule takes it from {call.names[take]}, which lacks it"
    source = next(i for i, name in enumerate(names) if name is not None) if take is None else take
    info = call.viewed[source].info(key)
    block = structure.block(key)
    problem = None
    if take is None:
        problem = (_too_shallow(call, block, names, ends) if rule is None else None) or _problem(call, key, names)
    return Entry(key, structure.component(key), block, info, names, take, unasked, problem)


def _untouched(call: Call, names: tuple[str | None, ...]) -> tuple[int | None, str | None]:
    """Which model a tensor comes from when no rule decides, and why; None when it is merged."""
    holder, held = next((i, name) for i, name in enumerate(names) if name is not None)
    info = call.viewed[holder].info(held)
    if is_marker(held) or not info.is_float or info.numel == 0:
        return holder, "holds no weights (integers, a marker, or empty)"
    if call.operator.missing is Missing.CANDIDATE and None in names:
        return next((i for i, name in enumerate(names) if i and name is not None), 0), "is not in every model"
    return None, None


def _too_shallow(call: Call, block: Block | None, names: tuple[str | None, ...], ends: Sequence[Mapping[int, int]]) -> Problem | None:
    """Why a tensor of a block beyond another model's last one is not merged unless a rule says so; None when every model is that deep."""
    if block is None:
        return None
    stack, position = block.depth
    shallow = [told for told, end in zip(call.names, ends, strict=True) if end and position > end.get(stack, -1)]
    if not shallow:
        return None
    slot, holder = next((slot, told) for slot, told, name in zip(call.models, call.names, names, strict=True) if name is not None)
    return Problem(f"is of {block.name}, which {holder} has and {' and '.join(shallow)} lacks: they differ in depth", slot)


def _problem(call: Call, key: str, names: tuple[str | None, ...]) -> Problem | None:
    """Why the operator has no answer for this tensor; None when it has one."""
    held = [(told, model.info(name).shape) for told, model, name in zip(call.names, call.viewed, names, strict=True) if name is not None]
    slot = next(slot for slot, name in zip(call.models, names, strict=True) if name is not None)
    if broken := [incomplete(model)[key].why for model in call.viewed if key in incomplete(model)]:
        return Problem(f"is not to be had of every model: {broken[0]}", slot)
    if len({shape for _, shape in held}) > 1:
        told = ", ".join(f"{list(shape)} in {model}" for model, shape in held)
        return Problem(f"has different shapes: {told}", slot)
    for declared in call.operator.inputs:
        lacking = [call.names[i] for i in call.slots[declared.name] if names[i] is None]
        answered = declared.space is Space.DELTA or (call.operator.missing is Missing.OMIT and declared.many)
        if lacking and not answered:
            holders = " and ".join(model for model, _ in held)
            return Problem(
                f"is only in {holders}, not in {' and '.join(lacking)}, and {call.operator.name} needs it from all",
                slot,
            )
    return None
