"""`Still`: the last pictures of a panel as one PNG in the notebook, for who opens it without its kernel. No widget is here."""

from __future__ import annotations

import base64
import io
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from workbench.render.drawn import Drawn
from workbench.render.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image

_QUIET = 1.5  # seconds without a change after which the sheet is made anew
_PIXELS = 2_000_000  # of all pictures on a sheet, about
_EDGES = (32, 256)  # pixels of a picture's edge there
_MARK = {"needs_background": "light"}  # by which the panel's style knows it, and hides it while there is a panel
_NOTHING = {"text/html": '<i class="wb-still"></i>', "text/plain": ""}

Drawing = tuple[Request, Mapping[str, Sequence["Image"]]]


def sheet(request: Request, images: Mapping[str, Sequence[Image]]) -> bytes | None:
    """The pictures of each model as one labelled PNG of about two million pixels; None where there are none."""
    from workbench.render.grid import Grid

    count = len(request.pictures)
    there = {name: drawn for name, drawn in images.items() if len(drawn) == count}
    if not there:
        return None
    grid = Grid((request,), tuple(Drawn(name) for name in there), [image for drawn in there.values() for image in drawn])
    low, high = _EDGES
    edge = max(low, min(high, int((_PIXELS / (count * len(there))) ** 0.5)))
    held = io.BytesIO()
    grid.plot(edge=edge).save(held, "PNG", optimize=True)
    return held.getvalue()


@final
class Still:
    """Keeps an output beneath the panel's own up to date with `drawing()`, once things are quiet; nothing where there is no notebook."""

    def __init__(self, drawing: Callable[[], Drawing | None]) -> None:
        self._drawing = drawing
        self._name = uuid.uuid4().hex
        self._timer: threading.Timer | None = None
        self._displayed = self._late = False
        self._changing, self._updating = threading.Lock(), threading.Lock()

    def display(self) -> None:
        """Put the output where the cell's others are; it is empty until there are pictures."""
        from IPython.display import display

        display(_NOTHING, raw=True, display_id=self._name)  # type: ignore[no-untyped-call]
        self._displayed = self._late = True
        self.catch_up()

    def changed(self) -> None:
        """Other pictures are shown."""
        with self._changing:
            self._late = True
            if not self._displayed:
                return
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(_QUIET, self.catch_up)
            self._timer.daemon = True
            self._timer.start()

    def catch_up(self) -> None:
        """Put the pictures that are shown into the output, if others are there."""
        with self._updating:
            with self._changing:  # not held any longer: whoever shows pictures waits for it
                wanted, self._late = self._displayed and self._late, False
            drawing = self._drawing() if wanted else None
            content = sheet(*drawing) if drawing else None
            if content is not None:
                _update(content, self._name)

    def close(self) -> None:
        """Update it for the last time."""
        if self._timer is not None:
            self._timer.cancel()
        self.catch_up()


def _update(content: bytes, name: str) -> None:
    from IPython.display import update_display

    data: dict[str, Any] = {"image/png": base64.b64encode(content).decode(), "text/plain": "the pictures of a panel"}
    update_display(data, raw=True, metadata=_MARK, display_id=name)  # type: ignore[no-untyped-call]
