"""`Found`: what a search found, beside what costs as much without it, on prompts and seeds that nothing was chosen with."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from workbench.figures.results import Result
from workbench.search.objective import Objective
from workbench.search.trials import Trial
from workbench.sweeps.combinations import name_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.recipe import Recipe

SEARCH, DEFAULT, GRID, RANDOM = "search", "as it is", "coarse grid", "random"


@final
@dataclass(frozen=True, eq=False)
class Found(Result):
    """`trials` are all that was tried, of every kind; `chosen` has the best of each, `unseen` what that came to on the unseen, by seed.

    With several objectives the best is that of the first, and `pareto()` has those that none beats in all.
    """

    objectives: tuple[Objective, ...]
    trials: tuple[Trial, ...]
    chosen: Mapping[str, Trial]
    unseen: Mapping[str, np.ndarray]
    told: str  # which prompts and seeds are unseen

    @property
    def best(self) -> Trial:
        """The search's own choice."""
        return self.chosen[SEARCH]

    @property
    def recipe(self) -> Recipe | None:
        """The best merge as data."""
        return self.best.cells[0].recipe

    @property
    def rival(self) -> str:
        """The kind that is nearest to the search, on what it was chosen with: the one to beat."""
        others = [kind for kind in self.chosen if kind != SEARCH]
        sign = -1 if self.objectives[0].least else 1
        return max(others, key=lambda kind: sign * self.chosen[kind].values[0])

    def gain(self, over: str) -> tuple[float, float]:
        """How much better the search's choice is than another kind's on what is unseen, and the deviation of that between seeds."""
        sign = -1 if self.objectives[0].least else 1
        difference = sign * (self.unseen[SEARCH] - self.unseen[over])
        return float(difference.mean()), float(difference.std(ddof=1)) if len(difference) > 1 else math.nan

    @property
    def wins(self) -> bool:
        """Whether the gain over the nearest rival is larger than its deviation between seeds; one seed proves nothing."""
        gain, deviation = self.gain(self.rival)
        return math.isfinite(deviation) and gain > deviation

    @property
    def headline(self) -> str:
        gain, deviation = self.gain(self.rival)
        name, told = self.objectives[0].name, f"{name_of(self.best.options)}"
        spread = f" ± {deviation:.3g}" if math.isfinite(deviation) else ""
        beside = f"{name} {gain:+.3g}{spread} beside the best of '{self.rival}' ({name_of(self.chosen[self.rival].options)})"
        if self.wins:
            return f"{told}: {beside}, {self.told}"
        return f"no winner: {told} has {beside}, {self.told}, which is within the deviation between seeds"

    def frame(self) -> pd.DataFrame:
        """One row per trial: kind, number, dimensions, each objective's mean, seeds drawn, whether it was given up, problem."""
        import pandas as pd

        rows = []
        for one in self.trials:
            values = dict(zip((each.name for each in self.objectives), one.values, strict=False))
            seeds = len(one.by_seed[0]) if one.by_seed else 0
            rows.append(
                {
                    "kind": one.kind,
                    "number": one.number,
                    **one.point,
                    **values,
                    "seeds": seeds,
                    "pruned": one.pruned,
                    "problem": one.problem,
                }
            )
        return pd.DataFrame(rows)

    def compared(self) -> pd.DataFrame:
        """One row per kind: its best, what that had where it was chosen, and what it came to on what is unseen, with the deviation."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for kind, one in self.chosen.items():
            numbers = self.unseen[kind]
            deviation = float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan
            tried = sum(other.kind == kind for other in self.trials)
            rows.append(
                {"kind": kind, "tried": tried, "options": name_of(one.options), "chosen with": one.values[0]}
                | {"unseen": float(numbers.mean()), "unseen_sd": deviation}
            )
        return pd.DataFrame(rows)

    def pareto(self) -> list[Trial]:
        """The trials that no other beats in every objective, drawn with all seeds."""
        whole = [one for one in self.trials if one.by_seed and not one.pruned]
        signs = np.array([-1 if each.least else 1 for each in self.objectives])
        values = np.array([one.values for one in whole]) * signs if whole else np.zeros((0, len(signs)))
        beaten = [bool(((values >= own).all(axis=1) & (values > own).any(axis=1)).any()) for own in values]
        return [one for one, is_beaten in zip(whole, beaten, strict=True) if not is_beaten]

    def plot(self) -> go.Figure:
        """The best so far over the number of trials, of the search and of what costs as much."""
        import pandas as pd

        from workbench import figures

        objective = self.objectives[0]
        so_far = np.minimum if objective.least else np.maximum
        rows: list[tuple[str, int, float]] = []
        for kind in dict.fromkeys(one.kind for one in self.trials):
            whole = [(one.number + 1, one.values[0]) for one in self.trials if one.kind == kind and one.by_seed and not one.pruned]
            best = so_far.accumulate([value for _, value in whole]) if whole else []
            rows += [(kind, number, float(value)) for (number, _), value in zip(whole, best, strict=True)]
        frame = pd.DataFrame(rows, columns=["kind", "trial", objective.name])
        return figures.lines(frame, x="trial", y=objective.name, colour="kind", title=f"Best {objective.name} so far")

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.headline)}</p>{self.compared().to_html(index=False, float_format='%.4g', na_rep='')}"


def options_of(trials: Sequence[Trial]) -> list[Mapping[str, Any]]:
    """The options of trials, each once."""
    return list({repr(sorted(one.options.items())): one.options for one in trials}.values())
