"""`SweepGrid`: the pictures of a queued sweep as they are drawn, on labelled axes, with a heat map of scores beside them.

What the browser draws is in `sweep_grid.js`; the job's data are read from disk, and whoever works it off is elsewhere.
"""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import anywidget
import numpy as np
import traitlets
from PIL import Image, ImageOps

from workbench.panels.callbacks import on_message
from workbench.render.axes import label, words
from workbench.render.scorers import ParentDistance
from workbench.sweeps.queue_jobs import QueueJob
from workbench.sweeps.store import StoredPictures
from workbench.sweeps.sweep_cells import GridCell, axes_of, grid_cells

_HERE = Path(__file__).parent
_EDGE = 112  # pixels of a cell's longer edge
_TILED = 4  # pictures of a cell that are shown in it
MOVED = "distance to the first cell"


@final
class SweepGrid(anywidget.AnyWidget):
    """Shows one sweep at a time; `taken(job, values)` is told which cell a person clicked, `closed()` that it is to go away.

    `column` is what the heat map shows: a score, or how far pictures are from those of the first cell (0 same, to 1); empty shows none.
    """

    _esm = _HERE / "sweep_grid.js"
    _css = _HERE / "sweep_grid.css"

    shown = traitlets.Unicode(read_only=True).tag(sync=True)  # the id of the job
    title = traitlets.Unicode(read_only=True).tag(sync=True)
    facets: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)  # title, names of rows and columns, numbers of cells
    axes = traitlets.List(traitlets.Unicode(), read_only=True).tag(sync=True)  # across, down, facets
    told: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)  # of each cell: its name, its problem
    scores: traitlets.Dict[str, Any] = traitlets.Dict(read_only=True).tag(sync=True)  # column -> a number for each cell, or None
    column = traitlets.Unicode().tag(sync=True)
    said = traitlets.Unicode(read_only=True).tag(sync=True)

    def __init__(self, taken: Callable[[QueueJob, Mapping[str, Any]], None], closed: Callable[[], None]) -> None:
        self._taken, self._closed = taken, closed
        self._alone = threading.RLock()  # between the threads of the kernel and the one that looks at the queue
        self._job: QueueJob | None = None
        self._cells: list[GridCell] = []
        self._thumbnails: dict[int, bytes] = {}
        self._moved: dict[int, float] = {}
        self._lost: set[int] = set()  # cells that are drawn, and whose pictures cannot be read
        super().__init__()
        on_message(self, self._asked)

    @property
    def job(self) -> QueueJob | None:
        """The sweep that is shown."""
        return self._job

    def show(self, job: QueueJob) -> None:
        """Show a sweep as it is by now; what was shown of it stays."""
        with self._alone:
            self._show(job)

    def _show(self, job: QueueJob) -> None:
        if self._job is None or self._job.id != job.id:
            self._begin(job)
        self._job = job
        found = {int(number): one for number, one in job.results.items()}
        fresh = [number for number in range(len(self._cells)) if number not in self._thumbnails and _drawn(found.get(number))]
        for number in fresh:
            self._read(number, found)
        with self.hold_sync():
            self.set_trait("scores", self._columns(found))
            self.set_trait("told", [self._tells(number, found.get(number)) for number in range(len(self._cells))])
            done = len(self._thumbnails)
            self.set_trait("said", f"{done:,} of {len(self._cells):,} cells · click one: the panel takes its state")
        self._show_pictures(fresh)

    def hide(self) -> None:
        """Show nothing any more."""
        self._job, self._cells = None, []

    def take(self, number: int) -> None:
        """Give the panel the state of a cell, by its number."""
        if self._job is not None and 0 <= number < len(self._cells):
            self._taken(self._job, self._cells[number].values)

    def _begin(self, job: QueueJob) -> None:
        self._cells, self._thumbnails, self._moved, self._lost = grid_cells(job.what), {}, {}, set()
        names = [axis.name for axis in axes_of(job.what)]
        with self.hold_sync():
            self.set_trait("shown", job.id)
            self.set_trait("title", job.title)
            self.set_trait("told", [self._tells(number, None) for number in range(len(self._cells))])
            self.set_trait("scores", {})
            self.set_trait("axes", names)
            self.set_trait("facets", _facets(job.what))

    def _read(self, number: int, found: Mapping[int, Any]) -> None:
        """Take in a cell's pictures: as one thumbnail, and how far they are from the first cell's."""
        try:
            images = self._pictures(number, found)
            self._thumbnails[number] = _thumbnail(images[:_TILED])
            first = self._pictures(0, found) if _drawn(found.get(0)) else []
            if len(first) == len(images) and first[0].size == images[0].size:
                (moved,) = ParentDistance("first")(images, first).values()
                self._moved[number] = float(np.mean(moved))
            self._lost.discard(number)
        except Exception:  # a picture that is gone or damaged
            self._thumbnails.pop(number, None)
            self._lost.add(number)

    def _pictures(self, number: int, found: Mapping[int, Any]) -> list[Image.Image]:
        told = found[number]
        return list(StoredPictures(Path(told["folder"]), told["count"]))

    def _columns(self, found: Mapping[int, Any]) -> dict[str, list[float | None]]:
        """Each score's mean over the pictures of each cell."""
        names = dict.fromkeys(name for one in found.values() for name in one["scores"])
        columns = {name: [_mean(found.get(number), name) for number in range(len(self._cells))] for name in names}
        return columns | ({MOVED: [self._moved.get(number) for number in range(len(self._cells))]} if self._moved else {})

    def _tells(self, number: int, found: Mapping[str, Any] | None) -> dict[str, str]:
        """What a cell is, and why it shows no picture."""
        name = " · ".join(label(axis, value) for axis, value in self._cells[number].values.items())
        lost = "its pictures are gone or damaged; have the job done again, and they are drawn anew" if number in self._lost else ""
        return {"name": name, "problem": lost or ("" if found is None or found["folder"] else found["problem"])}

    def _show_pictures(self, numbers: Sequence[int]) -> None:
        self.send({"cells": list(numbers)}, buffers=[self._thumbnails[number] for number in numbers if number in self._thumbnails])

    def _asked(self, content: Mapping[str, Any], buffers: Sequence[object]) -> None:
        """What a page wants: all pictures, since it was just opened; a cell's state; to be rid of this."""
        if content.get("do") == "all":
            self._show_pictures(list(self._thumbnails))
        elif content.get("do") == "take":
            self.take(int(content["cell"]))
        elif content.get("do") == "close":
            self._closed()


