"""Line plots above one another, over one axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.figures.look import template

if TYPE_CHECKING:
    import plotly.graph_objects as go

_AXIS = 70  # pixels for the ticks and the title of the axis that both share


def stacked(upper: go.Figure, lower: go.Figure) -> go.Figure:
    """One figure of two that `lines` made, over the axis of the upper one; each keeps its title and its legend."""
    import plotly.graph_objects as go

    figure = go.Figure(upper).update_layout(margin_b=0)
    heads = upper.layout.margin.t, lower.layout.margin.t  # titles and legends
    plots = [part.layout.height - part.layout.margin.t - _AXIS for part in (upper, lower)]
    plots = [int(0.75 * plot) for plot in plots]
    inside = plots[0] + heads[1] + plots[1]
    for part, own in ((figure, {}), (lower := go.Figure(lower), {"yaxis": "y2", "legend": "legend2"})):
        part.update_traces(showlegend=part.layout.showlegend, **own)
    figure.add_traces(lower.data)
    top = plots[1] / inside
    figure.update_layout(
        template=template(),
        height=heads[0] + inside + _AXIS,
        margin_b=_AXIS,
        yaxis_domain=[1 - plots[0] / inside, 1],
        yaxis2={**_axis(lower), "domain": [0, top], "anchor": "x"},
        xaxis_anchor="y2",
        legend={"y": 1, "yref": "paper"},
        legend2={**upper.layout.template.layout.legend.to_plotly_json(), "y": top, "title": lower.layout.legend.title},
        showlegend=True,
    )
    head = {"text": lower.layout.title.text, "font_size": 16, "x": 0, "xanchor": "left", "showarrow": False, "xref": "paper"}
    return figure.add_annotation(**head, y=top + (heads[1] - 14) / inside, yref="paper", yanchor="top")


def _axis(figure: go.Figure) -> dict[str, Any]:
    found: dict[str, Any] = figure.layout.yaxis.to_plotly_json()
    return found
