"""`PictureActions`: what a person does with pictures by mouse and keyboard. What the browser does is in `picture_actions.js`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import anywidget
import traitlets

from workbench.panels.callbacks import on_message

if TYPE_CHECKING:
    from PIL.Image import Image

_HERE = Path(__file__).parent
_EDGE = 96  # pixels of a ticked picture beside its label


@final
class PictureActions(anywidget.AnyWidget):
    """Calls `does[what](*given)` for what is done in the panel around it, and lists the ticked pictures.

    `show` sets what is listed, and which of the pictures that are shown have a tick and a star, each as a model and a number from 0.
    """

    _esm = _HERE / "picture_actions.js"

    held: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)  # the ticked pictures' numbers, labels and titles
    thumbnails = traitlets.List(traitlets.Bytes(), read_only=True).tag(sync=True)  # of those, as WebP
    ticked: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)
    starred: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)

    def __init__(self, does: Mapping[str, Callable[..., object]]) -> None:
        self._does = does
        super().__init__()
        on_message(self, self._asked)

    def list_held(self, held: Sequence[dict[str, Any]], images: Sequence[Image]) -> None:
        """List ticked pictures."""
        if held != self.held:
            with self.hold_sync():
                self.set_trait("held", list(held))
                self.set_trait("thumbnails", [_small(image) for image in images])

    def mark(self, ticked: Sequence[tuple[str, int]], starred: Sequence[tuple[str, int]]) -> None:
        """Say which pictures that are shown have a tick, and which a star."""
        self.set_trait("ticked", [list(place) for place in ticked])
        self.set_trait("starred", [list(place) for place in starred])

    def _asked(self, content: Mapping[str, Any], buffers: Sequence[object]) -> None:
        self._does[content["do"]](*content.get("with", []))


def _small(image: Image) -> bytes:
    small, held = image.convert("RGB"), io.BytesIO()
    small.thumbnail((_EDGE, _EDGE))
    small.save(held, "WEBP", quality=80)
    return held.getvalue()