def _facets(what: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first axis lies across, the second down, the third makes a table for each of its values."""
    axes = axes_of(what)
    sizes = [len(axis.values) for axis in axes] + [1] * (3 - len(axes))
    across, down, outer = ([words(value) for value in axis.values] for axis in axes) if len(axes) == 3 else _padded(axes)

    def number(x: int, y: int, z: int) -> int:
        return (x * sizes[1] + y) * sizes[2] + z

    return [
        {
            "title": f"{axes[2].name} {title}" if len(axes) == 3 else "",
            "columns": across,
            "rows": down,
            "cells": [[number(x, y, z) for x in range(sizes[0])] for y in range(sizes[1])],
        }
        for z, title in enumerate(outer)
    ]


def _padded(axes: Sequence[Any]) -> list[list[str]]:
    """The values of one or two axes in words, and one without a name for each that is missing."""
    told = [[words(value) for value in axis.values] for axis in axes]
    return [*told, *([[""]] * (3 - len(told)))]


def _drawn(found: Mapping[str, Any] | None) -> bool:
    return found is not None and bool(found["folder"])


def _mean(found: Mapping[str, Any] | None, column: str) -> float | None:
    if found is None or column not in found["scores"]:
        return None
    finite = [value for value in found["scores"][column] if isinstance(value, (int, float)) and math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def _thumbnail(images: Sequence[Image.Image]) -> bytes:
    """One picture, or up to four side by side, as one small WebP file."""
    columns = 1 if len(images) == 1 else 2
    edge = _EDGE // columns
    sheet = Image.new("RGBA", (edge * columns, edge * math.ceil(len(images) / columns)))
    for place, image in enumerate(images):
        small = ImageOps.contain(image.convert("RGB"), (edge, edge))
        left, above = place % columns * edge + (edge - small.width) // 2, place // columns * edge + (edge - small.height) // 2
        sheet.paste(small, (left, above))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()
