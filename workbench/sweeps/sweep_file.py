"""Sweeps that a file beside a recipe describes: drawn by the command, looked at meanwhile. What files of any run have is elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, StrictInt

from workbench.sweeps.combinations import MOST_CELLS
from workbench.sweeps.drawing import Outcome
from workbench.sweeps.planning import plan
from workbench.sweeps.result import Sweep
from workbench.sweeps.run_file import RunFields, ScorerFields, executor_of, found_at, listed, read, shared, varied
from workbench.sweeps.running import carry_out, sweep
from workbench.sweeps.store import kept
from workbench.sweeps.workers import Jobs


class SweepFields(RunFields):
    """A file that describes a sweep: `over` are options of the recipe's outer operator, as `sweep` takes them."""

    workbench_sweep: Literal[1]
    over: Mapping[str, list[JsonValue]] | list[Mapping[str, JsonValue]]
    score: Annotated[list[ScorerFields], BeforeValidator(listed)] | None = None
    cells: Annotated[StrictInt, Field(ge=1)] = MOST_CELLS


def draw_sweep(path: str | os.PathLike[str]) -> Sweep:
    """Draw the sweep that a file describes, by whom it says, with a bar on the terminal.

    Raises SweepError and RecipeError, which name the file and the field, before anything is drawn; and what `sweep` raises.
    """
    fields, asked = _described(path)
    with executor_of(fields.executor) as executor:
        return sweep(**asked, executor=executor, cells=fields.cells)


def open_sweep(path: str | os.PathLike[str]) -> Sweep:
    """What is drawn by now of the sweep that a file describes, scored; its other cells say that they are not drawn yet.

    Nothing is drawn, and nobody who draws meanwhile is disturbed. Raises SweepError and RecipeError, which name the file and the field.
    """
    _, asked = _described(path)
    return carry_out(plan(**asked, progress=False), _looked, progress=False)


def _described(path: str | os.PathLike[str]) -> tuple[SweepFields, dict[str, Any]]:
    """What a file says, and the arguments of a sweep that this is."""
    place = found_at(path)
    fields = read(place, SweepFields)
    make = varied(fields, place)
    cells = [fields.over] if isinstance(fields.over, Mapping) else fields.over
    make.check(dict.fromkeys(name for cell in cells for name in cell), f"{place}: over")
    score = None if fields.score is None else [one.made(place.parent) for one in fields.score]
    return fields, {"make": make, "over": fields.over, "score": score, **shared(fields, place, make)}


def _looked(jobs: Jobs) -> Iterator[tuple[int, Outcome]]:
    for number, job in jobs.items():
        yield number, Outcome() if kept(job.folder, job.count) else Outcome(problem="not drawn yet")
