"""`PictureActions`: what a person does with pictures by mouse and keyboard. What the browser does is in `picture_actions.js`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import anywidget
import traitlets

from workbench.panels.callbacks import on_message
from workbench.panels.ticks import Shown
from workbench.render.thumbnails import webp

_HERE = Path(__file__).parent
_EDGE = 96  # pixels of a ticked picture beside its label


@final
class PictureActions(anywidget.AnyWidget):
    """Calls `does[what](*given)` for what is done in the panel around it, and lists the ticked pictures.

    `show` sets what is listed, and which of the pictures that are shown have a tick and a star, each as a model and a number from 0.
    """

    _esm = _HERE / "picture_actions.js"

    held: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)  # the ticked pictures: id, label, title, and a small one
    ticked: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)
    starred: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)

    def __init__(self, does: Mapping[str, Callable[..., object]]) -> None:
        self._does = does
        super().__init__()
        on_message(self, self._asked)

    def list_held(self, held: Mapping[int, Shown]) -> None:
        """List ticked pictures, each under its number."""
        known = {one["id"]: one for one in self.held}
        self.set_trait("held", [known.get(number) or _told(number, one) for number, one in held.items()])

    def mark(self, ticked: Sequence[tuple[str, int]], starred: Sequence[tuple[str, int]]) -> None:
        """Say which pictures that are shown have a tick, and which a star."""
        self.set_trait("ticked", [list(place) for place in ticked])
        self.set_trait("starred", [list(place) for place in starred])

    def _asked(self, content: Mapping[str, Any], buffers: Sequence[object]) -> None:
        self._does[content["do"]](*content.get("with", []))


def _told(number: int, shown: Shown) -> dict[str, Any]:
    picture = f"data:image/webp;base64,{base64.b64encode(webp(shown.image, _EDGE)).decode()}"
    return {"id": number, "label": shown.label, "title": shown.title, "picture": picture}
