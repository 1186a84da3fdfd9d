"""Preflight: everything that matters about a merge and can be said from names, shapes and options, before a weight is read."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, final

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.base import MOST_MERGES, merges_in, tree
from workbench.checkpoint.views.layouts import incomplete
from workbench.errors import MergeError, OptionError
from workbench.families import GENERIC
from workbench.merge import Merge, rules
from workbench.merge.plan import Entry, Problem, mending
from workbench.tensors import Space
from workbench.wording import few, listed, printable

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
            raise MergeError("this merge cannot be made:\n" + "\n".join(f"- {printable(text)}" for text in self.errors))

    def frame(self) -> pd.DataFrame:
        """One row per input: name, architecture, layout, components, prediction type, dtypes, tensors, megabytes."""
        import pandas as pd

        return pd.DataFrame(self.models)

    def __str__(self) -> str:
        lines = [", ".join(f"{name}: {value}" for name, value in model.items()) for model in self.models]
        return "\n".join(map(printable, [*lines, *(f"{finding.level}: {finding.text}" for finding in self.findings)]))

    def _repr_html_(self) -> str:
        marks = {"error": "&#10060;", "warning": "&#9888;&#65039;", "note": "&#8505;&#65039;"}
        items = "".join(f"<li>{marks[f.level]} {html.escape(f.text)}</li>" for f in self.findings)
        return f"{self.frame().to_html(index=False)}<ul style='list-style:none'>{items or '<li>&#9989; nothing to report</li>'}</ul>"

    def _texts(self, level: str) -> tuple[str, ...]:
        return tuple(finding.text for finding in self.findings if finding.level == level)


def preflight(checkpoint: Checkpoint) -> Preflight:
    """Judge a merge and the merges inside it by names, shapes and options; no weight is read."""
    models = tree(checkpoint)
    files = [model for model in models if not model.parents]
    merges = list(dict.fromkeys(model.merge for model in models if model.merge is not None))
    findings = list(dict.fromkeys([*_repetition(checkpoint), *(one for merge in merges for one in _judge(merge))]))
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


def _repetition(checkpoint: Checkpoint) -> Iterator[Finding]:
    """An error about merges that are inputs again and again: each time they are calculated, and stand in the recipe."""
    if (count := merges_in(checkpoint)) > MOST_MERGES:
        told = f"{checkpoint.name}: is made of {count:,} merges, each counted as often as it is an input; at most {MOST_MERGES:,} are made"
        yield Finding("error", f"{told}: export an inner merge that is used often, and merge what `open` gives")


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
    yield from _option_problems(merge)
    yield from _answers(merge)
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
    for name, model, seen in zip(names[1:], inputs[1:], viewed[1:], strict=True):
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
    pattern = _pattern(entries)
    exact = sum(fnmatchcase(key, pattern) for key in merge.plan.entries) == len(entries)
    return {"match": pattern if exact else entries[0].key}, _summary(entries), "" if exact else ", for each of them"


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
        if case in seen or entry.problem:
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
        holder = next(i for i, name in enumerate(entry.names) if name is not None)
        groups.setdefault((answer, entry.component, holder), []).append(entry)
    for (answer, _, holder), entries in groups.items():
        which, told, each = _which(merge, entries)
        other = f"; to decide otherwise, {mending(which, list(merge.call.models)[holder])}{each}" if entries[0].take is None else ""
        yield Finding("note", f"{merge.name}: {told} {answer}{other}")
    for reason in dict.fromkeys(merge.plan.left_out.values()):
        keys = [key for key, why in merge.plan.left_out.items() if why == reason]
        rule = reason.startswith("a rule")
        yield Finding("note" if rule else "warning", f"{merge.name}: {listed(keys, 1)} is not in the result: {reason}")


def _differences(merge: Merge) -> Iterator[Finding]:
    inputs = dict(zip(merge.call.names, merge.call.inputs, strict=True))
    predictions = {name: model.structure.prediction for name, model in inputs.items() if model.structure.prediction != "unknown"}
    if len(set(predictions.values())) > 1:
        told = ", ".join(f"{name} predicts {kind}" for name, kind in predictions.items())
        yield Finding("warning", f"{merge.name}: {told}; the markers of the first that has them go into the result")
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


def _pattern(entries: list[Entry]) -> str:
    """The one name, or the longest pattern of whole parts that all the names share."""
    if len(entries) == 1:
        return entries[0].key
    split = [entry.key.split(".") for entry in entries]
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join([*shared, "*"])
