"""Which picture of a queued sweep lies where: its axes, and for each combination of their values a merge and some of its pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, final

from workbench.errors import SweepError
from workbench.render.request import SETTINGS, Request, requests

PICTURES = ("prompt", "seed", *SETTINGS)  # the axes that are asked of the renderer


@final
@dataclass(frozen=True)
class SweepAxis:
    """What is swept over: an option of the merge, or (`asked`) something of its pictures."""

    name: str
    values: tuple[Any, ...]
    asked: bool = False


@final
@dataclass(frozen=True)
class GridCell:
    """One combination: a value for each axis, the number of its merge, and the numbers of that merge's pictures."""

    values: Mapping[str, Any]
    merge: int
    pictures: tuple[int, ...]


def axes_told(names: Sequence[str], over: Mapping[str, Sequence[Any]], asked: Sequence[Request]) -> list[dict[str, Any]]:
    """Axes as data: all that is swept over, in the order of `names`. Raises SweepError for a name that is nothing of the kind."""
    values = {name: list(given) for name, given in over.items()}
    of_pictures = {name: list(dict.fromkeys(one[name] for one in _coordinates(asked))) for name in PICTURES}
    for name in names:
        if name not in values and name not in of_pictures:
            raise SweepError(f"axes: {name!r} is not swept over; there are {', '.join([*values, *of_pictures])}")
    ordered = [*names, *(name for name in values if name not in names)]
    return [{"name": name, "values": values.get(name, of_pictures.get(name)), "asked": name not in values} for name in ordered]


def axes_of(what: Mapping[str, Any]) -> list[SweepAxis]:
    """The axes of a sweep's job."""
    return [SweepAxis(one["name"], tuple(one["values"]), one["asked"]) for one in what["axes"]]


def grid_cells(what: Mapping[str, Any]) -> list[GridCell]:
    """Every combination of a sweep's job, the last axis fastest."""
    axes = axes_of(what)
    merges = {_key(cell["options"]): number for number, cell in enumerate(what["cells"])}
    pictures: dict[str, list[int]] = {}
    shown = [axis.name for axis in axes if axis.asked]
    for number, one in enumerate(_coordinates(requests(what["prompts"], what["seeds"], **what["settings"]))):
        pictures.setdefault(_key({name: one[name] for name in shown}), []).append(number)
    cells = []
    for chosen in product(*(axis.values for axis in axes)):
        values = dict(zip([axis.name for axis in axes], chosen, strict=True))
        merge = merges[_key({axis.name: values[axis.name] for axis in axes if not axis.asked})]
        cells.append(GridCell(values, merge, tuple(pictures[_key({name: values[name] for name in shown})])))
    return cells


def _coordinates(asked: Sequence[Request]) -> list[dict[str, Any]]:
    """Each picture of a merge, by request, prompt and seed, as cells keep them."""
    return [
        {"prompt": prompt, "seed": seed, **{name: getattr(request, name) for name in SETTINGS}}
        for request in asked
        for prompt, seed in request.pictures
    ]


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
