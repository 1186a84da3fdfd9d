"""The part of a panel where models are chosen: a file browser that fills the shelf, and the shelf itself, to be reordered."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import ipywidgets as widgets

from workbench.checkpoint.files.folders import INDICES
from workbench.errors import InputError
from workbench.panels.callbacks import on_change, on_click
from workbench.panels.fields import full
from workbench.panels.shelf import checkpoint_files, subfolders

_UP = ".."
_DRAWN = "Drawn is what diffusers draws from a prompt: SD, SDXL, SD 3, Flux, Z-Image, Qwen-Image, ..."
_HINT = f"Drag to reorder; × takes a model off. {_DRAWN}"


@final
class ModelsView:
    """Tells `add(path)`, `arrange(names)` and `again()` what a person chose."""

    def __init__(
        self, folder: Path, add: Callable[[Path], None], arrange: Callable[[Sequence[str]], None], again: Callable[[], None]
    ) -> None:
        self._add, self._arrange, self._listing = add, arrange, False
        self._shelf = widgets.TagsInput(allow_duplicates=False, placeholder="").add_class("wb-tags")
        self._folder = widgets.Text(
            value=str(folder), continuous_update=False, layout=full(), tooltip="A folder on the machine that runs this"
        )
        self._entries = widgets.Select(rows=7, layout=full())
        self._said = widgets.HTML().add_class("wb-said")
        self._button = widgets.Button(description="Add", icon="plus", layout=widgets.Layout(width="90px"))
        refresh = widgets.Button(
            description="Read again", icon="refresh", tooltip="Open files anew that have changed", layout=widgets.Layout(width="120px")
        )
        on_change(self._shelf, self._arranged)
        on_change(self._folder, lambda _: self._list())
        on_change(self._entries, self._chosen)
        on_click(self._button, self._added)
        on_click(refresh, lambda: self._read_again(again))
        buttons = widgets.HBox([self._button, refresh]).add_class("wb-row")
        browser = widgets.VBox([self._folder, self._entries, buttons, self._said]).add_class("wb-column")
        hint = widgets.HTML(_HINT).add_class("wb-hint")
        shelf = widgets.VBox([hint, self._shelf]).add_class("wb-column")
        self.widget = widgets.VBox([shelf, browser]).add_class("wb-column")
        self._list()

    def show(self, models: Sequence[str]) -> None:
        """Put these names on the shelf."""
        self._shelf.allowed_tags = []  # checked against what is there, while both change
        self._shelf.value = list(models)
        self._shelf.allowed_tags = list(models)

    def say(self, text: str) -> None:
        """What is wrong with what was chosen."""
        self._said.value = html.escape(text)

    @property
    def _here(self) -> Path:
        return Path(self._folder.value).expanduser()

    def _read_again(self, again: Callable[[], None]) -> None:
        again()
        self._list()

    def _list(self) -> None:
        try:
            files = [path.name for path in checkpoint_files(self._here)]
            folders = [f"{path.name}/" for path in subfolders(self._here)]
        except (InputError, OSError) as error:
            self._entries.options = []
            self.say(str(error))
            return
        self._said.value = ""
        self._listing = True  # a list of entries begins with its first one chosen
        self._entries.options = [_UP, *folders, *files]
        self._entries.value = None
        self._listing = False
        self._button.disabled = True

    def _chosen(self, change: dict[str, Any]) -> None:
        """Go into a folder that holds more files; a folder that is a checkpoint can be added, too."""
        if change["new"] is None or self._listing:
            return
        path = self._here / change["new"]
        if change["new"] == _UP or (path.is_dir() and not _is_pipeline(path)):
            self._folder.value = str(path.resolve() if change["new"] != _UP else self._here.resolve().parent)
        else:
            self._button.disabled = False

    def _added(self) -> None:
        self.say("")
        self._add(self._here / self._entries.value)

    def _arranged(self, change: dict[str, Any]) -> None:
        self._arrange(change["new"])


def _is_pipeline(folder: Path) -> bool:
    return (folder / "model_index.json").is_file() or any(folder.glob(INDICES))
