"""Bars with names of any length beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.figures.line_plots import legend_room
from workbench.figures.look import COLOURS, INK, heading, template

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_ROW = 22  # pixels of a bar


def bars(values: pd.Series, *, title: str, told: str = "", x_title: str) -> go.Figure:
    """A bar for each value, from left to right, below each other in their order; what is missing has none.

    `told` is said below the title, in lines as wide as a notebook.
    """
    import plotly.graph_objects as go

    names, numbers = [str(name) for name in values.index], values.to_numpy(dtype=float)
    look = {"marker_color": COLOURS[5], "text": [f"{value:.3g}" if value == value else "" for value in numbers], "cliponaxis": False}
    figure = go.Figure(
        go.Bar(x=numbers, y=names, orientation="h", textposition="outside", hovertemplate="%{y}: %{x:.4g}<extra></extra>", **look)
    )
    head, said = heading(title, told)
    above = 50 + said
    figure.update_layout(template=template(), title=head, height=above + 70 + _ROW * max(len(names), 4), margin_t=above)
    most = float(values.max()) if values.notna().any() else 0.0
    figure.update_xaxes(title_text=x_title, range=[0, 1.1 * most or 1])  # room for the longest bar's number
    return figure.update_yaxes(type="category", autorange="reversed", showgrid=False)


def bar_groups(frame: pd.DataFrame, *, y: str, x: str, colour: str, spread: str, title: str, told: str, x_title: str) -> go.Figure:
    """For each value of `y`, from the top, a bar of `x` for each `colour`, with `spread` to both sides; what is missing has none.

    `told` is said below the title, in lines as wide as a notebook.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, (name, part) in enumerate(frame.groupby(colour, sort=False)):
        bars = {"x": part[x], "y": part[y].astype(str), "orientation": "h", "marker_color": COLOURS[number % len(COLOURS)]}
        error = {"type": "data", "array": part[spread].fillna(0), "color": INK, "thickness": 1.2, "width": 3}
        figure.add_bar(**bars, name=str(name), error_x=error, hovertemplate="%{y}: %{x:.4g}")
    head, said = heading(title, told)
    above = 40 + said + legend_room(list(map(str, frame[colour].unique())))
    height = above + 70 + _ROW * max(frame[y].nunique(), 4)
    figure.update_layout(template=template(), title=head, height=height, margin_t=above, barmode="group", bargap=0.3, bargroupgap=0)
    figure.update_xaxes(title_text=x_title)
    return figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
