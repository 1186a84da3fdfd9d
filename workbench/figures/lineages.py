"""A tree of labelled lines, indented as folders are, so that no two labels meet however many there are."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.figures.line_plots import legend_room
from workbench.figures.look import COLOURS, INK, LETTER, WIDTH, heading, template

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LINE, _GAP, _INDENT, _LEFT = 17, 12, 26, 14  # pixels: a line of text, the space below a label, a level, before the first
_DEEP = 12  # levels of indentation; those below lie under each other
_MOST = 3  # lines of detail


@dataclass(frozen=True)
class Branch:
    """A row of the tree: how deep, below which row, its label, a smaller text below that, and its kind, which is its colour."""

    depth: int
    parent: int | None
    label: str
    detail: str
    kind: str


def family_tree(rows: Sequence[Branch], kinds: Sequence[str], *, title: str, told: str) -> go.Figure:
    """Draw a tree from top to bottom; `kinds` gives the order of colours. Labels are text, whatever they hold."""
    import plotly.graph_objects as go

    labels, places, height = _laid_out(rows)
    across = [_LEFT + _INDENT * min(row.depth, _DEEP) for row in rows]
    present = [kind for kind in kinds if any(row.kind == kind for row in rows)]
    # one trace of all lines, and all labels at once: plotly takes seconds for each hundred of either
    figure = go.Figure([_branches(rows, across, places), *(_dots(kind, kinds, rows, across, places) for kind in present)])
    texts = [
        {"x": x + 12, "y": y - _LINE / 2, "text": label, "align": "left", "xanchor": "left", "yanchor": "top", "showarrow": False}
        for x, y, label in zip(across, places, labels, strict=True)
    ]
    head, said = heading(html.escape(title), html.escape(told))
    above = 46 + said + legend_room(present)
    figure.update_layout(template=template(), title=head, height=above + height + 20, width=WIDTH, showlegend=len(present) > 1)
    figure.update_layout(margin={"t": above, "b": 20, "l": 10, "r": 10}, legend={"y": 1, "itemclick": False, "itemdoubleclick": False})
    figure.update_xaxes(visible=False, range=[0, WIDTH - 20], fixedrange=True)
    return figure.update_yaxes(visible=False, range=[height, 0], fixedrange=True).update_layout(annotations=texts)


def _branches(rows: Sequence[Branch], across: Sequence[float], places: Sequence[float]) -> go.Scatter:
    """From each row up to the one above it, round a corner; gaps between them."""
    import plotly.graph_objects as go

    x: list[float | None] = []
    y: list[float | None] = []
    for at, row in enumerate(rows):
        if row.parent is not None:
            corner = across[at] - _INDENT if row.depth > _DEEP else across[row.parent]
            x += [corner, corner, across[at], None]
            y += [places[row.parent], places[at], places[at], None]
    return go.Scatter(x=x, y=y, mode="lines", line={"color": INK, "width": 1}, hoverinfo="skip", showlegend=False)


def _dots(kind: str, kinds: Sequence[str], rows: Sequence[Branch], across: Sequence[float], places: Sequence[float]) -> go.Scatter:
    import plotly.graph_objects as go

    here = [at for at, row in enumerate(rows) if row.kind == kind]
    look = {"size": 10, "color": COLOURS[list(kinds).index(kind) % len(COLOURS)]}
    x, y = [across[at] for at in here], [places[at] for at in here]
    return go.Scatter(x=x, y=y, mode="markers", name=kind, hoverinfo="skip", marker=look)


def _laid_out(rows: Sequence[Branch]) -> tuple[list[str], list[float], float]:
    """Each row's text in lines that fit, the middle of its first line, and the height of all."""
    labels, places, down = [], [], 0.0
    for row in rows:
        room = WIDTH - _LEFT - _INDENT * min(row.depth, _DEEP) - 50
        first = textwrap.shorten(row.label, int(room / LETTER), placeholder=" ...") if len(row.label) * LETTER > room else row.label
        lines = textwrap.wrap(row.detail, int(room / LETTER), max_lines=_MOST, placeholder=" ...")
        escaped = [f"<b>{html.escape(first)}</b>", *(f'<span style="color:{INK}">{html.escape(line)}</span>' for line in lines)]
        labels.append("<br>".join(escaped))
        places.append(down + _LINE / 2)
        down += _LINE * len(escaped) + _GAP
    return labels, places, down
