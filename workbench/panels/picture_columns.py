"""The pictures of a panel: a column for each parent and one for the result; what is old is dimmed until the new one is there."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import ipywidgets as widgets

from workbench.panels.fields import close_all
from workbench.panels.shelf import RESULT
from workbench.render.request import Request

if TYPE_CHECKING:
    from PIL.Image import Image


_LARGE = 256  # pixels of an edge beyond which a picture is shown larger
_MOST = 512  # pixels of an edge that travel to the browser: twice what is shown, for screens of fine pixels


@final
class PictureColumns:
    """Columns by name, in order; the last is the result's. Rows are prompts and seeds, as in the request."""

    def __init__(self) -> None:
        self._labels = widgets.HTML().add_class("wb-prompts")
        self._columns: dict[str, widgets.HTML] = {}
        self.widget = widgets.HBox().add_class("wb-gallery")
        self.images: dict[str, list[Image]] = {}
        self._rows: list[tuple[str, int]] = []

    def arrange(self, parents: Sequence[str], request: Request | None) -> None:
        """Have a column for each of these models and one for the result, and a label for each picture wanted."""
        wanted, rows = (*parents, RESULT), request.pictures if request else self._rows
        gone = [column for name, column in self._columns.items() if name not in wanted]
        for name in wanted:
            if name not in self._columns:
                self._columns[name] = widgets.HTML().add_class("wb-pictures")
            if rows != self._rows or name not in self.images:  # old pictures would stand beside other words
                self._fill(name, [], len(rows))
        self._rows = rows
        self._columns[RESULT].add_class("wb-result")
        if request:
            self._labels.value = _labels(request)
        self._columns = {name: self._columns[name] for name in wanted}
        self.images = {name: self.images[name] for name in wanted}
        children = (self._labels, *self._columns.values())
        if self.widget.children != children:
            self.widget.children = children
        for column in gone:
            close_all(column)

    def show(self, name: str, images: Sequence[Image]) -> None:
        """Put fresh pictures into a column, if it is still there."""
        if name in self._columns:
            self._fill(name, images, len(images))
            self._columns[name].remove_class("wb-stale")

    def preview(self, name: str, images: Sequence[Image]) -> None:
        """Put what is known so far of fresh pictures into a column, if it is still there; they are not its pictures yet."""
        if name in self._columns:
            self._put(name, [_picture(name, image) for image in images], len(self._rows))
            self._columns[name].remove_class("wb-stale")

    def dim(self, name: str) -> None:
        """Mark a column's pictures as old."""
        self._columns[name].add_class("wb-stale")

    def _fill(self, name: str, images: Sequence[Image], places: int) -> None:
        self.images[name] = list(images)
        if images:
            large = any(max(image.size) > _LARGE for image in images)
            (self.widget.add_class if large else self.widget.remove_class)("wb-large")
        self._put(name, [_picture(name, image) for image in images], places)

    def _put(self, name: str, pictures: Sequence[str], places: int) -> None:
        told = html.escape(name)
        shown = [*pictures, *["<div class='wb-empty'></div>"] * (places - len(pictures))]
        self._columns[name].value = f'<div class="wb-title" title="{told}">{told}</div>{"".join(shown)}'


def _picture(name: str, image: Image) -> str:
    return f'<img alt="{html.escape(name)}" src="{_data_url(image)}">'


def _labels(request: Request) -> str:
    several = len(request.seeds) > 1
    cells = [
        f'<div title="{html.escape(prompt)}"><span>{html.escape(prompt)}</span>{f"<small>seed {seed}</small>" if several else ""}</div>'
        for prompt, seed in request.pictures
    ]
    return f'<div class="wb-title">&nbsp;</div>{"".join(cells)}'


def _data_url(image: Image) -> str:
    """A picture as it travels: small ones to the bit, large ones as a thumbnail."""
    held, kind = io.BytesIO(), "png"
    if max(image.size) > _MOST:
        kind, image = "webp", image.copy()
        image.thumbnail((_MOST, _MOST))
        image.save(held, "WEBP", quality=90)
    else:
        image.save(held, "PNG", compress_level=1)
    return f"data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode()}"
