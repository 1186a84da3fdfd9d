"""`Found`: what a search found, beside what costs as much without it, on prompts and seeds that nothing was chosen with."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import numpy as np

from workbench.errors import SearchError
from workbench.figures.results import Result
from workbench.searches.objective import SearchObjective
from workbench.searches.trials import SearchTrial
from workbench.sweeps.result import Cell, Sweep

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.recipe import Recipe
    from workbench.render import Grid

SEARCH, GRID, RANDOM = "search", "coarse grid", "random"

Numbers = tuple[np.ndarray, ...]  # for each objective a number by seed


@final
@dataclass(frozen=True, eq=False, repr=False)
class Found(Result):
    """`trials` are all that was tried, of every kind; `chosen` has the best of each, `numbers` what that came to in `unseen`.

    `unseen` is a sweep, a cell for each kind. With several objectives the first decides, and `front` has those that none beats in all.
    """

    objectives: tuple[SearchObjective, ...]
    trials: tuple[SearchTrial, ...]
    chosen: Mapping[str, SearchTrial]
    numbers: Mapping[str, Numbers]
    unseen: Sweep
    told: str  # which prompts and seeds are unseen

    @property
    def best(self) -> SearchTrial:
        """The search's own choice."""
        return self.chosen[SEARCH]

    @property
    def cell(self) -> Cell:
        """The search's choice with its pictures of unseen prompts and seeds; `unseen.export(found.cell, path)` writes it."""
        return self._cell(SEARCH)

    @property
    def recipe(self) -> Recipe | None:
        """The search's choice as data."""
        return self.cell.recipe

    @property
    def rival(self) -> str:
        """The kind whose choice did best on what is unseen, the search's aside: the one to beat."""
        sign = self.objectives[0].sign
        return max((kind for kind in self.numbers if kind != SEARCH), key=lambda kind: sign * self.numbers[kind][0].mean())

    def gain(self, over: str) -> tuple[float, float]:
        """By how much the search's choice is better than another kind's on what is unseen, and how that deviates between seeds.

        Mean and standard deviation of the differences seed by seed, by the first objective; NaN for the deviation of one seed.
        """
        if over not in self.numbers:
            raise SearchError(f"there is no {over!r} to compare with; there are {', '.join(map(repr, self.numbers))}")
        differences = self.objectives[0].sign * (self.numbers[SEARCH][0] - self.numbers[over][0])
        return float(differences.mean()), float(differences.std(ddof=1)) if len(differences) > 1 else math.nan

    @property
    def wins(self) -> bool:
        """Whether the gain over the rival, so over all others, is larger than its deviation between seeds. One seed proves nothing."""
        gain, deviation = self.gain(self.rival)
        return math.isfinite(deviation) and gain > deviation

    @property
    def headline(self) -> str:
        """The search's choice, and whether it is better than what costs as much."""
        (gain, deviation), rival = self.gain(self.rival), self.chosen[self.rival].name
        if self.cell.job == self._cell(self.rival).job:
            return f"no winner: nothing that was tried is better than '{self.rival}' ({rival})"
        spread = f" ± {deviation:.3g} between seeds" if math.isfinite(deviation) else ""
        beside = f"{self.objectives[0].name} {gain:+.3g}{spread} beside '{self.rival}' ({rival}), on {self.told}"
        if self.wins:
            return f"better: {self.best.name} has {beside}"
        if math.isnan(deviation):
            why = "one seed proves nothing"
        else:
            why = "which is worse" if gain < -deviation else "which is no larger than the deviation"
        return f"no winner: {self.best.name} has {beside}; {why}"

    def frame(self) -> pd.DataFrame:
        """One row per trial: kind, number, dimensions, each objective's mean, seeds drawn, whether it was given up, problem."""
        import pandas as pd

        return pd.DataFrame([self._row(one) for one in self.trials])

    def compared(self) -> pd.DataFrame:
        """One row per kind: its choice, what that had where it was chosen, and on what is unseen, with deviation; the search's gain."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for kind, one in self.chosen.items():
            tried = sum(other.kind == kind for other in self.trials)
            row = {"kind": kind, "tried": tried, "options": one.name}
            for objective, seen, unseen in zip(self.objectives, one.values, self.numbers[kind], strict=True):
                name, deviation = objective.name, float(unseen.std(ddof=1)) if len(unseen) > 1 else math.nan
                row |= {f"{name}, chosen with": seen, f"{name}, unseen": float(unseen.mean()), f"{name}, ± between seeds": deviation}
            gain, deviation = (math.nan, math.nan) if kind == SEARCH else self.gain(kind)
            rows.append(row | {"gain of the search": gain, "± of the gain": deviation})
        return pd.DataFrame(rows)

    @cached_property
    def front(self) -> tuple[SearchTrial, ...]:
        """The trials that no other beats in one objective without being worse in another: the Pareto front."""
        whole = [one for one in self.trials if one.whole]
        values = np.array([one.values for one in whole]) * [each.sign for each in self.objectives]
        beaten = [bool(((values >= own).all(axis=1) & (values > own).any(axis=1)).any()) for own in values]
        return tuple(one for one, is_beaten in zip(whole, beaten, strict=True) if not is_beaten)

    def grid(self) -> Grid:
        """The pictures of unseen prompts and seeds, of the search's choice and the others'."""
        return self.unseen.grid(x="by", y="prompt")

    def plot(self) -> go.Figure:
        """Of one objective the best so far over the number of trials, by kind; of several the first two of every trial, with the front."""
        return self._front_plot() if len(self.objectives) > 1 else self._progress_plot()

    def _progress_plot(self) -> go.Figure:
        import pandas as pd

        from workbench import figures

        objective = self.objectives[0]
        rows: list[tuple[str, int, float]] = []
        for kind in (SEARCH, GRID, RANDOM):
            whole = [(one.number + 1, one.values[0]) for one in self.trials if one.kind == kind and one.whole]
            so_far = np.minimum if objective.least else np.maximum
            rows += zip([kind] * len(whole), [number for number, _ in whole], so_far.accumulate([value for _, value in whole]), strict=True)
        frame = pd.DataFrame(rows, columns=["kind", "trial", objective.name])
        title = f"Best {objective.name} so far, on the prompts and seeds it was chosen with"
        return figures.lines(frame, x="trial", y=objective.name, colour="kind", title=title)

    def _front_plot(self) -> go.Figure:
        from workbench import figures

        x, y = (one.name for one in self.objectives[:2])
        whole = self.shown
        frame = self.frame().loc[[self.trials.index(one) for one in whole]]
        frame["options"] = [one.name for one in whole]
        joined = [number for number, one in enumerate(whole) if one in self.front]
        better = [f"{one.name}: {'less' if one.least else 'more'} is better" for one in self.objectives[:2]]
        title = f"{y} and {x} of {len(whole)} merges"
        return figures.scatter(frame, x=x, y=y, colour="kind", label="options", title=title, told="; ".join(better), joined=joined)

    @cached_property
    def shown(self) -> tuple[SearchTrial, ...]:
        """The trials that were drawn with all seeds, which are the points of a plot of the front."""
        return tuple(one for one in self.trials if one.whole)

    def _cell(self, kind: str) -> Cell:
        return next(cell for cell in self.unseen.cells if cell.options["by"] == kind)

    def _row(self, one: SearchTrial) -> dict[str, Any]:
        values = one.values or [math.nan] * len(self.objectives)
        scores = dict(zip((each.name for each in self.objectives), values, strict=True))
        seeds = len(one.by_seed[0]) if one.by_seed else 0
        told = {"kind": one.kind, "number": one.number, **one.point, **scores}
        return told | {"seeds": seeds, "pruned": one.pruned, "problem": one.problem}

    @property
    def problems(self) -> dict[str, str]:
        """What went wrong, by the kind and number of the trial."""
        return {f"{one.kind} {one.number}": one.problem for one in self.trials if one.problem}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        said = [self.headline]
        if self.problems:
            first, problem = next(iter(self.problems.items()))
            said.append(f"{len(self.problems)} of {len(self.trials)} trials failed; {first} says: {problem}")
        table = self.compared().to_html(index=False, float_format="%.4g", na_rep="")
        return {"text/html": "".join(f"<p>{html.escape(one)}</p>" for one in said) + table, "text/plain": repr(self)}
