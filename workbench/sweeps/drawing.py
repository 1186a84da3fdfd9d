"""Draws one cell and keeps its pictures. Which worker does that, and in which order, is in `workers`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError
from workbench.recipe import Recipe
from workbench.render.drawn import Drawn
from workbench.sweeps.carrying import carried
from workbench.sweeps.jobs import Job
from workbench.sweeps.store import claimed, keep, kept

if TYPE_CHECKING:
    from workbench.render import Renderer


@dataclass(frozen=True)
class Outcome:
    """What became of a job: drawn now, found drawn, left to another kernel that is `busy` with it, or a `problem`.

    `where` names the worker that did it; empty where that was the caller.
    """

    drawn: bool = False
    busy: bool = False
    problem: str = ""
    where: str = ""


def draw(renderer: Renderer, job: Job, wait: bool) -> Outcome:
    """Draw a job and keep its pictures, unless they are kept already. Raises SweepError when they cannot be kept."""
    with claimed(job.folder, wait=wait) as mine:
        if not mine:
            return Outcome(busy=True)
        if kept(job.folder, job.count):
            return Outcome()
        began = time.monotonic()
        try:
            with renderer.lock:
                loaded = renderer.load(job.open(), progress=False)
                images = [image for request in job.requests for image in renderer.draw(request, progress=False)]
        except Exception as error:
            return Outcome(problem=in_words(error))
        recipe = job.target if isinstance(job.target, Recipe) else None
        target = recipe.to_yaml() if recipe else str(job.target)
        told = {"target": target, "asked": [request.settings for request in job.requests], "components": dict(loaded.components)}
        model = Drawn("result" if recipe else Path(target).stem, recipe, tuple(job.files), loaded.components)
        texts = carried(model, job.requests, job.folder)
        keep(job.folder, images, told | {"seconds": round(time.monotonic() - began, 3)}, texts)
        return Outcome(drawn=True)


def in_words(error: Exception) -> str:
    """An error as a cell tells it: of the errors of this package the message alone."""
    return str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"
