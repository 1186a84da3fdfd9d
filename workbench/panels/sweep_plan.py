"""`SweepPlan`: what a sweep of a panel's state comes to, before anything is drawn: cells, pictures, seconds, merges. No widget is here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from workbench.checkpoint import Checkpoint
from workbench.errors import InputError
from workbench.panels.judging import build
from workbench.panels.state import PanelState
from workbench.panels.swept import Sweepable, state_with, sweepables, values_of
from workbench.sweeps.combinations import MOST_CELLS
from workbench.wording import duration

MANY = 64  # pictures; more are asked about before they are drawn


@final
@dataclass(frozen=True)
class SweepPlan:
    """One to three options of a state with their values."""

    state: PanelState
    known: Mapping[str, Sweepable]
    values: Mapping[str, tuple[Any, ...]]

    @classmethod
    def of(cls, state: PanelState, over: Mapping[str, Any], samplers: Sequence[str]) -> SweepPlan:
        """Values are text, `"0..1 step 0.1"`, or lists. Raises InputError and RenderError, which say what is wrong with which of them."""
        known = sweepables(state, samplers)
        plan = cls(state, known, values_of(over, known))
        if plan.cells > MOST_CELLS:
            told = " x ".join(f"{len(values):,} {name}" for name, values in plan.values.items())
            raise InputError(f"a sweep of {plan.cells:,} cells ({told}): at most {MOST_CELLS:,} are drawn; take values out")
        state_with(state, {name: values[0] for name, values in plan.values.items()}, known).wanted.request()
        return plan

    @property
    def cells(self) -> int:
        """How many cells its grid has."""
        return math.prod(map(len, self.values.values()))

    @property
    def pictures(self) -> int:
        """How many pictures are drawn: the prompts and seeds that are not swept over lie within each cell."""
        asked = self.state.wanted.request()
        inner = [count for name, count in (("prompts", len(asked.prompts)), ("seeds", len(asked.seeds))) if name not in self.values]
        return self.cells * math.prod(inner)

    def seconds(self, pace: float) -> float:
        """How long it takes at so many seconds for a step of a picture."""
        steps = self.values.get("steps", (self.state.wanted.steps,))
        mean: float = sum(steps) / len(steps)
        return pace * self.pictures * mean

    def told(self, pace: float) -> str:
        """`11 x 4 = 44 cells of 2 pictures; about 3 min, judging by this panel's pictures`."""
        counts = [len(values) for values in self.values.values()]
        product = f"{' x '.join(map(str, counts))} = " if len(counts) > 1 else ""
        each = self.pictures // self.cells
        cells = f"{product}{self.cells:,} cell{'s' if self.cells > 1 else ''}" + (f" of {each} pictures" if each > 1 else "")
        if math.isnan(pace):
            return f"{cells}; how long that takes is known once this panel has drawn something"
        return f"{cells}; about {duration(self.seconds(pace))}, judging by this panel's pictures"

    @cached_property
    def merges(self) -> dict[str, tuple[Any, ...]]:
        """The values that make other merges."""
        return {name: values for name, values in self.values.items() if self.known[name].asked is None}

    @property
    def axes(self) -> list[str]:
        """The axes of its grid, as a sweep names them."""
        return [self.known[name].asked or name for name in self.values]

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked of the renderer, as a sweep takes it."""
        return self.state.wanted.asked | {name: list(values) for name, values in self.values.items() if name not in self.merges}

    def make(self, checkpoints: Mapping[str, Checkpoint], **options: Any) -> Checkpoint:
        """The merge of one combination; nothing is read. Raises InputError and OptionError with what is wrong with it."""
        state = state_with(self.state, options, self.known)
        if empty := [slot for slot, names in state.inputs.items() if not names]:
            raise InputError(f"{state.operator} needs {' and '.join(empty)}")
        return build(state, checkpoints)


def swept_state(state: PanelState, values: Mapping[str, Any], samplers: Sequence[str]) -> PanelState:
    """The state of one cell, by its values as the sweep's axes name them. Raises InputError where an option is no more."""
    known = sweepables(state, samplers)
    called = {one.asked or name: name for name, one in known.items()}
    if gone := [name for name in values if name not in called]:
        raise InputError(f"the panel has no {gone[0]} to take from this cell")
    return state_with(state, {called[name]: value for name, value in values.items()}, known)
