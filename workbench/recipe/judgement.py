"""Preflight: everything that matters about a merge and can be said from names, shapes and options, before a weight is read."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, final

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.names.buffers import is_positions, leftover
from workbench.checkpoint.views.layouts import incomplete
from workbench.checkpoint.views.live import counted, differing_twin
from workbench.errors import MergeError, OptionError
from workbench.families import GENERIC
from workbench.merge import Merge, rules
from workbench.merge.plan import Entry, Problem, mending
from workbench.tensors import Space
from workbench.wording import enumerated, few, listed, size

if TYPE_CHECKING:
    import pandas as pd

_LEVELS = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing to know: `error` (the merge cannot be made), `warning`, or `note` (the operator has an answer)."""

    level: str
    text: str


@final
@dataclass(frozen=True)
class Preflight:
    """What was found: the inputs, one row each, and the findings, errors first."""

    models: tuple[Mapping[str, object], ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[str, ...]:
        return self._texts("error")

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._texts("warning")

    @property
    def notes(self) -> tuple[str, ...]:
        return self._texts("note")

    @property
    def ok(self) -> bool:
        """Whether the merge can be made."""
        return not self.errors

    def raise_errors(self) -> None:
        """Raise MergeError with every error there is; nothing when there is none."""
        if self.errors:
            raise MergeError("this merge cannot be made:\n" + "\n".join(f"- {text}" for text in self.errors))

    def frame(self) -> pd.DataFrame:
        """One row per input: name, architecture, layout, components, prediction type, dtypes, tensors, megabytes."""
        import pandas as pd

        return pd.DataFrame(self.models)

    def __str__(self) -> str:
        lines = [", ".join(f"{name}: {value}" for name, value in model.items()) for model in self.models]
        return "\n".join([*lines, *(f"{finding.level}: {finding.text}" for finding in self.findings)])

    def _repr_html_(self) -> str:
        marks = {"error": "&#10060;", "warning": "&#9888;&#65039;", "note": "&#8505;&#65039;"}
        items = "".join(f"<li>{marks[f.level]} {html.escape(f.text)}</li>" for f in self.findings)
        return f"{self.frame().to_html(index=False)}<ul style='list-style:none'>{items or '<li>&#9989; nothing to report</li>'}</ul>"

    def _texts(self, level: str) -> tuple[str, ...]:
        return tuple(finding.text for finding in self.findings if finding.level == level)


def preflight(checkpoint: Checkpoint) -> Preflight:
    """Judge a merge and the merges inside it by names, shapes and options; no weight is read."""
    files = _files(checkpoint)
    findings = list(dict.fromkeys(finding for merge in _merges(checkpoint) for finding in _judge(merge)))
    findings += _leftovers(list(_merges(checkpoint)))
    findings += [Finding("note", f"{file.name}: {text}") for file in files for text in file.notes]
    findings.sort(key=lambda finding: _LEVELS.index(finding.level))
    return Preflight(tuple(describe(model) for model in files), tuple(findings))


def describe(model: Checkpoint) -> dict[str, object]:
    """What is known of a checkpoint from its header, as one row of a table."""
    dtypes = Counter(model.info(key).dtype_name for key in model)
    return {
        "model": model.name,
        "architecture": model.architecture,
        "layout": model.structure.layout,
        "components": ", ".join(model.components),
        "prediction": model.structure.prediction,
        "dtypes": ", ".join(f"{name} {count}" for name, count in dtypes.most_common()),
        "tensors": len(model),
        "MB": round(model.nbytes / 1e6, 1),
    }


def _merges(checkpoint: Checkpoint) -> Iterator[Merge]:
    """The merges of a tree, innermost first."""
    for model in checkpoint.parents:
        yield from _merges(model)
    if checkpoint.merge is not None:
        yield checkpoint.merge


def _files(checkpoint: Checkpoint) -> list[Checkpoint]:
    return list(dict.fromkeys(file for model in checkpoint.parents for file in _files(model))) or [checkpoint]


def _judge(merge: Merge) -> Iterator[Finding]:
    """Findings about one merge. Of models that are strangers to each other nothing more is said."""
    strangers = list(_strangers(merge))
    if strangers:
        yield from strangers
        return
    if not merge.plan.entries:
        yield Finding("error", f"{merge.name}: no tensor is left: its rules skip them all, or take them from models that lack them")
        return
    yield from _problems(merge)
    yield from _twins(merge)
    yield from _positions(merge)
    yield from _option_problems(merge)
    yield from _answers(merge)
    yield from _narrower(merge)
    yield from _differences(merge)
    yield from _idle_rules(merge)


def _strangers(merge: Merge) -> Iterator[Finding]:
    inputs, viewed = merge.call.inputs, merge.call.viewed
    names = merge.call.names
    for name, model in zip(names, inputs, strict=True):
        if model.structure.conflict:
            yield Finding("error", f"{merge.name}: {name}: {model.structure.conflict}; merge files of one model each")
            return
    known = [(name, model.architecture) for name, model in zip(names, inputs, strict=True) if model.structure.family is not GENERIC]
    if len({found for _, found in known}) > 1:
        told = ", ".join(f"{name} is {found}" for name, found in known)
        yield Finding("error", f"{merge.name}: {told}; only models of one architecture can be merged")
        return
    taken_from = {entry.take for entry in merge.plan.entries.values() if entry.ruled}
    for i, (name, model, seen) in enumerate(zip(names, inputs, viewed, strict=True)):
        if i == 0 or i in taken_from:
            continue
        if viewed[0].keys().isdisjoint((*seen, *incomplete(seen))):
            yield Finding(
                "error",
                f"{merge.name}: {names[0]} ({inputs[0].architecture}, {inputs[0].structure.layout} names) and {name} "
                f"({model.architecture}, {model.structure.layout} names) have no tensor name in common; "
                "use models of one architecture",
            )
        elif apart := _mostly_apart(merge, model, seen):
            shared, count = apart
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


def _problems(merge: Merge) -> Iterator[Finding]:
    """Tensors the operator has no answer for, alike ones together, with the rule that mends them all."""
    groups: dict[tuple[str, str], tuple[Problem, list[Entry]]] = {}
    for entry in merge.plan.entries.values():
        if entry.problem:
            groups.setdefault((entry.problem.said, entry.component), (entry.problem, []))[1].append(entry)
    for problem, entries in groups.values():
        which, told, each = _which(merge, entries)
        yield Finding("error", f"{merge.name}: {told} {problem.said}; {mending(which, problem.holder)}{each}")


def _which(merge: Merge, entries: list[Entry]) -> tuple[dict[str, str], str, str]:
    """What a rule would have to match to mean these tensors of one component, what to call them, and an addition if it is one of many."""
    component = entries[0].component
    fellows = [entry.component for entry in merge.plan.entries.values()].count(component)
    if len(entries) == fellows > 1 and len({entry.component for entry in entries}) == 1:
        return {"component": component}, f"the whole {component} ({fellows} tensors)", ""
    pattern = _pattern([entry.key for entry in entries])
    exact = sum(fnmatchcase(key, pattern) for key in merge.plan.entries) == len(entries)
    return {"match": pattern if exact else entries[0].key}, _summary(entries), "" if exact else ", for each of them"


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


def _option_problems(merge: Merge) -> Iterator[Finding]:
    """Options that are wrong for the blocks there are, or for the models that hold a tensor; each combination once."""
    try:
        merge.bound  # noqa: B018 -- raises for blocks that are not there
    except OptionError as error:
        yield Finding("error", str(error))
        return
    seen = set()
    for key, entry in merge.plan.entries.items():
        case = (entry.location, tuple(name is not None for name in entry.names))
        if case in seen or entry.problem or entry.take is not None:
            continue
        seen.add(case)
        try:
            merge.check_options(key)
        except OptionError as error:
            yield Finding("error", str(error))
            return


def _answers(merge: Merge) -> Iterator[Finding]:
    """What the operator answers by itself: tensors that some models lack, that are not merged, and that are left out."""
    groups: dict[tuple[str, str, int], list[Entry]] = {}
    names = merge.call.names
    delta = any(slot.space is Space.DELTA for slot in merge.call.operator.inputs)
    for entry in merge.plan.entries.values():
        models = zip(names, entry.names, merge.call.inputs, strict=True)
        lacking = [name for name, key, model in models if key is None and model.space is Space.WEIGHT]  # LoRAs hold only what they change
        if entry.unasked and entry.take is not None:
            answer = f"{entry.unasked} and comes untouched from {names[entry.take]}"
        elif lacking and entry.problem is None and entry.take is None:
            answer = f"is not in {' and '.join(lacking)} and {'counts as unchanged there' if delta else 'is merged from the others'}"
        else:
            continue
        groups.setdefault((answer, entry.component, entry.holder), []).append(entry)
    for (answer, _, holder), entries in groups.items():
        which, told, each = _which(merge, entries)
        other = f"; to decide otherwise, {mending(which, list(merge.call.models)[holder])}{each}" if entries[0].take is None else ""
        yield Finding("note", f"{merge.name}: {told} {answer}{other}")
    left_out = {key: why for key, why in merge.plan.left_out.items() if key not in merge.plan.leftovers}
    for reason in dict.fromkeys(left_out.values()):
        keys = [key for key, why in left_out.items() if why == reason]
        rule = reason.startswith("a rule")
        yield Finding("note" if rule else "warning", f"{merge.name}: {listed(keys, 1)} is not in the result: {reason}")


def _leftovers(merges: list[Merge]) -> Iterator[Finding]:
    """What training left in the files and no result has: said once for all merges."""
    found = {key: info for merge in merges for key, info in merge.plan.leftovers.items()}
    for what in dict.fromkeys(filter(None, map(leftover, found))):
        keys = [key for key in found if leftover(key) == what]
        told = f"{len(keys)} tensors ({size(sum(found[key].nbytes for key in keys))}) are {what}, and not in the result: {listed(keys, 1)}"
        yield Finding("note", f"{told}; to keep them, add the rule {{match: {_pattern(keys)!r}, merge: true}}")


def _narrower(merge: Merge) -> Iterator[Finding]:
    """Input channels that only the base has."""
    for entry in merge.plan.entries.values():
        if entry.narrower:
            few = merge.call.viewed[entry.narrower[0]].info(entry.names[entry.narrower[0]] or "").shape[1]
            models, base = enumerated([merge.call.names[i] for i in entry.narrower]), merge.call.names[0]
            told = f"{entry.key!r} has {entry.info.shape[1]} input channels in {base} and {few} in {models}"
            yield Finding("note", f"{merge.name}: {told}: the first {few} are merged, the others stay as in {base}")


def _differences(merge: Merge) -> Iterator[Finding]:
    inputs = dict(zip(merge.call.names, merge.call.inputs, strict=True))
    predictions = {name: model.structure.prediction for name, model in inputs.items() if model.structure.prediction != "unknown"}
    if len(set(predictions.values())) > 1:
        told = ", ".join(f"{name} predicts {kind}" for name, kind in predictions.items())
        marks = merge.structure.marked("v_pred", "edm_vpred", "ztsnr")
        what = f"{listed(marks)} of the first that has it goes into the result" if marks else "the result has no marker"
        yield Finding("warning", f"{merge.name}: {told}; {what}, and is taken to predict {merge.structure.prediction}")
    denoising = {
        name: model for name, model in inputs.items() if model.space is Space.WEIGHT and model.structure.denoiser in model.components
    }
    marked = [name for name, model in denoising.items() if model.structure.marked("ztsnr")]
    if marked and len(marked) < len(denoising):
        others = enumerated([name for name in denoising if name not in marked])
        has = "has the marker" if merge.structure.marked("ztsnr") else "has no such marker"
        told = f"'ztsnr' is in {enumerated(marked)} and not in {others}: trained with and without pure noise at the first step"
        yield Finding("warning", f"{merge.name}: {told}; the result {has}")
    for slot in merge.call.operator.inputs:
        for i in merge.call.slots[slot.name] if slot.space is Space.DELTA else ():
            if (path := merge.call.inputs[i].path) is not None and path == merge.call.inputs[0].path:
                names = merge.call.names
                yield Finding("note", f"{merge.name}: {names[i]} is the same file as {names[0]}, and so changes nothing")
    vae = [name for name, model in inputs.items() if "vae" in model.components]
    merged = any(entry.component == "vae" and entry.take is None for entry in merge.plan.entries.values())
    if len(vae) > 1 and merged:
        yield Finding(
            "note",
            f"{merge.name}: the VAEs of {', '.join(vae)} are merged too; where they differ, the rule "
            f"{{component: 'vae', take: {next(iter(merge.call.models))!r}}} keeps one whole",
        )


def _idle_rules(merge: Merge) -> Iterator[Finding]:
    defaults = rules.parse(merge.call.operator.rules, merge.call)  # these are for models of any kind
    for rule in (rule for rule in merge.plan.idle if rule not in defaults and not rule.optional):
        which = ", ".join(f"{name}: {value!r}" for name, value in (("match", rule.match), ("component", rule.component)) if value)
        why = "no tensor fits it, or an earlier rule goes first"
        yield Finding("error", f"{merge.name}: the rule {{{which}}} decides nothing: {why}; mend it, or add optional: true to it")


def _summary(entries: list[Entry]) -> str:
    """The first tensor's name, how many more there are, and in which blocks."""
    places = Counter(entry.block.name if entry.block else entry.component for entry in entries)
    told = few([f"{place} {count}" for place, count in places.most_common()], 6)
    return listed([entry.key for entry in entries], 1) + (f" ({told})" if len(entries) > 1 else "")


def _pattern(keys: list[str]) -> str:
    """The one name, or the longest pattern of whole parts that all the names share."""
    if len(keys) == 1:
        return keys[0]
    split = [key.split(".") for key in keys]
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join([*shared, "*"])
