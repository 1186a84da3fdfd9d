"""Draws and scores points of a space, a few seeds first and the others for what is worth it. Which points, is the caller's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np

from workbench.errors import SearchError
from workbench.searches.objective import SearchObjective, Skills
from workbench.searches.space import Point
from workbench.sweeps.combinations import name_of
from workbench.sweeps.result import Cell, Sweep

if TYPE_CHECKING:
    from PIL.Image import Image

Draw = Callable[[Sequence[Mapping[str, Any]], Sequence[int]], Sweep]  # options of cells, seeds
Options = Callable[[Point], Mapping[str, Any]]

_FEW = 3  # one of so many seeds is drawn first


@final
@dataclass(frozen=True, eq=False)
class SearchTrial:
    """A point, and what came of it: for each objective a number by seed. `pruned` ones were given up after the first seeds."""

    kind: str
    number: int
    point: Point
    options: Mapping[str, Any]
    cells: tuple[Cell, ...] = ()
    by_seed: tuple[np.ndarray, ...] = ()
    pruned: bool = False
    problem: str = ""

    @property
    def name(self) -> str:
        """The point in words, as far as its method takes it: shorter than its options, where a number stands for several blocks."""
        taken = {name: value for name, value in self.point.items() if re.split(r"[.[]", name)[0] in self.options}
        return name_of(taken) if taken else "nothing varied"

    @property
    def values(self) -> tuple[float, ...]:
        """The mean over seeds, by objective; nothing where it failed."""
        return tuple(float(one.mean()) for one in self.by_seed)

    @property
    def whole(self) -> bool:
        """Whether it was drawn with all seeds, and scored."""
        return bool(self.by_seed) and not self.pruned

    def sheet(self, edge: int = 72, most: int = 6) -> Image:
        """Its pictures on one sheet, prompts (the first few) down and seeds across, `edge` pixels each."""
        from PIL import Image

        jobs = [cell.job for cell in self.cells if cell.job]
        rows = min(most, len(jobs[0].requests[0].prompts)) if jobs else 1
        seeds = [len(job.requests[0].seeds) for job in jobs]
        sheet = Image.new("RGB", (edge * (sum(seeds) or 1), edge * rows))
        for number, (cell, count) in enumerate(zip(self.cells, seeds, strict=False)):
            for place, picture in enumerate(cell.pictures[: rows * count]):
                down, across = divmod(place, count)
                sheet.paste(picture.resize((edge, edge)), (edge * (sum(seeds[:number]) + across), edge * down))
        return sheet


@final
class Trials:
    """Everything that was tried, of whatever kind."""

    def __init__(self, options: Options, objectives: Sequence[SearchObjective], draw: Draw, skills: Skills, seeds: Sequence[int]) -> None:
        self.done: list[SearchTrial] = []
        self._options, self._objectives, self._draw = options, objectives, draw
        self._skills, self._seeds = skills, seeds
        self._scored: dict[str, np.ndarray] = {}  # of each objective the prompts that its scorer scores

    def run(self, kind: str, points: Sequence[Point]) -> list[SearchTrial]:
        """Try points: all with the first seeds, those that are not worse than the median so far with the rest."""
        few = list(self._seeds[: max(1, len(self._seeds) // _FEW)])
        rest = list(self._seeds[len(few) :])
        number = sum(one.kind == kind for one in self.done)
        begun = [self._trial(kind, number + place, point, cell) for place, (point, cell) in enumerate(self._drawn(points, few))]
        promising = [place for place, one in enumerate(begun) if not one.problem and self._promises(one, len(few))] if rest else []
        finished = dict(zip(promising, self._drawn([points[place] for place in promising], rest), strict=True))
        found = [self._joined(one, finished.get(place), bool(rest)) for place, one in enumerate(begun)]
        self.done += found
        return found

    def tried(self, kind: str, cell: Cell) -> SearchTrial:
        """A cell, drawn with all seeds, as a trial; it is not one of those that are `done`."""
        return self._trial(kind, 0, {}, cell)

    def _drawn(self, points: Sequence[Point], seeds: Sequence[int]) -> list[tuple[Point, Cell]]:
        if not points:
            return []
        # a point that comes twice is drawn once
        different = {repr(sorted(options.items())): options for options in map(self._options, points)}
        swept = self._draw(list(different.values()), seeds)
        known = dict(zip(different, swept.cells, strict=True))
        return [(point, known[repr(sorted(self._options(point).items()))]) for point in points]

    def _trial(self, kind: str, number: int, point: Point, cell: Cell) -> SearchTrial:
        begun = SearchTrial(kind, number, point, cell.options, (cell,))
        if not cell.drawn or cell.problem:
            return replace(begun, problem=cell.problem or "its pictures are not there")
        try:
            return replace(begun, by_seed=tuple(self._by_seed(one, cell) for one in self._objectives))
        except SearchError as error:
            return replace(begun, problem=str(error))

    def _by_seed(self, objective: SearchObjective, cell: Cell) -> np.ndarray:
        """The numbers by seed. Raises SearchError, also where prompts that were scored before are not now: means would not compare."""
        table = objective.table(cell.scores, self._skills)
        scored = ~np.isnan(table).all(axis=1)
        before = self._scored.setdefault(objective.name, scored)
        if (other := before != scored).any():
            prompt = self._skills.prompts[int(np.argmax(other))]
            raise SearchError(f"{objective.name}: the scorer gives NaN for {prompt!r} for some merges and not for others")
        return objective.by_seed(table, self._skills)

    def _promises(self, trial: SearchTrial, few: int) -> bool:
        """Whether it is, in one objective at least, no worse with the first seeds than the median of its kind so far."""
        before = [one for one in self.done if one.kind == trial.kind and one.by_seed]
        if not before:
            return True
        for place, objective in enumerate(self._objectives):
            median = float(np.median([objective.sign * one.by_seed[place][:few].mean() for one in before]))
            if objective.sign * float(trial.by_seed[place].mean()) >= median:
                return True
        return False

    def _joined(self, begun: SearchTrial, rest: tuple[Point, Cell] | None, more: bool) -> SearchTrial:
        if rest is None:
            return replace(begun, pruned=more and not begun.problem)
        ended = self._trial(begun.kind, begun.number, begun.point, rest[1])
        cells = (*begun.cells, *ended.cells)
        if ended.problem:
            return replace(begun, cells=cells, by_seed=(), problem=ended.problem)
        by_seed = tuple(np.concatenate(pair) for pair in zip(begun.by_seed, ended.by_seed, strict=True))
        return replace(begun, cells=cells, by_seed=by_seed)


def best(trials: Sequence[SearchTrial], objective: SearchObjective) -> SearchTrial:
    """The best by the first objective that was drawn with all seeds. Raises SearchError, with the first reason, where all failed."""
    whole = [one for one in trials if one.whole]
    if not whole:
        problem = next((one.problem for one in trials if one.problem), "nothing was tried")
        raise SearchError(f"none of the {len(trials)} trials has a score; the first says: {problem}")
    return max(whole, key=lambda one: objective.sign * one.values[0])
