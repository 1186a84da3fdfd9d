"""`Sweep`, what a sweep found: cells, their pictures on disk, their scores; as a grid, a frame, a plot, or the file of the best."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from workbench.engine import Exported, export
from workbench.errors import SweepError
from workbench.recipe import Recipe
from workbench.render.axes import Axes, told
from workbench.render.drawn import Drawn
from workbench.render.grid import Grid
from workbench.render.scorers import spread
from workbench.sweeps.combinations import name_of
from workbench.sweeps.jobs import Job
from workbench.sweeps.store import StoredPictures

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from PIL.Image import Image

    from workbench.render.request import Request

_SHOWN_ROWS = 30


@final
@dataclass(frozen=True)
class Cell:
    """One combination: its options, and what came of them. A `problem` says why something is missing.

    Without a problem, or with one of a scorer alone, `pictures` are there, each read from disk when it is asked for.
    """

    options: Mapping[str, Any]
    job: Job | None = None
    drawn: bool = False
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    components: Mapping[str, str] = field(default_factory=dict)
    seconds: float = math.nan
    problem: str = ""

    @property
    def name(self) -> str:
        """The options in words."""
        return name_of(self.options)

    @property
    def recipe(self) -> Recipe | None:
        """The merge as data; None when it could not be made, or is no merge."""
        return self.job.target if self.job and isinstance(self.job.target, Recipe) else None

    @property
    def pictures(self) -> Sequence[Image]:
        """By request, prompt and seed."""
        return StoredPictures(self.job.folder, self.job.count) if self.job and self.drawn else []

    @property
    def model(self) -> Drawn:
        """As a model of a grid."""
        files = tuple(self.job.files) if self.job else ()
        return Drawn(self.name, self.recipe, files, self.components, self.options, "" if self.drawn else self.problem or "not drawn")

    def __repr__(self) -> str:
        return f"<Cell {self.name}{': ' + self.problem if self.problem else ''}>"

    def _repr_png_(self) -> bytes | None:
        return Grid(self.job.requests, (self.model,), self.pictures, self.scores)._repr_png_() if self.job and self.drawn else None


class _AllPictures(Sequence[Any]):
    """The pictures of all cells in a row; None where a cell has none."""

    def __init__(self, cells: Sequence[Cell], each: int) -> None:
        self._cells, self._each = cells, each

    def __len__(self) -> int:
        return len(self._cells) * self._each

    def __getitem__(self, index: int) -> Image | None:  # type: ignore[override]  # one by one
        cell, picture = divmod(range(len(self))[index], self._each)
        return self._cells[cell].pictures[picture] if self._cells[cell].drawn else None


@final
@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep found; `cells` in the order of its options, their pictures in `folder`."""

    cells: tuple[Cell, ...]
    requests: tuple[Request, ...]
    folder: Path
    drawn: int  # cells of this call that were not in the folder already

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> Cell:
        return self.cells[index]

    @property
    def problems(self) -> dict[str, str]:
        """What went wrong, by the name of the cell."""
        return {cell.name: cell.problem for cell in self.cells if cell.problem}

    @cached_property
    def scores(self) -> dict[str, np.ndarray]:
        """Every score column, one value per picture; NaN (None for words) where there is none."""
        columns = {name: values.dtype for cell in self.cells for name, values in cell.scores.items()}
        return {name: np.concatenate([self._column(cell, name, dtype) for cell in self.cells]) for name, dtype in columns.items()}

    def grid(self, x: str | None = None, y: str | None = None, z: str | None = None) -> Grid:
        """The pictures of all cells with `x` across, `y` down and `z` in panels: options, `prompt`, `seed`, `steps`, `guidance`, `model`.

        Without them, the first two options that differ; `model` is each cell by its name.
        """
        chosen = self._axes(x, y, z)
        grid = Grid(self.requests, tuple(cell.model for cell in self.cells), _AllPictures(self.cells, self._each), self.scores, chosen)
        chosen.check(grid.pictures)
        return grid

    def frame(self) -> pd.DataFrame:
        """One row per cell: options, each score's mean and, as `NAME_sd`, its deviation between seeds, seconds, problem.

        `grid().frame()` has one row per picture.
        """
        import pandas as pd

        rows = []
        for cell in self.cells:
            numbers = {name: self._spread(cell, name) for name in self._numeric}
            scores = {key: value for name, (mean, sd) in numbers.items() for key, value in ((name, mean), (f"{name}_sd", sd))}
            rows.append(cell.model.coordinates | scores | {"seconds": cell.seconds, "problem": cell.problem})
        frame = pd.DataFrame(rows)
        return frame if any("model" in cell.options for cell in self.cells) else frame.drop(columns="model")

    def plot(self, x: str, y: str, colour: str | None = None) -> go.Figure:
        """Score `y` over option `x`, a line for each `colour`: the mean of all pictures there, with its deviation between seeds.

        `x` and `colour` are options, `prompt`, `steps` or `guidance`. Raises SweepError for what there is not.
        """
        import pandas as pd

        from workbench import figures

        pictures = self.grid().frame()
        axes = [name for name in pictures.columns if name not in self.scores]
        self._check(y)
        by = [x] if colour is None else [x, colour]
        for name in by:
            if name not in axes:
                raise SweepError(f"there is no axis {name!r} to plot over; there are {', '.join(axes)}")
        rows = [(*chosen, *spread(part[y], list(part["seed"]))) for chosen, part in pictures.groupby(by, sort=False, dropna=False)]
        frame = pd.DataFrame(rows, columns=[*by, y, "deviation"])
        frame = frame.sort_values(x, kind="stable") if pd.api.types.is_numeric_dtype(frame[x]) else frame
        several = len(self.requests[0].seeds) > 1
        title = f"{y} over {x}: mean ± deviation between seeds" if several else f"{y} over {x}"
        return figures.lines(frame, x=x, y=y, colour=colour, spread="deviation" if several else None, title=title)

    def best(self, by: str, *, lowest: bool = False) -> Cell:
        """The cell whose score `by` has the highest mean, or the lowest; the first of equals. Raises SweepError when none has one."""
        self._check(by)
        means = [self._spread(cell, by)[0] for cell in self.cells]
        if not np.isfinite(means).any():
            raise SweepError(f"no cell has a {by}; .problems says why")
        return self.cells[int(np.nanargmin(means) if lowest else np.nanargmax(means))]

    def export(self, cell: Cell | int, path: str | Path, *, overwrite: bool = False) -> Exported:
        """Write the checkpoint that a cell's pictures were drawn with. Raises SweepError for a cell without one, or changed files."""
        chosen = self.cells[cell] if isinstance(cell, int) else cell
        if chosen.job is None:
            raise SweepError(f"{chosen.name}: there is nothing to export: {chosen.problem}")
        return export(chosen.job.open(), path, overwrite=overwrite)

    def __repr__(self) -> str:
        failed = f", {len(self.problems)} with problems" if self.problems else ""
        return f"<Sweep of {len(self.cells)} cells with {self._each} pictures each, {self.drawn} drawn now{failed}; {_near(self.folder)}>"

    def _repr_html_(self) -> str:
        table = self.frame().to_html(index=False, max_rows=_SHOWN_ROWS, float_format="%.4g", na_rep="")
        return f"<p>{html.escape(repr(self).strip('<>'))}</p>{table}"

    @property
    def _each(self) -> int:
        return sum(len(request.pictures) for request in self.requests)

    @property
    def _numeric(self) -> list[str]:
        return [name for name, values in self.scores.items() if np.issubdtype(values.dtype, np.number)]

    def _spread(self, cell: Cell, name: str) -> tuple[float, float]:
        seeds = [seed for request in self.requests for _, seed in request.pictures]
        return spread(cell.scores[name], seeds) if name in cell.scores else (math.nan, math.nan)

    def _column(self, cell: Cell, name: str, dtype: np.dtype) -> np.ndarray:
        empty = math.nan if np.issubdtype(dtype, np.number) else None
        return cell.scores[name] if name in cell.scores else np.full(self._each, empty)

    def _check(self, score: str) -> None:
        if score not in self._numeric:
            raise SweepError(f"there is no score {score!r}; the scores that are numbers are {', '.join(self._numeric) or 'none'}")

    def _axes(self, x: str | None, y: str | None, z: str | None) -> Axes:
        """What is not given is the first option that differs and is not taken; then the prompt."""
        names = list(dict.fromkeys(name for cell in self.cells for name in cell.options))
        product = math.prod(len(self._values(name)) for name in names) == len(self.cells)
        free = [name for name in names if product and len(self._values(name)) > 1 and name not in (x, y, z)]
        x = x or (free.pop(0) if free else "model" if "model" not in (y, z) else "prompt")
        y = y or (free.pop(0) if free else "prompt" if "prompt" not in (x, z) else "seed")
        return Axes(x, y, z)

    def _values(self, name: str) -> set[Any]:
        return {told(cell.options.get(name)) for cell in self.cells}


def _near(folder: Path) -> Path:
    """As seen from the current folder, where it is below it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
