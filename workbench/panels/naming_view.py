"""The parts of a panel where models get names: one on the shelf another name, and the result one, so that it can be merged on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import ipywidgets as widgets

from workbench.errors import InputError
from workbench.panels.callbacks import on_click
from workbench.panels.controls import heading
from workbench.panels.fields import full
from workbench.panels.labels import MENU, labels


@final
class NamingView:
    """Tells `rename(old, new)` and `use(name)` what a person named; `renaming` and `using` are its two rows."""

    def __init__(self, rename: Callable[[str, str], None], use: Callable[[str], str]) -> None:
        self._rename, self._use = rename, use
        self._models = widgets.Dropdown(layout=full())
        self._new = widgets.Text(placeholder="new name", continuous_update=False, layout=full())
        self._name = widgets.Text(placeholder="a name for it", continuous_update=False, layout=full())
        renames = widgets.Button(description="Rename", layout=widgets.Layout(width="80px", flex="0 0 auto"))
        uses = widgets.Button(description="Use as a model", layout=widgets.Layout(width="120px", flex="0 0 auto"))
        on_click(renames, self._renamed)
        on_click(uses, self._used)
        told = "The merge as it is now goes among the models, to be merged again; no file is written"
        self.renaming = widgets.HBox([self._models, self._new, renames]).add_class("wb-row")
        self.using = widgets.HBox([heading("result", told), self._name, uses]).add_class("wb-row")

    def show(self, models: Sequence[str]) -> None:
        """Show the models that can be renamed."""
        options = (("rename", ""), *((label, name) for name, label in labels(models, MENU).items()))
        if self._models.options != options:
            self._models.options, self._models.value = options, ""

    def _renamed(self) -> None:
        if not self._models.value:
            raise InputError("choose the model that is to have another name")
        self._rename(self._models.value, self._new.value)
        self._new.value = ""

    def _used(self) -> None:
        self._use(self._name.value)
        self._name.value = ""
