"""`sweep`: makes the merges of all combinations, has them drawn and kept, and scores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from workbench.errors import SweepError
from workbench.render.scorers import ParentDistance, Scorer
from workbench.render.scorers import score as score_pictures
from workbench.sweeps.combinations import MOST_CELLS, Over
from workbench.sweeps.drawing import Outcome, in_words
from workbench.sweeps.jobs import Job
from workbench.sweeps.planning import Make, Parents, PlannedSweep, Scorers, plan
from workbench.sweeps.result import Cell, Sweep
from workbench.sweeps.store import StoredPictures, awaited, kept
from workbench.sweeps.workers import Jobs, outcomes

if TYPE_CHECKING:
    from workbench.render import Renderer

OnCell = Callable[[int, int, Cell], None]
Draw = Callable[[Jobs], Iterator[tuple[int, Outcome]]]


def sweep(
    make: Make | None = None,
    over: Over = (),
    *,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int] = (0,),
    inputs: Mapping[str, Any] | None = None,
    score: Scorer | ParentDistance | Scorers | None = None,
    name: str = "sweep",
    folder: str | Path = "out/sweeps",
    renderer: Renderer | None = None,
    executor: Executor | None = None,
    width: int | Sequence[int] | None = None,
    height: int | Sequence[int] | None = None,
    steps: int | Sequence[int] | None = None,
    guidance: float | Sequence[float] | None = None,
    sampler: str | Sequence[str | None] | None = None,
    negative: str | Sequence[str | None] | None = None,
    clip_skip: int | Sequence[int | None] | None = None,
    cells: int = MOST_CELLS,
    on_cell: OnCell | None = None,
    progress: bool = True,
) -> Sweep:
    """Draw and score the merge of every combination of options.

    `make` is a function of options that returns a checkpoint, or an operator whose `inputs` are given. `over` maps options to
    lists of values, all of which are combined, or is a list of mappings. Without `make`, `over` names methods, as in
    `over={"method": ["ties", "slerp"]}` or `over=[{"method": "ties", "density": 0.2}, {"method": "slerp"}]`, and `inputs` has the
    `base` and the `models` tuned from it. Pictures are kept in `folder/name` by recipe, input
    files and everything asked of the renderer: what is there is not drawn again, whoever drew it, and an interrupted sweep goes
    on where it stopped. Scores are made anew each time; `score` is one scorer or several, by default as `ab_grid` has it.
    What goes wrong with one cell is said in that cell. Settings of pictures may be lists, as `ab_grid` has them; without a `renderer`
    the cells are drawn by that of the first merge's kind.

    `executor` is any of concurrent.futures, or a dask client's (docs/scaling.md): its workers draw with renderers like `renderer`, one
    in each process. Of more than `cells` cells one is drawn, and the time all would take is the error's. `on_cell(number, count, cell)`
    is called with each of `count` cells as it is done.

    Raises SweepError and RenderError for what cannot be swept over or drawn at all, and when the store cannot be written, or the
    executor breaks.
    """
    asked: dict[str, Any] = {"prompts": prompts, "seeds": seeds, "width": width, "height": height, "steps": steps, "guidance": guidance}
    asked |= {"sampler": sampler, "negative": negative, "clip_skip": clip_skip, "inputs": inputs, "score": score}
    planned = plan(make, over, **asked, name=name, folder=folder, renderer=renderer, progress=progress)
    if len(planned.options) > cells:
        _ask(planned)
    return carry_out(planned, lambda jobs: outcomes(jobs, planned.renderer, executor), on_cell, progress)


def carry_out(planned: PlannedSweep, draw: Draw, on_cell: OnCell | None = None, progress: bool = True) -> Sweep:
    """What `draw` makes of a plan's jobs, scored."""
    cells = planned.cells(progress)
    parents = planned.parents(cells)
    lenders = {number: cell.job for number, cell in enumerate(parents.values()) if cell.job}
    shown: dict[str, Any] = {"unit": "model", "delay": 2, "leave": False, "disable": not progress}
    for _ in tqdm(draw(lenders), desc=f"{planned.name}: parents", total=len(lenders), **shown):
        pass
    jobs = {number: cell.job for number, cell in enumerate(cells) if cell.job}
    now = 0
    tell = on_cell or (lambda *_: None)
    for number, cell in enumerate(cells):
        if cell.job is None:
            tell(number, len(cells), cell)
    with tqdm(total=len(jobs), desc=planned.name, unit="cell", delay=1, disable=not progress) as bar:
        for number, outcome in draw(jobs):
            cells[number] = _done(cells[number], jobs[number], outcome, planned.scorers, parents)
            now += outcome.drawn
            bar.update()
            tell(number, len(cells), cells[number])
    return Sweep(tuple(cells), planned.requests, planned.store, now)


