"""The jobs of an export: each is computed and written piece by piece, and what was found on the way is collected."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.devices import at_once, fetched, own_stream
from workbench.engine.parts import TensorPart
from workbench.engine.pool import Done, run
from workbench.engine.quantising.losses import Loss, lost
from workbench.errors import NonFiniteError
from workbench.tensors import Calculation, Part, elements
from workbench.wording import listed, percent

if TYPE_CHECKING:
    import torch

_ROUNDED, _CALCULATED = "rounded", "calculated"  # results that their dtype, or the calculation, makes NaN or infinity
_LITTLE = 0.9  # share of a change that rounding leaves, below which it is said
_FEW = 0.1  # share of the changed values that rounding leaves changed at all, below which it is: the rest is noise of whole steps


@dataclass(frozen=True)
class Findings:
    """Collects where NaN and infinity were found (with `strict` the first is an error), how many values saturated, and how much of
    the changes that a merge makes is left after rounding to 8 bits or less.
    """

    strict: bool
    kinds: str = "float8"  # what is rounded to
    finer: str = "dtype bfloat16"  # what loses less
    places: dict[tuple[str, str], None] = field(default_factory=dict)
    losses: dict[str, Loss] = field(default_factory=dict)

    def nonfinite(self, model: str, key: str) -> None:
        if self.strict:
            raise NonFiniteError(f"{_who(model)}: {key!r} {_told(model)}, or export without strict")
        self.places[model, key] = None

    def texts(self) -> Iterator[str]:
        """One sentence for each model, and one for what saturated."""
        for model in dict.fromkeys(model for model, _ in self.places):
            yield f"{_who(model)}: {listed([key for name, key in self.places if name == model])} {_told(model)}"
        if counts := {key: loss.beyond for key, loss in self.losses.items() if loss.beyond}:
            keys = list(counts)
            beyond = f"{sum(counts.values())} values of {listed(sorted(keys))} lie beyond the largest of its dtype, and were set to it"
            yield f"the result: {beyond}; choose dtype float16, bfloat16 or float32 to keep them"

    @property
    def total(self) -> Loss:
        """That of all tensors together."""
        return sum(self.losses.values(), Loss())

    def swallowed(self) -> Iterator[str]:
        """A sentence on what rounding swallowed, where that is much."""
        total = self.total
        if total.kept is not None and total.kept < _LITTLE:
            left = percent(max(total.kept, 0.0))
            yield f"rounding to {self.kinds} leaves {left} of what the merge changes; choose {self.finer} to keep it"
        elif total.changed and (share := total.moved / total.changed) < _FEW:
            told = f"rounding to {self.kinds} takes back the change of {percent(1 - share)} of the values that the merge changes"
            yield f"{told}, and moves the others by a whole step: most of it is lost; choose {self.finer} to keep it"


def _who(model: str) -> str:
    return "the result" if model in (_ROUNDED, _CALCULATED) else model


def _told(model: str) -> str:
    if model == _ROUNDED:
        return "holds values that its dtype turns into NaN or infinity; choose dtype bfloat16 or float32"
    if model == _CALCULATED:
        return "holds NaN or infinity that no input holds; choose smaller weights, or precision float64"
    return "holds NaN or infinity; mend the file"


def stream(
    checkpoint: Checkpoint,
    work: Iterable[TensorPart],
    calculation: Calculation,
    findings: Findings,
    write: Callable[[str, int, int, memoryview], None],
    *,
    threads: int | None,
    progress: bool,
) -> None:
    """Compute every job and hand it to `write` piece by piece, on `threads` threads or as many as usual: tensor name, the number
    of the tensor among those that the file has of it, the byte there, and the bytes.

    An error in any thread, or Ctrl-C, stops all of them before it is raised.
    """
    lock = threading.Lock()

    def work_on(job: TensorPart, done: Done) -> None:
        info, lossy = job.quantiser.info, job.quantiser.lossy
        for step in job.steps:
            finished = None if lossy else checkpoint.fused(job.key, step, calculation, info.dtype)
            if finished is None:
                calculated(replace(job, steps=(step,)), lossy, done)
                continue
            first, last = elements(step, info.shape)
            write(job.key, 0, first * info.itemsize, _bytes(finished))
            done((last - first) * info.itemsize)

    def calculated(job: TensorPart, lossy: bool, done: Done) -> None:
        for piece in pieces(checkpoint, job, calculation, findings):
            encoded = job.quantiser.encode(piece.values, piece.first)
            _blame(job, piece, encoded.values, calculation, findings)
            for number, (start, tensor) in enumerate(encoded.pieces):
                write(job.key, number, start, _bytes(tensor))
            if lossy:
                loss = lost(job.quantiser, piece.values, encoded.values, piece.was, piece.first)
                with lock:
                    findings.losses[job.key] = findings.losses.get(job.key, Loss()) + loss
            done(piece.values.numel() * job.quantiser.info.itemsize)

    run_all(checkpoint, list(work), work_on, device=calculation.device, threads=threads, progress=progress, title=checkpoint.name)


def run_all(
    checkpoint: Checkpoint,
    jobs: Sequence[TensorPart],
    work_on: Callable[[TensorPart, Done], None],
    *,
    device: str,
    threads: int | None,
    progress: bool,
    title: str,
) -> None:
    """Have the merge look at the model first if it needs to, and then run the jobs; a short export shows no bar."""
    checkpoint.prepare(progress=progress)
    total = sum(job.nbytes for job in jobs)

    def beside_the_others(job: TensorPart, done: Done) -> None:
        with own_stream(device):
            work_on(job, done)

    run(jobs, beside_the_others, total=total, delay=1, threads=threads, progress=progress, title=title)


@dataclass(frozen=True)
class ResultPiece:
    """Flat elements of a result from `first` on, before they are rounded; `was` are those of the model that the merge starts from, where
    it has one and what is lost is measured. `blamed`: an input holds NaN or infinity in this part of the tensor.
    """

    first: int
    values: torch.Tensor
    was: torch.Tensor | None
    blamed: bool


def pieces(checkpoint: Checkpoint, job: TensorPart, calculation: Calculation, findings: Findings) -> Iterator[ResultPiece]:
    """A job's result, calculated and cut into pieces of whole units."""
    blamed: list[str] = []  # the inputs that hold NaN or infinity here

    def hear(model: str, key: str) -> None:
        blamed.append(model)
        findings.nonfinite(model, key)

    listening = replace(calculation, on_nonfinite=hear)
    for part in job.steps:
        yield from _pieces_of(checkpoint, job, part, listening, blamed)


