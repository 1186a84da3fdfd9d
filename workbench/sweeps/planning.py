"""Plans a sweep: what its cells are, which parents their scores need, what draws them, and where all of it is kept. Draws nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.errors import SweepError
from workbench.render.request import Request, requests
from workbench.render.scorers import ParentDistance, Scorer, default_scorers, listed
from workbench.render.spec import Spec
from workbench.sweeps.by_method import of_methods
from workbench.sweeps.combinations import Options, Over, check_make, combinations
from workbench.sweeps.drawing import in_words
from workbench.sweeps.jobs import Job, Planner
from workbench.sweeps.result import Cell
from workbench.sweeps.store import open_store
from workbench.wording import printable

if TYPE_CHECKING:
    from workbench.render import Renderer

Make = Callable[..., Checkpoint]
Scorers = Sequence[Scorer | ParentDistance]
Parents = Mapping[Path | str, Cell]  # a file or an address that merges are made of -> its pictures


@dataclass(frozen=True)
class PlannedSweep:
    """A sweep before it is drawn. `name` is its own, as it can be printed; `make` gives the merge of each of `options`."""

    name: str
    make: Make
    options: Sequence[Options]
    requests: tuple[Request, ...]
    scorers: Scorers
    renderer: Renderer
    planner: Planner
    store: Path

    def cells(self, progress: bool) -> list[Cell]:
        """Every cell before it is drawn; a merge that cannot be made is its problem."""
        shown: dict[str, Any] = {"unit": "cell", "delay": 2, "leave": False, "disable": not progress}
        return [_planned(self.make, options, self.planner) for options in tqdm(self.options, desc=f"{self.name}: plan", **shown)]

    def jobs(self) -> Iterator[Job]:
        """What is to be drawn, as it is planned: of cells that can be made."""
        return (cell.job for cell in (_planned(self.make, options, self.planner) for options in self.options) if cell.job)

    def parents(self, cells: Sequence[Cell]) -> Parents:
        """The models that distances are taken to."""
        names = [scorer.parent for scorer in self.scorers if isinstance(scorer, ParentDistance)]
        paths = dict.fromkeys(path for cell in cells if cell.job for name in names if (path := cell.job.models.get(name)))
        return {path: _planned(open_checkpoint, {"path": path}, self.planner) for path in paths}


def plan(
    make: Make | None,
    over: Over,
    *,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int],
    inputs: Mapping[str, Any] | None = None,
    score: Scorer | ParentDistance | Scorers | None = None,
    name: str,
    folder: str | Path,
    renderer: Renderer | None = None,
    progress: bool = True,
    **settings: Any,
) -> PlannedSweep:
    """The plan of a sweep, whose arguments these are. Raises SweepError and RenderError for what cannot be swept over or drawn at all."""
    found = combinations(over)
    make = of_methods(found, inputs) if make is None else partial(make, **inputs) if inputs else make
    check_make(make, found)
    asked = requests(prompts, seeds, **settings)
    renderer = renderer or _renderer(make, found, progress)
    asked = _settled(asked, renderer)
    scorers = default_scorers(renderer.config) if score is None else listed(score)
    store = open_store(_named(Path(folder), name))
    return PlannedSweep(printable(name), make, found, asked, scorers, renderer, Planner(asked, Spec.of(renderer), store), store)


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
