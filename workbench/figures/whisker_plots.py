"""Points with how far they may lie to both sides, and names of any length beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.figures.look import COLOURS, INK, heading, template

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_ROW = 26  # pixels of a point and its name


def whiskers(frame: pd.DataFrame, *, y: str, x: str, spread: str, title: str, told: str, x_title: str | None = None) -> go.Figure:
    """A point at `x` for each row, named by `y` and in the frame's order from the top, with `spread` to both sides.

    `told` is said below the title, in lines as wide as a notebook.
    """
    import plotly.graph_objects as go

    error = {"type": "data", "array": frame[spread], "color": INK, "thickness": 1.6, "width": 4}
    look = {"mode": "markers", "marker": {"color": COLOURS[0], "size": 9}, "hovertemplate": "%{x:.3g}<extra></extra>"}
    # by place, for two rows may have one name
    figure = go.Figure(go.Scatter(x=frame[x], y=list(range(len(frame))), error_x=error, **look))
    head, said = heading(title, told)
    above = 50 + said
    figure.update_layout(template=template(), title=head, height=above + 70 + _ROW * max(len(frame), 4), margin_t=above)
    figure.update_xaxes(title_text=x if x_title is None else x_title, zeroline=True)
    names = {"tickvals": list(range(len(frame))), "ticktext": frame[y].astype(str).tolist()}
    return figure.update_yaxes(range=[len(frame) - 0.4, -0.6], showgrid=False, zeroline=False, **names)
