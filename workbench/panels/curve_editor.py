"""The curve editor: points of a curve over frequency, to be dragged, above charts of what comes of them. What it means is the panel's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import anywidget
import traitlets

from workbench.panels.callbacks import on_message

_HERE = Path(__file__).parent

Point = tuple[float, float]


@final
class CurveEditor(anywidget.AnyWidget):
    """Tells `moved(points)` of points that were dragged, added or taken away: pairs of frequency, from 0 to 1, and value.

    `charts` are drawn below, over the same axis: mappings of `title`, `lines` and the axis's `low` and `high`, which is
    logarithmic if `log`; a line has a `name`, a `colour`, `x` and `y`, and is `thin` or not. They are dimmed while `stale`.
    """

    _esm = _HERE / "curve_editor.js"
    _css = _HERE / "curve_editor.css"
    title = traitlets.Unicode().tag(sync=True)
    points: traitlets.List[Any] = traitlets.List().tag(sync=True)
    low = traitlets.Float().tag(sync=True)
    high = traitlets.Float().tag(sync=True)
    charts: traitlets.List[Any] = traitlets.List().tag(sync=True)
    stale = traitlets.Bool(True).tag(sync=True)

    def __init__(self, moved: Callable[[list[Point]], None], *, title: str, low: float, high: float) -> None:
        super().__init__(title=title, low=low, high=high)
        self._moved, self._last = moved, 0
        on_message(self, self._dragged)

    def show(self, points: Sequence[Sequence[float]]) -> None:
        """Show these points; nothing is told."""
        self.points = [list(point) for point in points]

    def _dragged(self, said: Mapping[str, Any], _: object) -> None:
        if said["at"] < self._last:  # JupyterLab sends by way of two threads of the kernel, and the first may come last
            return
        self._last = said["at"]
        self._moved([(float(frequency), float(value)) for frequency, value in said["points"]])
