"""`ComparePanel`: two pictures out of several under one slider. What the browser draws of them is in `compare.js`."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import anywidget
import traitlets

from workbench.errors import InputError, OptionError
from workbench.panels.callbacks import on_change
from workbench.render import Grid
from workbench.render.axes import ASKED

if TYPE_CHECKING:
    from PIL.Image import Image

    Results = Grid | Mapping[str, Image | Sequence[Image] | Grid]

_HERE = Path(__file__).parent
_FORMS = 'a grid, or a mapping of two or more names to pictures, as in {"heart": picture, "moon": other}'


@final
class ComparePanel(anywidget.AnyWidget):
    """Two pictures under a curtain, side by side, in turn, or as their difference; zoom and pan are the same for both.

    `results` is a grid (then model, prompt and seed are chosen from it), or maps names to pictures, to lists of pictures
    that correspond, or to grids, whose sheets are compared. Every choice is an attribute too: `left` and `right` are
    names; `place` counts, from 0, along each of `axes`, such as the prompts and the seeds; `view` is `"curtain"`,
    `"side by side"`, `"flicker"` or `"difference"`; `position` is where the curtain hangs, `pace` the seconds that
    flicker shows each picture, `gain` what the difference is multiplied by; `zoom` is 1 where the pictures fit, and
    `centre` the point of them, as shares of width and height, that is in the middle.

    Raises InputError for results that cannot be compared, OptionError for a choice that is not there.
    """

    _esm = _HERE / "compare.js"
    _css = _HERE / "compare.css"

    names = traitlets.List(traitlets.Unicode(), read_only=True).tag(sync=True)
    axes: traitlets.List[Any] = traitlets.List(read_only=True).tag(sync=True)  # pairs of an axis's name and its labels
    pictures = traitlets.List(traitlets.Bytes(), read_only=True).tag(sync=True)  # left and right as PNG files
    left = traitlets.Unicode().tag(sync=True)
    right = traitlets.Unicode().tag(sync=True)
    place = traitlets.List(traitlets.Int()).tag(sync=True)
    view = traitlets.Enum(["curtain", "side by side", "flicker", "difference"], "curtain").tag(sync=True)
    position = traitlets.Float(0.5, min=0, max=1).tag(sync=True)
    pace = traitlets.Float(0.5, min=0.2, max=2).tag(sync=True)
    gain = traitlets.Int(8, min=1, max=64).tag(sync=True)
    zoom = traitlets.Float(1, min=1, max=32).tag(sync=True)
    centre = traitlets.Tuple(traitlets.Float(), traitlets.Float(), default_value=(0.5, 0.5)).tag(sync=True)

    def __init__(self, results: Results) -> None:
        self._table = _table(results)
        super().__init__()
        first, second, *_ = self._table.names
        self.set_trait("names", self._table.names)
        self.set_trait("axes", self._table.axes)
        self.set_trait("place", [0] * len(self._table.axes))
        self.set_trait("left", first)
        self.set_trait("right", second)
        self._send_pictures()
        on_change(self, self._send_pictures, ["left", "right", "place"])

    def close(self) -> None:
        """Take it down, and let go of its pictures."""
        if self.comm is not None:
            super().close()
            self._table = _Table(self._table.names, self._table.axes, _closed)
            self.set_trait("pictures", [])

    @traitlets.validate("left", "right")
    def _is_a_name(self, proposal: dict[str, Any]) -> str:
        if proposal["value"] not in self._table.names:
            raise OptionError(f"ComparePanel: {proposal['trait'].name} must be one of {self._table.names}, got {proposal['value']!r}")
        name: str = proposal["value"]
        return name

    @traitlets.validate("place")
    def _is_a_place(self, proposal: dict[str, Any]) -> list[int]:
        sizes = [len(labels) for _, labels in self._table.axes]
        place: list[int] = proposal["value"]
        if len(place) != len(sizes) or not all(0 <= index < size for index, size in zip(place, sizes, strict=True)):
            raise OptionError(f"ComparePanel: place must be {len(sizes)} whole numbers, each from 0 and below {sizes}, got {place}")
        return place

    def _send_pictures(self, change: object = None) -> None:
        chosen = [self._table.picture(name, tuple(self.place)) for name in (self.left, self.right)]
        self.set_trait("pictures", [_png(picture) for picture in chosen])


@dataclass(frozen=True)
class _Table:
    """What there is to choose from: names, further axes with their labels, and the picture at each place."""

    names: list[str]
    axes: list[tuple[str, list[str]]]
    picture: Callable[[str, tuple[int, ...]], Image]


def _table(results: Results) -> _Table:
    """Any form of results as a table. Raises InputError."""
    if isinstance(results, Grid):
        table = _of_grid(results)
    elif isinstance(results, Mapping):
        table = _of_mapping({str(name): _pictures(str(name), value) for name, value in results.items()})
    else:
        raise InputError(f"ComparePanel: results must be {_FORMS}; got {type(results).__name__}")
    return table


def _of_grid(grid: Grid) -> _Table:
    """The models that drew, and what all were asked; pictures are read when they are chosen."""
    each = len(grid.images) // len(grid.models)
    begins = {model.name: number * each for number, model in enumerate(grid.models) if not model.problem}
    _check_names(begins)
    asked = [{axis: picture[axis] for axis in ASKED if axis in picture} for picture in grid.pictures[:each]]
    axes = {axis: list(dict.fromkeys(picture[axis] for picture in asked)) for axis in asked[0]}

    def picture(name: str, place: tuple[int, ...]) -> Image:
        chosen = {axis: values[index] for (axis, values), index in zip(axes.items(), place, strict=True)}
        return grid.images[begins[name] + asked.index(chosen)]

    return _Table(list(begins), [(axis, [str(value) for value in values]) for axis, values in axes.items()], picture)


def _of_mapping(pictures: dict[str, list[Image]]) -> _Table:
    _check_names(pictures)
    _check(pictures)
    count = len(next(iter(pictures.values())))
    axes = [("picture", [str(number + 1) for number in range(count)])]
    return _Table(list(pictures), axes, lambda name, place: pictures[name][place[0]])


def _pictures(name: str, value: object) -> list[Image]:
    from PIL.Image import Image

    if isinstance(value, Grid):
        return [value.plot()]
    pictures = [value] if isinstance(value, Image) else value
    if isinstance(pictures, Sequence) and pictures and all(isinstance(picture, Image) for picture in pictures):
        return list(pictures)
    raise InputError(f"ComparePanel: {name!r} must be a Pillow picture, a list of them, or a grid; got {value!r:.80}")


def _check_names(names: Collection[str]) -> None:
    if len(names) < 2:
        raise InputError(f"ComparePanel: two results are needed, got {len(names)} ({', '.join(names) or 'none'}); give {_FORMS}")


def _check(pictures: dict[str, list[Image]]) -> None:
    """Each name has as many pictures, and those that meet under the slider have the same shape."""
    first, *others = pictures
    for other in others:
        if len(pictures[first]) != len(pictures[other]):
            counts = f"{first!r} has {len(pictures[first])} pictures and {other!r} has {len(pictures[other])}"
            raise InputError(f"ComparePanel: {counts}; give each name as many, in the same order")
        for one, two in zip(pictures[first], pictures[other], strict=True):
            if not math.isclose(one.width / one.height, two.width / two.height, rel_tol=0.01):
                sizes = f"{first!r} is {one.width} x {one.height} pixels and {other!r} is {two.width} x {two.height}"
                raise InputError(f"ComparePanel: {sizes}; what lies under one slider needs one shape: crop one of them")


def _closed(name: str, place: tuple[int, ...]) -> Image:
    raise InputError("ComparePanel: it is closed, and has no pictures any more")


def _png(picture: Image) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
