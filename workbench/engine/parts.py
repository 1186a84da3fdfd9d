"""Cuts the tensors of a checkpoint into parts that are computed and written one by one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.base import tree
from workbench.devices import at_once
from workbench.engine.quantising.quantiser import Quantiser
from workbench.tensors import Flat, Part, Rows, Scope, TensorInfo, elements

_ITEMSIZE = 4  # bytes of float32
_ENCODED = 4  # what encoding holds beside the inputs where units are large: what the merge starts from, and both as they are written


@dataclass(frozen=True)
class TensorPart:
    """One part of one tensor of the result."""

    key: str
    part: Part
    quantiser: Quantiser
    held: int  # bytes that computing it takes, about

    @property
    def nbytes(self) -> int:
        first, last = elements(self.part, self.quantiser.info.shape)
        return (last - first) * self.quantiser.info.itemsize


def jobs(checkpoint: Checkpoint, quantisers: Iterable[tuple[str, Quantiser]], device: str = "cpu") -> Iterator[TensorPart]:
    """The parts of every tensor in order, each of whole units; they depend on shapes, units, scope and device, never on threads."""
    size = at_once(device)
    tensors = _at_once(checkpoint)
    for key, quantiser in quantisers:
        info = quantiser.info
        scope = Scope.ELEMENT if checkpoint.origin(key) else checkpoint.scope
        working = _ENCODED if quantiser.unit > size else 0
        for part in _cut(info, scope, quantiser.unit, size):
            first, last = elements(part, info.shape)
            yield TensorPart(key, part, quantiser, (tensors + working) * (last - first) * _ITEMSIZE)


def _at_once(checkpoint: Checkpoint) -> int:
    """How many tensors are in memory at once when one is computed: the inputs, and the result or one to work with."""
    needed: dict[Checkpoint, int] = {}
    for model in tree(checkpoint):
        before = [i + needed[parent] for i, parent in enumerate(model.parents)]
        needed[model] = max(len(before) + 1, *before) if before else 1
    return needed[checkpoint]


def _cut(info: TensorInfo, scope: Scope, unit: int, size: int) -> Iterator[Part]:
    if info.numel <= max(size, unit) or scope >= Scope.TENSOR or (scope is Scope.ROW and len(info.shape) < 2):
        yield None
    elif scope is Scope.ELEMENT:
        step = max(1, size // unit) * unit
        for start in range(0, info.numel, step):
            yield Flat(start, min(start + step, info.numel))
    else:
        rows = info.shape[0]
        whole = unit // math.gcd(unit, info.numel // rows)  # so many rows are whole units
        step = max(1, size * rows // info.numel // whole) * whole
        for start in range(0, rows, step):
            yield Rows(start, min(start + step, rows))
