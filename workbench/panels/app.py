"""`App`: the merge panel and its gallery as a page of its own, which `make app` serves. What those do is in their own modules."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import ipywidgets as widgets

from workbench.errors import InputError, RecipeError, SweepError
from workbench.panels import keeping
from workbench.panels.callbacks import on_change, on_click, tells
from workbench.panels.fields import close_all
from workbench.panels.gallery_panel import Gallery
from workbench.panels.keep_file import KeepFile
from workbench.panels.merge_panel import MergePanel
from workbench.panels.shelf import Given

if TYPE_CHECKING:
    from workbench.render import Renderer

TITLE = "Workbench"
_STYLE = (Path(__file__).parent / "app.css").read_text(encoding="utf-8")
_HINT = (
    "Choose a method and move its sliders: the pictures follow, the merge's in the column at the end.",
    "Models of your own are added under “models to choose from”; no file of yours is ever changed.",
    "Export, below the pictures, writes the merge as a file; every picture that is drawn stays in the gallery.",
)
_MERGE, _GALLERY = range(2)


@final
class App:
    """A `MergePanel`, with its `Gallery` in a second tab, a title, and a hint for who is new.

    `checkpoints` and `renderer` are the panel's. In `folder`, which is made where there is none, lie `app.yaml`, in which the panel keeps
    its state over a reload of the page, and the folder `gallery`. Of several pages that are open at once, the one that changes last keeps
    its state there, and says so. A file that cannot be read is put aside under another name, which is said, and the state is fresh.

    Raises InputError for a folder that cannot be made, and what `MergePanel` raises for its checkpoints.
    """

    def __init__(
        self, checkpoints: Given | None = None, renderer: Renderer | None = None, *, folder: str | os.PathLike[str] = "out"
    ) -> None:
        self._folder = Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be the app's folder: {error.strerror}") from error
        keep = KeepFile(self._folder / "app.yaml")
        said = _put_aside(keep)
        self.panel = MergePanel(checkpoints, renderer, keep=keep.path, gallery=self._folder / "gallery")
        self.gallery: Gallery | None = None
        self._tabs = widgets.Tab([self.panel.widget, self._make_gallery()], titles=["Merge", "Gallery"]).add_class("wb-pages")
        on_change(self._tabs, self._turned, "selected_index")
        style = widgets.HTML(f"<style>{_STYLE}</style>", layout=widgets.Layout(display="none"))
        title = widgets.HTML(f"<h1>{TITLE}</h1><span>merge image models, and see what comes of it</span>").add_class("wb-headline")
        self.widget = widgets.VBox([style, title, self._make_hint(), self._tabs]).add_class("wb-app")
        tells(self.widget, self.panel.tell)
        if said:
            self.panel.tell(said)

    def reopen(self, source: str | os.PathLike[str]) -> None:
        """Have the panel take the state that a file tells of, and show it."""
        self.panel.reopen(source)
        self._tabs.selected_index = _MERGE

    def close(self) -> None:
        """Take the page down."""
        self.panel.close()
        close_all(self.widget)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        return self.widget._repr_mimebundle_(include=include, exclude=exclude)

    def _make_gallery(self) -> widgets.Widget:
        """The gallery; where its folder cannot be used, what is wrong with that."""
        try:
            self.gallery = Gallery(self._folder / "gallery", self)
        except SweepError as error:
            return widgets.HTML(f"The gallery cannot be shown: {html.escape(str(error))}").add_class("wb-said")
        return self.gallery

    def _turned(self, change: dict[str, Any]) -> None:
        if change["new"] == _GALLERY and self.gallery is not None:
            self.gallery.refresh()

    def _make_hint(self) -> widgets.Widget:
        """What a newcomer is told, until it is put away: then a file in the folder remembers that."""
        seen = self._folder / "app.hint-put-away"
        words = widgets.HTML("".join(f"<p>{html.escape(sentence)}</p>" for sentence in _HINT))
        button = widgets.Button(description="Put away", layout=widgets.Layout(width="90px", flex="0 0 auto"))
        hint = widgets.HBox([words, button], layout=widgets.Layout(display="none" if seen.exists() else "")).add_class("wb-newcomer")

        def put_away() -> None:
            hint.layout.display = "none"
            seen.touch()

        on_click(button, put_away)
        return hint


def _put_aside(keep: KeepFile) -> str:
    """Put a file aside that cannot be read; returns what to say of it."""
    if not keep.path.exists():
        return ""
    try:
        keeping.load(keep.path)
    except RecipeError as error:
        try:
            place = keep.set_aside()
        except OSError as fault:
            raise InputError(f"{error}; it cannot be put aside either: {fault.strerror}") from error
        return f"This state is a fresh one: the one that was kept could not be read, and is now in {place} ({error})"
    return ""
