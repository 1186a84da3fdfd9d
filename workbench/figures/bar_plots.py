"""Bars with names of any length beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.figures.look import COLOURS, heading, template

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
