"""`advise`: three methods to try, from how changes meet and what methods came to where they met alike. The numbers are elsewhere:
`measures` of the models, and `methods_compared` of the embedded ones.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.analysis.comparing_methods import AVERAGE, MethodsCompared, MethodTask, methods_compared
from workbench.analysis.measures import distance, measures
from workbench.analysis.purposes import purpose
from workbench.checkpoint import Checkpoint
from workbench.engine.inputs import Models, named
from workbench.errors import InputError
from workbench.figures.results import Result
from workbench.wording import enumerated

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

COUNT = 3  # methods that are advised
_FAR = 1.0  # a distance from which on the nearest task is not like these models at all


def advise(base: Checkpoint, models: Models, *, progress: bool = True) -> Advised:
    """Three methods to try for models tuned from a base, ranked by what was measured where changes met alike.

    Measured are the numbers of `interference` and of `singular_values`, over all tensors. Each method's share of right pictures at
    each task of `methods_compared` counts the more, the nearer these numbers are to that task's; of methods that draw the same, one
    is named. It is a ranking of what to draw first, from a few small models: `right` says how often it held there.

    Raises InputError for fewer than two models, and for a model without a change; and what `interference` raises.
    """
    found = measures(base, models, progress=progress)
    compared = methods_compared()
    choices = ranked(compared, found, list(compared.tasks.values()))
    if not choices:
        raise InputError(
            f"advise: no method was compared that takes {int(found['models'])} models; python -m benchmarks.methods compares them"
        )
    return Advised(base.name, tuple(named(models, "advise")), found, tuple(choices[:COUNT]), compared)


@dataclass(frozen=True)
class Choice:
    """A method with its `options` at the nearest task; shares of right pictures, its own and averaging's, nearer tasks counting more."""

    method: str
    options: Mapping[str, Any]
    expected: float
    averaging: float
    why: str

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.method} ({told})" if told else self.method


@dataclass(frozen=True, repr=False)
class Advised(Result):
    """Three methods to try, the first first. `measures` are the numbers it went by."""

    base: str
    models: tuple[str, ...]
    measures: Mapping[str, float]
    choices: tuple[Choice, ...]
    compared: MethodsCompared

    @property
    def methods(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(choice.method for choice in self.choices)

    @property
    def nearest(self) -> MethodTask:
        """The task at which changes met most like these."""
        return min(self.compared.tasks.values(), key=lambda task: distance(self.measures, task.measures))

    @property
    def right(self) -> str:
        """How often such advice held on the table itself, each task being advised on by the others alone."""
        return held_in_words(self.compared)

    @property
    def headline(self) -> str:
        near, apart = self.nearest, distance(self.measures, self.nearest.measures)
        like = "nothing that was measured is like these" if apart >= _FAR else f"most like {near.name} ({', '.join(near.models)})"
        return f"Try {', then '.join(map(str, self.choices))}: {like}. {self.right}"

    def frame(self) -> pd.DataFrame:
        """A row for each method: `method`, `options`, `expected` and `averaging` (shares of right pictures), and `why`."""
        import pandas as pd

        return pd.DataFrame([vars(choice) for choice in self.choices])

    def plot(self) -> go.Figure:
        """What these methods, and averaging, had right at each task; the nearest task first."""
        import pandas as pd

        from workbench import figures

        tasks = sorted(self.compared.tasks.values(), key=lambda task: distance(self.measures, task.measures))
        names = list(dict.fromkeys([*self.methods, AVERAGE]))
        rows = [
            (task.name, name, task.methods[name].score, task.methods[name].spread)
            for name in names
            for task in tasks
            if name in task.methods
        ]
        frame = pd.DataFrame(rows, columns=["task", "method", "right", "spread"])
        title = f"What to try for {enumerated(self.models)} from {self.base}"
        return figures.bar_groups(
            frame,
            y="task",
            x="right",
            colour="method",
            spread="spread",
            title=title,
            told="Tasks of the embedded models, the one most like these first",
            x_title="share of pictures",
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """The sentence and the table, which has the reasons; `plot` draws their numbers."""
        frame = self.frame().assign(method=list(map(str, self.choices))).drop(columns="options")
        table = frame.style.hide(axis="index").format("{:.0%}", subset=["expected", "averaging"])
        left = table.set_properties(**{"text-align": "left", "white-space": "normal", "vertical-align": "top"})
        left = left.set_table_styles([{"selector": "th", "props": "text-align: left"}])
        return {"text/plain": repr(self), "text/html": f"<p>{html.escape(self.headline)}</p>{left.to_html()}"}


def ranked(compared: MethodsCompared, found: Mapping[str, float], tasks: Sequence[MethodTask]) -> list[Choice]:
    """All methods that take so many models, by what they came to at the tasks, the nearer the more; one of those that draw the same."""
    able = {name for task in compared.tasks.values() if found["models"] <= 2 or len(task.models) > 2 for name in task.methods}
    choices = [_choice(compared, name, found, tasks) for name in compared.names if name in able]
    # by what is gained over averaging, since not all were measured at the same tasks
    best = sorted(filter(None, choices), key=lambda choice: choice.averaging - choice.expected)
    different: list[Choice] = []
    for choice in best:
        if not any(choice.method in compared.same(other.method) for other in different):
            different.append(choice)
    return different


def _choice(compared: MethodsCompared, name: str, found: Mapping[str, float], tasks: Sequence[MethodTask]) -> Choice | None:
    """A method by its scores at those of the tasks that it was measured at; None where there are none."""
    there = [task for task in tasks if name in task.methods and AVERAGE in task.methods]
    if not there:
        return None
    away = [distance(found, task.measures) for task in there]
    near = np.exp(np.multiply(away, -2))
    expected, averaging = (float(np.average([task.methods[one].score for task in there], weights=near)) for one in (name, AVERAGE))
    nearest = there[int(np.argmin(away))]
    return Choice(name, nearest.methods[name].told["options"], round(expected, 4), round(averaging, 4), purpose(compared, name))


def held(compared: MethodsCompared) -> dict[str, tuple[bool, bool]]:
    """By task, advised on by the others alone: whether one of the three methods is among the best, and whether the first one is."""
    found = {}
    for task in compared.tasks.values():
        others = [other for other in compared.tasks.values() if other is not task]
        methods = [choice.method for choice in ranked(compared, task.measures, others)[:COUNT]]
        if methods:
            found[task.name] = (bool(task.best & set(methods)), methods[0] in task.best)
    return found


def held_in_words(compared: MethodsCompared) -> str:
    """How often advice held on the table, in a sentence, beside the chance of three methods drawn from all."""
    found = held(compared)
    if not found:
        return "How often such advice is right is not known: it takes two tasks to tell."
    any_of, first = (sum(one[number] for one in found.values()) for number in (0, 1))
    by_chance = sum(_by_chance(compared.tasks[name]) for name in found) / len(found)
    return (
        f"On the embedded models, each task being advised on by the others, one of the three was among the best at {any_of} of "
        f"{len(found)} tasks, and the first at {first}; three methods drawn at random would be at {by_chance:.0%} of them. "
        "What is measured was chosen with these tasks in view: elsewhere it may be right less often."
    )


def _by_chance(task: MethodTask) -> float:
    """How likely one of three methods drawn at random is among the best."""
    methods, best = len(task.methods), len(task.best)
    return 1 - math.comb(methods - best, COUNT) / math.comb(methods, COUNT) if methods >= COUNT else 1.0
