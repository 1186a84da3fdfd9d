"""The types that make a file as true as so many bytes allow: what each loses of a merge, measured beforehand. Nothing is written."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.checkpoint import Checkpoint
from workbench.engine.costs import TypeChoice
from workbench.engine.files import File, Writing
from workbench.engine.parts import TensorPart, jobs
from workbench.engine.pool import Done
from workbench.engine.quantising.allotting import WritingOffer, allotted
from workbench.engine.quantising.asking import Quantise
from workbench.engine.quantising.choosing import QuantisedPlan, quantised_plan
from workbench.engine.quantising.formats import written_format
from workbench.engine.quantising.losses import Loss, lost
from workbench.engine.quantising.quantiser import Quantiser
from workbench.engine.streaming import Findings, pieces, run_all
from workbench.errors import ExportError
from workbench.tensors import TensorInfo, elements
from workbench.wording import size

_SAMPLE = 8  # parts of a tensor that are measured, evenly spread: two million numbers
_ROOM = "that the budget has room for"

Losses = dict[tuple[str, Quantiser], Loss]  # of a tensor, written so


@dataclass(frozen=True)
class Budget:
    """What is chosen from: `writing`, in which nothing is quantised, the `file` it is for, and by type the plan of that type alone."""

    writing: Writing
    file: File
    plans: Mapping[str, QuantisedPlan]

    def ways(self, key: str) -> dict[Quantiser, None]:
        """The ways in which a tensor may be written. Only one where it is no budget's: it is kept, or of a block whose type is said."""
        found = dict.fromkeys(plan.quantisers[key] for plan in self.plans.values())
        kept = all(key in plan.kept for plan in self.plans.values())
        return found if kept or len(found) == 1 else found | {self.writing.quantisers[key]: None}

    def size(self, quantisers: Mapping[str, Quantiser]) -> int:
        """Bytes of a file that is written so."""
        return replace(self.writing, quantisers=quantisers).size(self.file)


def uniform_plans(
    path: Path, checkpoint: Checkpoint, infos: Mapping[str, TensorInfo], asked: Quantise, dtype: str | None
) -> dict[str, QuantisedPlan]:
    """By type, the plan in which it is that of every tensor that no block's type decides."""
    kinds = written_format(path).allotted()
    return {kind: quantised_plan(path, checkpoint, infos, replace(asked, default=kind), dtype) for kind in kinds}


def within(budget: Budget, allowed: int) -> tuple[QuantisedPlan, tuple[TypeChoice, ...]]:
    """The plan with the least squared error in a file of at most `allowed` bytes, and what it costs beside each type alone.

    Unquantised is a choice as well. Raises ExportError where the smallest does not fit.
    """
    losses = _measured(budget)
    offers = {key: [_offer(key, one, losses) for one in budget.ways(key)] for key in budget.writing.quantisers}
    beside = 0  # bytes of the header, and of what fills tensors up: known when types are
    while found := allotted(offers, allowed - beside):
        plan = _plan(budget, {key: one.quantiser for key, one in found.items()})
        if (there := budget.size(plan.quantisers)) <= allowed:
            return plan, tuple(_choices(budget, plan, losses))
        beside += there - allowed
    least = {key: min(found, key=lambda one: one.nbytes).quantiser for key, found in offers.items()}
    told = f"max_bytes={allowed} is too little: with the smallest types it takes {size(budget.size(least))}"
    raise ExportError(f"{budget.file.place}: {told}; allow more, or keep less")


def _offer(key: str, quantiser: Quantiser, losses: Losses) -> WritingOffer:
    return WritingOffer(quantiser, quantiser.nbytes, losses.get((key, quantiser), Loss()).wrong)


def _plan(budget: Budget, found: Mapping[str, Quantiser]) -> QuantisedPlan:
    plain, kept = budget.writing.quantisers, next(iter(budget.plans.values())).kept
    return QuantisedPlan(found, {key: kept.get(key, _ROOM) for key, one in found.items() if one == plain[key]})


def _choices(budget: Budget, chosen: QuantisedPlan, losses: Losses) -> Iterator[TypeChoice]:
    """What the choice costs, and what each type alone would."""
    measured = {key: loss for (key, _), loss in losses.items()}
    for name, plan in {"this choice": chosen, **budget.plans}.items():
        ways = {key: plan.quantisers[key] for key in measured}
        total = sum((losses.get((key, one), measured[key].none()) for key, one in ways.items()), Loss())
        yield TypeChoice(name, budget.size(plan.quantisers), total)


def _measured(budget: Budget) -> Losses:
    """What each way loses of each tensor, where it loses anything; of large tensors by a sample."""
    checkpoint, calculation = budget.writing.checkpoint, budget.writing.calculation
    lossy = {key: [one for one in budget.ways(key) if one.lossy] for key in budget.writing.quantisers}
    work: list[TensorPart] = []
    times: dict[str, float] = {}  # as many elements as are looked at
    for key, ways in lossy.items():
        if ways:
            widest = max(ways, key=lambda one: one.unit)  # whose units are whole ones of the others
            parts = _sample(list(jobs(checkpoint, [(key, widest)], calculation)))
            ends = [elements(one.part, widest.info.shape) for one in parts]
            times[key] = widest.info.numel / max(sum(last - first for first, last in ends), 1)
            work += parts
    losses: Losses = {(key, one): Loss() for key, ways in lossy.items() for one in ways}
    lock, unheard = threading.Lock(), Findings(False)  # what is not finite is told when it is written

    def work_on(job: TensorPart, done: Done) -> None:
        for piece in pieces(checkpoint, job, calculation, unheard):
            for one in lossy[job.key]:
                loss = lost(one, piece.values, one.encode(piece.values, piece.first).values, piece.was, piece.first)
                with lock:
                    losses[job.key, one] += loss
            done(piece.values.numel() * job.quantiser.info.itemsize)

    title = f"what each type loses of {checkpoint.name}"
    writing = budget.writing
    run_all(checkpoint, work, work_on, device=calculation.device, threads=writing.threads, progress=writing.progress, title=title)
    return {(key, one): loss.times(times[key]) for (key, one), loss in losses.items()}


def _sample(parts: Sequence[TensorPart]) -> Sequence[TensorPart]:
    step = -(-len(parts) // _SAMPLE)
    return parts[step // 2 :: step] if step > 1 else parts
