"""Several quantities over one axis of words: a panel of lines for each, one below the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from workbench.figures.line_plots import legend_room, stroke
from workbench.figures.look import INK, heading, template

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_PANEL, _GAP = 110, 40  # pixels of a panel, and between two, where the lower one's title stands


def panels(
    frame: pd.DataFrame, *, x: str, y: str, panel: str, colour: str, title: str, told: str = "", levels: Mapping[str, float] | None = None
) -> go.Figure:
    """A panel for each value of column `panel`, one below the other, and in it a line of `y` over `x` for each of `colour`.

    Panels, lines and the words on the axis come in the order in which they first appear; a line looks the same in all
    panels. `told` is said below the title, in lines as wide as a notebook; `levels` draws a dotted line across a panel.
    """
    from plotly.subplots import make_subplots

    titles, names, words = (list(dict.fromkeys(map(str, frame[column]))) for column in (panel, colour, x))
    head, said = heading(title, told)
    above, inner = 60 + said + legend_room(names) + 20, len(titles) * (_PANEL + _GAP) - _GAP
    spacing = _GAP / inner if len(titles) > 1 else 0
    figure = make_subplots(rows=len(titles), cols=1, shared_xaxes=True, vertical_spacing=spacing, subplot_titles=titles)
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    for (what, name), part in frame.groupby([panel, colour], sort=False, observed=True):
        row, number = titles.index(str(what)), names.index(str(name))
        look = {"name": str(name), "legendgroup": str(name), "showlegend": False, "mode": "lines+markers", **stroke(number)}
        figure.add_scatter(x=[str(word) for word in part[x]], y=part[y].to_numpy(), row=row + 1, col=1, **look)
    for name in names:  # once in the legend, in the order of the names
        next(line for line in figure.data if line.name == name).showlegend = len(names) > 1
    for what, height in (levels or {}).items():
        figure.add_hline(height, row=titles.index(what) + 1, col=1, line={"color": INK, "dash": "dot", "width": 1})
    figure.update_layout(template=template(), title=head, hovermode="x unified", height=inner + above + 50)
    figure.update_layout(margin={"t": above, "b": 50}, legend_y=1 + 26 / inner, legend_traceorder="normal")
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=words)
    figure.update_yaxes(nticks=5)
    return figure
