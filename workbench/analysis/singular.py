"""`singular_values`: in how many directions a matrix of weights, or what it was changed by, goes. The result shows itself here too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from workbench.analysis.ranks import effective_rank, singular
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.matching import places
from workbench.checkpoint.views.placing import ALL
from workbench.engine.inputs import Models, check, checkpoint, matched, named
from workbench.engine.reading import Tensors, measured
from workbench.errors import InputError, OptionError
from workbench.figures.results import Result
from workbench.merge.call import unique

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import torch

_COPIES = 3  # of the matrices in memory: as read, their products, and what their eigenvalues take
_SHARES = (50, 90, 99)  # per cent of the energy
_NUMBERS = ("norm", "largest", "effective_rank", "stable_rank", *(f"for_{share}" for share in _SHARES))
_STEPS = np.linspace(0, 1, 33)  # along the singular values, where matrices of different sizes are set side by side


def singular_values(models: Checkpoint | Models, *, base: Checkpoint | None = None, progress: bool = True) -> SingularValues:
    """The singular values of every matrix of weights, or with `base` of its changes, and how fast they fall.

    Takes checkpoints, one or more, merged or not, in a list or by name; a model that is the base itself is left out. A
    tensor is a matrix of dimension 0 against the others; one with a side of 1 does not count. Of the n singular values s of
    a matrix, n the shorter side:

    - `norm`: the root of sum(s^2), which is that of the sum of squares of the elements; `largest`: the first s;
    - `effective_rank`: exp of the entropy of p = s / sum(s), from 1 to n (Roy & Vetterli 2007, The effective rank, section 2);
    - `stable_rank`: sum(s^2) / max(s^2), from 1 to n (Rudelson & Vershynin 2007, arXiv:math/0503442);
    - `for_50`, `for_90`, `for_99`: how many of the largest hold 50, 90, 99 % of sum(s^2).

    They are the roots of the eigenvalues of the product of the matrix with itself, along the shorter side, in float64: what
    is below some 1e-7 of the largest cannot be told from 0 and counts as 0. Every model is read once; a whole tensor of
    every model is in memory. The same numbers on any number of threads.

    Raises, before a weight is read, InputError for what is no checkpoint and MergeError for a merge that cannot be made, or
    models that share nothing. Warns (MergeWarning) of tensors that only one model has, and (NonFiniteWarning) of NaN and
    infinity.
    """
    found = named([models] if isinstance(models, Checkpoint) else models, "singular_values", least=1)
    origin, sides = "", found
    if base is not None:
        checkpoint(base, "singular_values: base")
        found = {name: model for name, model in found.items() if model is not base}
        if not found:
            raise InputError("singular_values takes one or more checkpoints beside the base, got none")
        origin = unique(base.name, found)
        sides = {origin: base, **found}
        check(sides, "singular_values")
    first = next(iter(sides.values()))
    tensors = [one for one in matched(sides, "singular_values") if _is_matrix(first.info(next(iter(one.names.values()))).shape)]

    def work(tensor: Tensors) -> Matrix:
        names = tensor.names if base is None else tensor.names[1:]
        values = dict(zip(names, _values(tensor.matrices(), base is not None), strict=True))
        return Matrix(tensor.place, tensor.key, tensor.shape, tuple(values.get(name) for name in found))

    matrices = measured(sides, tensors, work, who="singular_values", copies=_COPIES, progress=progress)
    there = {matrix.block for matrix in matrices}
    return SingularValues(tuple(found), origin, tuple(place for place in places(first) if place in there), tuple(matrices))


@dataclass(frozen=True)
class Matrix:
    """The singular values of one tensor in each model, largest first; None in a model that has no number for it."""

    block: str
    key: str
    shape: tuple[int, ...]
    values: tuple[np.ndarray | None, ...]

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.shape[0], math.prod(self.shape[1:])


@dataclass(frozen=True, repr=False)
class SingularValues(Result):
    """Singular values of models, or of their changes from `base`, by matrix."""

    models: tuple[str, ...]
    base: str
    places: tuple[str, ...]
    matrices: tuple[Matrix, ...]

    def frame(self, by: Literal["block", "tensor"] = "block") -> pd.DataFrame:
        """A row for each block and model: blocks by depth, last `all`; or for each tensor and model.

        Columns: `block` and `model` (ordered categories); `norm`, `largest`, `effective_rank`, `stable_rank`, `for_50`,
        `for_90` and `for_99` (see `singular_values`); `share`: the effective rank over the shorter side; and `note`: why a
        number is missing. By tensor also `tensor`, `rows` and `columns`; by block every number is the mean over its
        matrices, of which `matrices` counts those that have one.
        """
        import pandas as pd

        rows = [
            {"block": one.block, "model": model, "tensor": one.key, "rows": one.sides[0], "columns": one.sides[1], **_numbers(values)}
            for one in self.matrices
            for model, values in zip(self.models, one.values, strict=True)
        ]
        frame = pd.DataFrame(rows, columns=["block", "model", "tensor", "rows", "columns", *_NUMBERS])
        frame["share"] = frame["effective_rank"] / frame[["rows", "columns"]].min(axis=1)
        frame["block"] = pd.Categorical(frame["block"], [*self.places, ALL], ordered=True)
        frame["model"] = pd.Categorical(frame["model"], self.models, ordered=True)
        frame["note"] = np.where(frame["norm"].isna(), "holds NaN or infinity, or is not in the model", "")
        frame.loc[frame["norm"] == 0, "note"] = self._zero
        if by == "tensor":
            return frame
        if by != "block":
            raise OptionError(f"frame: by must be 'block' or 'tensor', got {by!r}")
        doubled = pd.concat([frame, frame.assign(block=pd.Categorical([ALL] * len(frame), frame["block"].cat.categories, ordered=True))])
        groups = doubled.groupby(["block", "model"], observed=True)
        table = groups[[*_NUMBERS, "share"]].mean().assign(matrices=groups["effective_rank"].count()).reset_index()
        return table.assign(note=np.where(table["matrices"] == 0, "no matrix that has a number", ""))

    def falls(self, block: str = ALL) -> pd.DataFrame:
        """How the singular values of a block fall: the mean over its matrices of s over the largest, for each model.

        Columns: `model`; `position`, from 0, the largest, to 1, the smallest; `value`, from 1 down. Raises OptionError for a
        block that is not there.
        """
        import pandas as pd

        if block not in (*self.places, ALL):
            raise OptionError(f"falls: block must be one of {', '.join(map(repr, (*self.places, ALL)))}, got {block!r}")
        rows = []
        for i, model in enumerate(self.models):
            found = [one.values[i] for one in self.matrices if block in (one.block, ALL)]
            curves = [np.interp(_STEPS, np.linspace(0, 1, len(s)), s / s[0]) for s in found if s is not None and s[0] > 0]
            means = np.mean(curves, axis=0) if curves else np.full(len(_STEPS), np.nan)
            rows += [(model, position, value) for position, value in zip(_STEPS, means, strict=True)]
        return pd.DataFrame(rows, columns=["model", "position", "value"])

    @property
    def headline(self) -> str:
        frame = self.frame()
        mean = frame[frame["block"] == ALL].set_index("model")["share"].dropna()
        told = ", ".join(f"{model} {share:.0%}" for model, share in mean.items())
        what = f"changes from {self.base}" if self.base else "weights"
        return f"{len(self.matrices)} matrices; effective rank of the {what}, over the full: {told or 'nothing to measure'}"

    def plot(self, block: str = ALL) -> go.Figure:
        """How the singular values fall, a line for each model. Raises OptionError for a block that is not there."""
        from workbench import figures

        what = f"changes from {self.base}" if self.base else "weights"
        where = "" if block == ALL else f" in {block}"
        figure = figures.lines(
            self.falls(block).dropna(),
            x="position",
            y="value",
            colour="model",
            title=f"Singular values of the {what}{where}, mean over matrices",
            x_title="position (0: the largest, 1: the smallest)",
            y_title="over the largest",
        )
        return figure.update_yaxes(rangemode="tozero")

    def heat(self) -> go.Figure:
        """Effective rank over the full rank: blocks downwards, models across."""
        from workbench import figures

        table = self.frame().pivot(index="block", columns="model", values="share")
        what = f"changes from {self.base}" if self.base else "weights"
        return figures.heat(table, title=f"Effective rank of the {what}", x_title="", y_title="", unit="over the shorter side")

    @property
    def _zero(self) -> str:
        return f"nothing was changed from {self.base}" if self.base else "the tensor is all zero"


def _is_matrix(shape: tuple[int, ...]) -> bool:
    return len(shape) > 1 and shape[0] > 1 and math.prod(shape[1:]) > 1


def _values(matrices: torch.Tensor, base: bool) -> list[np.ndarray]:
    """The singular values of each matrix, largest first; with `base`, of what the others differ from the first by."""
    return list(singular(matrices[1:].sub_(matrices[0]) if base else matrices))


def _numbers(values: np.ndarray | None) -> dict[str, float]:
    """What the singular values of a matrix come to; only the norm and the largest where all are zero."""
    if values is None or not values[0]:
        return dict.fromkeys(_NUMBERS, np.nan) | ({} if values is None else {"norm": 0.0, "largest": 0.0})
    energy = np.cumsum(values**2) / np.sum(values**2)
    found = {
        "norm": float(np.sqrt(np.sum(values**2))),
        "largest": float(values[0]),
        "effective_rank": effective_rank(values),
        "stable_rank": float(np.sum(values**2) / values[0] ** 2),
    }
    return found | {f"for_{share}": int(np.searchsorted(energy, share / 100 - 1e-12) + 1) for share in _SHARES}
