"""Draws and scores points of a space, a few seeds first and the others for what is worth it. Which points, is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.errors import SearchError
from workbench.search.objective import Objective
from workbench.search.space import Point, Space
from workbench.sweeps.result import Cell, Sweep

Draw = Callable[[Sequence[Mapping[str, Any]], Sequence[str], Sequence[int], str], Sweep]  # options of cells, prompts, seeds, name

_FEW = 3  # one of so many seeds is drawn first


@dataclass(frozen=True)
class Trial:
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
    def values(self) -> tuple[float, ...]:
        """The mean over seeds, by objective; nothing where it failed."""
        return tuple(float(one.mean()) for one in self.by_seed)


@dataclass
class Trials:
    """Everything that was tried, of whatever kind."""

    space: Space
    objectives: tuple[Objective, ...]
    draw: Draw
    prompts: Sequence[str]
    seeds: Sequence[int]
    done: list[Trial] = field(default_factory=list)

    def run(self, kind: str, points: Sequence[Point]) -> list[Trial]:
        """Try points: all with the first seeds, those that are not worse than the median so far with the rest."""
        few = list(self.seeds[: max(1, len(self.seeds) // _FEW)])
        rest = list(self.seeds[len(few) :])
        number = sum(one.kind == kind for one in self.done)
        begun = [self._trial(kind, number + place, point, cell) for place, (point, cell) in enumerate(self._drawn(kind, points, few))]
        promising = [place for place, one in enumerate(begun) if not one.problem and self._promises(kind, one, len(few))] if rest else []
        finished = dict(zip(promising, self._drawn(kind, [points[place] for place in promising], rest), strict=True))
        found = [self._joined(one, finished.get(place), bool(rest)) for place, one in enumerate(begun)]
        self.done += found
        return found

    def _drawn(self, kind: str, points: Sequence[Point], seeds: Sequence[int]) -> Iterator[tuple[Point, Cell]]:
        if not points:
            return iter(())
        # a point that comes twice is drawn once
        different = list({repr(sorted(options.items())): options for options in map(self.space.options, points)}.values())
        swept = self.draw(different, self.prompts, seeds, kind)
        known = {repr(sorted(cell.options.items())): cell for cell in swept.cells}
        return iter([(point, known[repr(sorted(self.space.options(point).items()))]) for point in points])

    def _trial(self, kind: str, number: int, point: Point, cell: Cell) -> Trial:
        options = self.space.options(point)
        if not cell.drawn or cell.problem:
            return Trial(kind, number, point, options, (cell,), problem=cell.problem or "its pictures are not there")
        try:
            by_seed = tuple(one.by_seed(cell.scores, len(self.prompts)) for one in self.objectives)
        except SearchError as error:
            return Trial(kind, number, point, options, (cell,), problem=str(error))
        return Trial(kind, number, point, options, (cell,), by_seed)

    def _promises(self, kind: str, trial: Trial, few: int) -> bool:
        """Whether it is, in one objective at least, no worse with the first seeds than the median of its kind so far."""
        before = [one for one in self.done if one.kind == kind and one.by_seed]
        if not before:
            return True
        for place, objective in enumerate(self.objectives):
            median = float(np.median([one.by_seed[place][:few].mean() for one in before]))
            own = float(trial.by_seed[place].mean())
            if own <= median if objective.least else own >= median:
                return True
        return False

    def _joined(self, begun: Trial, rest: tuple[Point, Cell] | None, more: bool) -> Trial:
        if rest is None:
            return Trial(begun.kind, begun.number, begun.point, begun.options, begun.cells, begun.by_seed, more, begun.problem)
        ended = self._trial(begun.kind, begun.number, begun.point, rest[1])
        cells = (*begun.cells, *ended.cells)
        if ended.problem:
            return Trial(begun.kind, begun.number, begun.point, begun.options, cells, problem=ended.problem)
        by_seed = tuple(np.concatenate(pair) for pair in zip(begun.by_seed, ended.by_seed, strict=True))
        return Trial(begun.kind, begun.number, begun.point, begun.options, cells, by_seed)


def best(trials: Sequence[Trial], objective: Objective, place: int = 0) -> Trial:
    """The best that was drawn with all seeds. Raises SearchError, with the first reason, where all failed."""
    whole = [one for one in trials if one.by_seed and not one.pruned]
    if not whole:
        problem = next((one.problem for one in trials if one.problem), "nothing was tried")
        raise SearchError(f"none of the {len(trials)} trials has a score; the first says: {problem}")
    chosen = min if objective.least else max
    return chosen(whole, key=lambda one: one.values[place])
