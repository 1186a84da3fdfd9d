"""What each kind of job does: draws, exports, sweeps, or finds out which block does it. When, and in which process, is elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.checkpoint import Checkpoint
from workbench.engine import export
from workbench.errors import SweepError
from workbench.render.drawn import Drawn
from workbench.render.request import Request
from workbench.render.spec import Spec
from workbench.sweeps.block_map_result import BlockMap, Effect
from workbench.sweeps.block_maps import block_map
from workbench.sweeps.described import opened
from workbench.sweeps.picture_store import PictureStore
from workbench.sweeps.queue_jobs import DONE, QueueJob
from workbench.sweeps.result import Cell, Sweep
from workbench.sweeps.running import sweep

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
    cells = job.what["cells"]
    by_options = {_key(cell["options"]): cell for cell in cells}
    found: dict[str, Any] = {}

    def make(**options: Any) -> Checkpoint:
        cell = by_options[_key(options)]
        if "problem" in cell:
            raise SweepError(cell["problem"])
        return opened(cell["target"], job.folder.parent)

    def told(number: int, count: int, cell: Cell) -> None:
        found[str(number)] = _outcome(cell)
        report(len(found) / count, found)

    made = sweep(make, [cell["options"] for cell in cells], cells=len(cells), on_cell=told, **_common(job))
    failed = f"; {len(made.problems)} cells with problems: {next(iter(made.problems.values()))}" if made.problems else ""
    if len(made.problems) == len(made):
        raise SweepError(next(iter(made.problems.values())))
    return f"{len(made)} merges, {made.drawn} drawn now{failed}"


def _block_map(job: QueueJob, report: Report) -> str:
    base, tuned = (opened(job.what[name], job.folder.parent) for name in ("base", "tuned"))
    begun = 0

    def told(number: int, count: int, cell: Cell) -> None:
        nonlocal begun
        begun += 1
        report(begun / count, None)

    made = block_map(base, tuned, on_cell=told, **_common(job))
    report(1.0, {"names": made.names, "effects": [asdict(one) for one in made.effects], "same": made.same})
    return made.headline


WORK: Mapping[str, Work] = {"draw": _draw, "export": _export, "sweep": _sweep, "block_map": _block_map}


def block_map_of(job: QueueJob) -> BlockMap:
    """What a job found out: its effects; its pictures stay on disk. Raises SweepError for one that is not done."""
    found = job.results
    if job.kind != "block_map" or job.state != DONE or "effects" not in found:
        raise SweepError(f"{job.title}: has found nothing yet; it is {job.state}")
    effects = tuple(Effect(**one) for one in found["effects"])
    asked = Request.of(job.what["prompts"], job.what["seeds"], **job.what["settings"])
    return BlockMap(tuple(found["names"]), effects, tuple(found["same"]), Sweep((), (asked,), Path(*job.what["store"]), 0))


def _common(job: QueueJob) -> dict[str, Any]:
    """The arguments of `sweep` and `block_map` that a job tells."""
    what = job.what
    folder, name = what["store"]
    renderer = Spec.from_dict(what["renderer"]).make()
    asked = {"prompts": what["prompts"], "seeds": what["seeds"], "renderer": renderer, "folder": folder, "name": name}
    return {**asked, "progress": False, **what["settings"]}


def _outcome(cell: Cell) -> dict[str, Any]:
    """A cell as it is shown elsewhere: where its pictures lie, one number for each of them and column, or why there are none."""
    numbers = {name: values.tolist() for name, values in cell.scores.items() if np.issubdtype(values.dtype, np.number)}
    place = str(cell.job.folder) if cell.job and cell.drawn else ""
    return {"folder": place, "count": len(cell.pictures), "scores": numbers, "seconds": cell.seconds, "problem": cell.problem}


def _key(options: Mapping[str, Any]) -> str:
    return json.dumps(options, sort_keys=True)
