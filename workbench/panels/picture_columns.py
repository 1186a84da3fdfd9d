"""The pictures of a panel: a column for each parent and one for the result; what is old is dimmed until the new one is there."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import ipywidgets as widgets

from workbench.panels.fields import close_all
from workbench.panels.labels import labels
from workbench.panels.shelf import RESULT
from workbench.panels.viewing import Viewing
from workbench.render.request import Request
from workbench.render.thumbnails import webp

if TYPE_CHECKING:
    from PIL.Image import Image

_EXACT = 512  # pixels of an edge up to which a picture that is not made smaller travels to the bit


@final
class PictureColumns:
    """Columns by name, in order; the last is the result's. Their pictures are prompts and seeds, as in the request."""

    def __init__(self) -> None:
        self._labels = widgets.HTML().add_class("wb-prompts")
        self._sizes = widgets.HTML(layout=widgets.Layout(display="none"))
        self._columns: dict[str, widgets.HTML] = {}
        self.widget = widgets.HBox([self._sizes]).add_class("wb-gallery")
        self._own = f"wb-gallery-{self.widget.model_id}"  # the sizes are those of this panel alone
        self.widget.add_class(self._own)
        self.images: dict[str, list[Image]] = {}
        self._encoded: dict[str, list[str]] = {}  # what is shown, as it travels
        self._titles: dict[str, str] = {}
        self._request: Request | None = None
        self._view = Viewing()
        self._travelling = 0  # pixels that the pictures were made for

    def look(self, view: Viewing) -> None:
        """Show the same pictures otherwise."""
        if view == self._view:
            return
        self._view = view
        self._fit()
        for name in self._columns:
            self._fill(name, self.images[name])
        self._order()

    def arrange(self, parents: Sequence[str], request: Request | None) -> None:
        """Have a column for each of these models and one for the result, and a label for each picture wanted."""
        wanted, before = (*parents, RESULT), self._request
        self._request, titles = request or before, labels(wanted)
        gone = [column for name, column in self._columns.items() if name not in wanted]
        other = before is None or (self._request is not None and before.pictures != self._request.pictures)
        titled, self._titles = titles != self._titles, titles
        self._columns = {name: self._columns.get(name) or widgets.HTML().add_class("wb-pictures") for name in wanted}
        self.images = {name: self.images.get(name, []) for name in wanted}
        self._encoded = {name: self._encoded.get(name, []) for name in wanted}
        for name, column in self._columns.items():
            if other:  # old pictures would stand beside other words
                self._fill(name, [])
            elif titled or not column.value:
                self._put(name, self._encoded[name])
        self._columns[RESULT].add_class("wb-result")
        if request:
            self._labels.value = _labels(request)
        self._order()
        for column in gone:
            close_all(column)

    def show(self, name: str, images: Sequence[Image]) -> None:
        """Put fresh pictures into a column, if it is still there."""
        if name in self._columns:
            self.images[name] = list(images)
            if self._fit():
                for other in self._columns.keys() - {name}:
                    self._fill(other, self.images[other])
            self._fill(name, images)
            self._columns[name].remove_class("wb-stale")

    def preview(self, name: str, images: Sequence[Image]) -> None:
        """Put what is known so far of fresh pictures into a column, if it is still there; they are not its pictures yet."""
        if name in self._columns:
            self._put(name, [_data_url(image, self._travelling or _EXACT) for image in images])
            self._columns[name].remove_class("wb-stale")

    def dim(self, name: str) -> None:
        """Mark a column's pictures as old."""
        self._columns[name].add_class("wb-stale")

    def clear(self) -> None:
        """Let go of all pictures."""
        self.images.clear()
        self._encoded.clear()

    def _order(self) -> None:
        """The words and the columns in the order of the view: the result's is in sight, first or last."""
        by_model = self._view.across != "models"
        (self.widget.add_class if by_model else self.widget.remove_class)("wb-by-model")
        shown = [*self._columns.values()]
        children = (self._sizes, shown[-1], *shown[:-1]) if by_model and shown else (self._sizes, self._labels, *shown)
        if self.widget.children != children:
            self.widget.children = children

    def _fit(self) -> bool:
        """Set how large the pictures are shown; returns whether others have to travel than before."""
        images = [image for column in self.images.values() for image in column]
        if not images:
            return False
        width, height = max((image.size for image in images), key=max)
        edge, before = self._view.edge(images), self._travelling
        wide, tall = round(edge * width / max(width, height)), round(edge * height / max(width, height))
        self._sizes.value = f"<style>.wb-gallery.{self._own} {{ --wb-wide: {wide}px; --wb-tall: {tall}px; }}</style>"
        self._travelling = self._view.travelling(images)
        return self._travelling != before

    def _fill(self, name: str, images: Sequence[Image]) -> None:
        self.images[name] = list(images)
        self._encoded[name] = [_data_url(image, self._travelling or _EXACT) for image in images]
        self._put(name, self._encoded[name])

    def _put(self, name: str, pictures: Sequence[str]) -> None:
        asked = self._request.pictures if self._request else []
        cells = [
            _Cell(name, number, *asked[number]).drawn(pictures[number] if number < len(pictures) else "") for number in range(len(asked))
        ]
        title = f'<div class="wb-title" title="{html.escape(name)}">{html.escape(self._titles[name])}</div>'
        if self._view.across == "models" or self._request is None:
            self._columns[name].value = title + "".join(cells)
        else:
            self._columns[name].value = title + _block(self._request, self._view.across, cells)