def _ask(planned: PlannedSweep) -> None:
    """Draw one cell, and raise SweepError with what all of them would take."""
    cells, estimate = planned.options, "none of them can be made"
    if job := next(planned.jobs(), None):
        ((_, outcome),) = outcomes({0: job}, planned.renderer, None)
        told = kept(job.folder, job.count)
        estimate = f"the first one says: {outcome.problem}"
        if told:
            size = sum(path.stat().st_size for path in job.folder.iterdir())
            hours, pictures = len(cells) * told["seconds"] / 3600, len(cells) * job.count
            estimate = (
                f"{pictures:,} pictures, about {hours:.2g} hours on one worker and {len(cells) * size / 1e9:.2g} GB, judging by the first"
            )
    raise SweepError(
        f"a sweep of {len(cells):,} cells: {estimate}; take values out of over, or say that you mean it with cells={len(cells)}"
    )


def _done(cell: Cell, job: Job, outcome: Outcome, scorers: Scorers, parents: Parents) -> Cell:
    """The cell with what came of it."""
    told = awaited(job.folder, job.count) if outcome.where and not outcome.problem else kept(job.folder, job.count)
    if not told:
        return replace(cell, problem=outcome.problem or _unseen(job, outcome))
    scores, problem = _scores(cell, job, scorers, parents)
    return replace(cell, drawn=True, scores=scores, components=told["components"], seconds=told["seconds"], problem=problem)


def _unseen(job: Job, outcome: Outcome) -> str:
    if outcome.where:
        return f"the worker on {outcome.where} drew it, and it is not in {job.folder} here: give folder= one that all machines share"
    return "its pictures were removed while the sweep ran; run it again"


def _scores(cell: Cell, job: Job, scorers: Scorers, parents: Parents) -> tuple[dict[str, np.ndarray], str]:
    """The columns of all scorers that could give theirs, and what the others said."""
    columns: dict[str, np.ndarray] = {}
    problems = []
    prompts = [prompt for request in job.requests for prompt, _ in request.pictures]
    images = list(StoredPictures(job.folder, job.count))
    for scorer in scorers:
        try:
            found = score_pictures(scorer, images, prompts, _of_parent(scorer, job, parents))
            if twice := [name for name in found if name in columns or name in cell.options]:
                raise SweepError(f"{scorer!r}: there is a column {twice[0]!r} already")
            columns |= found
        except Exception as error:
            problems.append(in_words(error))
    return columns, "; ".join(problems)


def _of_parent(scorer: Scorer | ParentDistance, job: Job, parents: Parents) -> dict[str, StoredPictures]:
    """The pictures that distances are taken to. Raises SweepError when there are none."""
    if not isinstance(scorer, ParentDistance):
        return {}
    path = job.models.get(scorer.parent)
    parent = None if path is None else parents.get(path)
    if parent is None:
        raise SweepError(
            f"{scorer!r}: {scorer.parent!r} is none of the models that this merge is made of: {', '.join(job.models) or 'none'}"
        )
    if parent.job is None or not kept(parent.job.folder, parent.job.count):
        raise SweepError(f"{scorer!r}: {scorer.parent!r} could not be drawn {parent.problem}".strip())
    return {scorer.parent: StoredPictures(parent.job.folder, parent.job.count)}
