"""What becomes of each tensor of a merge: which inputs hold it, what stands in where one does not, which rule applies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.architecture import is_marker
from workbench.checkpoint.blocks import Block
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
    """One tensor of the result. `names` has its name in each model, or None.

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
    """Plan every tensor without reading one."""
    entries: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    used = set()
    keys = call.operator.keys
    reference = call.inputs if keys == UNION else [call.inputs[call.slots[keys][0]]]
    for canonical, holder, own in _union(reference):
        key = _spell(call, canonical, holder, own)
        structure = holder.structure
        rule = next((rule for rule in rules if rule.fits({key, structure.name(own).rest, canonical[1]}, structure.component(own))), None)
        used.add(rule)
        entry = _entry(call, rule, key, holder, own)
        if isinstance(entry, str):
            left_out[key] = entry
        else:
            entries[key] = entry
    for canonical, holder, own in _union(call.inputs):
        key = _spell(call, canonical, holder, own)
        if key not in entries and key not in left_out:
            left_out[key] = f"it is only in {call.names[call.inputs.index(holder)]}, and the result has the tensors of {keys}"
    return Plan(entries, left_out, tuple(rule for rule in rules if rule not in used))


def _union(inputs: Sequence[Checkpoint]) -> Iterator[tuple[tuple[str, str], Checkpoint, str]]:
    """Each tensor once, in the order of the first model that holds it: its canonical name, that model, its name there."""
    seen = set()
    for model in inputs:
        for key in model:
            canonical = model.structure.canonical(key)
            if canonical not in seen:
                seen.add(canonical)
                yield canonical, model, key


def _spell(call: Call, canonical: tuple[str, str], holder: Checkpoint, own: str) -> str:
    """A tensor's name in the result: the first model's, or as the first model would write it."""
    first = call.inputs[0].structure
    return first.by_canonical.get(canonical) or first.spell(canonical, holder.structure.name(own))


def _entry(call: Call, rule: Rule | None, key: str, holder: Checkpoint, own: str) -> Entry | str:
    """The plan for one tensor, or why it is left out."""
    structure = holder.structure
    names = tuple(model.structure.by_canonical.get(structure.canonical(own)) for model in call.inputs)
    if rule and rule.skip:
        return "a rule skips it"
    take, unasked = (rule.take, None) if rule else _untouched(call, names)
    if take is not None and names[take] is None:
        return f"a rule takes it from {call.names[take]}, which lacks it"
    source = next(i for i, name in enumerate(names) if name is not None) if take is None else take
    info = call.inputs[source].info(names[source])  # type: ignore[arg-type]
    problem = _problem(call, names) if take is None else None
    return Entry(key, structure.component(own), structure.block(own), info, names, take, unasked, problem)


def _untouched(call: Call, names: tuple[str | None, ...]) -> tuple[int | None, str | None]:
    """Which model a tensor comes from when no rule decides, and why; None when it is merged."""
    holder, held = next((i, name) for i, name in enumerate(names) if name is not None)
    info = call.inputs[holder].info(held)
    if is_marker(held) or not info.is_float or info.numel == 0:
        return holder, "holds no weights (integers, a marker, or empty)"
    if call.operator.missing is Missing.CANDIDATE and None in names:
        return next((i for i, name in enumerate(names) if i and name is not None), 0), "is not in every model"
    return None, None


def _problem(call: Call, names: tuple[str | None, ...]) -> Problem | None:
    """Why the operator has no answer for this tensor; None when it has one."""
    held = [(told, model.info(name).shape) for told, model, name in zip(call.names, call.inputs, names, strict=True) if name is not None]
    slot = next(slot for slot, name in zip(call.models, names, strict=True) if name is not None)
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