@dataclass(frozen=True)
class _Cell:
    """The place of a picture, which the page finds by its model and number."""

    model: str
    number: int
    prompt: str
    seed: int

    def drawn(self, address: str) -> str:
        """The picture with its tick and its star, or the empty place of one."""
        if not address:
            return "<div class='wb-empty'></div>"
        told = f"{self.model}\n{self.prompt}\nseed {self.seed}"
        named = html.escape(f"{self.model}: {self.prompt}, seed {self.seed}")
        image = f'<img tabindex="-1" role="button" alt="{named}" title="{html.escape(told)}" src="{address}">'
        tick = '<button type="button" class="wb-tick" tabindex="-1" aria-pressed="false" aria-label="tick to compare"></button>'
        star = '<button type="button" class="wb-star" tabindex="-1" aria-pressed="false" aria-label="star"></button>'
        return f'<div class="wb-cell" data-model="{html.escape(self.model)}" data-number="{self.number}">{image}{tick}{star}</div>'


def _block(request: Request, across: str, cells: Sequence[str]) -> str:
    """A model's pictures as a table of their own: seeds across and prompts down, or the other way."""
    prompts = [f'<div title="{html.escape(one)}" class="wb-of"><span>{html.escape(one)}</span></div>' for one in request.prompts]
    seeds = [f'<div class="wb-of"><span>seed {seed}</span></div>' for seed in request.seeds]
    columns, rows = (seeds, prompts) if across == "seeds" else (prompts, seeds)
    step, leap = (1, len(seeds)) if across == "seeds" else (len(seeds), 1)

    def lines() -> Iterator[str]:
        yield f"<div></div>{''.join(columns)}"
        for row, words in enumerate(rows):
            yield words + "".join(cells[row * leap + column * step] for column in range(len(columns)))

    widths = f"minmax(auto, 112px) repeat({len(columns)}, var(--wb-wide))"
    return f'<div class="wb-table" style="grid-template-columns: {widths}">{"".join(lines())}</div>'


def _labels(request: Request) -> str:
    several = len(request.seeds) > 1
    cells = [
        f'<div title="{html.escape(prompt)}"><span>{html.escape(prompt)}</span>{f"<small>seed {seed}</small>" if several else ""}</div>'
        for prompt, seed in request.pictures
    ]
    return f'<div class="wb-title">&nbsp;</div>{"".join(cells)}'


def _data_url(image: Image, most: int) -> str:
    """A picture as it travels: small ones to the bit, large ones as a thumbnail of at most so many pixels."""
    if max(image.size) > min(most, _EXACT):
        kind, content = "webp", webp(image, most, quality=90)
    else:
        held = io.BytesIO()
        image.save(held, "PNG", compress_level=1)
        kind, content = "png", held.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
