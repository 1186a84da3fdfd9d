"""The controls of how a panel's pictures are looked at: how large, and what lies across. The pictures are in `picture_columns`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, final

import ipywidgets as widgets

from workbench.panels.callbacks import on_change
from workbench.panels.controls import heading
from workbench.panels.viewing import ACROSS, AUTOMATIC, SIZES, WHOLE, Viewing


@final
class ViewControls:
    """Tells `changed(view)` what a person chose; `show` sets the controls and tells nothing."""

    def __init__(self, changed: Callable[[Viewing], None]) -> None:
        self._changed, self._shown, self._showing = changed, Viewing(), False
        self._size = widgets.SelectionSlider(options=_sizes(AUTOMATIC), continuous_update=False, layout=widgets.Layout(width="210px"))
        options = [(words, across) for across, words in ACROSS.items()]
        self._across = widgets.Dropdown(options=options, layout=widgets.Layout(width="210px"), tooltip="What lies side by side")
        on_change(self._size, lambda change: self._chosen(size=change["new"]))
        on_change(self._across, lambda change: self._chosen(across=change["new"]))
        size = heading("picture size", "How large pictures are shown, in pixels of the page; a click on one shows it in full size")
        self.widget = widgets.HBox([_row(size, self._size), _row(heading("arranged", "What lies side by side"), self._across)])
        self.widget.add_class("wb-numbers")

    def show(self, view: Viewing) -> None:
        """Set the controls."""
        self._shown, self._showing = view, True
        try:
            if self._size.options != (options := _sizes(view.size)):
                self._size.options = options
            self._size.value, self._across.value = view.size, view.across
        finally:
            self._showing = False

    def _chosen(self, **change: Any) -> None:
        view = replace(self._shown, **change)
        if not self._showing and view != self._shown:
            self._changed(view)


def _sizes(size: int | str) -> tuple[tuple[str, int | str], ...]:
    """What the slider goes through: the sizes that are offered, and the one that is shown."""
    given = [size] if isinstance(size, int) else []
    return ((AUTOMATIC, AUTOMATIC), *((str(one), one) for one in sorted({*SIZES, *given})), (WHOLE, WHOLE))


def _row(*parts: widgets.Widget) -> widgets.HBox:
    return widgets.HBox(parts).add_class("wb-row")
