"""Lines over an axis, of numbers to scale or of words in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.figures.look import COLOURS, LETTER, WIDTH, template

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import plotly.graph_objects as go

_DASHES = ("solid", "dash", "dot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
_LINE = 20  # pixels of a row of a legend


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
        figure.add_scatter(x=_places(group[x]), y=group[y].to_numpy(), error_y=bars, name=str(name), mode="lines+markers", **stroke(index))
    room = legend_room([line.name for line in figure.data], colour or "")
    figure.update_layout(template=template(), title_text=title, hovermode="x unified", height=420 + room, margin_t=50 + room)
    figure.update_layout(showlegend=len(figure.data) > 1, legend_title_text=colour)
    figure.update_xaxes(title_text=x if x_title is None else x_title)
    figure.update_yaxes(title_text=y if y_title is None else y_title)
    if not _is_scale(frame[x]):
        figure.update_xaxes(type="category", categoryorder="array", categoryarray=list(dict.fromkeys(_places(frame[x]))))
    return figure


def stroke(index: int) -> dict[str, Any]:
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


def legend_room(names: list[str], heading: str = "") -> int:
    """Pixels that a legend takes between title and plot; plotly would lay it over the title."""
    if len(names) < 2:
        return 0
    entry = 50 + LETTER * max(map(len, names))
    return _LINE * -(-len(names) // max(1, int((WIDTH - 120 - LETTER * len(heading)) // entry)))
