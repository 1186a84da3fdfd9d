"""Reads the same tensor of several models side by side, tensor by tensor on threads. What is measured is the caller's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.layouts import alike
from workbench.checkpoint.views.matching import Matched
from workbench.engine.pool import Done, run
from workbench.errors import NonFiniteWarning, warn
from workbench.tensors import Flat, Scope
from workbench.wording import listed

if TYPE_CHECKING:
    import torch

Found = TypeVar("Found")

CHUNK = 1 << 16  # elements of a few models in float64 that stay in the cache together
PART = 1 << 20  # elements of a model that are read at once: of fewer, threads would wait for each other's Python


@dataclass(frozen=True)
class Tensors:
    """One tensor of every model that has it, the first model's first, and its place. `names` are the models'."""

    matched: Matched
    models: Mapping[str, Checkpoint]
    done: Done

    @property
    def place(self) -> str:
        """The block it lies in, or the component where it lies in none."""
        return self.matched.place

    @property
    def key(self) -> str:
        """What the first model calls it."""
        return next(iter(self.matched.names.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """The models that have it."""
        return tuple(self.matched.names)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.models[self.names[0]].info(self.key).shape

    def parts(self) -> Iterator[list[torch.Tensor]]:
        """The tensor of every model in flat pieces, always the same ones, as they are stored."""
        for parts in zip(*(self._parts(name) for name in self.names), strict=True):
            yield [*parts]
            self.done(sum(part.nbytes for part in parts))

    def wide(self, parts: Sequence[torch.Tensor], finite: bool = True) -> Iterator[torch.Tensor]:
        """One of `parts` in smaller ones: models x elements, in float64; memory that is used again.

        Whoever does not want them `finite` has to expect NaN and infinity.
        """
        import torch

        rows = torch.empty(len(parts), min(CHUNK, len(parts[0])), dtype=torch.float64)
        for start in range(0, len(parts[0]), CHUNK):
            chunk = rows[:, : min(CHUNK, len(parts[0]) - start)]
            for row, part in zip(chunk, parts, strict=True):
                row.copy_(part[start : start + CHUNK].float() if part.itemsize < 4 else part[start : start + CHUNK])  # twice as fast
            if finite:
                _check(chunk, self.names)
            yield chunk

    def chunks(self, finite: bool = True) -> Iterator[torch.Tensor]:
        """All of it so."""
        for parts in self.parts():
            yield from self.wide(parts, finite)

    def matrices(self) -> torch.Tensor:
        """The whole tensor of every model as a matrix, in float64: models x rows x columns, dimension 0 against the others."""
        import torch

        rows = self.shape[0] if self.shape else 1
        out = torch.empty(len(self.names), rows, math.prod(self.shape) // rows, dtype=torch.float64)
        for row, name in zip(out, self.names, strict=True):
            tensor = self.models[name].read(self.matched.names[name])
            row.copy_(tensor.reshape(row.shape))
            self.done(tensor.nbytes)
        _check(out, self.names)
        return out

    def _parts(self, name: str) -> Iterator[torch.Tensor]:
        """A tensor in flat parts; read whole where a part would cost as much."""
        import torch

        model, key = self.models[name], self.matched.names[name]
        count = model.info(key).numel
        if count <= PART or (model.scope is not Scope.ELEMENT and model.origin(key) is None):
            yield from torch.split(model.read(key).reshape(-1), PART)
            return
        for start in range(0, count, PART):
            yield model.read(key, Flat(start, min(start + PART, count)))


class NonFinite(Exception):
    """A tensor holds NaN or infinity in these models."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(*names)
        self.names = names


@dataclass(frozen=True)
class _Job:
    index: int
    matched: Matched
    held: int

    @property
    def key(self) -> str:
        return next(iter(self.matched.names.values()))


def measured(
    models: Mapping[str, Checkpoint],
    matched: Sequence[Matched],
    measure: Callable[[Tensors], Found],
    *,
    who: str,
    copies: float = 0,
    progress: bool = True,
) -> list[Found]:
    """What `measure` makes of every tensor, in their order: each on one thread, several at once, every file read once.

    `copies` is how many float64 copies of a tensor of every model are in memory at once: 0 for a measure of `chunks`. A
    tensor with NaN or infinity is measured without the models where it has them, or not at all if that is the first;
    a NonFiniteWarning says so. The same numbers on any number of threads.
    """
    models = alike(models)
    jobs = [_Job(index, tensor, _held(models, tensor, copies)) for index, tensor in enumerate(matched)]
    total = sum(models[name].info(key).nbytes for tensor in matched for name, key in tensor.names.items())
    found: dict[int, Found] = {}
    nonfinite: dict[int, list[tuple[str, str]]] = {}

    def work(job: _Job, done: Done) -> None:
        tensor = job.matched
        first = next(iter(tensor.names))
        while first in tensor.names:
            try:
                found[job.index] = measure(Tensors(tensor, models, done))
                return
            except NonFinite as error:
                nonfinite.setdefault(job.index, []).extend((name, tensor.names[name]) for name in error.names)
                tensor = Matched(tensor.place, {name: key for name, key in tensor.names.items() if name not in error.names})

    run(jobs, work, total=total, title=who, delay=2, progress=progress)
    if nonfinite:
        keys: dict[str, list[str]] = {}
        for name, key in (pair for index in sorted(nonfinite) for pair in nonfinite[index]):
            keys.setdefault(name, []).append(key)
        told = "; ".join(f"{listed(names)} in {model}" for model, names in keys.items())
        warn(f"{who} leaves out what holds NaN or infinity: {told}; mend the file", NonFiniteWarning)
    return [found[index] for index in sorted(found)]


def _held(models: Mapping[str, Checkpoint], tensor: Matched, copies: float) -> int:
    """Bytes that measuring it takes, about: float64 for the measure, and float32 for what is calculated whole."""
    count = len(tensor.names)
    whole = sum(models[name].scope is not Scope.ELEMENT for name in tensor.names)
    numel = max(models[name].info(key).numel for name, key in tensor.names.items())
    return int(max(numel * (8 * copies * count + 12 * whole), min(numel, PART) * count * 8))


def _check(rows: torch.Tensor, names: Sequence[str]) -> None:
    """Raise NonFinite for the rows that hold NaN or infinity."""
    import torch

    finite = torch.isfinite(rows.flatten(1).sum(1))  # the sum of finite halves, singles and bytes never overflows a double
    if not finite.all():
        raise NonFinite([name for name, fine in zip(names, finite.tolist(), strict=True) if not fine])
