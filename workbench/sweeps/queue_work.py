"""What each kind of job does: draws, exports, sweeps, or finds out which block does it. When, and in which process, is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.checkpoint import Checkpoint
from workbench.engine import export
from workbench.errors import SweepError
from workbench.render.drawn import Drawn
from workbench.render.request import Request
from workbench.render.scorers import default_scorers
from workbench.render.spec import Spec
from workbench.sweeps.block_map_result import BlockMap, Effect
from workbench.sweeps.block_maps import block_map
from workbench.sweeps.described import opened
from workbench.sweeps.picture_store import PictureStore
from workbench.sweeps.queue_jobs import DONE, QueueJob
from workbench.sweeps.result import Cell, Sweep
from workbench.sweeps.running import sweep
from workbench.sweeps.sweep_cells import grid_cells

if TYPE_CHECKING:
    from workbench.render.drawing import Step

Report = Callable[[float, Mapping[str, Any] | None], None]  # the share that is done, and what has come of it by now
Work = Callable[[QueueJob, Report], str]  # returns what to say of it in the end; raises what goes wrong


def _draw(job: QueueJob, report: Report) -> str:
    """Prompt by prompt, so that what is drawn is kept however it ends."""
    asked = Request.of(**job.what["asked"])
    model = opened(job.what["target"], job.folder.parent)
    store, done = PictureStore(job.what["gallery"]), int(job.results.get("prompts", 0))
    renderer = Spec.from_dict(job.what["renderer"]).make()
    renderer.load(model, progress=False)
    for number, prompt in enumerate(asked.prompts[done:], done):

        def stepped(step: Step, before: int = number) -> None:
            report((before + step.share) / len(asked.prompts), None)

        request = replace(asked, prompts=(prompt,))
        images = renderer.draw(request, progress=False, on_step=stepped)
        store.keep(images, Drawn.of(job.what["name"], model, {}), request)
        report((number + 1) / len(asked.prompts), {"prompts": number + 1})
    return f"{len(asked.pictures)} in {store.folder}"


def _export(job: QueueJob, report: Report) -> str:
    model = opened(job.what["target"], job.folder.parent)
    return str(export(model, job.what["path"], overwrite=job.what["overwrite"], progress=False))


def _sweep(job: QueueJob, report: Report) -> str:
    """Cell by cell, those of one merge after another, so that each is shown, and kept, as soon as it is drawn."""
    cells, merges = grid_cells(job.what), job.what["cells"]
    common = _common(job)
    common["score"] = default_scorers(common["renderer"].config)
    found: dict[str, Any] = {}
    drawn = 0
    for number in sorted(range(len(cells)), key=lambda place: cells[place].merge):
        cell = cells[number]
        made = sweep(partial(_made, job, merges[cell.merge]), [{"cell": number}], **{**common, **cell.asked})
        drawn += made.drawn
        found[str(number)] = _outcome(made[0])
        report(len(found) / len(cells), found)
    problems = [one["problem"] for one in found.values() if one["problem"]]
    if len(problems) == len(cells):
        raise SweepError(problems[0])
    failed = f"; {len(problems)} with problems: {problems[0]}" if problems else ""
    return f"{len(cells)} cells, {drawn} drawn now{failed}"


def _made(job: QueueJob, told: Mapping[str, Any], **_: Any) -> Checkpoint:
    """A merge of a sweep. Raises SweepError with why there is none."""
    if "problem" in told:
        raise SweepError(told["problem"])
    return opened(told["target"], job.folder.parent)


def _block_map(job: QueueJob, report: Report) -> str:
    base, tuned = (opened(job.what[name], job.folder.parent) for name in ("base", "tuned"))
    begun = 0

    def told(number: int, count: int, cell: Cell) -> None:
        nonlocal begun
        begun += 1
        report(begun / count, None)

    made = block_map(base, tuned, on_cell=told, **_common(job) | job.what["asked"])
    report(1.0, {"names": made.names, "effects": [asdict(one) for one in made.effects], "same": made.same})
    return made.headline


WORK: Mapping[str, Work] = {"draw": _draw, "export": _export, "sweep": _sweep, "block_map": _block_map}


def block_map_of(job: QueueJob) -> BlockMap:
    """What a job found out: its effects; its pictures stay on disk. Raises SweepError for one that is not done."""
    found = job.results
    if job.kind != "block_map" or job.state != DONE or "effects" not in found:
        raise SweepError(f"{job.title}: has found nothing yet; it is {job.state}")
    effects = tuple(Effect(**one) for one in found["effects"])
    asked = Request.of(**job.what["asked"])
    return BlockMap(tuple(found["names"]), effects, tuple(found["same"]), Sweep((), (asked,), Path(*job.what["store"]), 0))


def _common(job: QueueJob) -> dict[str, Any]:
    """The arguments of `sweep` and `block_map` that a job tells."""
    folder, name = job.what["store"]
    return {"renderer": Spec.from_dict(job.what["renderer"]).make(), "folder": folder, "name": name, "progress": False}


def _outcome(cell: Cell) -> dict[str, Any]:
    """A cell as it is shown elsewhere: where its pictures lie, one number for each of them and column, or why there are none."""
    numbers = {name: values.tolist() for name, values in cell.scores.items() if np.issubdtype(values.dtype, np.number)}
    place = str(cell.job.folder) if cell.job and cell.drawn else ""
    return {"folder": place, "count": len(cell.pictures), "scores": numbers, "seconds": cell.seconds, "problem": cell.problem}
