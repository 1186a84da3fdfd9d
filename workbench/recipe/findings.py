"""Findings about the tensors of a merge: what it has no answer for, or answers by itself, what its rules and options do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase

from workbench.checkpoint.names.buffers import leftover
from workbench.errors import OptionError
from workbench.merge import Merge, rules
from workbench.merge.plan import Entry, Problem, mending
from workbench.recipe.inputs import Finding, differences, strangers
from workbench.recipe.roundings import roundings
from workbench.tensors import Space
from workbench.wording import enumerated, few, listed, percent, size

_HALF_STEPS = {"F8_E4M3": 1 / 16, "F8_E5M2": 1 / 8}  # of a value, at most, that rounding to float8 may change


def judge(merge: Merge) -> Iterator[Finding]:
    """Findings about one merge. Of models that are strangers to each other nothing more is said."""
    apart = list(strangers(merge))
    if apart:
        yield from apart
        return
    if not merge.plan.entries:
        yield Finding("error", f"{merge.name}: no tensor is left: its rules skip them all, or take them from models that lack them")
        return
    yield from _problems(merge)
    yield from _option_problems(merge)
    yield from _answers(merge)
    yield from _narrower(merge)
    yield from roundings(merge)
    yield from differences(merge)
    yield from _idle_rules(merge)


def leftovers(merges: list[Merge]) -> Iterator[Finding]:
    """What training left in the files and no result has: said once for all merges."""
    found = {key: info for merge in merges for key, info in merge.plan.leftovers.items()}
    for what in dict.fromkeys(filter(None, map(leftover, found))):
        keys = [key for key in found if leftover(key) == what]
        told = f"{len(keys)} tensors ({size(sum(found[key].nbytes for key in keys))}) are {what}, and not in the result: {listed(keys, 1)}"
        yield Finding("note", f"{told}; to keep them, add the rule {{match: {_pattern(keys)!r}, merge: true}}")


def rounding(merge: Merge) -> Iterator[Finding]:
    """Changes that rounding to float8 swallows: small ones, where the model that is changed is in float8 already."""
    grid = []
    for key, entry in merge.plan.entries.items():
        at = merge.starts_from(entry)
        if entry.take is None and (name := entry.names[at]) is not None and merge.info(key).code in _HALF_STEPS:
            grid += [key] if merge.call.viewed[at].info(name).code == merge.info(key).code else []
    if grid:
        info = merge.info(grid[0])
        told = f"{len(grid)} merged tensors are {info.dtype_name} in the model that is changed, and in the result"
        lost = f"where less than about {percent(_HALF_STEPS[info.code])} of a value changes, as by a weak LoRA, rounding swallows it"
        yield Finding("note", f"{merge.name}: {told}: {lost}; what export returns has the share that is left; dtype bfloat16 keeps all")


def _narrower(merge: Merge) -> Iterator[Finding]:
    """Input channels that only the base has."""
    for entry in merge.plan.entries.values():
        if entry.narrower:
            few = merge.call.viewed[entry.narrower[0]].info(entry.names[entry.narrower[0]] or "").shape[1]
            models, base = enumerated([merge.call.names[i] for i in entry.narrower]), merge.call.names[0]
            told = f"{entry.key!r} has {entry.info.shape[1]} input channels in {base} and {few} in {models}"
            yield Finding("note", f"{merge.name}: {told}: the first {few} are merged, the others stay as in {base}")


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
