"""Ratios along the blocks of a model, and what they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.figures.line_plots import legend_room, lines
from workbench.figures.look import INK, heading

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_RATIOS, _GAP, _LEFT, _AXIS = 270, 30, 110, 70  # pixels of the lines, of the bars below them, and of the names of blocks


def ratio_lines(frame: pd.DataFrame, blocks: int, *, title: str, told: str) -> go.Figure:
    """A line over the blocks for each candidate, with its errors; below, the residual and how far the nearest candidate is, in percent.

    The frame has a row for each `block` and `candidate`, with `ratio`, `error`, `residual` and `nearest`. The first `blocks`
    places follow each other and are joined. `told` is said below the title, in lines as wide as a notebook.
    """
    figure = lines(frame, x="block", y="ratio", colour="candidate", spread="error", title=title)
    names = [line.name for line in figure.data]
    for line in figure.data:
        _part(figure, line, blocks)
    _add_left(figure, frame.drop_duplicates("block"))
    head, said = heading(title, told)
    above, inner = 40 + said + legend_room([*names, "residual", "nearest candidate"]), _RATIOS + _GAP + _LEFT
    figure.update_layout(title=head, height=above + inner + _AXIS, margin={"t": above, "b": _AXIS})
    figure.update_layout(showlegend=True, legend_title_text="", legend_traceorder="normal")
    figure.update_xaxes(title_text="", anchor="y2")
    figure.update_yaxes(rangemode="tozero")
    return figure.update_layout(yaxis_domain=[1 - _RATIOS / inner, 1], yaxis2_domain=[0, _LEFT / inner])


def _part(figure: go.Figure, line: go.Scatter, blocks: int) -> None:
    """Join the points of the first places alone; the others follow in no order."""
    joined = {"x": line.x[:blocks], "y": line.y[:blocks], "mode": "lines", "hoverinfo": "skip"}
    figure.add_scatter(**joined, line=line.line, legendgroup=line.name, showlegend=False)
    line.update(mode="markers", cliponaxis=False, marker_color=line.line.color, legendgroup=line.name)


def _add_left(figure: go.Figure, places: pd.DataFrame) -> None:
    """Below the lines, a bar for each place and a mark above it."""
    below = {"x": [str(block) for block in places["block"]], "yaxis": "y2", "hovertemplate": "%{y:.3g} %"}
    figure.add_bar(**below, y=100 * places["residual"].to_numpy(), name="residual", marker={"color": INK, "opacity": 0.7})
    mark = {"symbol": "line-ew-open", "size": 18, "line_width": 2, "color": INK}
    figure.add_scatter(**below, y=100 * places["nearest"].to_numpy(), name="nearest candidate", mode="markers", marker=mark)
    figure.update_layout(yaxis2={"title": "% of the weights", "anchor": "x", "nticks": 5})
