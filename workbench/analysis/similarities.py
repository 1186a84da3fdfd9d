"""`similarity`: how alike models are, each with each, in one pass over their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from workbench.analysis.metrics import COPIES, METRICS, Sums, tensor_sums
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.placing import ALL, by_place
from workbench.engine.inputs import Models, check, checkpoint, matched, named
from workbench.engine.reading import Tensors, measured
from workbench.errors import InputError, OptionError
from workbench.figures.results import Result
from workbench.merge.call import unique

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

By = Literal["model", "block", "layer", "tensor"]
_KINDS = get_args(By)
_PAIRS = 15  # what a heat map has room for
Measured = tuple[str, str, list[Sums]]  # a tensor's place and name, and its sums for each measure


def similarity(
    models: Models, by: By = "model", metric: str | Sequence[str] = "cosine", *, base: Checkpoint | None = None, progress: bool = True
) -> Similarity:
    """How alike models are, each with each: as a whole, and `by` block, layer or tensor.

    Takes two or more checkpoints, merged or not, in a list or by name. With `base` it is their changes from it that are
    compared; a model that is the base itself is left out. A layer is what holds a weight and its bias. The metrics, of the
    elements a and b of two models in one place, where |a| is the root of the sum of squares:

    - `cosine`: sum(a * b) / (|a| * |b|), from -1 to 1;
    - `distance`: |a - b| / |a|, relative to the first of the pair;
    - `norm_ratio`: |b| / |a|;
    - `scale`: sum(a * b) / |b|^2, the s of the least |a - s * b|;
    - `sign_agreement`: of the elements that are zero in neither, the share that has the same sign, from 0 to 1;
    - `cka`: linear centred kernel alignment of the weights as matrices (dimension 0 against the others) whose rows are
      examples, from 0 to 1 (Kornblith et al. 2019, arXiv:1905.00414, section 3); the mean over tensors, weighted by elements;
    - `subspace_overlap`: |U'V|^2 / r of the r leading singular directions of the matrices' shorter side, from 0 to 1; r is
      8, or half the side where that is less (the similarity of Hu et al. 2021, arXiv:2106.09685, section 7.2); mean as above.

    Every file is read once, for all metrics. `cka` and `subspace_overlap` hold a whole tensor of every model in float64,
    the others pieces. Tensors match by the first model's names without prefix (the base's, with a base); markers, integers
    and empty tensors do not count. Calculated in float64, the same on any number of threads.

    Raises, before a weight is read: InputError for what is no list of two or more checkpoints, OptionError for an unknown
    metric, MergeError for a merge that cannot be made or a model that shares nothing with the first. Warns (MergeWarning)
    of tensors that only one of two models has, and (NonFiniteWarning) of NaN and infinity.
    """
    if by not in _KINDS:
        raise OptionError(f"similarity: by must be one of {', '.join(map(repr, _KINDS))}, got {by!r}")
    metrics = _metrics(metric)
    found = {name: model for name, model in named(models, "similarity").items() if model is not base}
    if base is not None:
        checkpoint(base, "similarity: base")
    return measure(found, by, metrics, base=base, who="similarity", progress=progress)


def measure(
    models: Mapping[str, Checkpoint],
    by: By,
    metrics: Sequence[str],
    *,
    base: Checkpoint | None,
    who: str,
    progress: bool,
) -> Similarity:
    """What `similarity` gives, of models by name and metrics that are known; `who` asks."""
    if len(models) < 2:
        raise InputError(f"{who} takes two or more checkpoints beside the base, got {', '.join(models) or 'nothing'}")
    origin = "" if base is None else unique(base.name, models)
    sides = dict(models) if base is None else {origin: base, **models}
    check(sides, who)
    tensors = matched(sides, who)
    measures = list(dict.fromkeys(METRICS[metric].measure for metric in metrics))
    index = {name: i for i, name in enumerate(models)}

    def work(tensor: Tensors) -> tuple[str, str, list[Sums]]:
        there = [index[name] for name in tensor.names if name in index]
        return tensor.place, tensor.key, [_spread(sums, there, len(index)) for sums in tensor_sums(tensor, measures, base is not None)]

    copies = 0 if all(isinstance(one, type) for one in measures) else COPIES
    found = measured(sides, tensors, work, who=who, copies=copies, progress=progress)
    groups = _groups(by, next(iter(sides.values())), found)
    # tensors x quantities x models x models, of each measure and place
    stacks = {one: [np.stack([sums[i] for _, _, sums in group]) for group in groups.values()] for i, one in enumerate(measures)}
    totals = {one: np.stack([np.nansum(stack, axis=0) for stack in stacks[one]], axis=1) for one in measures}
    values = {metric: METRICS[metric].value(*totals[METRICS[metric].measure]) for metric in metrics}
    counts = np.stack([np.isfinite(stack[:, 0]).sum(0) for stack in stacks[measures[0]]])
    return Similarity(tuple(models), by, origin, tuple(groups), values, counts)


@dataclass(frozen=True, repr=False)
class Similarity(Result):
    """How alike models are. `values` holds, for each metric, places x models x models, and `tensors` how many were compared."""

    models: tuple[str, ...]
    by: By
    base: str
    places: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    tensors: np.ndarray

    def frame(self) -> pd.DataFrame:
        """A row for each place and ordered pair of models: blocks by depth, last `all`, which is every tensor.

        Columns: `place`, `first` and `second` (ordered categories), one for each metric, `tensors` compared, and `note`: why
        a number is missing.
        """
        import pandas as pd

        pairs = [(i, j) for i in range(len(self.models)) for j in range(len(self.models)) if i != j]
        rows = [
            {
                "place": place,
                "first": self.models[i],
                "second": self.models[j],
                **{metric: values[at, i, j] for metric, values in self.values.items()},
                "tensors": int(self.tensors[at, i, j]),
                "note": self._note(at, i, j),
            }
            for at, place in enumerate(self.places)
            for i, j in pairs
        ]
        frame = pd.DataFrame(rows)
        for column, names in (("place", self.places), ("first", self.models), ("second", self.models)):
            frame[column] = pd.Categorical(frame[column], names, ordered=True)
        return frame

    def matrix(self, place: str = ALL, metric: str | None = None) -> pd.DataFrame:
        """Models x models in one place; the first metric asked for, if none is named. Raises OptionError."""
        import pandas as pd

        if place not in self.places:
            raise OptionError(f"matrix: place must be one of {', '.join(map(repr, self.places))}, got {place!r}")
        values = self.values[self._known(metric)][self.places.index(place)]
        return pd.DataFrame(values, pd.Index(self.models, name="first"), pd.Index(self.models, name="second"))

    @property
    def order(self) -> list[str]:
        """The models in an order that puts those alike beside each other."""
        return [self.models[i] for i in self._tree()["leaves"]]

    @property
    def headline(self) -> str:
        metric = self._known(None)
        apart = METRICS[metric].apart(self.matrix().to_numpy())
        pairs = [(i, j) for i in range(len(self.models)) for j in range(i + 1, len(self.models)) if math.isfinite(apart[i, j])]
        what = f"{metric} of changes from {self.base}" if self.base else metric
        if not pairs:
            return f"{what}: undefined for every pair"
        (a, b), (c, d) = min(pairs, key=lambda pair: apart[pair]), max(pairs, key=lambda pair: apart[pair])
        nearest = f"most alike {self._told(metric, a, b)}"
        return f"{what}: {nearest}" + (f"; least {self._told(metric, c, d)}" if (a, b) != (c, d) else "")

    def plot(self, metric: str | None = None) -> go.Figure:
        """By model, the matrix in clustered order under its tree; else a heat map of places and pairs of models."""
        from workbench import figures

        metric = self._known(metric)
        title = f"{metric} of the changes from {self.base}" if self.base else f"{metric} of the weights"
        if self.by == "model":
            tree, matrix = self._tree(metric), self.matrix(metric=metric)
            order = [self.models[i] for i in tree["leaves"]]
            brackets = [
                ([(place - 5) / 10 for place in across], heights) for across, heights in zip(tree["icoord"], tree["dcoord"], strict=True)
            ]
            return figures.tree_heat(matrix.loc[order, order], brackets, title=title, tree_title="apart", unit=METRICS[metric].unit)
        return figures.heat(self._by_pairs(metric), title=f"{title}, by {self.by}", x_title="", unit=METRICS[metric].unit)

    def _by_pairs(self, metric: str) -> pd.DataFrame:
        """Places downwards, pairs across; where there are too many for a page, each model with the first."""
        import pandas as pd

        count = len(self.models)
        pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
        if len(pairs) > _PAIRS:
            pairs = [(0, j) for j in range(1, count)]
        columns = [f"{self.models[i]} · {self.models[j]}" for i, j in pairs]
        values = self.values[metric][:, [i for i, _ in pairs], [j for _, j in pairs]]
        return pd.DataFrame(values, pd.Index(self.places, name=self.by), columns)

    def _tree(self, metric: str | None = None) -> dict[str, Any]:
        """SciPy's dendrogram of average linkage, its leaves ordered so that neighbours are alike."""
        from scipy.cluster.hierarchy import dendrogram, linkage
        from scipy.spatial.distance import squareform

        metric = self._known(metric)
        apart = METRICS[metric].apart(self.values[metric][-1])
        apart = np.nan_to_num((apart + apart.T) / 2, nan=np.nanmax(apart, initial=1))
        np.fill_diagonal(apart, 0)
        tree: dict[str, Any] = dendrogram(linkage(squareform(apart.clip(0), checks=False), "average", optimal_ordering=True), no_plot=True)
        return tree

    def _known(self, metric: str | None) -> str:
        if metric is None:
            return next(iter(self.values))
        if metric not in self.values:
            raise OptionError(f"metric must be one that was measured, {', '.join(map(repr, self.values))}; got {metric!r}")
        return metric

    def _note(self, at: int, i: int, j: int) -> str:
        missing = [metric for metric, values in self.values.items() if math.isnan(values[at, i, j])]
        if missing and not self.tensors[at, i, j]:
            return "no tensor that could be compared"
        return "; ".join(f"{metric}: {METRICS[metric].undefined}" for metric in missing)

    def _told(self, metric: str, i: int, j: int) -> str:
        return f"{self.models[i]} and {self.models[j]} ({self.matrix(metric=metric).iat[i, j]:.4g})"


def _metrics(given: str | Sequence[str]) -> list[str]:
    """The metrics asked for, each once. Raises OptionError."""
    metrics = [given] if isinstance(given, str) else list(dict.fromkeys(given))
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics:
        raise OptionError(
            f"similarity: metric must be one or more of {', '.join(map(repr, METRICS))}, got {unknown[0] if unknown else given!r}"
        )
    return metrics


def _groups(by: By, anchor: Checkpoint, found: Sequence[Measured]) -> dict[str, list[Measured]]:
    """What was measured in each place, in the order of the places; last in all of them."""
    if by == "block":
        return by_place(anchor, [(place, (place, key, sums)) for place, key, sums in found])
    groups: dict[str, list[Measured]] = {}
    for one in found if by != "model" else ():
        key = one[1]
        groups.setdefault(key if by == "tensor" else key.rpartition(".")[0] or key, []).append(one)
    return groups | {ALL: list(found)}


def _spread(sums: Sums, there: Sequence[int], count: int) -> Sums:
    """Sums of the models that have a tensor, among those of all models; NaN for the others."""
    if len(there) == count:
        return sums
    out = np.full((len(sums), count, count), np.nan)
    out[:, np.array(there)[:, None], there] = sums
    return out
