"""`diff`: how two checkpoints differ: tensors, numbers, and what they say of themselves. What it looks like is in difference_page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.analysis import difference_page
from workbench.analysis.headers import Said, kinds, metadata, recipes
from workbench.analysis.wording import percent
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.layouts import incomplete, like
from workbench.checkpoint.matching import Matched, place, places
from workbench.checkpoint.placing import ALL
from workbench.engine.inputs import checkpoint
from workbench.engine.reading import Tensors, measured
from workbench.figures.results import Result
from workbench.merge.call import unique
from workbench.recipe import preflight
from workbench.tensors import TensorInfo

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_WHO = "diff"
EQUAL, CHANGED, FIRST, SECOND, SHAPE, UNREAD = "equal", "changed", "only in first", "only in second", "another shape", "not compared"
_BARS = 20  # tensors in a figure


def diff(first: Checkpoint, second: Checkpoint, *, progress: bool = True) -> Difference:
    """How the second checkpoint differs from the first: tensors, shapes, dtypes, numbers, metadata, recipes.

    Takes two checkpoints, merged or not, of any kind; of different architectures too, which then have little in common. Tensors
    match by name without prefix. All are compared that are in both in one shape, integers and markers too. Both files are
    read once, in pieces. Raises, before a weight is read: InputError for what is no checkpoint, MergeError for a merge that
    cannot be made.
    """
    for model in (first, second):
        preflight(checkpoint(model, _WHO)).raise_errors()
    models = {first.name: first}
    models[unique(second.name, models)] = second
    rows = list(_paired(first, second))
    unread = _incomparable(first, second)
    rows = [replace(row, status=UNREAD, note=unread) if unread and row.status == EQUAL else row for row in rows]
    shared = [row for row in rows if row.status == EQUAL]
    matched = [Matched(row.place, dict(zip(models, row.names, strict=True))) for row in shared]
    changes = dict(zip((row.key for row in shared), measured(models, matched, _change, who=_WHO, progress=progress), strict=True))
    rows = [_judged(row, changes[row.key]) if row.status == EQUAL else row for row in rows]
    order = dict.fromkeys([*places(first), *places(second)])
    return Difference(
        names=tuple(models),
        rows=tuple(rows),
        order=tuple(place for place in order if any(row.place == place for row in rows)),
        kinds=kinds(first, second),
        metadata=metadata(first, second),
        recipes=recipes(first, second),
    )


@dataclass(frozen=True)
class Change:
    """How the numbers of a tensor differ: sums over its elements, of which those that are NaN or infinite in one do not count."""

    numel: int = 0
    square: float = 0.0  # of the first
    apart: float = 0.0
    largest: float = 0.0  # absolute
    changed: int = 0  # elements; NaN is equal to NaN
    odd: int = 0  # elements that are NaN or infinite in one or both

    def __add__(self, other: Change) -> Change:
        summed = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return Change(**summed | {"largest": max(self.largest, other.largest)})

    @property
    def distance(self) -> float:
        """|first - second| / |first|; NaN where the first is all zero."""
        return math.sqrt(self.apart / self.square) if self.square else math.nan

    @property
    def share(self) -> float:
        """The share of elements that changed; NaN where there are none."""
        return self.changed / self.numel if self.numel else math.nan


@dataclass(frozen=True)
class Row:
    """A tensor of either checkpoint: its place, its name in each (None where it is not there), shapes and dtypes, and what became of it."""

    place: str
    names: tuple[str | None, str | None]
    infos: tuple[TensorInfo | None, TensorInfo | None]
    status: str
    note: str = ""
    change: Change | None = None

    @property
    def key(self) -> str:
        """What the first calls it, if it has it."""
        return self.names[0] or self.names[1] or ""


@dataclass(frozen=True, repr=False)
class Difference(Result):
    """How two checkpoints differ. `rows` holds their tensors in the first's order, then what only the second has; `order` the places."""

    names: tuple[str, str]
    rows: tuple[Row, ...]
    order: tuple[str, ...]
    kinds: tuple[Said, ...]
    metadata: tuple[Said, ...]
    recipes: tuple[Said, ...]

    def keys(self, status: str) -> list[str]:
        """The tensors of a status: `equal`, `changed`, `only in first`, `only in second`, `another shape` or `not compared`."""
        return [row.key for row in self.rows if row.status == status]

    @cached_property
    def dtypes(self) -> list[Row]:
        """The tensors that have another dtype in the second."""
        return [row for row in self.rows if None not in row.infos and row.infos[0].code != row.infos[1].code]

    @property
    def identical(self) -> bool:
        """Whether both hold the same tensors, in the same dtypes, with the same numbers; metadata and order do not count."""
        return all(row.status == EQUAL for row in self.rows) and not self.dtypes

    def frame(self) -> pd.DataFrame:
        """A row for each tensor of either checkpoint.

        Columns: `tensor` (its name in the first, or where only that has it, in the second), `block` (or component), `status`
        (see `keys`), `dtype_first`, `dtype_second`, `shape_first`, `shape_second` (None where it is not there); `distance`, |first -
        second| / |first|; `max_change`, the largest absolute change; `changed`, the share of elements that changed; and
        `note`: why a number is missing, or what does not count.
        """
        import pandas as pd

        return pd.DataFrame([_cells(row) for row in self.rows], columns=[*_COLUMNS, *_NUMBERS, "note"])

    def blocks(self) -> pd.DataFrame:
        """A row for each block and component, last `all`.

        Columns: `tensors` in either, `differing` (all but those that are equal), and as in `frame`, but over all elements that
        were compared, `distance`, `max_change` and `changed`.
        """
        import pandas as pd

        groups = {place: [row for row in self.rows if row.place == place] for place in self.order} | {ALL: list(self.rows)}
        rows = [_summed(group) for group in groups.values()]
        return pd.DataFrame(rows, pd.Index(groups, name="block"))

    def most(self, count: int = 10) -> pd.DataFrame:
        """The rows of `frame` of the tensors that changed most, by `distance`; those that were all zero come first."""
        frame = self.frame()
        changed = frame[frame["status"] == CHANGED]
        return changed.sort_values("distance", ascending=False, na_position="first", kind="stable").head(count)

    @property
    def headline(self) -> str:
        """What there is to see, in a sentence."""
        first, second = self.names
        if self.identical:
            said = ", though they say different things of themselves" if self.metadata or self.recipes else ""
            return f"{first} and {second} are identical: the same {_tensors(len(self.rows))}{said}"
        compared = [row for row in self.rows if row.change is not None]
        kind = [f"{said.first} against {said.second}" for said in self.kinds if said.what == "architecture"]
        told = kind + ([self._numbers(compared)] if compared else ["no tensor that could be compared"])
        for status, what in ((FIRST, f"only in {first}"), (SECOND, f"only in {second}"), (SHAPE, SHAPE), (UNREAD, UNREAD)):
            if keys := self.keys(status):
                told.append(f"{len(keys)} {'of ' if status == SHAPE else ''}{what}")
        if self.dtypes:
            told.append(f"{len(self.dtypes)} of another dtype")
        return f"{first} and {second}: {'; '.join(told)}"

    def plot(self) -> go.Figure:
        """How far each block moved; where a model has none, each of the tensors that changed most."""
        from workbench import figures

        frame = self.blocks().drop(index=ALL)
        if len(frame) < 2 and self.keys(CHANGED):
            frame = self.most(_BARS).set_index("tensor")
        title = f"How far {self.names[1]} is from {self.names[0]}"
        return figures.bars(100 * frame["distance"], title=title, told=self.headline, x_title=f"distance, % of {self.names[0]}'s norm")

    def __str__(self) -> str:
        return difference_page.as_text(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": difference_page.as_html(self), "text/plain": repr(self)}

    def _numbers(self, compared: Sequence[Row]) -> str:
        """How many tensors changed, and by how much; where the most."""
        changed = [row for row in compared if row.status == CHANGED]
        if not changed:
            return f"the same numbers in {_tensors(len(compared))}"
        blocks = self.blocks().drop(index=ALL)["distance"].dropna()
        most = f", most in {blocks.idxmax()} ({percent(blocks.max())})" if len(blocks) > 1 else ""
        whole = sum((row.change for row in compared), Change())
        return f"{len(changed)} of {_tensors(len(compared))} changed, by {percent(whole.distance)} of {self.names[0]}'s norm{most}"


_COLUMNS = ("tensor", "block", "status", "dtype_first", "dtype_second", "shape_first", "shape_second")
_NUMBERS = ("distance", "max_change", "changed")


def _paired(first: Checkpoint, second: Checkpoint) -> Iterator[Row]:
    """The tensors of both in the first's layout: its own in their order, then what only the second has."""
    second = like(second, first)
    for key in first:
        info, other = first.info(key), second.info(key) if key in second else None
        status = FIRST if other is None else EQUAL if other.shape == info.shape else SHAPE
        note = incomplete(second)[key].why if key in incomplete(second) else ""
        yield Row(place(first, key), (key, None if other is None else key), (info, other), status, note)
    for key in second:
        if key not in first:
            yield Row(place(second, key), (None, key), (None, second.info(key)), SECOND)


def _incomparable(first: Checkpoint, second: Checkpoint) -> str:
    """Why no numbers can be set side by side; nothing where they can."""
    if first.space is not second.space:
        return f"the first holds {first.space.value}s, the second {second.space.value}s"
    return ""


def _judged(row: Row, change: Change) -> Row:
    """The row of a tensor that was read."""
    notes = [f"{change.odd} elements are NaN or infinite, which have no distance"] * bool(change.odd)
    notes += ["the first is all zero"] * (not change.square and change.numel > change.odd)
    return replace(row, status=CHANGED if change.changed else EQUAL, change=change, note="; ".join(notes))


def _change(tensors: Tensors) -> Change:
    """What two models differ by in one tensor."""
    import torch

    found = Change()
    for first, second in tensors.chunks(finite=False):
        away = second - first
        same, odd = away == 0, 0
        if not math.isfinite(float(away.sum())):
            same |= (first == second) | (first.isnan() & second.isnan())
            finite = away.isfinite()
            odd = len(away) - int(finite.sum())
            first, away = first[finite], away[finite]
        largest = float(torch.linalg.vector_norm(away, math.inf)) if len(away) else 0.0
        found += Change(len(same), float(first @ first), float(away @ away), largest, len(same) - int(same.sum()), odd)
    return found


def _tensors(count: int) -> str:
    return f"{count} tensor{'s' * (count != 1)}"


def _numbers(change: Change | None) -> dict[str, float]:
    values = (change.distance, change.largest, change.share) if change is not None and change.numel else [math.nan] * 3
    return dict(zip(_NUMBERS, values, strict=True))


def _cells(row: Row) -> dict[str, Any]:
    dtypes = [None if info is None else info.dtype_name for info in row.infos]
    shapes = [None if info is None else info.shape for info in row.infos]
    cells = dict(zip(_COLUMNS, (row.key, row.place, row.status, *dtypes, *shapes), strict=True))
    return cells | _numbers(row.change) | {"note": row.note}


def _summed(rows: Sequence[Row]) -> dict[str, float]:
    """What `blocks` says of these tensors."""
    changes = [row.change for row in rows if row.change is not None]
    counts = {"tensors": len(rows), "differing": sum(row.status != EQUAL for row in rows)}
    return counts | _numbers(sum(changes, Change()))
