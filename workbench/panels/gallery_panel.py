"""`Gallery`: the pictures that panels drew, newest first, to be found, marked and taken up. What the browser draws is in `gallery.js`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, final

import anywidget
import traitlets

from workbench.errors import SweepError, WorkbenchError
from workbench.panels.callbacks import on_change, on_message, tells
from workbench.sweeps.picture_store import GALLERY, KeptPicture, PictureStore

_HERE = Path(__file__).parent
_FILTERS = ("prompt", "model", "method", "starred")
PAGE = 60  # pictures of a page


class Reopens(Protocol):
    """What a gallery gives a picture's state to: a merge panel, or what shows one."""

    def reopen(self, source: str | os.PathLike[str]) -> None:
        """Take the state that a file tells of."""


@final
class Gallery(anywidget.AnyWidget):
    """The pictures in a folder that panels keep theirs in, newest first, in pages of 60.

    With a `panel`, a click on a picture gives the panel the state that it was drawn with; without one it is shown in full size. `prompt`
    and `model` are words to look for, `method` a method's name, `starred` whether only stars are shown, `start` counts, from 0, the first
    picture of the page: all of them may be set in Python too. `limit` sets how many bytes the folder keeps (at first 5 GB): beyond that
    the oldest pictures without a star go.

    Raises SweepError where the folder cannot be used.
    """

    _esm = _HERE / "gallery.js"
    _css = _HERE / "gallery.css"

    prompt = traitlets.Unicode().tag(sync=True)
    model = traitlets.Unicode().tag(sync=True)
    method = traitlets.Unicode().tag(sync=True)
    starred = traitlets.Bool().tag(sync=True)
    start = traitlets.Int(0, min=0).tag(sync=True)
    total = traitlets.Int(read_only=True).tag(sync=True)  # pictures that the filters find
    methods = traitlets.List(traitlets.Unicode(), read_only=True).tag(sync=True)
    page: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)  # what is told of each picture
    thumbnails = traitlets.List(traitlets.Bytes(), read_only=True).tag(sync=True)  # of the page, as WebP; empty where the file is gone
    looked_at = traitlets.Int(0).tag(sync=True)  # the number of the picture that is shown in full size; 0 for none
    full = traitlets.Bytes(read_only=True).tag(sync=True)  # that picture as a PNG
    said = traitlets.Unicode(read_only=True).tag(sync=True)
    takes = traitlets.Bool(read_only=True).tag(sync=True)  # whether there is a panel that takes states

    def __init__(self, folder: str | os.PathLike[str] = GALLERY, panel: Reopens | None = None, *, limit: int | None = None) -> None:
        self._store = PictureStore(Path(folder), limit)
        self._panel = panel
        super().__init__()
        self.set_trait("takes", panel is not None)
        self.refresh()
        tells(self, lambda text: self.set_trait("said", text))
        on_change(self, self._filtered, _FILTERS)
        on_change(self, lambda _: self.refresh(), "start")
        on_change(self, self._look, "looked_at")
        on_message(self, self._asked)

    @property
    def pictures(self) -> list[KeptPicture]:
        """The pictures of the page."""
        return self._store.find(**self._filters, start=self.start, most=PAGE)

    def refresh(self) -> None:
        """Show what is in the folder now."""
        pictures = self.pictures
        with self.hold_sync():
            self.set_trait("total", self._store.count(**self._filters))
            self.set_trait("methods", self._store.methods())
            self.set_trait("page", [_told(one) for one in pictures])
            self.set_trait("thumbnails", [self._store.thumbnail(one) or b"" for one in pictures])
            size, limit = self._store.nbytes / 1e6, self._store.limit / 1e6
            self.set_trait("said", f"{size:,.0f} of at most {limit:,.0f} MB; the oldest without a star go first")

    def star(self, number: int, star: bool = True) -> None:
        """Give the picture of this number (`pictures[0].id`) a star, which keeps it, or take it away."""
        self._store.star([self._store.picture(number)], star)
        self.refresh()

    def note(self, number: int, text: str) -> None:
        """Write something down about a picture."""
        self._store.note(self._store.picture(number), text)
        self.refresh()

    def delete(self, number: int) -> None:
        """Take a picture out; it can be undone for a day."""
        self._store.delete([self._store.picture(number)])
        self.refresh()

    def undo(self) -> None:
        """Take back the last star, note or deletion."""
        self._store.undo()
        self.refresh()

    def take(self, number: int) -> None:
        """Give the panel the state that a picture was drawn with. Raises SweepError where there is no panel, or no such picture."""
        if self._panel is None:
            raise SweepError("this gallery has no panel to give a state to: make it with Gallery(folder, panel)")
        self._panel.reopen(self._store.picture(number).path)

    @property
    def _filters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FILTERS}

    def _filtered(self, _: object) -> None:
        """Other pictures are wanted: from the first page on."""
        if self.start:
            self.start = 0
        else:
            self.refresh()

    def _look(self, _: object) -> None:
        content = b""
        if self.looked_at:
            try:
                content = self._store.picture(self.looked_at).path.read_bytes()
            except (SweepError, OSError) as error:
                self.set_trait("said", f"The picture cannot be shown: {error}")
        self.set_trait("full", content)

    def _asked(self, content: Mapping[str, Any], buffers: Sequence[object]) -> None:
        """What a person did in the browser; what goes wrong is said there."""
        known: dict[str, Callable[..., None]] = {
            name: getattr(self, name) for name in ("star", "note", "delete", "undo", "take", "refresh")
        }
        try:
            known[content["do"]](*content.get("with", []))
        except (WorkbenchError, OSError, LookupError, TypeError) as error:
            with suppress(SweepError):
                self.refresh()
            self.set_trait("said", str(error))


def _told(picture: KeptPicture) -> dict[str, Any]:
    told = {name: getattr(picture, name) for name in ("id", "made", "model", "method", "prompt", "seed", "star", "note")}
    return told | {"models": list(picture.models)}
