"""`BlockMap`: what each block of a model does to its pictures, as one frame and one figure. Nothing is drawn here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from workbench.errors import SweepError
from workbench.figures.results import Result
from workbench.render.scorers import ParentDistance, spread
from workbench.sweeps.result import Cell, Sweep

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

ALONE, LEFT_OUT = "alone", "left out"
BASE, TUNED = "no block", "every block"  # of the tuned model: what all others are compared with
DISTANCE = "distance"


@dataclass(frozen=True)
class Effect:
    """What a block does, `alone` or `left out`: the mean over pictures, its standard deviation between seeds, or why there is none."""

    block: str
    way: str
    effect: float
    spread: float
    score: float
    problem: str = ""


@final
@dataclass(frozen=True, repr=False)
class BlockMap(Result):
    """What each block does; `names` are those of base and tuned model, `same` the blocks in which they do not differ.

    `components` are those of the places that are no blocks, but components as wholes.
    """

    names: tuple[str, str]
    effects: tuple[Effect, ...]
    same: tuple[str, ...]
    sweep: Sweep  # the pictures: `sweep.grid()` shows them
    components: tuple[str, ...] = ()

    @property
    def that_matter(self) -> list[str]:
        """The blocks whose effect, alone or left out, is larger than its deviation between seeds: what is worth a number of its own.

        A search takes them as they are, as in `{"weights": {"blocks": block_map.that_matter}}`. Of one seed, those that have an effect.
        """
        blocks = [one for one in self.effects[1:] if one.block not in self.components and math.isfinite(one.effect)]
        return list(dict.fromkeys(one.block for one in blocks if abs(one.effect) > (one.spread if math.isfinite(one.spread) else 0)))

    @property
    def measure(self) -> str:
        """What was measured: the scorer's column, or `distance`."""
        return next(iter(self.sweep.scores), DISTANCE)

    def frame(self) -> pd.DataFrame:
        """A row for each `block` and `way` (`alone`, `left out`), first `every block` together, last the blocks that are the same.

        Columns: `block`, `way`, `effect` (mean over prompts and seeds), `spread` (its standard deviation between seeds; NaN for one),
        `score` (mean of the pictures drawn; with no scorer NaN), `problem` (why there is no effect).
        """
        import pandas as pd

        same = [Effect(block, way, 0.0, 0.0, math.nan) for block in self.same for way in (ALONE, LEFT_OUT)]
        return pd.DataFrame([vars(one) for one in (*self.effects, *same)])

    def plot(self) -> go.Figure:
        """A pair of bars for each block in which the models differ: its effect alone, and where it is left out."""
        import pandas as pd

        from workbench import figures

        whole, *blocks = self.effects
        base, tuned = self.names
        told = f"alone: {base} with this block of {tuned}; left out: what {tuned} loses without it. Every block: {whole.effect:.3g}."
        told += f" The same in both: {', '.join(self.same)}." if self.same else ""
        told += " Lines: standard deviation between seeds." if math.isfinite(whole.spread) else ""
        frame = pd.DataFrame([vars(one) for one in blocks])
        x_title = "how far pictures move (0 to 1)" if self.measure == DISTANCE else f"{self.measure} gained"
        names = {"y": "block", "x": "effect", "colour": "way", "spread": "spread"}
        return figures.bar_groups(frame, **names, title=f"What each block of {tuned} does", told=told, x_title=x_title)

    @property
    def headline(self) -> str:
        """The blocks that do most."""
        known = [one for one in self.effects[1:] if one.way == ALONE and math.isfinite(one.effect)]
        most = sorted(known, key=lambda one: -abs(one.effect))[:3]
        told = ", ".join(f"{one.block} {one.effect:.3g}" for one in most) or "nothing could be drawn"
        failed = sum(bool(one.problem) for one in self.effects)
        return f"{self.measure} by block alone: {told}; every block {self.effects[0].effect:.3g}{f'; {failed} problems' if failed else ''}"


def measured(sweep: Sweep, scored: bool) -> Iterator[Effect]:
    """The effect of each cell, of every block together first. Raises SweepError where there is nothing to compare with."""
    base, tuned, *cells = sweep.cells
    for cell in (base, tuned):
        if cell.problem:
            raise SweepError(f"block_map: the model with {cell.options['block']} cannot be drawn and scored: {cell.problem}")
    if scored and (len(sweep.scores) != 1 or not all(np.issubdtype(values.dtype, np.number) for values in sweep.scores.values())):
        raise SweepError(f"block_map: scorer must give one number for each picture; it gives {', '.join(sweep.scores) or 'none'}")
    seeds = [seed for request in sweep.requests for _, seed in request.pictures]
    for cell in (tuned, *cells):
        yield _effect(cell, base, tuned, seeds)


def _effect(cell: Cell, base: Cell, tuned: Cell, seeds: Sequence[int]) -> Effect:
    block, way = cell.options["block"], cell.options["way"]
    if cell.problem:
        return Effect(block, way, math.nan, math.nan, math.nan, cell.problem)
    if not cell.scores:
        origin = base if way == ALONE else tuned
        (moved,) = ParentDistance("other")(cell.pictures, origin.pictures).values()
        return Effect(block, way, *spread(moved, seeds), math.nan)
    own, before, after = (next(iter(one.scores.values())) for one in (cell, base, tuned))
    gained = own - before if way == ALONE else after - own
    return Effect(block, way, *spread(gained, seeds), spread(own, seeds)[0])
