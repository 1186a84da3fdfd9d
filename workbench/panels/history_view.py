"""The part of a panel that goes back and forth in time: undo, redo, and states by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import ipywidgets as widgets

from workbench.panels.callbacks import on_change, on_click
from workbench.panels.timeline import Timeline


@final
class HistoryView:
    """Tells `undo()`, `redo()`, `keep(name)` and `back_to(name)` what a person pressed."""

    def __init__(
        self, undo: Callable[[], None], redo: Callable[[], None], keep: Callable[[str], None], back_to: Callable[[str], None]
    ) -> None:
        self._keep, self._back_to = keep, back_to
        self._undo = _button("undo", "Undo", undo)
        self._redo = _button("repeat", "Redo", redo)
        self._name = widgets.Text(placeholder="name this state", continuous_update=False, layout=widgets.Layout(width="130px"))
        self._add = _button("bookmark", "Keep this state under that name", self._kept)
        self._snapshots = widgets.Dropdown(layout=widgets.Layout(width="150px"), tooltip="Go back to a state that was kept")
        on_change(self._snapshots, self._chosen)
        parts = [self._undo, self._redo, self._name, self._add, self._snapshots]
        self.widget = widgets.HBox(parts).add_class("wb-history")

    def show(self, timeline: Timeline) -> None:
        """Show where one can go from here."""
        self._undo.disabled, self._redo.disabled = not timeline.can_undo, not timeline.can_redo
        options = [("go back to …", ""), *((name, name) for name in timeline.snapshots)]
        if tuple(options) != tuple(self._snapshots.options):
            self._snapshots.options = options
        self._snapshots.value = ""
        self._snapshots.disabled = not timeline.snapshots

    def _kept(self) -> None:
        if name := self._name.value.strip():
            self._keep(name)
            self._name.value = ""

    def _chosen(self, change: dict[str, Any]) -> None:
        if change["new"]:
            self._back_to(change["new"])


def _button(icon: str, told: str, pressed: Callable[[], None]) -> widgets.Button:
    button = widgets.Button(icon=icon, tooltip=told, layout=widgets.Layout(width="36px"))
    on_click(button, pressed)
    return button
