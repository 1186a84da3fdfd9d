"""Findings about the models of a merge: whether they belong together, how they differ, what is broken in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.names.buffers import is_positions
from workbench.checkpoint.views.layouts import incomplete
from workbench.checkpoint.views.live import counted, differing_twin
from workbench.families import GENERIC
from workbench.merge import Merge
from workbench.tensors import Space
from workbench.wording import enumerated, listed

_V = ("v_pred", "edm_vpred")  # markers of what a model predicts


@dataclass(frozen=True)
class Finding:
    """One thing to know: `error` (the merge cannot be made), `warning`, or `note` (the operator has an answer)."""

    level: str
    text: str


def strangers(merge: Merge) -> Iterator[Finding]:
    """Models that cannot be merged with the first: of another architecture, or of other tensors, unless a rule takes some from there."""
    inputs, viewed = merge.call.inputs, merge.call.viewed
    names = merge.call.names
    for name, model in zip(names, inputs, strict=True):
        if model.structure.conflict:
            yield Finding("error", f"{merge.name}: {name}: {model.structure.conflict}; merge files of one model each")
            return
    known = [(name, model.architecture) for name, model in zip(names, inputs, strict=True) if model.structure.family is not GENERIC]
    if len({found for _, found in known}) > 1:
        told = ", ".join(f"{name} is {found}" for name, found in known)
        first = inputs[0].architecture
        strange = [(name, one) for name, one in zip(names, inputs, strict=True) if one.space is Space.DELTA and one.architecture != first]
        keys = "".join(f"; {name} changes {listed(list(one))}" for name, one in strange if one.structure.family is not GENERIC)
        yield Finding("error", f"{merge.name}: {told}; only models of one architecture can be merged{keys}")
        return
    taken_from = {entry.take for entry in merge.plan.entries.values() if entry.ruled}
    for i, (name, model, seen) in enumerate(zip(names, inputs, viewed, strict=True)):
        apart = viewed[0].keys().isdisjoint((*seen, *incomplete(seen)))
        if i == 0 or (apart and i in taken_from):
            continue
        if apart:
            its = f" (its own are {listed(list(seen))})" if model.space is Space.DELTA else ""
            yield Finding(
                "error",
                f"{merge.name}: {names[0]} ({inputs[0].architecture}, {inputs[0].structure.layout} names) and {name} "
                f"({model.architecture}, {model.structure.layout} names) have no tensor name in common{its}; "
                "use models of one architecture",
            )
        elif few := _mostly_apart(merge, model, seen):
            shared, count = few
            yield Finding(
                "error",
                f"{merge.name}: {names[0]} and {name} share {shared} of the {count} tensors of their {inputs[0].structure.denoiser}s, "
                "most are in one alone; use models of one architecture, or say that these are to be merged: "
                f"{{component: {inputs[0].structure.denoiser!r}, merge: true}}",
            )


def _mostly_apart(merge: Merge, model: Checkpoint, seen: Checkpoint) -> tuple[int, int] | None:
    """How many tensors of its denoiser a model shares with the first, of how many that no rule decides, if it is less than half."""
    first = merge.call.viewed[0]
    if Space.DELTA in (model.space, first.space):
        return None
    mine, theirs = (_undecided(merge, one) for one in (first, seen))
    shared, count = len(mine & theirs), len(mine | theirs)
    return (shared, count) if mine and theirs and 2 * shared < count else None


def _undecided(merge: Merge, model: Checkpoint) -> set[str]:
    """The tensors of a model's denoiser of which no rule says what becomes of them."""
    structure, plan = model.structure, merge.plan
    keys = {key for key in (*model, *incomplete(model)) if key not in model or structure.component(key) == structure.denoiser}
    return (
        keys
        - {key for key, entry in plan.entries.items() if entry.ruled}
        - {key for key, why in plan.left_out.items() if why.startswith("a rule")}
    )


def differences(merge: Merge) -> Iterator[Finding]:
    """How the models differ, and what in them is broken."""
    yield from _twins(merge)
    yield from _positions(merge)
    yield from _predictions(merge)
    yield from _zero_terminal(merge)
    yield from _same_files(merge)
    yield from _vaes(merge)


