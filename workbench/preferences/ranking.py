"""`Ranking`: what choices say of the candidates, best first, with how sure that is; as a frame and as a figure."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np

from workbench.errors import PreferenceError
from workbench.figures.results import Result
from workbench.preferences.candidates import Candidate
from workbench.preferences.choices import Comparison
from workbench.preferences.duels import Tally, tallies_of
from workbench.preferences.pairing import chances

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@final
@dataclass(frozen=True, eq=False)
class Ranking(Result):
    """`candidates` in the order they were given, with mean and covariance of their strengths in log-odds.

    A candidate is chosen over another with a probability of logistic(difference of strengths). Only differences mean something.
    """

    candidates: tuple[Candidate, ...]
    mean: np.ndarray
    covariance: np.ndarray
    tallies: tuple[Tally, ...]

    @classmethod
    def of(cls, candidates: Sequence[Candidate], strengths: tuple[np.ndarray, np.ndarray], choices: Sequence[Comparison]) -> Ranking:
        """What a fit found, with the tallies of all choices between the candidates."""
        return cls(tuple(candidates), *strengths, tallies_of(choices, [one.key for one in candidates]))

    @property
    def best(self) -> Candidate:
        """The strongest. Raises PreferenceError where nothing was chosen yet."""
        if not any(tally != Tally() for tally in self.tallies):
            raise PreferenceError("nothing was chosen yet, so there is no best; choose between a few pairs first")
        return self.candidates[int(self.mean.argmax())]

    @cached_property
    def chances(self) -> np.ndarray:
        """The probability of each candidate to be the best of them, to about 0.01."""
        return chances(self.mean, self.covariance)

    @property
    def headline(self) -> str:
        """The best, and how sure that is."""
        return f"{self.best.name} is the best of {len(self.candidates)} with a probability of {self.chances[int(self.mean.argmax())]:.2f}"

    def frame(self) -> pd.DataFrame:
        """One row per candidate, the strongest first: name, strength and its deviation, probability to be the best, tally."""
        import pandas as pd

        centred = self._centred
        rows = [
            {"name": one.name, "strength": centred[0][number], "deviation": centred[1][number], "best": self.chances[number]}
            | vars(self.tallies[number])
            for number, one in enumerate(self.candidates)
        ]
        return pd.DataFrame(rows).sort_values("strength", ascending=False, kind="stable", ignore_index=True)

    def plot(self) -> go.Figure:
        """Strengths with their deviations, the strongest above."""
        from workbench import figures

        told = "log-odds of being chosen over the mean of all; the line is ± one deviation"
        return figures.whiskers(self.frame(), y="name", x="strength", spread="deviation", title="By eye", told=told)

    @property
    def _centred(self) -> tuple[np.ndarray, np.ndarray]:
        """Strengths over their mean, and the deviations of that: without what all share, of which choices say nothing."""
        count = len(self.mean)
        centring = np.eye(count) - 1 / count
        return centring @ self.mean, np.sqrt(np.maximum((centring @ self.covariance @ centring.T).diagonal(), 0))

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.headline)}</p>{self.frame().to_html(index=False, float_format='%.3g', na_rep='')}"
