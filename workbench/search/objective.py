"""What a search is to find: a number for each seed, from the scores of a cell's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.errors import SearchError
from workbench.render.scorers import ParentDistance, Scorer


@dataclass(frozen=True)
class Objective:
    """A column of a scorer, averaged over prompts; `least` looks for the smallest, `weakest` takes of each seed the worst prompt.

    `column` is needed where a scorer gives several columns of numbers. `weakest` is for merges that are to keep several skills: with a
    prompt for each, it is the skill that came off worst.
    """

    scorer: Scorer | ParentDistance
    column: str | None = None
    least: bool = False
    weakest: bool = False

    @property
    def name(self) -> str:
        """What it is called in frames and plots."""
        told = self.column or (f"from_{self.scorer.parent}" if isinstance(self.scorer, ParentDistance) else _name(self.scorer))
        return f"weakest {told}" if self.weakest else told

    def by_seed(self, scores: Mapping[str, np.ndarray], prompts: int) -> np.ndarray:
        """One number for each seed. Raises SearchError for a column that is not there, or holds no numbers."""
        values = scores[self._column(scores)]
        if values.dtype == object or not np.issubdtype(values.dtype, np.number):
            raise SearchError(f"{self.name}: an objective is a number for each picture, and this scorer gives {values[0]!r}")
        table = np.asarray(values, float).reshape(prompts, -1)
        if np.isnan(table).all(axis=0).any() or np.isinf(table).any():
            raise SearchError(f"{self.name}: the scorer gives NaN or infinity for pictures of a seed; choose prompts that it can score")
        worst = np.nanmax if self.least else np.nanmin
        return worst(table, axis=0) if self.weakest else np.nanmean(table, axis=0)

    def _column(self, scores: Mapping[str, np.ndarray]) -> str:
        if self.column is not None:
            if self.column not in scores:
                raise SearchError(f"objective: there is no column {self.column!r}; the scorer gives {', '.join(scores) or 'none'}")
            return self.column
        if isinstance(self.scorer, ParentDistance):
            return f"from_{self.scorer.parent}"
        numbers = [name for name, values in scores.items() if values.dtype != object]
        if len(numbers) != 1:
            raise SearchError(f"objective: the scorer gives {', '.join(scores) or 'nothing'}; say which with Objective(scorer, column=...)")
        return numbers[0]


def objectives_of(given: Any) -> tuple[Objective, ...]:
    """One objective or several; a scorer stands for its only column. Raises SearchError."""
    several = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    for one in several:
        if not callable(one) and not isinstance(one, Objective | ParentDistance):
            raise SearchError(f"objective must be a scorer, an Objective, or a list of these, got {one!r}")
    found = tuple(one if isinstance(one, Objective) else Objective(one) for one in several)
    if not found:
        raise SearchError("objective is empty: give a scorer, as in objective=wb.render.ClipScorer(folder)")
    return found


def _name(scorer: Any) -> str:
    return getattr(scorer, "__name__", type(scorer).__name__)
