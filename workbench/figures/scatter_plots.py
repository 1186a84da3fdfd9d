"""Points by two numbers, the best of them joined by a line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from workbench.figures.line_plots import legend_room
from workbench.figures.look import COLOURS, INK, heading, template

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")


def scatter(
    frame: pd.DataFrame, *, x: str, y: str, colour: str, label: str, title: str, told: str = "", joined: Sequence[int] = ()
) -> go.Figure:
    """A point for each row, coloured by column `colour`; the pointer shows its `label`. A line joins the rows numbered `joined`.

    `told` is said below the title. The number of a point's row is its `customdata`.
    """
    import plotly.graph_objects as go

    head, said = heading(title, told)
    figure = go.Figure()
    if joined:
        ends = frame.iloc[list(joined)].sort_values(x)
        figure.add_scatter(
            x=ends[x], y=ends[y], mode="lines", name="none beats these", hoverinfo="skip", line={"color": INK, "dash": "dot"}
        )
    rows = frame.assign(row=range(len(frame)))
    for number, (name, part) in enumerate(rows.groupby(colour, sort=False, observed=True)):
        marker = {"color": COLOURS[number % len(COLOURS)], "symbol": _SYMBOLS[number % len(_SYMBOLS)], "size": 10}
        marker["line"] = {"width": [2 if row in joined else 0 for row in part["row"]], "color": INK}
        hover = "%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>"
        place = {"x": part[x].to_numpy(), "y": part[y].to_numpy(), "customdata": part["row"].to_numpy(), "text": part[label].to_numpy()}
        figure.add_scatter(**place, mode="markers", marker=marker, name=str(name), hovertemplate=hover)
    room = legend_room([one.name for one in figure.data])
    figure.update_layout(template=template(), title=head, height=440 + said + room, margin_t=50 + said + room, hovermode="closest")
    return figure.update_xaxes(title_text=x).update_yaxes(title_text=y)


def hovered(figure: go.Figure, show: Callable[[int], Any]) -> go.FigureWidget:
    """The figure as a widget that calls `show` with the number of the row that the pointer is at."""
    import plotly.graph_objects as go

    widget = go.FigureWidget(figure).update_layout(modebar_orientation="v")  # across, it would cover the title

    def told(trace: Any, points: Any, _: Any) -> None:
        if points.point_inds:
            show(int(trace.customdata[points.point_inds[0]]))

    for trace in widget.data:
        if trace.customdata is not None:
            trace.on_hover(told)
    return widget
