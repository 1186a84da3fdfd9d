"""What the methods came to at pairs and triples of the embedded models, as it was measured; the numbers are in `methods.json`.

They are measured by `python -m benchmarks.methods`; what they say of each method in words is in `purposes`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import WorkbenchError
from workbench.figures.results import Result

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

AVERAGE, SUM = "weighted_average", "task_arithmetic"
_KEPT = Path(__file__).with_name("methods.json")
_SAME = 0.005  # root mean square of pixels, from 0 to 1, below which two methods draw the same


@dataclass(frozen=True)
class TaskScore:
    """What a method, or a model alone, drew at a task: shares of pictures that are right."""

    score: float
    spread: float
    skills: Mapping[str, float]
    seeds: tuple[float, ...]
    told: Mapping[str, Any]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> TaskScore:
        """From the numbers as they are kept."""
        return cls(told["score"], told["spread"], told["skills"], tuple(told["seeds"]), told)

    def against(self, other: TaskScore, pictures: int) -> int:
        """1 where it is better, -1 where it is worse, 0 where the two are no further apart than seeds are, or than one picture."""
        difference = self.score - other.score
        chance = max(math.hypot(self.spread, other.spread), 1 / pictures)
        return 0 if abs(difference) <= chance + 1e-9 else int(math.copysign(1, difference))


@dataclass(frozen=True)
class MethodTask:
    """What was measured at one task: each model `alone` (the base first), each of `methods`; `problems` say why one is missing."""

    name: str
    models: tuple[str, ...]
    pictures: int
    measures: Mapping[str, float]
    alone: Mapping[str, TaskScore]
    methods: Mapping[str, TaskScore]
    problems: Mapping[str, str]

    @property
    def is_mixed(self) -> bool:
        """Whether its models predict different things."""
        return self.measures["predictions"] > 1

    @property
    def best(self) -> frozenset[str]:
        """The methods that no other one beats."""
        top = max(self.methods.values(), key=lambda one: one.score)
        return frozenset(name for name, one in self.methods.items() if not top.against(one, self.pictures))

    def lost(self, method: str) -> list[str]:
        """The skills that a model alone has, and of which the method keeps less than half."""
        kept, alone = self.methods[method].skills, self.alone.values()
        return [skill for skill, share in kept.items() if share < max(one.skills[skill] for one in alone) / 2]


@dataclass(frozen=True, repr=False)
class MethodsCompared(Result):
    """All methods at all tasks. `apart` says how far the pictures of two methods are from each other, at the tasks that both take.

    Tasks whose models predict different things do not count there: pictures of such a merge may be noise.
    """

    tasks: Mapping[str, MethodTask]
    asked: Mapping[str, Any]
    names: tuple[str, ...]
    apart: np.ndarray

    def frame(self) -> pd.DataFrame:
        """A row for each task and method.

        Columns: `task`, `method`, `options` (those chosen), `score` (share of pictures that show what was asked: shape, colour and
        style) and `spread` (its deviation between seeds), `clip` (100 x the cosine of picture and prompt), a share for each skill in
        `skills`, `lost` (skills of which less than half is left), `from` (distance of pictures from each model's: root mean square, 0
        to 1), `time` and `memory` (over those of `weighted_average`, at the first task) and `problem` (why a method is missing).
        """
        import pandas as pd

        rows = []
        for task in self.tasks.values():
            given = [(name, {**one.told, "lost": task.lost(name)}) for name, one in task.methods.items()]
            given += [(name, {"problem": problem}) for name, problem in task.problems.items()]
            rows += [{"task": task.name, "method": name} | told for name, told in given]
        frame = pd.DataFrame(rows).drop(columns=["tried", "seeds"], errors="ignore")
        return frame.assign(problem=frame.get("problem", pd.Series("", frame.index)).fillna(""))

    def same(self, method: str) -> list[str]:
        """The methods that draw the same as this one."""
        row = self.apart[self.names.index(method)]
        return [name for name, away in zip(self.names, row, strict=True) if name != method and away < _SAME]

    @property
    def headline(self) -> str:
        """How many methods are better than averaging wherever they were tried, how many nowhere."""
        found = [set(self.verdicts(name).values()) for name in self.names if name != AVERAGE]
        always, never = sum(one == {1} for one in found), sum(1 not in one for one in found)
        tasks = f"{len(self.names)} methods at {len(self.tasks)} tasks"
        return f"{tasks}: {always} are better than averaging wherever they were tried, {never} nowhere"

    def verdicts(self, method: str, other: str = AVERAGE) -> dict[str, int]:
        """By task, whether a method is better (1) than another, by default averaging, worse (-1), or neither."""
        there = {name: task for name, task in self.tasks.items() if method in task.methods and other in task.methods}
        return {name: task.methods[method].against(task.methods[other], task.pictures) for name, task in there.items()}

    def plot(self) -> go.Figure:
        """The methods as a map: near each other where they draw alike; the colour is the mean share of pictures that are right.

        Tasks whose models predict different things do not count.
        """
        import pandas as pd

        from workbench import figures

        tasks = [task for task in self.tasks.values() if not task.is_mixed]
        mean = {name: np.mean([task.methods[name].score for task in tasks if name in task.methods]) for name in self.names}
        groups = self._groups()
        firsts = [self.names.index(group[0]) for group in groups]
        places = _plane(self.apart[np.ix_(firsts, firsts)])
        frame = pd.DataFrame(places, columns=["x", "y"])
        frame["label"] = [", ".join(group[:2]) + (f" and {len(group) - 2} more" if len(group) > 2 else "") for group in groups]
        frame["told"] = [", ".join(group) for group in groups]
        frame["right"] = [mean[group[0]] for group in groups]
        return figures.labelled_map(
            frame,
            colour="right",
            title="How alike the pictures of methods are",
            told="Near each other: the same prompts and seeds come out alike.",
        )

    def _groups(self) -> list[list[str]]:
        """Methods that draw the same, each in the group of the first that it draws as."""
        groups: dict[str, list[str]] = {}
        for name in self.names:
            groups.setdefault(next((first for first in groups if first in self.same(name)), name), []).append(name)
        return list(groups.values())


@cache
def methods_compared() -> MethodsCompared:
    """What every method of this package came to at the embedded models, as measured when it was last compared.

    Raises WorkbenchError where the numbers are missing or damaged.
    """
    try:
        return read(json.loads(_KEPT.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError) as error:
        raise WorkbenchError(f"{_KEPT}: cannot be read ({error}); python -m benchmarks.methods writes it anew") from error


def read(told: Mapping[str, Any]) -> MethodsCompared:
    """From the numbers as they are kept."""
    tasks = {name: _task(name, one) for name, one in told["tasks"].items()}
    names, below = tuple(told["apart"]["methods"]), told["apart"]["below"]
    apart = np.full((len(names), len(names)), 0.0)
    for row, values in enumerate(below):
        apart[row, :row] = apart[:row, row] = [math.nan if value is None else value for value in values]
    return MethodsCompared(tasks, told["asked"], names, apart)


def _task(name: str, told: Mapping[str, Any]) -> MethodTask:
    measured = {method: one for method, one in told["methods"].items() if "problem" not in one}
    return MethodTask(
        name,
        tuple(told["models"]),
        told["pictures"],
        told["measures"],
        {model: TaskScore.of(one) for model, one in told["alone"].items()},
        {method: TaskScore.of(one) for method, one in measured.items()},
        {method: one["problem"] for method, one in told["methods"].items() if "problem" in one},
    )


def _plane(apart: np.ndarray) -> np.ndarray:
    """Points of a plane whose distances are as near to these as a projection gives: classical scaling (Torgerson 1952)."""
    squares = np.where(np.isfinite(apart), apart, np.nanmean(apart)) ** 2
    centred = squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    largest = vectors[:, ::-1][:, :2]
    largest = largest * np.sign(largest[np.abs(largest).argmax(0), range(largest.shape[1])])  # a sign of its own on every machine
    found: np.ndarray = largest * np.sqrt(np.maximum(values[::-1][:2], 0))
    return found
