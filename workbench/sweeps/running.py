"""`sweep`: makes the merges of all combinations, has them drawn and kept, and scores them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.errors import SweepError
from workbench.render.request import Request, requests
from workbench.render.scorers import ParentDistance, Scorer, default_scorers, listed
from workbench.render.scorers import score as score_pictures
from workbench.render.spec import Spec
from workbench.sweeps.by_method import of_methods
from workbench.sweeps.combinations import MOST_CELLS, Options, Over, check_make, combinations
from workbench.sweeps.drawing import Outcome, in_words, outcomes
from workbench.sweeps.jobs import Job, Planner
from workbench.sweeps.result import Cell, Sweep
from workbench.sweeps.store import StoredPictures, kept, open_store
from workbench.wording import printable

if TYPE_CHECKING:
    from workbench.render import Renderer

Make = Callable[..., Checkpoint]
Scorers = Sequence[Scorer | ParentDistance]
OnCell = Callable[[int, int, Cell], None]
Parents = Mapping[Path | str, Cell]  # a file or an address that merges are made of -> its pictures


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

    `executor`, any of concurrent.futures, draws with renderers like `renderer`, one for each worker. Of more than `cells` cells
    one is drawn, and the time all would take is the error's. `on_cell(number, count, cell)` is called with each of `count` cells as
    it is done.

    Raises SweepError and RenderError for what cannot be swept over or drawn at all, and when the store cannot be written.
    """
    found = combinations(over)
    make = of_methods(found, inputs) if make is None else partial(make, **inputs) if inputs else make
    check_make(make, found)
    settings = {"steps": steps, "guidance": guidance, "sampler": sampler, "negative": negative, "clip_skip": clip_skip}
    asked = requests(prompts, seeds, width=width, height=height, **settings)
    renderer = renderer or _renderer(make, found, progress)
    asked = _settled(asked, renderer)
    store = open_store(_named(Path(folder), name))
    planner = Planner(asked, Spec.of(renderer), store)
    if len(found) > cells:
        _ask(make, found, planner, renderer)
    scorers = default_scorers(renderer.config) if score is None else listed(score)
    shown: dict[str, Any] = {"delay": 2, "leave": False, "disable": not progress}
    label = printable(name)
    planned = [_planned(make, options, planner) for options in tqdm(found, desc=f"{label}: plan", unit="cell", **shown)]
    parents = _parents(planned, scorers, planner)
    lenders = {number: cell.job for number, cell in enumerate(parents.values()) if cell.job}
    for _ in tqdm(outcomes(lenders, renderer, executor), desc=f"{label}: parents", total=len(lenders), unit="model", **shown):
        pass
    jobs = {number: cell.job for number, cell in enumerate(planned) if cell.job}
    now = 0
    tell = on_cell or (lambda *_: None)
    for number, cell in enumerate(planned):
        if cell.job is None:
            tell(number, len(planned), cell)
    with tqdm(total=len(jobs), desc=label, unit="cell", delay=1, disable=not progress) as bar:
        for number, outcome in outcomes(jobs, renderer, executor):
            planned[number] = _done(planned[number], jobs[number], outcome, scorers, parents)
            now += outcome.drawn
            bar.update()
            tell(number, len(planned), planned[number])
    return Sweep(tuple(planned), asked, store, now)


def _settled(asked: Sequence[Request], renderer: Renderer) -> tuple[Request, ...]:
    """The requests, what they leave open being the renderer's own. Raises RenderError for what it cannot draw."""
    for request in asked:
        renderer.check_request(request)
    return tuple(request.settled([renderer.defaults()]) for request in asked)


def _renderer(make: Make, cells: Sequence[Options], progress: bool) -> Renderer:
    """That of the first merge that can be made. Raises SweepError where there is none."""
    from workbench.render.shared import renderer_for

    problem = ""
    for options in cells:
        try:
            made = make(**options)
        except Exception as error:  # also said in its cell
            problem = problem or in_words(error)
            continue
        return renderer_for(made, progress=progress)
    raise SweepError(f"none of the {len(cells)} cells can be made, so there is nothing to draw; the first says: {problem}")


def _named(folder: Path, name: str) -> Path:
    if not name or Path(name).name != name:
        raise SweepError(f"name must be the name of a folder, without a path, got {name!r}; folder= says where it lies")
    return folder.expanduser() / name


def _planned(make: Make, options: Options, planner: Planner) -> Cell:
    """The cell before it is drawn; a merge that cannot be made is its problem."""
    try:
        checkpoint = make(**options)
        if not isinstance(checkpoint, Checkpoint):
            return Cell(options, problem=f"make must return a merge or another checkpoint, got {checkpoint!r}")
        return Cell(options, planner.job(checkpoint))
    except Exception as error:
        return Cell(options, problem=in_words(error))


def _ask(make: Make, cells: Sequence[Options], planner: Planner, renderer: Renderer) -> None:
    """Draw one cell, and raise SweepError with what all of them would take."""
    jobs = (cell.job for cell in (_planned(make, options, planner) for options in cells) if cell.job)
    estimate = "none of them can be made"
    if job := next(jobs, None):
        ((_, outcome),) = outcomes({0: job}, renderer, None)
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


def _parents(cells: Sequence[Cell], scorers: Scorers, planner: Planner) -> Parents:
    """The models that distances are taken to."""
    names = [scorer.parent for scorer in scorers if isinstance(scorer, ParentDistance)]
    paths = dict.fromkeys(path for cell in cells if cell.job for name in names if (path := cell.job.models.get(name)))
    return {path: _planned(open_checkpoint, {"path": path}, planner) for path in paths}


def _done(cell: Cell, job: Job, outcome: Outcome, scorers: Scorers, parents: Parents) -> Cell:
    """The cell with what came of it."""
    told = kept(job.folder, job.count)
    if not told:
        return replace(cell, problem=outcome.problem or "its pictures were removed while the sweep ran; run it again")
    scores, problem = _scores(cell, job, scorers, parents)
    return replace(cell, drawn=True, scores=scores, components=told["components"], seconds=told["seconds"], problem=problem)


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
