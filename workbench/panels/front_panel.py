"""`FrontPanel`: what a search tried by two objectives, with the pictures of the merge that the pointer is at."""

from __future__ import annotations

import html
import io
from typing import final

import ipywidgets as widgets

from workbench import figures
from workbench.errors import SearchError
from workbench.searches.found import Found
from workbench.searches.trials import SearchTrial


@final
class FrontPanel(widgets.VBox):  # type: ignore[misc]  # ipywidgets says nothing of its types
    """The merges of a search by its first two objectives; beside them the pictures of the one that the pointer is at.

    `shown` is the trial whose pictures show: at first the search's own choice. Raises SearchError for a search with one objective,
    which has no front.
    """

    def __init__(self, found: Found) -> None:
        if len(found.objectives) < 2:
            raise SearchError("FrontPanel shows searches with two objectives or more; of one, the result's plot shows how it went")
        self._found = found
        self._told = widgets.HTML()
        self._sheet = widgets.Image(format="png", layout=widgets.Layout(width="auto", max_width="100%", object_fit="contain"))
        plot = figures.hovered(found.plot(), lambda row: self.show(found.shown[row]))
        plot.layout.width = 620
        beside = widgets.VBox([self._told, self._sheet], layout=widgets.Layout(width="300px", padding="50px 0 0 12px"))
        super().__init__([widgets.HBox([plot, beside])])
        self.show(found.best)

    def show(self, trial: SearchTrial) -> None:
        """Show the pictures of a trial, prompts down and seeds across."""
        self.shown = trial
        pairs = zip(self._found.objectives, trial.values, strict=True)
        scores = "<br>".join(f"{html.escape(objective.name)} {value:.4g}" for objective, value in pairs)
        front = ", on the front" if trial in self._found.front else ""
        lines = f"<b>{html.escape(trial.kind)}</b>{front}<br>{html.escape(trial.name)}<br>{scores}"
        self._told.value = f"<div style='line-height: 1.5'>{lines}</div>"
        written = io.BytesIO()
        trial.sheet().save(written, "PNG")
        self._sheet.value = written.getvalue()
