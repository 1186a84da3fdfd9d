"""The jobs of an export: each is computed and written piece by piece, and what was found on the way is collected."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.engine.parts import TensorPart
from workbench.engine.pool import Done, run
from workbench.errors import NonFiniteError
from workbench.tensors import PIECE, Calculation, elements, largest, rounded
from workbench.wording import listed, percent

if TYPE_CHECKING:
    import torch

_ROUNDED, _CALCULATED = "rounded", "calculated"  # results that their dtype, or the calculation, makes NaN or infinity
_LITTLE = 0.9  # share of a change that rounding leaves, below which it is said
_FEW = 0.1  # share of the changed values that rounding leaves changed at all, below which it is: the rest is noise of whole steps


@dataclass(frozen=True)
class Findings:
    """Collects where NaN and infinity were found (with `strict` the first is an error), how many values saturated, and how much of
    the changes that a merge makes is left after rounding to float8.
    """

    strict: bool
    places: dict[tuple[str, str], None] = field(default_factory=dict)
    saturated: Counter[str] = field(default_factory=Counter)
    change: dict[str, float] = field(default_factory=lambda: {"wanted": 0.0, "kept": 0.0, "changed": 0, "moved": 0})

    def nonfinite(self, model: str, key: str) -> None:
        if self.strict:
            raise NonFiniteError(f"{_who(model)}: {key!r} {_told(model)}, or export without strict")
        self.places[model, key] = None

    def texts(self) -> Iterator[str]:
        """One sentence for each model, and one for what saturated."""
        for model in dict.fromkeys(model for model, _ in self.places):
            yield f"{_who(model)}: {listed([key for name, key in self.places if name == model])} {_told(model)}"
        if keys := [key for key, count in self.saturated.items() if count]:
            beyond = f"{self.saturated.total()} values of {listed(sorted(keys))} lie beyond the largest of its dtype, and were set to it"
            yield f"the result: {beyond}; choose dtype float16, bfloat16 or float32 to keep them"

    @property
    def kept(self) -> float | None:
        """The share of a merge's change that is left after rounding to float8, along the change; None where none was measured."""
        return self.change["kept"] / self.change["wanted"] if self.change["wanted"] else None

    def swallowed(self) -> Iterator[str]:
        """A sentence on what rounding to float8 swallowed, where that is much."""
        if self.kept is not None and self.kept < _LITTLE:
            yield f"rounding to float8 leaves {percent(max(self.kept, 0.0))} of what the merge changes; choose dtype bfloat16 to keep it"
        elif (changed := self.change["changed"]) and (share := self.change["moved"] / changed) < _FEW:
            told = f"rounding to float8 takes back the change of {percent(1 - share)} of the values that the merge changes"
            yield f"{told}, and moves the others by a whole step: most of it is lost; choose dtype bfloat16 to keep it"


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
    write: Callable[[str, int, memoryview], None],
    *,
    threads: int | None,
    progress: bool,
) -> None:
    """Compute every job and hand it to `write` piece by piece, on `threads` threads or as many as usual: tensor name, flat element, bytes.

    An error in any thread, or Ctrl-C, stops all of them before it is raised.
    """
    lock = threading.Lock()

    def work_on(job: TensorPart, done: Done) -> None:
        for first, result, found in _compute(checkpoint, job, calculation, findings):
            write(job.key, first, _bytes(result))
            done(result.nbytes)
            with lock:
                findings.saturated[job.key] += found.beyond
                for what in findings.change:
                    findings.change[what] += getattr(found, what)

    jobs = list(work)
    total = sum(job.nbytes for job in jobs)
    checkpoint.prepare(progress=progress)
    # a short export shows no bar
    run(jobs, work_on, total=total, delay=1, threads=threads, progress=progress, title=checkpoint.name)


@dataclass(frozen=True)
class _Rounding:
    """What rounding did to a piece: how many values saturated, the square of the change there was to be, its product with what is left;
    how many values were to change, and how many do."""

    beyond: int = 0
    wanted: float = 0.0
    kept: float = 0.0
    changed: int = 0
    moved: int = 0


def _compute(
    checkpoint: Checkpoint, job: TensorPart, calculation: Calculation, findings: Findings
) -> Iterator[tuple[int, torch.Tensor, _Rounding]]:
    """A job's result as it goes into the file, in pieces: the first element, the numbers, and what rounding them did."""
    import torch

    before: torch.Tensor | None = None
    origin = checkpoint.origin(job.key)
    blamed: list[str] = []  # the inputs that hold NaN or infinity here

    def hear(model: str, key: str) -> None:
        blamed.append(model)
        findings.nonfinite(model, key)

    listening = replace(calculation, on_nonfinite=hear)
    if origin is not None:
        holder, name = origin
        tensor = holder.read(name, job.part)
        listening.watch(holder.name, name, tensor)
    else:
        tensor = checkpoint.calculate(job.key, job.part, listening)
        if largest(job.info.dtype) is not None:
            before = checkpoint.start(job.key, job.part, replace(calculation, on_nonfinite=None))
    first, _ = elements(job.part, job.info.shape)
    unchanged = itertools.repeat(None) if before is None else torch.split(before.reshape(-1), PIECE)
    for piece, was in zip(torch.split(tensor.reshape(-1), PIECE), unchanged, strict=False):
        result = rounded(piece, job.info.dtype)
        _blame(job.key, piece, result, calculation, findings, bool(blamed))
        yield first, result, _rounding(piece, result, was, calculation)
        first += piece.numel()


def _blame(key: str, piece: torch.Tensor, result: torch.Tensor, calculation: Calculation, findings: Findings, blamed: bool) -> None:
    """Report NaN and infinity in a result, unless they were in an input: the calculation made them, or the rounding did."""

    def rounding(model: str, key: str) -> None:
        exact = piece if piece.element_size() > 1 else piece.float()  # torch knows no infinity in float8
        if bool((~result.float().isfinite() & exact.isfinite()).any()):
            findings.nonfinite(_ROUNDED, key)
        elif not blamed:
            findings.nonfinite(_CALCULATED, key)

    if result.dtype.is_floating_point:
        replace(calculation, on_nonfinite=rounding).watch("", key, result)


def _rounding(piece: torch.Tensor, result: torch.Tensor, was: torch.Tensor | None, calculation: Calculation) -> _Rounding:
    """What rounding did, given the numbers of the model that the merge starts from, where it has one and they are asked for."""
    if (limit := largest(result.dtype)) is None:
        return _Rounding()
    beyond = int((piece.to(calculation.dtype).abs() > limit).sum())
    if was is None:
        return _Rounding(beyond)
    wanted = piece - was
    kept = result.to(piece.device, piece.dtype) - rounded(was, result.dtype).to(piece.device, piece.dtype)
    square, product = (float((one * wanted).nan_to_num_(0, 0, 0).double().sum()) for one in (wanted, kept))
    changed = wanted != 0
    return _Rounding(beyond, square, product, int(changed.sum()), int((changed & (kept != 0)).sum()))


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data
