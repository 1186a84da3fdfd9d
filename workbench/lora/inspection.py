"""`inspect`: what a LoRA file is, what it changes and how much, and what its header tells, before anything is made with it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from workbench.checkpoint.files.opening import open_input
from workbench.checkpoint.views.low_rank import LowRank
from workbench.checkpoint.views.matching import place
from workbench.engine.pool import Done, run
from workbench.errors import InputError
from workbench.lora.inspected import Inspected, InspectedLora
from workbench.lora.one_change import squares
from workbench.lora.training import training_of

_WHO = "inspect"


def inspect(lora: str | os.PathLike[str] | LowRank, *, progress: bool = True) -> InspectedLora:
    """What is in a LoRA (a file, or one that is open): kinds, ranks, alphas and norms by block, what it is for, how it was trained.

    Norms are those of the changes at strength 1, in float32's precision, from the factors where there are some; everything is read once,
    tensor by tensor. What a header says is shown as it stands there. The result shows itself in a notebook, and has `.frame()`,
    `.blocks()`, `.plot()`, `.training` (`.words`, `.triggers`, `.settings`).

    Raises CheckpointError for a file that cannot be opened, and InputError for a model. A change that holds NaN or infinity has the norm
    NaN, and a note says so.
    """
    opened = lora if isinstance(lora, LowRank) else open_input(lora)
    if not isinstance(opened, LowRank):
        raise InputError(f"{_WHO}: {opened.name} is a model and no LoRA; `workbench inspect` and wb.preflight say what it is")
    found: dict[str, Inspected] = {}

    def work(job: _Job, done: Done) -> None:
        found[job.key] = _inspected(opened, job.key)
        done(job.held)

    jobs = [_Job(key, opened.info(key).nbytes) for key in opened]
    run(jobs, work, total=sum(job.held for job in jobs), title=_WHO, delay=2, progress=progress)
    return InspectedLora(opened, tuple(found[key] for key in opened), training_of(opened.metadata))


@dataclass(frozen=True)
class _Job:
    key: str
    held: int


def _inspected(lora: LowRank, key: str) -> Inspected:
    entry, where, kind = lora.entries[key], place(lora, key), lora.kind(key)
    known = squares(lora, key) if key not in lora.relative else math.nan
    norm = math.sqrt(max(known, 0.0)) if math.isfinite(known) else math.nan  # by rounding below 0 where it is 0
    rank = getattr(entry, "rank", 0) or math.nan
    return Inspected(key, where, kind, rank, rank * getattr(entry, "scale", math.nan), norm)
