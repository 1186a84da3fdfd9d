"""Which picture goes where on a sheet: axes, their labels, and what lies on which. Drawing is in `sheet` and `page`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.render.request import SETTINGS

Coordinates = Mapping[str, Any]  # axis -> value, of one picture
ASKED = (*SETTINGS, "prompt", "seed")  # the axes that are not the model's


@dataclass(frozen=True)
class Axes:
    """The axes of a sheet: `x` across, `y` down, `z` one facet each; `seeds` that are no axis lie side by side within a cell, or down."""

    x: str = "model"
    y: str = "prompt"
    z: str | None = None
    seeds: str = "across"

    def __post_init__(self) -> None:
        if self.seeds not in ("across", "down"):
            raise RenderError(f"seeds must be 'across' or 'down', got {self.seeds!r}")

    def check(self, pictures: Sequence[Coordinates]) -> None:
        """Raises RenderError for an axis that the pictures do not have, or that is named twice."""
        known = list(dict.fromkeys(name for picture in pictures for name in picture))
        given = [name for name in (self.x, self.y, self.z) if name is not None]
        for name in given:
            if name not in known:
                raise RenderError(f"there is no axis {name!r}; these pictures have {', '.join(known)}")
            if given.count(name) > 1:
                raise RenderError(f"{name!r} can lie on one axis only, got x={self.x!r}, y={self.y!r}, z={self.z!r}")


@dataclass(frozen=True)
class Facet:
    """One table of pictures: `cells[row][column]` lists the pictures, by number, of each seed; None where there is none."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    seeds: tuple[str, ...]
    cells: tuple[tuple[tuple[int | None, ...], ...], ...]

    def column(self, index: int) -> list[int | None]:
        """The pictures of a column."""
        return [picture for row in self.cells for picture in row[index]]


def arrange(pictures: Sequence[Coordinates], axes: Axes) -> list[Facet]:
    """The facets of a sheet. What no axis names and still differs goes into facets of its own, but for seeds."""
    axes.check(pictures)
    named = [axes.x, axes.y]
    inner = [] if "seed" in (axes.x, axes.y, axes.z) else ["seed"]
    outer = [] if axes.z is None else [axes.z]
    known = dict.fromkeys(name for picture in pictures for name in picture)
    for name in [*(name for name in known if name != "model"), "model"]:  # a model's options tell it apart: its name comes last
        if name not in (*named, *inner, *outer) and _differs(pictures, [*named, *inner, *outer], name):
            outer.append(name)
    places = {tuple(map(picture.get, [*outer, *named, *inner])): number for number, picture in enumerate(pictures)}
    x, y = _values(pictures, axes.x), _values(pictures, axes.y)
    seeds: list[tuple[Any, ...]] = [(seed,) for seed in _values(pictures, "seed")] if inner else [()]
    return [
        Facet(
            " · ".join(map(label, outer, facet)),
            tuple(label(axes.y, value) for value in y),
            tuple(label(axes.x, value) for value in x),
            tuple(label("seed", seed[0]) if len(seeds) > 1 else "" for seed in seeds),
            tuple(tuple(tuple(places.get((*facet, across, down, *seed)) for seed in seeds) for across in x) for down in y),
        )
        for facet in _facets(pictures, outer)
    ]


def label(axis: str, value: Any) -> str:
    """A value as it stands beside pictures: `density 0.5`, `20 steps`, or the bare name of a model."""
    if axis in ("model", "prompt"):
        return str(value)
    if axis == "steps":
        return f"{value} steps"
    if value is None:
        return f"no {axis}" if axis == "negative" else f"own {axis}"
    return f"empty {axis}" if value == "" else f"{axis} {words(value)}"


def told(value: Any) -> Any:
    """A value as a coordinate: words and numbers as they are, a checkpoint by its name, everything else in words."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Checkpoint):
        return value.name
    return words(value) if isinstance(value, Mapping | list | tuple) else value


def words(value: Any) -> str:
    """A value in words, numbers without the noise of their last digits."""
    if isinstance(value, Checkpoint):  # which is a mapping too
        return value.name
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(words, value))}]"
    return f"{value:.12g}" if isinstance(value, float) else str(told(value))


def plain(value: Any) -> Any:
    """A value as JSON holds it; what JSON cannot hold, in words."""
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return told(value)


def _facets(pictures: Sequence[Coordinates], outer: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The combinations of values that there are, in the order of the axes."""
    there = {tuple(map(picture.get, outer)) for picture in pictures}
    return (facet for facet in product(*(_values(pictures, name) for name in outer)) if facet in there)


def _values(pictures: Sequence[Coordinates], axis: str) -> list[Any]:
    return list(dict.fromkeys(picture.get(axis) for picture in pictures))


def _differs(pictures: Sequence[Coordinates], named: Sequence[str], axis: str) -> bool:
    """Whether there are pictures that are told apart by `axis` alone."""
    first: dict[tuple[Any, ...], Any] = {}
    return any(first.setdefault(tuple(map(picture.get, named)), picture.get(axis)) != picture.get(axis) for picture in pictures)