def _pieces_of(checkpoint: Checkpoint, job: TensorPart, part: Part, listening: Calculation, blamed: Sequence[str]) -> Iterator[ResultPiece]:
    """The result of one step, cut where it is large."""
    import torch

    before: torch.Tensor | None = None
    origin = checkpoint.origin(job.key)
    if origin is not None:
        holder, name = origin
        tensor = holder.read(name, part)
        listening.watch(holder.name, name, tensor)
    else:
        tensor = checkpoint.calculate(job.key, part, listening)
        if job.quantiser.lossy:
            before = checkpoint.start(job.key, part, replace(listening, on_nonfinite=None))
    first, _ = elements(part, job.quantiser.info.shape)
    step = max(at_once(listening.device) // job.quantiser.unit, 1) * job.quantiser.unit
    unchanged = itertools.repeat(None) if before is None else torch.split(before.reshape(-1), step)
    for values, was in zip(torch.split(tensor.reshape(-1), step), unchanged, strict=False):
        yield ResultPiece(first, values, was, bool(blamed))
        first += values.numel()


def _blame(job: TensorPart, piece: ResultPiece, result: torch.Tensor, calculation: Calculation, findings: Findings) -> None:
    """Report NaN and infinity in a result, unless they were in an input: the calculation made them, or the rounding did."""
    alone = job.quantiser.unit == 1

    def calculated(model: str, key: str) -> None:
        if not piece.blamed:
            findings.nonfinite(_CALCULATED, key)

    def rounding(model: str, key: str) -> None:
        exact = piece.values if piece.values.element_size() > 1 else piece.values.float()  # torch knows no infinity in float8
        fine = exact.isfinite()
        spread = not alone and not fine.all()  # NaN makes NaN of what is encoded with it
        if not spread and bool((~result.float().isfinite() & fine).any()):
            findings.nonfinite(_ROUNDED, key)
        else:
            calculated(model, key)

    if result.dtype.is_floating_point:
        replace(calculation, on_nonfinite=rounding).watch("", job.key, result)
    if not alone:  # a quantised NaN may be a number
        replace(calculation, on_nonfinite=calculated).watch("", job.key, piece.values)


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return fetched(tensor).view(-1).view(torch.uint8).numpy().data
