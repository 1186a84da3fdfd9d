"""What becomes of each tensor of a merge: which inputs hold it, what stands in where one does not, which rule applies."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.names.buffers import is_marker, leftover
from workbench.checkpoint.names.components import takes_latents
from workbench.checkpoint.names.structure import Structure
from workbench.checkpoint.views.layouts import incomplete
from workbench.families import Block, Location
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

    `take` is the model it comes from untouched, and `unasked` why, if no rule says so; `ruled` is whether one says what becomes of it.
    `narrower` are the models that have fewer input channels than the base, whose change is 0 beyond them.
    """

    key: str
    component: str
    location: Location
    info: TensorInfo
    names: tuple[str | None, ...]
    take: int | None = None
    unasked: str | None = None
    problem: Problem | None = None
    ruled: bool = False
    narrower: tuple[int, ...] = ()

    @property
    def block(self) -> Block | None:
        """The block that it lies in."""
        return self.location.block

    @property
    def holder(self) -> int:
        """The first model that has it."""
        return next(i for i, name in enumerate(self.names) if name is not None)

    def needs(self, model: int) -> bool:
        """Whether it is read from a model."""
        return self.names[model] is not None and self.take in (None, model)

    @property
    def taken(self) -> tuple[int, str] | None:
        """The model it comes from untouched, and its name there; None when it is merged."""
        name = None if self.take is None else self.names[self.take]
        return None if self.take is None or name is None else (self.take, name)


@dataclass(frozen=True)
class Plan:
    """Every tensor of the result in order, those that are left out, with the reason, and the rules that decided nothing.

    Of what is left out, `leftovers` are what training left in the files, which no rule keeps.
    """

    entries: Mapping[str, Entry]
    left_out: Mapping[str, str]
    leftovers: Mapping[str, TensorInfo]
    idle: tuple[Rule, ...]


_known: WeakKeyDictionary[Checkpoint, tuple[object, list[ref[Checkpoint]], Plan]] = WeakKeyDictionary()


def plan_merge(call: Call, rules: tuple[Rule, ...]) -> Plan:
    """Plan every tensor without reading one. The names are those of the first input's layout.

    Options decide nothing here: the last plan of the same inputs, which a panel asks for with every move of a slider, is given again.
    """
    asked = call.operator, *call.slots.items(), call.names, rules
    known, inputs, plan = _known.get(call.inputs[0], (None, [], None))
    if plan is not None and known == asked and [one() for one in inputs] == [*call.inputs]:
        return plan
    plan = _planned(call, rules)
    _known[call.inputs[0]] = asked, [*map(ref, call.inputs)], plan
    return plan


def _planned(call: Call, rules: tuple[Rule, ...]) -> Plan:
    entries: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    leftovers: dict[str, TensorInfo] = {}
    used = set()
    keys = call.operator.keys
    reference = call.viewed if keys == UNION else [call.viewed[call.slots[keys][0]]]
    blocks = [_blocks(model) for model in call.viewed]
    union = list(_union([*reference, *call.viewed]))
    foreign = _foreign(rules, union)
    keeping = _keeping(rules, union, foreign)
    for key, holder in union:
        structure, what = holder.structure, leftover(key)
        rule = next((rule for rule in (keeping if what else rules) if _fits(rule, key, structure, rule in foreign)), None)
        if what and rule is None:
            leftovers[key], left_out[key] = holder.info(key), f"it is one of the {what}, which only a rule of their own keeps"
            continue
        if not any(key in model for model in reference) and not _asked_for(call, rule, key):
            continue
        used.add(rule)
        entry = _entry(call, rule, key, holder, blocks)
        if isinstance(entry, str):
            left_out[key] = entry
        else:
            entries[key] = entry
    for i, model in enumerate(call.viewed):
        only = f"it is only in {call.names[i]}, and the result has the tensors of {keys}"
        reasons = dict.fromkeys(model, only) | {key: one.why for key, one in incomplete(model).items()}
        left_out |= {key: why for key, why in reasons.items() if key not in entries and key not in left_out}
    for twin, key in call.inputs[0].structure.twins.items():  # one tensor, written under both of its names
        if key in entries:
            entries[twin] = entries[key]
        else:
            left_out[twin] = left_out[key]
    return Plan(entries, left_out, leftovers, tuple(rule for rule in rules if rule not in used))


def _asked_for(call: Call, rule: Rule | None, key: str) -> bool:
    """Whether a rule skips a tensor that the result would not have of itself, or takes it from a model that has it."""
    return rule is not None and (rule.skip or (rule.take is not None and key in call.viewed[call.position(rule.take)]))


def _keeping(rules: tuple[Rule, ...], union: Sequence[tuple[str, Checkpoint]], foreign: set[Rule]) -> list[Rule]:
    """The rules that mean what training left behind: those that fit nothing else."""
    if all(leftover(key) is None for key, _ in union):
        return []
    live = [(key, holder.structure) for key, holder in union if leftover(key) is None]
    return [rule for rule in rules if not any(_fits(rule, key, structure, rule in foreign) for key, structure in live)]


def _foreign(rules: tuple[Rule, ...], union: Sequence[tuple[str, Checkpoint]]) -> set[Rule]:
    """The rules whose patterns fit no name that is known at once: they may mean names of the other layout, which diffusers is asked for."""
    named = [(key, holder.structure) for key, holder in union if holder.structure.family.conversion.costly]
    patterns = [rule for rule in rules if rule.match is not None] if named else []
    return {rule for rule in patterns if not any(_fits(rule, key, holder.structure, False) for key, holder in union)}


