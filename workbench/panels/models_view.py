"""The part of a panel where models are chosen: a chooser of files that fills the shelf, and the shelf itself, to be reordered."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import ipywidgets as widgets

from workbench.panels.callbacks import on_change
from workbench.panels.fields import ModelTags
from workbench.panels.file_chooser import FileChooser
from workbench.panels.labels import labels
from workbench.panels.recent_folders import recent_folders

_DRAWN = "Drawn is what diffusers draws from a prompt: SD, SDXL, SD 3, Flux, Z-Image, Qwen-Image, ..."
_HINT = f"Drag to reorder; × takes a model off. {_DRAWN}"


@final
class ModelsView:
    """Tells `add(paths, merge)`, `arrange(names)` and `again()` what a person chose."""

    def __init__(
        self,
        folder: Path,
        add: Callable[[Sequence[Path], bool], None],
        arrange: Callable[[Sequence[str]], None],
        again: Callable[[], None],
    ) -> None:
        self._arrange, self._showing = arrange, False
        self._shelf = ModelTags()
        self.files = FileChooser(folder, add, again)
        on_change(self._shelf, self._arranged)
        hint = widgets.HTML(_HINT).add_class("wb-hint")
        shelf = widgets.VBox([hint, self._shelf]).add_class("wb-column")
        self._said = widgets.HTML().add_class("wb-said")
        on_change(self.files, lambda change: setattr(self._said, "value", html.escape(change["new"]).replace("\n", "<br>")), "said")
        self.widget = widgets.VBox([shelf, self.files, self._said]).add_class("wb-column")

    def show(self, models: Sequence[str]) -> None:
        """Put these names on the shelf."""
        self._showing = True
        try:
            self._shelf.show(models, labels(models))
        finally:
            self._showing = False

    @property
    def folders(self) -> list[Path]:
        """Where models may lie: the folder that is shown, and those that were lately taken from."""
        return list(dict.fromkeys([self.files.here.absolute(), *map(Path, recent_folders())]))

    def say(self, text: str) -> None:
        """What is wrong with what was chosen."""
        self.files.say(text)

    def _arranged(self, _: object) -> None:
        if not self._showing:
            self._arrange(list(self._shelf.names))
