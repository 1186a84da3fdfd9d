"""Cuts the tensors of a checkpoint into parts that are computed and written one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.base import tree
from workbench.tensors import PIECE, Flat, Part, Rows, Scope, TensorInfo, elements

_ITEMSIZE = 4  # bytes of float32


@dataclass(frozen=True)
class TensorPart:
    """One part of one tensor of the result."""

    key: str
    part: Part
    info: TensorInfo
    held: int  # bytes that computing it takes, about

    @property
    def nbytes(self) -> int:
        first, last = elements(self.part, self.info.shape)
        return (last - first) * self.info.itemsize


def jobs(checkpoint: Checkpoint, infos: Iterable[tuple[str, TensorInfo]]) -> Iterator[TensorPart]:
    """The parts of every tensor in order; they depend on nothing but shapes and scope, and so never on threads."""
    tensors = _at_once(checkpoint)
    for key, info in infos:
        scope = Scope.ELEMENT if checkpoint.origin(key) else checkpoint.scope
        for part in _cut(info, scope):
            first, last = elements(part, info.shape)
            yield TensorPart(key, part, info, tensors * (last - first) * _ITEMSIZE)


def _at_once(checkpoint: Checkpoint) -> int:
    """How many tensors are in memory at once when one is computed: the inputs, and the result or one to work with."""
    needed: dict[Checkpoint, int] = {}
    for model in tree(checkpoint):
        before = [i + needed[parent] for i, parent in enumerate(model.parents)]
        needed[model] = max(len(before) + 1, *before) if before else 1
    return needed[checkpoint]


def _cut(info: TensorInfo, scope: Scope) -> Iterator[Part]:
    if info.numel <= PIECE or scope >= Scope.TENSOR or (scope is Scope.ROW and len(info.shape) < 2):
        yield None
    elif scope is Scope.ELEMENT:
        for start in range(0, info.numel, PIECE):
            yield Flat(start, min(start + PIECE, info.numel))
    else:
        rows = info.shape[0]
        step = max(1, PIECE * rows // info.numel)
        for start in range(0, rows, step):
            yield Rows(start, min(start + step, rows))
