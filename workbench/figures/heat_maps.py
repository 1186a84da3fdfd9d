"""Frames as coloured cells."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.figures.look import DARK, LETTER, WIDTH, template

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import plotly.graph_objects as go

_ROW = 22  # pixels of a row of cells
_MOST_ROWS = 60  # beyond which rows grow thinner
_ONE_WAY = ((0, "#f4f8fb"), (0.6, "#56B4E9"), (1, "#1c86c6"))
_BOTH_WAYS = ("#D55E00", "#f7f7f7", "#1c86c6")


def heat(frame: pd.DataFrame, *, title: str, x_title: str | None = None, y_title: str | None = None, unit: str = "") -> go.Figure:
    """A frame as coloured cells: its index downwards, its columns across, in their order.

    The numbers are written into the cells where these have room for them. Where they go both ways from zero, zero is pale
    and the two ways have colours of their own. Axes are titled with the names of index and columns unless told otherwise;
    `unit` is written at the bar of colours.
    """
    import plotly.graph_objects as go

    rows, columns = _labels(frame.index), _labels(frame.columns)
    values = frame.to_numpy(dtype=float, na_value=math.nan)
    written = _written(values)
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=columns,
            y=rows,
            text=written,
            texttemplate="%{text}" if _have_room(written, rows) else None,
            textfont_color=DARK,
            hovertemplate="%{y}<br>%{x}<br>%{z:.6g}<extra></extra>",
            hoverongaps=False,
            xgap=1,
            ygap=1,
            colorbar={"thickness": 12, "outlinewidth": 0, "title": {"text": unit, "side": "right"}},
            **_colouring(values),
        )
    )
    figure.update_layout(template=template(), title_text=title, height=150 + _ROW * min(max(len(rows), 6), _MOST_ROWS))
    across, down = (_title(index) if told is None else told for index, told in ((frame.columns, x_title), (frame.index, y_title)))
    figure.update_xaxes(type="category", showgrid=False, title_text=across)
    figure.update_yaxes(type="category", showgrid=False, title_text=down, autorange="reversed")
    return figure


def heats(frames: Mapping[str, pd.DataFrame], *, title: str, unit: str = "", middle: float = 0) -> go.Figure:
    """Frames of the same rows as coloured cells beside one another, each under its name, in the same colours.

    `middle` is pale, what lies above blue and below red. Columns are numbers, to scale.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(cols=len(frames), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=[_wrapped(name) for name in frames])
    for column, frame in enumerate(frames.values(), 1):
        values = frame.to_numpy(dtype=float, na_value=math.nan)
        cells = go.Heatmap(
            z=values,
            x=frame.columns.to_numpy(float),
            y=_labels(frame.index),
            coloraxis="coloraxis",
            hovertemplate=f"%{{y}}<br>{frame.columns.name} %{{x:.3g}}<br>%{{z:.3g}}<extra></extra>",
        )
        figure.add_trace(cells, row=1, col=column)
    far = max((abs(cells.z - middle).max() for cells in figure.data), default=0) or 1
    bar = {"thickness": 12, "outlinewidth": 0, "title": {"text": unit, "side": "right"}}
    figure.update_layout(
        template=template(),
        title_text=title,
        height=190 + 14 * len(next(iter(frames.values()))),
        margin_t=100,
        coloraxis={"colorscale": _BOTH_WAYS, "cmin": middle - far, "cmax": middle + far, "colorbar": bar},
    )
    figure.update_annotations(font_size=12)
    figure.update_xaxes(showgrid=False, title_text=next(iter(frames.values())).columns.name)
    figure.update_yaxes(type="category", showgrid=False, autorange="reversed", dtick=1, tickfont_size=10)
    return figure


def _wrapped(name: str) -> str:
    return "<br>".join(textwrap.wrap(name, 24))


def _labels(index: pd.Index) -> list[str]:
    """Words for rows or columns; plotly would lay two of one name over each other. Raises ValueError."""
    labels = [" · ".join(map(str, label)) if isinstance(label, tuple) else str(label) for label in index]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"heat: rows and columns need names of their own, but {', '.join(map(repr, twice))} is there more than once")
    return labels


def _title(index: pd.Index) -> str:
    return " · ".join(str(name) for name in index.names if name is not None)


def _written(values: np.ndarray) -> list[list[str]]:
    """The numbers in words, from the least to the greatest in twenty steps or more; nothing for what is missing."""
    finite = [value for value in values.flat if math.isfinite(value)]
    spread = max(finite, default=0) - min(finite, default=0)
    if all(value == int(value) for value in finite):
        style = ".0f"
    elif not 0 < spread < math.inf or max(map(abs, finite)) < 1e-4:
        style = ".3g"
    else:
        style = f".{min(max(1 - math.floor(math.log10(spread / 2)), 0), 6)}f"
    return [["" if math.isnan(value) else format(value, f"z{style}") for value in row] for row in values]  # z: no -0


def _have_room(written: list[list[str]], rows: list[str]) -> bool:
    """Whether the longest number fits into a cell of a figure that is as wide as a notebook."""
    widest = max((len(text) for row in written for text in row), default=0)
    across = WIDTH - 150 - LETTER * max(map(len, rows), default=0)
    return len(rows) <= _MOST_ROWS and LETTER * widest + 6 <= across / max(len(written[0]) if written else 1, 1)


def _colouring(values: np.ndarray) -> dict[str, Any]:
    """One way from pale to dark; or two ways from zero, as far to either side."""
    finite = [value for value in values.flat if math.isfinite(value)]
    low, high = min(finite, default=0), max(finite, default=0)
    if low < 0 < high:
        far = max(-low, high)
        return {"colorscale": _BOTH_WAYS, "zmin": -far, "zmax": far}
    return {"colorscale": _ONE_WAY}
