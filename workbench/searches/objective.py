"""What a search is to find: a number for each seed, from the scores of a cell's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from workbench.errors import SearchError
from workbench.render.scorers import ParentDistance, Scorer, column_of

Prompts = Sequence[str] | Mapping[str, Sequence[str]]


@final
@dataclass(frozen=True)
class Skills:
    """Prompts, and the skill that each of them asks for: its own, unless they were given by skill."""

    prompts: tuple[str, ...]
    asked: tuple[str, ...]

    @classmethod
    def of(cls, given: Prompts, name: str = "prompts") -> Skills:
        """From a list of prompts, or a mapping of skills to prompts. Raises SearchError."""
        groups = given if isinstance(given, Mapping) else {None: given}
        pairs: list[tuple[str, str]] = []
        for skill, prompts in groups.items():
            if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not all(isinstance(one, str) for one in prompts):
                raise SearchError(f"{name} must be a list of prompts, or a mapping of skills to such lists, got {given!r}")
            pairs += [(prompt, skill or prompt) for prompt in prompts]
        prompts = [prompt for prompt, _ in pairs]
        if not pairs or len(set(prompts)) < len(prompts):
            raise SearchError(f"{name} must be one or more different prompts, got {prompts}")
        return cls(tuple(prompts), tuple(skill for _, skill in pairs))

    @property
    def names(self) -> list[str]:
        """Every skill once."""
        return list(dict.fromkeys(self.asked))


@final
@dataclass(frozen=True)
class SearchObjective:
    """A column of a scorer, averaged over prompts; `least` looks for the smallest, `weakest` takes of each seed the weakest skill.

    `column` is needed where a scorer gives several columns of numbers. `weakest` is for merges that are to keep all of several skills:
    prompts are given by skill then, as in `{"heart": [...], "moon": [...]}`, and what counts is the one that came off worst.
    """

    scorer: Scorer | ParentDistance
    column: str | None = None
    least: bool = False
    weakest: bool = False

    @property
    def name(self) -> str:
        """What it is called in frames and plots."""
        return f"weakest {self._told}" if self.weakest else self._told

    @property
    def sign(self) -> int:
        """1 where more is better."""
        return -1 if self.least else 1

    def table(self, scores: Mapping[str, np.ndarray], skills: Skills) -> np.ndarray:
        """The numbers by prompt and seed; NaN in rows of prompts that the scorer does not score.

        Raises SearchError for a column that is not there, or holds no numbers, and for a NaN or infinity beside numbers.
        """
        values = scores[self._column(scores)]
        if not np.issubdtype(values.dtype, np.number):
            raise SearchError(f"{self.name}: an objective is a number for each picture, and this scorer gives {values.tolist()[0]!r}")
        table = np.asarray(values, float).reshape(len(skills.prompts), -1)
        scored = ~np.isnan(table).all(axis=1)
        if not scored.any():
            raise SearchError(f"{self.name}: the scorer gives NaN for every picture; choose prompts that it can score")
        if not np.isfinite(table[scored]).all():
            where = skills.prompts[int(np.argmax(scored & ~np.isfinite(table).all(axis=1)))]
            raise SearchError(f"{self.name}: the scorer gives NaN or infinity for some pictures of {where!r}")
        return table

    def by_seed(self, table: np.ndarray, skills: Skills) -> np.ndarray:
        """One number for each seed. Raises SearchError where a skill has no prompt that is scored."""
        if not self.weakest:
            means: np.ndarray = np.nanmean(table, axis=0)
            return means
        rows = {skill: [number for number, own in enumerate(skills.asked) if own == skill] for skill in skills.names}
        if none := [skill for skill, own in rows.items() if np.isnan(table[own]).all()]:
            raise SearchError(f"{self.name}: the scorer gives NaN for all prompts of {none[0]!r}; each skill needs one that it can score")
        each = np.array([np.nanmean(table[own], axis=0) for own in rows.values()])
        worst: np.ndarray = each.max(axis=0) if self.least else each.min(axis=0)
        return worst

    @property
    def _told(self) -> str:
        return self.column or _own(self.scorer) or type(self.scorer).__name__

    def _column(self, scores: Mapping[str, np.ndarray]) -> str:
        """The column that is meant; with one that is not said, and nothing that says so, the only one that holds numbers."""
        if self.column is not None and self.column not in scores:
            raise SearchError(f"objective: there is no column {self.column!r}; the scorer gives {', '.join(scores) or 'none'}")
        if (own := self.column or _own(self.scorer)) in scores:
            return own
        numbers = [name for name, values in scores.items() if np.issubdtype(values.dtype, np.number)]
        if len(numbers) != 1:
            given = ", ".join(scores) or "nothing"
            raise SearchError(
                f"objective: the scorer gives {given}, not one column of numbers; say which: SearchObjective(scorer, column=...)"
            )
        return numbers[0]


def objectives_of(given: Any) -> tuple[SearchObjective, ...]:
    """One objective or several; a scorer stands for its only column. Raises SearchError."""
    several = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    for one in several:
        if not callable(one) and not isinstance(one, SearchObjective | ParentDistance):
            raise SearchError(f"objective must be a scorer, an SearchObjective, or a list of these, got {one!r}")
    found = tuple(one if isinstance(one, SearchObjective) else SearchObjective(one) for one in several)
    if not found:
        raise SearchError("objective is empty: give a scorer, as in objective=wb.render.ClipScorer(folder)")
    if len({one.name for one in found}) < len(found):
        raise SearchError(f"objective: two have the same name, {', '.join(one.name for one in found)}; each needs a column of its own")
    return found


def _own(scorer: Any) -> str:
    """The column of numbers that a scorer says it gives, or a function's own name; nothing where it cannot be known before."""
    said = getattr(scorer, "number", "")
    return str(said or (column_of(scorer) if hasattr(scorer, "__name__") else ""))
