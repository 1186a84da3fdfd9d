"""`diff`: reads two checkpoints side by side, and judges every tensor of either. What was found is held by difference_result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from workbench.analysis.difference_result import CHANGED, EQUAL, FIRST, SECOND, SHAPE, UNREAD, Change, ComparedTensor, Difference
from workbench.analysis.headers import kinds, metadata, recipes
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.layouts import incomplete, like
from workbench.checkpoint.views.matching import Matched, place, places
from workbench.engine.inputs import checkpoint
from workbench.engine.reading import Tensors, measured
from workbench.engine.rounding import all_only_rounded, stored_dtype
from workbench.merge.call import unique
from workbench.recipe import preflight

_WHO = "diff"


def diff(first: Checkpoint, second: Checkpoint, *, progress: bool = True) -> Difference:
    """How the second checkpoint differs from the first: tensors, shapes, dtypes, numbers, metadata, recipes.

    Takes two checkpoints, merged or not, of any kind; of different architectures too, which then have little in common. Tensors
    match by name without prefix. All are compared that are in both in one shape, integers and markers too. Both files are
    read once, in pieces. Raises, before a weight is read: InputError for what is no checkpoint, MergeError for a merge that
    cannot be made.
    """
    for model in (first, second):
        preflight(checkpoint(model, _WHO)).raise_errors()
    names = first.name, unique(second.name, [first.name])
    models = dict(zip(names, (first, second), strict=True))
    rows = list(_paired(first, second))
    unread = _incomparable(first, second)
    rows = [replace(row, status=UNREAD, note=unread) if unread and row.status == EQUAL else row for row in rows]
    shared = [row for row in rows if row.status == EQUAL]
    held = [[(name, key) for name, key in zip(names, row.names, strict=True) if key is not None] for row in shared]
    matched = [Matched(row.place, dict(pairs)) for row, pairs in zip(shared, held, strict=True)]
    changes = dict(zip((row.key for row in shared), measured(models, matched, _change, who=_WHO, progress=progress), strict=True))
    rows = [_judged(row, changes[row.key]) if row.status == EQUAL else row for row in rows]
    order = dict.fromkeys([*places(first), *places(second)])
    return Difference(
        names=names,
        rows=tuple(rows),
        order=tuple(place for place in order if any(row.place == place for row in rows)),
        kinds=kinds(first, second),
        metadata=metadata(first, second),
        recipes=recipes(first, second),
    )


def _paired(first: Checkpoint, second: Checkpoint) -> Iterator[ComparedTensor]:
    """The tensors of both in the first's layout: its own in their order, then what only the second has."""
    second = like(second, first)
    for key in first:
        info, other = first.info(key), second.info(key) if key in second else None
        status = FIRST if other is None else EQUAL if other.shape == info.shape else SHAPE
        note = incomplete(second)[key].why if key in incomplete(second) else ""
        yield ComparedTensor(place(first, key), (key, None if other is None else key), (info, other), status, note)
    for key in second:
        if key not in first:
            yield ComparedTensor(place(second, key), (None, key), (None, second.info(key)), SECOND)


def _incomparable(first: Checkpoint, second: Checkpoint) -> str:
    """Why no numbers can be set side by side; nothing where they can."""
    if first.space is not second.space:
        return f"the first holds {first.space.value}s, the second {second.space.value}s"
    return ""


def _judged(row: ComparedTensor, change: Change) -> ComparedTensor:
    """The row of a tensor that was read."""
    notes = [f"{change.odd} elements are NaN or infinite, which have no distance"] * bool(change.odd)
    if change.changed and not change.beyond:
        notes += [f"the same numbers, rounded to {' and '.join(info.dtype_name for info in row.infos if info)}"]
    notes += ["the first is all zero"] * (not change.square and change.numel > change.odd)
    return replace(row, status=CHANGED if change.changed else EQUAL, change=change, note="; ".join(notes))


def _change(tensors: Tensors) -> Change:
    """What two models differ by in one tensor."""
    import torch

    found = Change()
    dtypes = [stored_dtype(tensors.models[name], key) for name, key in tensors.matched.names.items()]
    for first, second in tensors.chunks(finite=False):
        beyond = not all_only_rounded(torch.stack([first, second]), dtypes)
        away = second - first
        same, odd = away == 0, 0
        if not math.isfinite(float(away.sum())):
            same |= (first == second) | (first.isnan() & second.isnan())
            finite = away.isfinite()
            odd = len(away) - int(finite.sum())
            first, away = first[finite], away[finite]
        largest = float(torch.linalg.vector_norm(away, math.inf)) if len(away) else 0.0
        found += Change(len(same), float(first @ first), float(away @ away), largest, len(same) - int(same.sum()), odd, int(beyond))
    return found