def _fits(rule: Rule, key: str, structure: Structure, foreign: bool) -> bool:
    spellings = structure.spellings(key)
    return rule.fits(spellings | structure.spelled_otherwise(key) if foreign else spellings, structure.component(key))


def _union(models: Sequence[Checkpoint]) -> Iterator[tuple[str, Checkpoint]]:
    """Each tensor once, in the order of the first model that holds it, with that model."""
    seen = set()
    for model in models:
        for key in model:
            if key not in seen:
                seen.add(key)
                yield key, model


def _blocks(model: Checkpoint) -> frozenset[str]:
    """The names of a whole model's blocks; none of changes, which may be of a few blocks only."""
    found = (model.structure.block(key) for key in model) if model.space is Space.WEIGHT else ()
    return frozenset(block.name for block in found if block)


def _entry(call: Call, rule: Rule | None, key: str, holder: Checkpoint, blocks: Sequence[frozenset[str]]) -> Entry | str:
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
    location = structure.location(key)
    component, problem = structure.component(key), None
    narrower: tuple[int, ...] = ()
    if take is None:
        narrower = _narrower(call, names) if takes_latents(structure.name(key)) else ()
        problem = (_lacking_blocks(call, location.block, names, blocks) if rule is None else None) or _problem(call, key, names, narrower)
    return Entry(key, component, location, info, names, take, unasked, problem, rule is not None, narrower)


def _untouched(call: Call, names: tuple[str | None, ...]) -> tuple[int | None, str | None]:
    """Which model a tensor comes from when no rule decides, and why; None when it is merged."""
    holder, held = next((i, name) for i, name in enumerate(names) if name is not None)
    info = call.viewed[holder].info(held)
    if is_marker(held) or not info.is_float or info.numel == 0:
        return holder, "holds no weights (integers, a marker, a buffer, or empty)"
    if call.operator.missing is Missing.CANDIDATE and None in names:
        return next((i for i, name in enumerate(names) if i and name is not None), 0), "is not in every model"
    return None, None


def _transfer(shapes: Collection[tuple[int, ...]]) -> str:
    """How a model of more input channels gets what those of fewer learned, where that is the difference of two shapes."""
    few, many = min(shapes), max(shapes)
    if len(shapes) > 2 or not _fits_into(few, many):
        return ""
    return (
        f"; to give the model of {many[1]} input channels (an inpainting model) what one of {few[1]} learned, make it the base of "
        f"add_difference, with `original` of {few[1]} too, or of a delta method: beyond the first {few[1]} it stays as it is"
    )


def _lacking_blocks(call: Call, block: Block | None, names: tuple[str | None, ...], blocks: Sequence[frozenset[str]]) -> Problem | None:
    """Why a tensor of a block that another model lacks as a whole is not merged unless a rule says so; None when every model has it."""
    if block is None:
        return None
    lacking = [told for told, there in zip(call.names, blocks, strict=True) if there and block.name not in there]
    if not lacking:
        return None
    slot, holder = next((slot, told) for slot, told, name in zip(call.models, call.names, names, strict=True) if name is not None)
    return Problem(f"is of {block.name}, which {holder} has and {' and '.join(lacking)} lacks", slot)


def _narrower(call: Call, names: tuple[str | None, ...]) -> tuple[int, ...]:
    """The models that have a tensor with fewer input channels than the base, where the operator adds their change to it."""
    if call.operator.keys == UNION or names[0] is None or call.slots[call.operator.keys][0] != 0:
        return ()
    shapes = {i: call.viewed[i].info(name).shape for i, name in enumerate(names) if name is not None}
    added = {i for slot in call.operator.inputs if slot.space is Space.DELTA for i in call.slots[slot.name]}
    subtracted = [i for name in call.operator.difference for i in call.slots[name]]
    if len({shapes.get(i) for i in subtracted}) == 1:  # what they have alike cancels beyond
        added |= {*subtracted}
    return tuple(i for i in added if i in shapes and _fits_into(shapes[i], shapes[0]))


def _fits_into(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Whether a tensor is another one's but for the last of its input channels."""
    return len(shape) == len(full) > 1 and shape[1] < full[1] and (shape[0], *shape[2:]) == (full[0], *full[2:])


def _problem(call: Call, key: str, names: tuple[str | None, ...], narrower: tuple[int, ...]) -> Problem | None:
    """Why the operator has no answer for this tensor; None when it has one."""
    held = [(told, model.info(name).shape) for told, model, name in zip(call.names, call.viewed, names, strict=True) if name is not None]
    slot = next(slot for slot, name in zip(call.models, names, strict=True) if name is not None)
    if broken := [incomplete(model)[key].why for model in call.viewed if key in incomplete(model)]:
        return Problem(f"is not to be had of every model: {broken[0]}", slot)
    whole = {call.viewed[i].info(name).shape for i, name in enumerate(names) if name is not None and i not in narrower}
    if len(whole) > 1:
        told = ", ".join(f"{list(shape)} in {model}" for model, shape in held)
        first_layer = takes_latents(call.viewed[list(call.models).index(slot)].structure.name(key))
        return Problem(f"has different shapes: {told}{_transfer(whole) if first_layer else ''}", slot)
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
