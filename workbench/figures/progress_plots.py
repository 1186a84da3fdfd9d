"""How a training went: its losses, and pictures of what it could do at each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.figures.line_plots import lines

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from PIL.Image import Image

_PICTURE = 72  # pixels
_MOST = 9  # pictures beside one another


def losses(frame: pd.DataFrame, pictures: Sequence[tuple[int, Image]], *, title: str) -> go.Figure:
    """The columns of `frame` over its column `step`, on a logarithmic axis; above them pictures, each over the step it is of."""
    long = frame.melt("step", var_name="of", value_name="value").dropna()
    figure = lines(long, x="step", y="value", colour="of", title=title, y_title="mean squared difference")
    figure.update_layout(height=360 + _PICTURE, legend_title_text="", legend_y=0, legend_yanchor="top", legend_yref="container")
    figure.update_layout(margin_t=60, margin_b=90, legend={"y": 0.01, "yanchor": "bottom", "yref": "container"})
    plot = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    share = (_PICTURE + 12) / plot if pictures else 0
    figure.update_yaxes(type="log", domain=[0, 1 - share], nticks=6)
    last = max((step for step, _ in pictures), default=1)
    figure.update_xaxes(range=[-0.05 * last, 1.05 * last])
    every = -(-len(pictures) // _MOST)
    for step, picture in list(pictures)[::-1][::every]:
        figure.add_layout_image(
            source=picture.resize((2 * _PICTURE, 2 * _PICTURE)),
            x=step,
            y=1,
            xref="x",
            yref="paper",
            sizex=1.1 * last / _MOST * 0.92,
            sizey=_PICTURE / plot,
            xanchor="center",
            yanchor="top",
        )
    return figure
