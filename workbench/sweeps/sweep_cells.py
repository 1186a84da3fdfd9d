"""What each cell of a queued sweep is: a value for each axis, the merge, and what is asked of the renderer for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, final

from workbench.errors import SweepError
from workbench.render.request import SETTINGS

_LISTS = {"prompt": "prompts", "seed": "seeds"}  # axis -> the argument that has its values
PICTURES = (*_LISTS, *SETTINGS)  # the axes that are asked of the renderer


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
    """One combination: a value for each axis, the number of its merge, and what `sweep` is asked for to draw it."""

    values: Mapping[str, Any]
    merge: int
    asked: Mapping[str, Any]


def axes_told(names: Sequence[str], over: Mapping[str, Sequence[Any]], asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Axes as data: all that is swept over, in the order of `names`. Raises SweepError for a name that is nothing of the kind."""
    for name in names:
        if name not in over and name not in PICTURES:
            raise SweepError(f"axes: {name!r} is not swept over; there are {', '.join([*over, *PICTURES])}")
    ordered = dict.fromkeys([*names, *over])
    return [{"name": name, "values": list(over.get(name, _listed(asked, name))), "asked": name not in over} for name in ordered]


def axes_of(what: Mapping[str, Any]) -> list[SweepAxis]:
    """The axes of a sweep's job."""
    return [SweepAxis(one["name"], tuple(one["values"]), one["asked"]) for one in what["axes"]]


def grid_cells(what: Mapping[str, Any]) -> list[GridCell]:
    """Every combination of a sweep's job, the last axis fastest."""
    axes = axes_of(what)
    merges = {_key(cell["options"]): number for number, cell in enumerate(what["cells"])}
    cells = []
    for chosen in product(*(axis.values for axis in axes)):
        values = dict(zip([axis.name for axis in axes], chosen, strict=True))
        merge = merges[_key({axis.name: values[axis.name] for axis in axes if not axis.asked})]
        own = {axis.name: values[axis.name] for axis in axes if axis.asked}
        cells.append(GridCell(values, merge, {**what["asked"], **{_LISTS.get(name, name): _one(name, own[name]) for name in own}}))
    return cells


def _listed(asked: Mapping[str, Any], name: str) -> list[Any]:
    """The values of something that is asked of the renderer."""
    given = asked.get(_LISTS.get(name, name))
    return list(given) if isinstance(given, list | tuple) else [given]


def _one(name: str, value: Any) -> Any:
    return [value] if name in _LISTS else value


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
