"""Cuts the tensors of a checkpoint into parts that are computed and written one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.base import tree
from workbench.devices import at_once
from workbench.engine.quantising.quantiser import Quantiser
from workbench.tensors import Calculation, Part, Scope, elements, pieces

_ITEMSIZE = 4  # bytes of float32
_ENCODED = 4  # what encoding holds beside the inputs where units are large: what the merge starts from, and both as they are written


@dataclass(frozen=True)
class TensorPart:
    """One part of one tensor of the result."""

    key: str
    part: Part
    quantiser: Quantiser
    held: int  # bytes that computing it takes, about
    steps: tuple[Part, ...]  # what it is computed in, one after another

    @property
    def nbytes(self) -> int:
        first, last = elements(self.part, self.quantiser.info.shape)
        return (last - first) * self.quantiser.info.itemsize


def jobs(checkpoint: Checkpoint, quantisers: Iterable[tuple[str, Quantiser]], calculation: Calculation) -> Iterator[TensorPart]:
    """The parts of every tensor in order, each of whole units; they depend on shapes, units, scope and device, never on threads."""
    size = at_once(calculation.device)
    tensors, grain = _at_once(checkpoint), checkpoint.grain(calculation)
    preparing = sum(model.merge.call.operator.prepare_holds for model in tree(checkpoint) if model.merge is not None)
    for key, quantiser in quantisers:
        info = quantiser.info
        scope = Scope.ELEMENT if checkpoint.origin(key) else checkpoint.scope
        working = _ENCODED if quantiser.unit > size else 0
        for part in pieces(None, scope, info.shape, quantiser.unit, size):
            steps = tuple(pieces(part, min(scope, grain), info.shape, quantiser.unit, size))
            longest = max(last - first for first, last in (elements(one, info.shape) for one in steps))
            held = (tensors + working) * longest + preparing * info.numel * (longest < info.numel)
            yield TensorPart(key, part, quantiser, held * _ITEMSIZE, steps)


def _at_once(checkpoint: Checkpoint) -> int:
    """How many tensors are in memory at once when one is computed: the inputs, and the result or one to work with."""
    needed: dict[Checkpoint, int] = {}
    for model in tree(checkpoint):
        before = [i + needed[parent] for i, parent in enumerate(model.parents)]
        needed[model] = max(len(before) + 1, *before) if before else 1
    return needed[checkpoint]
