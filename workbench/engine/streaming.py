"""Runs the jobs of an export on threads: reading, computing and writing overlap, and memory holds one part per thread."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.engine.parts import Job
from workbench.errors import NonFiniteError
from workbench.tensors import PIECE, Calculation, elements, largest, rounded

if TYPE_CHECKING:
    import torch

_RESULT = "the result"
_LIMIT = 512 << 20  # bytes of tensors that are computed at once
_GLANCE = 0.1  # seconds between two looks at the progress


class _Memory:
    """Lets as many jobs run at once as a limit in bytes allows, and a larger one alone."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._freed = limit, 0, threading.Condition()

    @contextmanager
    def held(self, nbytes: int) -> Iterator[None]:
        with self._freed:
            self._freed.wait_for(lambda: not self._used or self._used + nbytes <= self._limit)
            self._used += nbytes
        if nbytes > self._limit:
            _give_back_freed_memory()
        try:
            yield
        finally:
            with self._freed:
                self._used -= nbytes
                self._freed.notify_all()


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
            yield f"{model}: {_listed([key for name, key in self.places if name == model])} {_told(model)}"
        if keys := [key for key, count in self.saturated.items() if count]:
            beyond = f"{self.saturated.total()} values of {_listed(sorted(keys))} lie beyond the largest of its dtype, and were set to it"
            yield f"{_RESULT}: {beyond}; choose dtype float16, bfloat16 or float32 to keep them"


def _listed(keys: list[str]) -> str:
    return ", ".join(map(repr, keys[:3])) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _told(model: str) -> str:
    if model == _RESULT:
        return "holds values that its dtype turns into NaN or infinity; choose dtype bfloat16 or float32"
    return "holds NaN or infinity; mend the file"


def stream(
    checkpoint: Checkpoint,
    work: Iterable[Job],
    calculation: Calculation,
    findings: Findings,
    write: Callable[[str, int, memoryview], None],
    *,
    threads: int,
    progress: bool,
) -> None:
    """Compute every job and hand it to `write` piece by piece, on `threads` threads: tensor name, flat element, bytes.

    An error in any thread, or Ctrl-C, stops all of them before it is raised.
    """
    import torch
    from tqdm.auto import tqdm

    _keep_freed_memory()
    work = list(work)
    total = sum(job.nbytes for job in work)
    stop, waiting, lock, written, latest = threading.Event(), iter(work), threading.Lock(), 0, ""
    intra = torch.get_num_threads()
    memory = _Memory(_LIMIT)

    def worker() -> None:
        nonlocal written, latest
        torch.set_num_threads(1)  # threads over tensors are steadier, and the same bytes on any machine
        while not stop.is_set():
            with lock:
                job = next(waiting, None)
            if job is None:
                return
            with memory.held(job.held):
                for first, result, beyond in _compute(checkpoint, job, calculation):
                    write(job.key, first, _bytes(result))
                    with lock:
                        written, latest = written + result.nbytes, job.key
                        findings.saturated[job.key] += beyond

    try:
        # a short export shows no bar
        with (
            tqdm(total=total, unit="B", unit_scale=True, delay=1, disable=not progress, desc=checkpoint.name) as bar,
            ThreadPoolExecutor(threads) as pool,
        ):
            try:
                running = {pool.submit(worker) for _ in range(threads)}
                # only this thread touches the bar, which blocks the others for good when it cannot be shown; and only a wait
                # that ends by itself hears of Ctrl-C on Windows
                while running:
                    done, running = wait(running, _GLANCE, FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    bar.set_postfix_str(latest[-60:], refresh=False)
                    bar.update(written - bar.n)
            except BaseException:
                stop.set()
                raise
    finally:
        torch.set_num_threads(intra)


def _keep_freed_memory() -> None:
    """Have the C library keep what the threads free for their next part, instead of giving it back to the kernel.

    Fresh pages cost more than all the arithmetic. glibc raises its limit to the largest block that was freed, up to 32 MiB;
    this block is never touched, and so costs nothing, here or elsewhere.
    """
    import torch

    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8)


def _give_back_freed_memory() -> None:
    """The opposite, for a job that needs it all: glibc gives the kernel what is free. Other C libraries do as they like."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _compute(checkpoint: Checkpoint, job: Job, calculation: Calculation) -> Iterator[tuple[int, torch.Tensor, int]]:
    """A job's result as it goes into the file, in pieces: the first element, the numbers, and how many of them saturated."""
    origin = checkpoint.origin(job.key)
    if origin is not None:
        holder, name = origin
        tensor = holder.read(name, job.part)
        calculation.watch(holder.name, name, tensor)
    else:
        tensor = checkpoint.calculate(job.key, job.part, calculation)
    first, _ = elements(job.part, job.info.shape)
    for piece in tensor.reshape(-1).split(PIECE):
        result = rounded(piece, job.info.dtype)
        if result.dtype != piece.dtype and result.element_size() < 4:  # beyond float16 lies infinity
            calculation.watch(_RESULT, job.key, result)
        limit = largest(result.dtype)
        yield first, result, 0 if limit is None else int((piece.to(calculation.dtype).abs() > limit).sum())
        first += piece.numel()


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    return memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy())
