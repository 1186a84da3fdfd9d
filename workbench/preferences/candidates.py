"""What there is to choose between: merges and other checkpoints, each planned, drawn once and kept, as the cells of a sweep are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from workbench.checkpoint import Checkpoint
from workbench.errors import PreferenceError, WorkbenchError
from workbench.preferences.choices import Seen
from workbench.recipe import Recipe
from workbench.render.request import Request
from workbench.render.shared import renderer_for
from workbench.render.spec import Spec
from workbench.searches.space import Point
from workbench.sweeps.drawing import in_words
from workbench.sweeps.jobs import Job, Planner
from workbench.sweeps.store import StoredPictures, kept, open_store
from workbench.sweeps.workers import outcomes

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.render import Renderer
    from workbench.sweeps import Cell

Make = Callable[[], Checkpoint]


@final
@dataclass(frozen=True)
class Candidate:
    """Something to choose: what draws it (`key`), under which name, and where in a space it lies, if in one."""

    name: str
    key: str
    job: Job
    point: Point | None = None

    @property
    def recipe(self) -> Recipe | None:
        """The merge as data; None when it is a plain file."""
        return self.job.target if isinstance(self.job.target, Recipe) else None

    @property
    def side(self) -> Seen:
        """As choices have it."""
        return Seen(self.key, self.name, self.point)

    def open(self) -> Checkpoint:
        """The checkpoint that its pictures were drawn with. Raises SweepError when one of its files has changed since."""
        return self.job.open()

    def picture(self, number: int) -> Image:
        """One of its pictures, by request, prompt and seed, once it is drawn. Raises SweepError where it cannot be read."""
        return StoredPictures(self.job.folder, self.job.count)[number]


@final
class CandidatePictures:
    """Plans candidates, and draws what is asked for of each into `folder`, where it is found again.

    Without a `renderer` it is that of the first candidate's kind. Raises SweepError where the folder cannot be made.
    """

    def __init__(self, request: Request, folder: Path, renderer: Renderer | None = None) -> None:
        self._asked, self._folder, self._renderer = request, open_store(folder), renderer
        self._planners: tuple[Planner, Planner] | None = None

    def plan(self, name: str, make: Make, point: Point | None = None) -> Candidate:
        """What is to be drawn for a candidate. Raises WorkbenchError for what is known to be impossible, and what `make` raises."""
        checkpoint = make()
        if not isinstance(checkpoint, Checkpoint):
            raise PreferenceError(f"{name}: make must return a merge or another checkpoint, got {checkpoint!r}")
        drawing, telling = self._planned_by(checkpoint)
        return Candidate(name, telling.job(checkpoint).folder.name, drawing.job(checkpoint), point)

    def draw(self, candidate: Candidate) -> str:
        """Draw a candidate's pictures, unless they are there; returns what went wrong, which is nothing when they are there then."""
        job = candidate.job
        if kept(job.folder, job.count):
            return ""
        renderer = self._renderer = self._renderer or job.spec.make()
        try:
            ((_, outcome),) = outcomes({0: job}, renderer, None)
        except WorkbenchError as error:  # the disk is full
            return in_words(error)
        return outcome.problem or ("" if kept(job.folder, job.count) else "its pictures were removed while they were drawn")

    def _planned_by(self, checkpoint: Checkpoint) -> tuple[Planner, Planner]:
        """What plans the drawing, and what tells candidates apart: by settings, not by prompts and seeds, of which more may be asked."""
        if self._planners is None:
            self._renderer = self._renderer or renderer_for(checkpoint, progress=False)
            self._renderer.check_request(self._asked)
            settled, spec = self._asked.settled([self._renderer.defaults()]), Spec.of(self._renderer)
            same = replace(settled, prompts=("",), seeds=(0,))
            self._planners = Planner((settled,), spec, self._folder), Planner((same,), spec, self._folder)
        return self._planners


def of_cell(cell: Cell) -> Candidate:
    """A cell of a sweep, which is planned already. Raises PreferenceError for one that could not be made."""
    if cell.job is None:
        raise PreferenceError(f"{cell.name}: {cell.problem}")
    return Candidate(cell.name, cell.job.folder.name, cell.job)
