"""Changes that are in part what storing lost: of models that are stored in another way than the one that is subtracted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.stored.rounding import lost_when_stored
from workbench.errors import CheckpointError
from workbench.merge import Merge
from workbench.recipe.inputs import Finding
from workbench.tensors import Calculation, Flat, Space, Storage
from workbench.wording import percent

_WIDE = {"float64", "float32", "float16", "bfloat16"}  # whose rounding is no matter
_TENSORS, _SAMPLE = 6, 1 << 14  # how many are looked at, evenly spread, and how many numbers of each


@dataclass(frozen=True)
class _Change:
    """A tensor of a model, and that of the model it is subtracted from, by name."""

    model: Checkpoint
    name: str
    base: Checkpoint
    base_name: str

    @property
    def stored(self) -> tuple[Storage, Storage]:
        return self.model.storage(self.name), self.base.storage(self.base_name)


def roundings(merge: Merge) -> Iterator[Finding]:
    """How many changes are of tensors stored in two ways, and about how much of them is the rounding of both: from a sample of numbers.

    It is no loss by itself: changes added with weights that sum to one take the base's rounding out again.
    """
    changes = list(_changes(merge))
    if not changes:
        return
    told = ", ".join(dict.fromkeys(f"{one.stored[0].kind} less {one.stored[1].kind}" for one in changes))
    try:
        share = _share(changes[:: -(-len(changes) // _TENSORS)])
    except CheckpointError as error:  # a scale that is none, say
        yield Finding("error", f"{merge.name}: {error}")
        return
    how = "how much of them is unknown" if share is None else f"by a sample about {percent(share)} of their squares"
    told = f"{len(changes)} changes are of tensors stored in two ways ({told}), and hold the rounding of both: {how}"
    yield Finding("note", f"{merge.name}: {told}; what prunes or elects by size takes it for change")


def _changes(merge: Merge) -> Iterator[_Change]:
    call = merge.call
    positions = [i for slot in call.operator.inputs if slot.space is Space.DELTA for i in call.slots[slot.name]]
    positions = [
        i for i in positions if call.inputs[i].space is Space.WEIGHT and not call.inputs[i].parents
    ]  # what is merged is not stored
    for entry in merge.plan.entries.values():
        at = merge.starts_from(entry)
        base = entry.names[at]
        if entry.take is None and base is not None and not call.inputs[at].parents:
            for i in positions:
                if (name := entry.names[i]) is not None and i not in entry.narrower:
                    change = _Change(call.viewed[i], name, call.viewed[at], base)
                    kinds = {one.kind for one in change.stored}
                    if len(kinds) > 1 and not kinds <= _WIDE:
                        yield change


def _share(changes: Sequence[_Change]) -> float | None:
    """The expected squared rounding of both models, over the squared difference; at most 1. None where a way of storing hides it."""
    lost, square = [], []
    for one in changes:
        count = min(one.model.info(one.name).numel, _SAMPLE)
        pairs = [(one.model, one.name), (one.base, one.base_name)]
        values = [model.calculate(name, Flat(0, count), Calculation()).reshape(-1) for model, name in pairs]
        for (model, name), storage, found in zip(pairs, one.stored, values, strict=True):
            lost.append(lost_when_stored(storage.kind, 8 * storage.nbytes / max(model.info(name).numel, 1), found))
        square.append(float((values[0] - values[1]).double().square().sum()))
    if None in lost or not sum(square):
        return None
    return min(math.fsum(one for one in lost if one is not None) / math.fsum(square), 1.0)
