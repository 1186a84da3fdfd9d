"""The one place that imports plotly: frames in, figures out, one look for all. What the numbers mean is the caller's."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import plotly.graph_objects as go

# Okabe and Ito's colours, which stay apart for everyone; grey for their black, which a dark page would swallow
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999", "#F0E442")
_DASHES = ("solid", "dash", "dot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
_INK = "#7a7a7a"  # as far from white as from black: the page shows through, whichever it is
_GRID = "rgba(128, 128, 128, 0.25)"
_WIDTH = 800  # pixels of a notebook's cell, for which room is reckoned
_FONT = 12  # pixels of a label; a digit is six tenths as wide
_LINE = 20  # pixels of a row of a legend
_ROW = 22  # pixels of a row of cells
_MOST_ROWS = 60  # beyond which rows grow thinner
_DARK = "#10151a"  # what is written on the colours of cells, which are all light enough for it
_ONE_WAY = ((0, "#f4f8fb"), (0.6, "#56B4E9"), (1, "#1c86c6"))
_BOTH_WAYS = ("#D55E00", "#f7f7f7", "#1c86c6")


def lines(
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    colour: str | None = None,
    spread: str | None = None,
    title: str,
    x_title: str | None = None,
    y_title: str | None = None,
) -> go.Figure:
    """A line of column `y` over column `x`, one for each value of column `colour`; `spread` is how far bars go up and down from it.

    Lines come in the order in which their values first appear, and so do words on the axis, such as names of blocks;
    numbers and dates lie to scale. Axes are titled with the columns' names unless told otherwise. Raises ValueError for a
    column that is not there; levels of an index become columns by `frame.reset_index()`.
    """
    import plotly.graph_objects as go

    _check_columns(frame, x, y, *filter(None, [colour, spread]))
    figure = go.Figure()
    groups = frame.groupby(colour, sort=False, observed=True, dropna=False) if colour else [("", frame)]
    for index, (name, group) in enumerate(groups):
        bars = {"array": group[spread].to_numpy(), "thickness": 1.2, "width": 4} if spread else {"visible": False}
        figure.add_scatter(x=_places(group[x]), y=group[y].to_numpy(), error_y=bars, name=str(name), mode="lines+markers", **_stroke(index))
    room = _LINE * _legend_rows([line.name for line in figure.data], colour or "")
    figure.update_layout(template=_template(), title_text=title, hovermode="x unified", height=420 + room, margin_t=50 + room)
    figure.update_layout(showlegend=len(figure.data) > 1, legend_title_text=colour)
    figure.update_xaxes(title_text=x_title or x)
    figure.update_yaxes(title_text=y_title or y)
    if not _is_scale(frame[x]):
        figure.update_xaxes(type="category", categoryorder="array", categoryarray=list(dict.fromkeys(_places(frame[x]))))
    return figure


def heat(frame: pd.DataFrame, *, title: str, x_title: str | None = None, y_title: str | None = None) -> go.Figure:
    """A frame as coloured cells: its index downwards, its columns across, in their order.

    The numbers are written into the cells where these have room for them. Where they go both ways from zero, zero is pale
    and the two ways have colours of their own. Axes are titled with the names of index and columns unless told otherwise.
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
            textfont_color=_DARK,
            hovertemplate="%{y}<br>%{x}<br>%{z:.6g}<extra></extra>",
            hoverongaps=False,
            xgap=1,
            ygap=1,
            colorbar={"thickness": 12, "outlinewidth": 0},
            **_colouring(values),
        )
    )
    figure.update_layout(template=_template(), title_text=title, height=150 + _ROW * min(max(len(rows), 6), _MOST_ROWS))
    figure.update_xaxes(type="category", showgrid=False, title_text=x_title or _title(frame.columns))
    figure.update_yaxes(type="category", showgrid=False, title_text=y_title or _title(frame.index), autorange="reversed")
    return figure


@cache
def _template() -> go.layout.Template:
    """The look: no background of its own, grey ink, room for long labels."""
    import plotly.graph_objects as go

    axis = {
        "gridcolor": _GRID,
        "zerolinecolor": _GRID,
        "linecolor": _GRID,
        "ticks": "",
        "ticklabelstandoff": 4,
        "automargin": True,
        "title": {"standoff": 12},
    }
    return go.layout.Template(
        layout={
            "font": {"family": "system-ui, sans-serif", "size": _FONT, "color": _INK},
            "title": {"font_size": 16, "x": 0, "xref": "paper", "y": 1, "yref": "container", "yanchor": "top", "pad_t": 16},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "paper_bgcolor": "rgba(0, 0, 0, 0)",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "colorway": COLOURS,
            "margin": {"l": 60, "r": 20, "t": 60, "b": 50},
            "hoverlabel": {"bgcolor": "#ffffff", "font_color": _DARK},
            "xaxis": axis,
            "yaxis": axis,
        }
    )


def _stroke(index: int) -> dict[str, Any]:
    """Colour and symbol of a line; after all the colours the lines are dashed."""
    dash = _DASHES[index // len(COLOURS) % len(_DASHES)]
    return {"line": {"color": COLOURS[index % len(COLOURS)], "dash": dash}, "marker_symbol": _SYMBOLS[index % len(_SYMBOLS)]}


def _check_columns(frame: pd.DataFrame, *asked: str) -> None:
    for column in asked:
        if column not in frame.columns:
            known = ", ".join(map(repr, frame.columns))
            levels = ", ".join(repr(name) for name in frame.index.names if name is not None)
            advice = f"; {levels} become columns by frame.reset_index()" if levels else ""
            raise ValueError(f"lines: the frame has no column {column!r}; it has {known}{advice}")


def _is_scale(column: pd.Series) -> bool:
    """Whether values lie on an axis to scale: numbers and times, but not words and truth values."""
    from pandas.api import types

    number = types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)
    return number or types.is_datetime64_any_dtype(column.dtype)


def _places(column: pd.Series) -> np.ndarray | list[str]:
    """What plotly gets for an axis: numbers as they are, everything else in words."""
    return column.to_numpy() if _is_scale(column) else [str(value) for value in column]


def _legend_rows(names: list[str], heading: str) -> int:
    """How many rows a legend takes between title and plot, beside its heading; plotly would lay it over the title."""
    letter = 0.6 * _FONT
    entry = 50 + letter * max(map(len, names), default=0)
    return -(-len(names) // max(1, int((_WIDTH - 120 - letter * len(heading)) // entry))) if len(names) > 1 else 0


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
    digit = 0.6 * _FONT
    widest = max((len(text) for row in written for text in row), default=0)
    across = _WIDTH - 150 - digit * max(map(len, rows), default=0)
    return len(rows) <= _MOST_ROWS and digit * widest + 6 <= across / max(len(written[0]) if written else 1, 1)


def _colouring(values: np.ndarray) -> dict[str, Any]:
    """One way from pale to dark; or two ways from zero, as far to either side."""
    finite = [value for value in values.flat if math.isfinite(value)]
    low, high = min(finite, default=0), max(finite, default=0)
    if low < 0 < high:
        far = max(-low, high)
        return {"colorscale": _BOTH_WAYS, "zmin": -far, "zmax": far}
    return {"colorscale": _ONE_WAY}