def _predictions(merge: Merge) -> Iterator[Finding]:
    """Models that predict different things, or were trained on different noise."""
    inputs = dict(zip(merge.call.names, merge.call.inputs, strict=True))
    predictions = {name: model.structure.prediction for name, model in inputs.items() if model.structure.prediction != "unknown"}
    if len(set(predictions.values())) > 1:
        told = ", ".join(f"{name} predicts {kind}" for name, kind in predictions.items())
        marks = merge.structure.marked(*_V, "ztsnr")
        what = f"{listed(marks)} of the first that has it goes into the result" if marks else "the result has no marker"
        yield Finding("warning", f"{merge.name}: {told}; {what}, and is taken to predict {merge.structure.prediction}")


def _zero_terminal(merge: Merge) -> Iterator[Finding]:
    inputs = zip(merge.call.names, merge.call.inputs, strict=True)
    denoising = {name: model for name, model in inputs if model.space is Space.WEIGHT and model.structure.denoiser in model.components}
    marked = [name for name, model in denoising.items() if model.structure.marked("ztsnr")]
    if marked and len(marked) < len(denoising):
        others = enumerated([name for name in denoising if name not in marked])
        has = "has the marker" if merge.structure.marked("ztsnr") else "has no such marker"
        told = f"'ztsnr' is in {enumerated(marked)} and not in {others}: trained with and without pure noise at the first step"
        yield Finding("warning", f"{merge.name}: {told}; the result {has}")


def _same_files(merge: Merge) -> Iterator[Finding]:
    for slot in merge.call.operator.inputs:
        for i in merge.call.slots[slot.name] if slot.space is Space.DELTA else ():
            if (path := merge.call.inputs[i].path) is not None and path == merge.call.inputs[0].path:
                names = merge.call.names
                yield Finding("note", f"{merge.name}: {names[i]} is the same file as {names[0]}, and so changes nothing")


def _vaes(merge: Merge) -> Iterator[Finding]:
    inputs = dict(zip(merge.call.names, merge.call.inputs, strict=True))
    vae = [name for name, model in inputs.items() if "vae" in model.components]
    merged = any(entry.component == "vae" and entry.take is None for entry in merge.plan.entries.values())
    if len(vae) > 1 and merged:
        yield Finding(
            "note",
            f"{merge.name}: the VAEs of {', '.join(vae)} are merged too; where they differ, the rule "
            f"{{component: 'vae', take: {next(iter(merge.call.models))!r}}} keeps one whole",
        )


def _twins(merge: Merge) -> Iterator[Finding]:
    """Text encoders that are in a file under both of their names: one, or two that differ. Only these are read, and once."""
    for i, (name, model) in enumerate(zip(merge.call.names, merge.call.inputs, strict=True)):
        twins, structure = model.structure.twins, model.structure
        parts = {structure.component(key) for key in twins.values()}
        if not any(entry.component in parts and entry.needs(i) for entry in merge.plan.entries.values()):
            continue
        if differing := differing_twin(model):
            told = f"{differing[0]!r} and {differing[1]!r} are two names of one tensor, and hold other numbers"
            yield Finding("error", f"{merge.name}: {name}: {told}; programs read either of them: save the model with the right one alone")
        elif model.merge is None:
            yield Finding("note", f"{name}: {listed(list(twins), 1)} is there under two names, and merged once")


def _positions(merge: Merge) -> Iterator[Finding]:
    for i, (name, model) in enumerate(zip(merge.call.names, merge.call.live, strict=True)):
        broken = counted(model)
        if broken and any(is_positions(entry.key) and entry.take == i for entry in merge.plan.entries.values()):
            count, had = model.info(broken[0]).numel, merge.call.inputs[i].info(broken[0]).dtype_name
            told = f"{listed(broken, 1)} is broken ({had}, or not counted from 0)"
            yield Finding("note", f"{name}: {told}; the result has the whole numbers 0 to {count - 1} (int64)")
