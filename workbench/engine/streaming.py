"""The jobs of an export: each is computed and written piece by piece, and what was found on the way is collected."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.engine.parts import TensorPart
from workbench.engine.pool import Done, run
from workbench.errors import NonFiniteError
from workbench.tensors import PIECE, Calculation, elements, largest, rounded
from workbench.wording import listed

if TYPE_CHECKING:
    import torch

_RESULT = "the result"


@dataclass(frozen=True)
class Findings:
    """Collects where NaN and infinity were found (with `strict` the first is an error), and how many values saturated."""

    strict: bool
    places: dict[tuple[str, str], None] = field(default_factory=dict)
    saturated: Counter[str] = field(default_factory=Counter)

    def nonfinite(self, model: str, key: str) -> None:
        if self.strict:
            raise NonFiniteError(f"{model}: {key!r} {_told(model)}, or export without strict")
        self.places[model, key] = None

    def texts(self) -> Iterator[str]:
        """One sentence for each model, and one for what saturated."""
        for model in dict.fromkeys(model for model, _ in self.places):
            yield f"{model}: {listed([key for name, key in self.places if name == model])} {_told(model)}"
        if keys := [key for key, count in self.saturated.items() if count]:
            beyond = f"{self.saturated.total()} values of {listed(sorted(keys))} lie beyond the largest of its dtype, and were set to it"
            yield f"{_RESULT}: {beyond}; choose dtype float16, bfloat16 or float32 to keep them"


def _told(model: str) -> str:
    if model == _RESULT:
        return "holds values that its dtype turns into NaN or infinity; choose dtype bfloat16 or float32"
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
        for first, result, beyond in _compute(checkpoint, job, calculation):
            write(job.key, first, _bytes(result))
            done(result.nbytes)
            with lock:
                findings.saturated[job.key] += beyond

    jobs = list(work)
    total = sum(job.nbytes for job in jobs)
    # a short export shows no bar
    run(jobs, work_on, total=total, delay=1, threads=threads, progress=progress, title=checkpoint.name)


def _compute(checkpoint: Checkpoint, job: TensorPart, calculation: Calculation) -> Iterator[tuple[int, torch.Tensor, int]]:
    """A job's result as it goes into the file, in pieces: the first element, the numbers, and how many of them saturated."""
    import torch

    origin = checkpoint.origin(job.key)
    if origin is not None:
        holder, name = origin
        tensor = holder.read(name, job.part)
        calculation.watch(holder.name, name, tensor)
    else:
        tensor = checkpoint.calculate(job.key, job.part, calculation)
    first, _ = elements(job.part, job.info.shape)
    for piece in torch.split(tensor.reshape(-1), PIECE):
        result = rounded(piece, job.info.dtype)
        if result.dtype != piece.dtype and result.element_size() < 4:  # beyond float16 lies infinity
            calculation.watch(_RESULT, job.key, result)
        limit = largest(result.dtype)
        yield first, result, 0 if limit is None else int((piece.to(calculation.dtype).abs() > limit).sum())
        first += piece.numel()


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data
