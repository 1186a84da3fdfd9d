"""Named points on a plane, whose labels do not cover each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.figures.look import FONT, GRID, INK, LETTER, WIDTH, heading, template

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_HEIGHT = 620  # pixels of the plane
_ROOM = 90  # pixels beside the outermost points, where half of their labels lie
_LINE = FONT + 4  # pixels of a label
_SMALL = 10  # its font
_BESIDE = 10  # between two labels
_STEPS = [sign * step for step in range(1, 16) for sign in (1, -1)]  # lines above and below a point at which its label may lie


def labelled_map(frame: pd.DataFrame, *, colour: str, title: str, told: str) -> go.Figure:
    """Points at columns `x` and `y`, which lie to one scale, with their `label`; `told` is what the pointer shows of one.

    Column `colour` is a share from 0 to 1. A label that has no room beside its point lies farther off, with a line to it.
    """
    import plotly.graph_objects as go

    head, said = heading(title, told)
    points, labels = _pixels(frame[["x", "y"]].to_numpy())
    labels = _apart(points, [len(text) * _SMALL * LETTER / FONT + _BESIDE for text in frame["label"]])
    figure = go.Figure()
    marker = {"color": frame[colour], "colorscale": "Viridis", "cmin": 0, "cmax": 1, "size": 11, "line": {"width": 1, "color": INK}}
    bar = {"title": {"text": f"share {colour}", "side": "right"}, "tickformat": ".0%", "thickness": 12}
    figure.add_scatter(
        x=points[:, 0],
        y=points[:, 1],
        mode="markers",
        marker=marker | {"colorbar": bar},
        customdata=frame["told"],
        text=[f"{value:.0%}" for value in frame[colour]],
        hovertemplate="%{customdata}<br>right: %{text}<extra></extra>",
    )
    for text, (x, y), (to_x, to_y) in zip(frame["label"], labels, points, strict=True):
        figure.add_annotation(x=x, y=y, text=text, showarrow=False, font_size=_SMALL)
        if abs(y - to_y) > 1.5 * _LINE:
            figure.add_shape(type="line", x0=x, y0=y, x1=to_x, y1=to_y, line={"color": GRID, "width": 1}, layer="below")
    axis = {"showticklabels": False, "title_text": "", "showgrid": False, "zeroline": False}
    figure.update_layout(template=template(), title=head, height=_HEIGHT + 70 + said, margin={"t": 50 + said, "l": 20, "b": 20})
    figure.update_xaxes(range=[0, WIDTH - 100], **axis)
    return figure.update_yaxes(range=[min(0, labels[:, 1].min() - _LINE), max(_HEIGHT, labels[:, 1].max() + _LINE)], **axis)


def _pixels(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points lie in pixels of the plane, to one scale, and there again for their labels."""
    low, high = places.min(0), places.max(0)
    across, up = WIDTH - 100 - 2 * _ROOM, _HEIGHT - 60
    scale = min(across / max(high[0] - low[0], 1e-12), up / max(high[1] - low[1], 1e-12))
    middle = np.array([(WIDTH - 100) / 2, _HEIGHT / 2])
    points = (places - (low + high) / 2) * scale + middle
    return points, points.copy()


def _apart(points: np.ndarray, widths: list[float]) -> np.ndarray:
    """The middle of each label: the nearest place around its point that is free of other labels and points."""
    taken = [(x, y, 12.0, 12.0) for x, y in points]
    found = np.empty_like(points)
    for number in np.argsort([-width for width in widths], kind="stable"):  # the longest first, which fit in the fewest places
        x, y = points[number]
        width = widths[number]
        spots = ((x + aside * width / 2, y + step * _LINE) for step in _STEPS for aside in (0, 0.6, -0.6))
        inside = [(min(max(at, width / 2), WIDTH - 100 - width / 2), height) for at, height in spots]
        free = (spot for spot in inside if not any(_meet((*spot, width, _LINE - 2.0), other) for other in taken))
        found[number] = next(free, inside[0])
        taken.append((*found[number], width, _LINE - 2.0))
    return found


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two rectangles (middle, width, height) have a point in common."""
    return abs(one[0] - other[0]) < (one[2] + other[2]) / 2 and abs(one[1] - other[1]) < (one[3] + other[3]) / 2
