"""Draws cells, one after another or on an executor's workers, which may be threads or processes; each has its own renderer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, as_completed
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

Jobs = Mapping[int, Job]

_OWN = threading.local()  # a worker's renderer, and what it was made of


@dataclass(frozen=True)
class Outcome:
    """What became of a job: drawn now, found drawn, left to another kernel that is `busy` with it, or a `problem`."""

    drawn: bool = False
    busy: bool = False
    problem: str = ""


def outcomes(jobs: Jobs, renderer: Renderer, executor: Executor | None) -> Iterator[tuple[int, Outcome]]:
    """Every job as it is done: first what is there already, last what another kernel is drawing, which is waited for."""
    there = {number for number, job in jobs.items() if kept(job.folder, job.count)}
    yield from ((number, Outcome()) for number in sorted(there))
    jobs = {number: job for number, job in jobs.items() if number not in there}
    for wait in (False, True):
        busy = {}
        for number, outcome in _pass(jobs, renderer, executor, wait):
            if outcome.busy:
                busy[number] = jobs[number]
            else:
                yield number, outcome
        jobs = busy


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


def draw_elsewhere(job: Job, wait: bool) -> Outcome:
    """`draw` with the renderer of this worker."""
    if getattr(_OWN, "spec", None) != job.spec:
        _OWN.renderer, _OWN.spec = job.spec.make(), job.spec
    return draw(_OWN.renderer, job, wait)


def in_words(error: Exception) -> str:
    """An error as a cell tells it: of the errors of this package the message alone."""
    return str(error) if isinstance(error, WorkbenchError) else f"{type(error).__name__}: {error}"


def _pass(jobs: Jobs, renderer: Renderer, executor: Executor | None, wait: bool) -> Iterator[tuple[int, Outcome]]:
    if executor is None:
        for number, job in jobs.items():
            yield number, draw(renderer, job, wait)
        return
    futures = {executor.submit(draw_elsewhere, job, wait): number for number, job in jobs.items()}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:  # after Ctrl-C, or an error, nothing new is begun
        for future in futures:
            future.cancel()
