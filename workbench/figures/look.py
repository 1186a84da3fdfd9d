"""One look for all figures: colours, ink and room for labels. No figure is made here."""

from __future__ import annotations

import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe and Ito's colours, which stay apart for everyone; grey for their black, which a dark page would swallow
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999", "#F0E442")
INK = "#7a7a7a"  # as far from white as from black: the page shows through, whichever it is
GRID = "rgba(128, 128, 128, 0.25)"
DARK = "#10151a"  # what is written on the colours of cells, which are all light enough for it
WIDTH = 800  # pixels of a notebook's cell, for which room is reckoned
FONT = 12  # pixels of a label
LETTER = 0.6 * FONT  # pixels of a digit or letter, about


def heading(title: str, told: str) -> tuple[dict[str, Any], int]:
    """A figure's title with a sentence below it, in lines as wide as a notebook; and the pixels that the sentence takes."""
    said = textwrap.wrap(told, int((WIDTH - 80) / LETTER))
    text = "<br>".join([title, *(f'<span style="font-size:13px">{line}</span>' for line in said)])
    return {"text": text, "pad_t": 24 if said else 16}, 18 * len(said) + 8 * bool(said)


@cache
def template() -> go.layout.Template:
    """The look: no background of its own, grey ink, room for long labels."""
    import plotly.graph_objects as go

    axis = {
        "gridcolor": GRID,
        "zerolinecolor": GRID,
        "linecolor": GRID,
        "ticks": "",
        "ticklabelstandoff": 4,
        "automargin": True,
        "title": {"standoff": 12},
    }
    return go.layout.Template(
        layout={
            "font": {"family": "system-ui, sans-serif", "size": FONT, "color": INK},
            "title": {"font_size": 16, "x": 0, "xref": "paper", "y": 1, "yref": "container", "yanchor": "top", "pad_t": 16},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "paper_bgcolor": "rgba(0, 0, 0, 0)",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "colorway": COLOURS,
            "margin": {"l": 60, "r": 20, "t": 60, "b": 50},
            "hoverlabel": {"bgcolor": "#ffffff", "font_color": DARK},
            "xaxis": axis,
            "yaxis": axis,
        }
    )
