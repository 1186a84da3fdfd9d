"""`explain`: what a merge is beside its parents, block by block, what looks wrong with it, and how it draws beside them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import workbench  # renderers are beside this floor; the package's own front door is the way there
from workbench.analysis.movement import COPIES, QUANTITIES, Movement, movement
from workbench.analysis.pictures import DrawnPictures, draw
from workbench.analysis.warning_signs import Evidence, WarningSign, findings
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.names.buffers import is_marker
from workbench.checkpoint.views.matching import Matched
from workbench.checkpoint.views.placing import ALL, by_place
from workbench.engine.inputs import check
from workbench.engine.reading import NonFinite, Tensors, measured
from workbench.errors import InputError, MergeWarning, OptionError, warn
from workbench.figures.results import Result
from workbench.merge import Merge
from workbench.merge.call import unique

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SHOWN = 10  # blocks in the table of a cell
_BAR = "#56B4E988"
_TABLE = {"distance": "distance from", "norm_ratio": "norm over that of", "nearest": "elements nearest to"}
_UNDEFINED = {
    "cosine": "one of the two is all zero",
    "distance": "the parent is all zero",
    "norm_ratio": "the parent is all zero",
    "change_rank": "no matrix changed",
    "high_frequencies": "no last dimension longer than 1, or all zero",
    "parent_high_frequencies": "no last dimension longer than 1, or all zero",
}
_PANELS = {
    "distance": "distance from the parent, over its norm",
    "norm_ratio": "norm, over the parent's",
    "nearest": "share of elements nearest to this parent alone",
    "change_rank": "effective rank of the change from the parent, over the full rank",
    "parent_high_frequencies": "share of energy in the upper half of the frequencies",
}


def explain(
    merge: Checkpoint, *, renderer: Any = None, prompts: Sequence[str] | None = None, seeds: Sequence[int] = (0,), progress: bool = True
) -> Explanation:
    """What the result of a merge is beside each of its parents: block by block, with pictures where prompts are given.

    The parents are the inputs of the merge, files or merges; one that is there twice counts once, and one that holds
    changes (a LoRA) is none. The result is read as it would be written. Of the elements r of the result and p of a parent,
    in all tensors of a place that this parent has:

    - `cosine`: sum(r * p) / (|r| * |p|), where |r| is the root of the sum of squares; from -1 to 1;
    - `distance`: |r - p| / |p|;
    - `norm_ratio`: |r| / |p|;
    - `change_rank`: the effective rank of the change r - p as a matrix (dimension 0 against the others): exp of the entropy
      of its singular values as shares of their sum (Roy and Vetterli 2007, section 2), over the number of singular values;
      from 0 to 1, the mean over tensors weighted by elements;
    - `high_frequencies` of the result, `parent_high_frequencies` of the parent: the share of energy, the mean included,
      that lies above half the highest frequency along the last dimension; white noise has about a half;
    - `nearest`: the share of elements that are closer to this parent than to any other; `tied`: to this and others alike;
      `equal`: the share equal to the parent's, which is rounded as the result is.

    `renderer`, a `workbench.Renderer`, draws `prompts` with `seeds` by every parent and the result, which it then holds; by default it
    is one of the result's kind.
    `warnings` says what looks wrong (see `warning_signs`).

    Every parent and the result are read once, whole tensors of all in float64; most of the time goes into singular values.
    The same numbers on any number of threads.

    Raises, before a weight is read: InputError for what is no merge, MergeError for one that cannot be made, OptionError
    for a renderer without prompts, and the renderer's own errors. Warns (NonFiniteWarning) of
    NaN and infinity, and (MergeWarning) of parents that are left out.
    """
    if not isinstance(merge, Checkpoint) or merge.merge is None:
        raise InputError(f"explain takes a merge, got {merge!r}; of an exported one, Recipe.from_file(path).build() is the merge")
    merge = merge.merge  # in another layout its numbers are the same
    if (renderer is not None and not prompts) or isinstance(prompts, str):
        raise OptionError("explain: a renderer draws prompts, prompts=['...']")
    parents = _parents(merge)
    result = unique(merge.name, parents)
    models = {result: merge, **parents}
    check(models, "explain")
    if prompts and renderer is None:
        renderer = workbench.Renderer(merge)
    for model in models.values() if renderer is not None else ():
        renderer.check(model)
    index = {name: number for number, name in enumerate(parents)}
    nonfinite: dict[str, tuple[str, ...]] = {}

    def work(tensors: Tensors) -> tuple[str, tuple[str, Movement]]:
        try:
            return tensors.place, (tensors.key, movement(tensors, index))
        except NonFinite as error:
            nonfinite[tensors.key] = (*nonfinite.get(tensors.key, ()), *error.names)
            raise

    found = measured(models, _side_by_side(merge, result, parents), work, who="explain", copies=COPIES, progress=progress)
    moved = {place: dict(pairs) for place, pairs in by_place(merge, found).items()}
    seen = {key: nonfinite[key] for key in merge if key in nonfinite}  # in order, whichever thread came first
    warned = findings(Evidence(merge, result, tuple(parents), moved, seen))
    pictures = draw(renderer, {**parents, result: merge}, prompts, seeds, progress) if prompts else None
    return Explanation(result, tuple(parents), {place: tuple(tensors.values()) for place, tensors in moved.items()}, warned, pictures)


def _parents(merge: Merge) -> dict[str, Checkpoint]:
    """The inputs by name, each once, that hold what the result holds: weights, or changes."""
    once: dict[str, Checkpoint] = {}
    for name, model in zip(merge.call.names, merge.call.inputs, strict=True):
        if all(model is not known for known in once.values()):
            once[name] = model
    parents = {name: model for name, model in once.items() if model.space is merge.space}
    if left_out := [name for name in once if name not in parents]:
        warn(f"explain leaves out {' and '.join(left_out)}: changes are no weights to be set beside the result", MergeWarning)
    return parents


def _side_by_side(merge: Merge, result: str, parents: Mapping[str, Checkpoint]) -> list[Matched]:
    """Every tensor of the result that is a matter of arithmetic, with the parents that have it in this shape."""
    found = []
    for key, entry in merge.plan.entries.items():
        info = merge.info(key)
        if not info.is_float or not info.numel or is_marker(key):
            continue
        names = {result: key}
        for model, viewed, name in zip(merge.call.inputs, merge.call.viewed, entry.names, strict=True):
            parent = next((parent for parent, known in parents.items() if known is model), None)
            if parent and name is not None and viewed.info(name).is_float and viewed.info(name).shape == info.shape:
                names[parent] = name
        if len(names) > 1:
            found.append(Matched(entry.component if entry.block is None else entry.block.name, names))
    return found


@dataclass(frozen=True, repr=False)
class Explanation(Result):
    """A merge beside its parents. `moved` holds the tensors' sums in each place, `warnings` what looks wrong, the worst first."""

    result: str
    parents: tuple[str, ...]
    moved: Mapping[str, tuple[Movement, ...]]
    warnings: tuple[WarningSign, ...]
    pictures: DrawnPictures | None = None

    def frame(self) -> pd.DataFrame:
        """A row for each place and parent: the blocks that moved most from the first parent first, last `all`.

        Columns: `place` and `parent` (ordered categories: blocks by depth, parents as they are in the merge); `cosine`,
        `distance`, `norm_ratio`, `change_rank`, `high_frequencies`, `parent_high_frequencies`, `nearest`, `tied` and
        `equal`, as in `explain`, numbers without a unit; `tensors` compared; and `note`: why a number is missing.
        """
        import pandas as pd

        rows = [self._row(place, i) for place in [*self.order, ALL] for i in range(len(self.parents))]
        frame = pd.DataFrame(rows)
        frame["place"] = pd.Categorical(frame["place"], list(self.moved), ordered=True)
        frame["parent"] = pd.Categorical(frame["parent"], self.parents, ordered=True)
        return frame

    @property
    def order(self) -> list[str]:
        """The places, that which moved most from the first parent first; last what this parent lacks."""
        far = {place: self._values[place]["distance"][0] for place in self.moved if place != ALL}
        return sorted(far, key=lambda place: -far[place] if np.isfinite(far[place]) else np.inf)

    @property
    def headline(self) -> str:
        if not self.moved[ALL]:
            return f"{self.result}: no tensor that could be compared with a parent's"
        far = self._values[ALL]["distance"]
        told = [f"{distance:.2%} from {name}" for name, distance in zip(self.parents, far, strict=True) if np.isfinite(distance)]
        kinds = ", ".join(dict.fromkeys(finding.kind for finding in self.warnings))
        warned = f"to look at: {kinds}" if kinds else "nothing looks wrong"
        most = f"moved most from {self.parents[0]} in {', '.join(self.order[:3])}"
        return f"{self.result} is {', '.join(told)}; {most}; {warned}"

    def plot(self) -> go.Figure:
        """Distance, norm, share of elements, rank of the change and high frequencies over the blocks, a line for each parent."""
        import pandas as pd

        from workbench import figures

        where = [place for place in self.moved if place != ALL] or [ALL]
        rows = [
            (title, name, place, self._values[place][quantity][i])
            for quantity, title in _PANELS.items()
            for i, name in enumerate(self.parents)
            for place in where
        ]
        for place in where:  # of the tensors of the first parent that has any there
            share = next(filter(np.isfinite, self._values[place]["high_frequencies"]), np.nan)
            rows.append((_PANELS["parent_high_frequencies"], self.result, place, share))
        frame = pd.DataFrame(rows, columns=["panel", "of", "block", "value"])
        title = f"{self.result} beside its parents"
        return figures.panels(frame, x="block", y="value", panel="panel", colour="of", title=title, levels={_PANELS["norm_ratio"]: 1})

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}

    def _repr_html_(self) -> str:
        items = "".join(f"<li>&#9888;&#65039; {html.escape(str(finding))}</li>" for finding in self.warnings)
        warned = f"<ul style='list-style:none;padding-left:0;max-width:60em'>{items}</ul>" if items else ""
        pictures = self.pictures.to_html() if self.pictures else ""
        return f"<p>{html.escape(self.headline)}.</p>{warned}{self._table()}{pictures}"

    def _table(self) -> str:
        """The blocks that moved most, and all: distance from each parent, norm, and the elements nearest to it."""
        shown = self.frame().set_index(["place", "parent"])[list(_TABLE)].rename(columns=_TABLE).unstack("parent")
        shown = shown.loc[[*self.order[:_SHOWN], ALL]].rename_axis(None).rename_axis(columns=[None, None])
        far, near = ([column for column in shown if column[0] == _TABLE[what]] for what in ("distance", "nearest"))
        style = shown.style.format("{:.1%}", na_rep="").format_index(escape="html", axis=0).format_index(escape="html", axis=1)
        style = style.bar(color=_BAR, vmin=0, vmax=1, width=80, subset=near)
        table: str = style.bar(color=_BAR, vmin=0, vmax=shown[far].max(axis=None), width=80, subset=far).to_html()
        return table

    @cached_property
    def _values(self) -> dict[str, dict[str, np.ndarray]]:
        nothing = {name: np.full(len(self.parents), np.nan) for name in QUANTITIES}
        return {place: Movement.total(tensors).values() if tensors else nothing for place, tensors in self.moved.items()}

    def _row(self, place: str, i: int) -> dict[str, object]:
        values = {name: numbers[i] for name, numbers in self._values[place].items()}
        there = sum(bool(moved.sums["elements"][i] > 0) for moved in self.moved[place])
        missing = [f"{name}: {why}" for name, why in _UNDEFINED.items() if not np.isfinite(values[name])]
        note = "; ".join(missing) if there else "no tensor that could be compared"
        return {"place": place, "parent": self.parents[i], **values, "tensors": there, "note": note}
