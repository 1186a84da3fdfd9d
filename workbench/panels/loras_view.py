"""The part of a panel that puts LoRAs on the result of any method: which, and how strong; the controls are those of `add_delta`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import ipywidgets as widgets

from workbench.merge.schedules import Depth
from workbench.operators import find
from workbench.panels.callbacks import on_change
from workbench.panels.controls import heading, option_control
from workbench.panels.fields import Several, close_all
from workbench.panels.merge_view import Change, tidied
from workbench.panels.state import PanelState


@final
class LorasView:
    """Tells `changed(change, what)` how the state is to change; it is not shown where there are no LoRAs."""

    def __init__(self, changed: Callable[[Change, str], None]) -> None:
        self._changed, self._showing = changed, False
        self._made_for: Any = None
        told = "Each on the first model, as strong as in the stack, beside the result"
        self._alone = widgets.Checkbox(description="draw each alone, too", tooltip=told, indent=False)
        on_change(self._alone, lambda change: self._tell(lambda state: state.with_alone(change["new"]), "LoRAs alone"))
        self.widget = widgets.VBox().add_class("wb-option")

    def show(self, state: PanelState, loras: Sequence[str], depth: Depth) -> None:
        """Show the stack, and the LoRAs that there are to choose from."""
        self._showing = True
        try:
            self.widget.layout.display = "" if loras else "none"
            if (key := (tuple(loras), state.loras, depth)) != self._made_for:
                self._made_for = key
                self._make(state, loras, depth)
            self._alone.value = state.alone
            if state.loras:
                self._strengths.value = state.strengths
        finally:
            self._showing = False

    def _make(self, state: PanelState, loras: Sequence[str], depth: Depth) -> None:
        old = self.widget.children
        chosen = Several(loras, state.loras)
        on_change(chosen, lambda change: self._tell(lambda state: state.with_loras(change["new"]), "LoRAs"))
        strong, switch = [], []
        if state.loras:
            self._strengths = option_control(find("add_delta").declaration.options["strengths"], state.strengths, state.loras, depth)
            on_change(self._strengths, lambda change: self._tell(lambda state: state.with_strengths(tidied(change["new"])), "strengths"))
            strong, switch = [self._strengths], [self._strengths.switch] if hasattr(self._strengths, "switch") else []
        self._alone.layout.display = "" if state.loras else "none"
        title = widgets.HBox([heading("LoRAs", "What is added to the result of the method, each with its strength"), *switch])
        self.widget.children = (title.add_class("wb-heading"), chosen, *strong, self._alone)
        for widget in old:
            if widget is not self._alone:
                close_all(widget)

    def _tell(self, change: Change, what: str) -> None:
        if not self._showing:
            self._changed(change, what)
