"""`Difference`, what `diff` found: tensors, numbers, and what two checkpoints say of themselves. Its page is in difference_page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.analysis import difference_page
from workbench.analysis.headers import Said
from workbench.checkpoint.views.placing import ALL
from workbench.figures.results import Result
from workbench.tensors import TensorInfo
from workbench.wording import listed, percent

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

EQUAL, CHANGED, FIRST, SECOND, SHAPE, UNREAD = "equal", "changed", "only in first", "only in second", "another shape", "not compared"
_BARS = 20  # tensors in a figure
_LONGEST = 60  # letters of a value in a table


@dataclass(frozen=True)
class Change:
    """How the numbers of a tensor differ: sums over its elements, of which those that are NaN or infinite in one do not count."""

    numel: int = 0
    square: float = 0.0  # of the first
    apart: float = 0.0
    largest: float = 0.0  # absolute
    changed: int = 0  # elements; NaN is equal to NaN
    odd: int = 0  # elements that are NaN or infinite in one or both
    beyond: int = 0  # pieces that differ by more than rounding to their two dtypes

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
class ComparedTensor:
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
    rows: tuple[ComparedTensor, ...]
    order: tuple[str, ...]
    kinds: tuple[Said, ...]
    metadata: tuple[Said, ...]
    recipes: tuple[Said, ...]

    def keys(self, status: str) -> list[str]:
        """The tensors of a status: `equal`, `changed`, `only in first`, `only in second`, `another shape` or `not compared`."""
        return [row.key for row in self.rows if row.status == status]

    @cached_property
    def dtypes(self) -> list[ComparedTensor]:
        """The tensors that have another dtype in the second."""
        both = [(row, *row.infos) for row in self.rows]
        return [row for row, one, other in both if one and other and one.code != other.code]

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

    def tables(self) -> dict[str, pd.DataFrame]:
        """What there is to show, by title, all in words."""
        import pandas as pd

        said = {"Kind": self.kinds, "Recipe": self.recipes, "Metadata": self.metadata}
        tables = {title: _said(found, *self.names) for title, found in said.items() if found}
        if apart := list(_apart(self.names, self.rows)):
            tables["Tensors"] = pd.DataFrame(apart, columns=["what", "tensors", "which"])
        most = self.most()
        if len(most):
            blocks = self.blocks().reset_index()
            tables["By block"] = _in_words(blocks[["block", "tensors", "differing", "distance", "max_change", "changed"]])
            tables["Changed most"] = _in_words(most[["tensor", "block", "distance", "max_change", "changed"]])
        return tables

    @property
    def headline(self) -> str:
        """What there is to see, in a sentence."""
        first, second = self.names
        if self.identical:
            said = ", though they say different things of themselves" if self.metadata or self.recipes else ""
            return f"{first} and {second} are identical: the same {_tensors(len(self.rows))}{said}"
        compared = [row for row in self.rows if row.change is not None]
        kinds = [(said.first, said.second) for said in self.kinds if said.what == "architecture"]
        kind = [f"{one} against {other}" for one, other in kinds if "unknown" not in (one, other)]
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
        return difference_page.as_text(self.headline, self.tables())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": difference_page.as_html(self.headline, self.tables()), "text/plain": repr(self)}

    def _numbers(self, compared: Sequence[ComparedTensor]) -> str:
        """How many tensors changed, and by how much; where the most."""
        changed = [row for row in compared if row.status == CHANGED]
        if not changed:
            return f"the same numbers in {_tensors(len(compared))}"
        blocks = self.blocks().drop(index=ALL)["distance"].dropna()
        most = f", most in {blocks.idxmax()} ({percent(blocks.max())})" if len(blocks) > 1 else ""
        whole = sum((row.change for row in compared if row.change), Change())
        return f"{len(changed)} of {_tensors(len(compared))} changed, by {percent(whole.distance)} of {self.names[0]}'s norm{most}"


_COLUMNS = ("tensor", "block", "status", "dtype_first", "dtype_second", "shape_first", "shape_second")
_NUMBERS = ("distance", "max_change", "changed")


def _tensors(count: int) -> str:
    return f"{count} tensor{'s' * (count != 1)}"


def _numbers(change: Change | None) -> dict[str, float]:
    values = (change.distance, change.largest, change.share) if change is not None and change.numel else [math.nan] * 3
    return dict(zip(_NUMBERS, values, strict=True))


def _cells(row: ComparedTensor) -> dict[str, Any]:
    dtypes = [None if info is None else info.dtype_name for info in row.infos]
    shapes = [None if info is None else info.shape for info in row.infos]
    cells = dict(zip(_COLUMNS, (row.key, row.place, row.status, *dtypes, *shapes), strict=True))
    return cells | _numbers(row.change) | {"note": row.note}


def _summed(rows: Sequence[ComparedTensor]) -> dict[str, float]:
    """What `blocks` says of these tensors."""
    changes = [row.change for row in rows if row.change is not None]
    counts = {"tensors": len(rows), "differing": sum(row.status != EQUAL for row in rows)}
    return counts | _numbers(sum(changes, Change()))


def _apart(names: tuple[str, str], rows: Sequence[ComparedTensor]) -> Iterator[tuple[str, int, str]]:
    """Tensors that are not the same thing in both, by what is the matter."""
    groups: dict[str, list[str]] = {f"only in {name}": [] for name in names}
    for row in rows:
        one, other = row.infos
        if row.status in (FIRST, SECOND):
            groups[f"only in {names[row.status == SECOND]}"].append(row.key)
        elif row.status == SHAPE and one and other:
            groups.setdefault(f"{list(one.shape)} and {list(other.shape)}", []).append(row.key)
        elif row.status == UNREAD:
            groups.setdefault(row.note, []).append(row.key)
        if one and other and one.code != other.code:
            groups.setdefault(f"{one.dtype_name} and {other.dtype_name}", []).append(row.key)
        if row.change is not None and row.change.odd:
            groups.setdefault("NaN or infinity", []).append(row.key)
    return ((what, len(keys), listed(keys)) for what, keys in groups.items() if keys)


def _said(found: Sequence[Said], first: str, second: str) -> pd.DataFrame:
    import pandas as pd

    rows = [(said.what, _short(said.first), _short(said.second)) for said in found]
    return pd.DataFrame(rows, columns=["", first, second])


def _short(value: str | None) -> str:
    if value is None:
        return "-"
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 4]} ..."


def _in_words(frame: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a table as they are read."""
    styles = {"distance": percent, "max_change": "{:.3g}".format, "changed": percent}
    words = {column: [styles[column](value) for value in frame[column]] for column in styles}
    return frame.assign(**words).rename(columns={"max_change": "largest change", "changed": "elements changed"})
