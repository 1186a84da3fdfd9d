"""Cells under a tree that says which of the columns are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.figures.heat_maps import heat
from workbench.figures.look import INK

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import plotly.graph_objects as go

_HEIGHT = 90  # pixels of the tree


def tree_heat(
    frame: pd.DataFrame, tree: Sequence[tuple[Sequence[float], Sequence[float]]], *, title: str, tree_title: str, unit: str = ""
) -> go.Figure:
    """A frame as coloured cells as `heat` draws it, and above its columns a tree.

    `tree` holds the brackets: four places across, where the first column is 0, the next 1, and four heights.
    """
    figure = heat(frame, title=title, x_title="", y_title="", unit=unit)
    height = figure.layout.height + _HEIGHT
    share = _HEIGHT / (height - 150)
    for across, heights in tree:
        figure.add_scatter(
            x=list(across),
            y=list(heights),
            xaxis="x2",
            yaxis="y2",
            mode="lines",
            line={"color": INK, "width": 1.2},
            showlegend=False,
            hovertemplate="%{y:.3g}<extra></extra>",
        )
    figure.update_layout(
        height=height,
        yaxis_domain=[0, 1 - share],
        xaxis2={"range": [-0.5, len(frame.columns) - 0.5], "visible": False, "anchor": "y2"},
        yaxis2={"domain": [1 - share + 0.02, 1], "title": tree_title, "rangemode": "tozero", "nticks": 3, "anchor": "x2"},
    )
    return figure
