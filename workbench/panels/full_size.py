"""`FullSize`: a picture of the panel around it that is clicked, in full size. What the browser does is in `full_size.js`."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import anywidget
import traitlets

from workbench.panels.callbacks import on_change

if TYPE_CHECKING:
    from PIL.Image import Image

_HERE = Path(__file__).parent


@final
class FullSize(anywidget.AnyWidget):
    """Sends the picture that `looked_at` names, as a column and its number there from 0, when it is looked at; an empty list is none.

    `pictures(name)` are the pictures of a column. What is gone by then, or is a preview only, is not shown.
    """

    _esm = _HERE / "full_size.js"

    looked_at: traitlets.List[Any] = traitlets.List().tag(sync=True)
    full = traitlets.Bytes(read_only=True).tag(sync=True)  # the picture as a PNG; empty for none
    said = traitlets.Unicode(read_only=True).tag(sync=True)  # what it is, and its pixels

    def __init__(self, pictures: Callable[[str], Sequence[Image]]) -> None:
        self._pictures = pictures
        super().__init__()
        on_change(self, self._look, "looked_at")

    def _look(self, _: object) -> None:
        name, number = self.looked_at or ("", 0)
        there = self._pictures(str(name)) if self.looked_at else ()
        image = there[number] if isinstance(number, int) and 0 <= number < len(there) else None
        held = io.BytesIO()
        if image is not None:
            image.save(held, "PNG", compress_level=1)
            self.set_trait("said", f"{name} · {image.width} × {image.height} pixels")
        self.set_trait("full", held.getvalue())
