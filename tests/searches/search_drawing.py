"""Stands in for drawing: cells whose scores are a function of their options, without any pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.render.request import Request
from workbench.sweeps.result import Cell, Sweep

Value = Callable[[Mapping[str, Any], str, int], float]


class Drawing:
    """Stands in for sweeps: the column `worth` has what `value` says of options, prompt and seed; an exception is the cell's problem."""

    def __init__(self, prompts: Sequence[str], value: Value) -> None:
        self.prompts, self.value = prompts, value
        self.asked: list[tuple[Mapping[str, Any], tuple[int, ...]]] = []

    def __call__(self, options: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> Sweep:
        self.asked += [(one, tuple(seeds)) for one in options]
        return Sweep(tuple(self._cell(one, seeds) for one in options), (Request.of(self.prompts, seeds),), Path("nowhere"), 0)

    def _cell(self, options: Mapping[str, Any], seeds: Sequence[int]) -> Cell:
        try:
            worth = [self.value(options, prompt, seed) for prompt in self.prompts for seed in seeds]
        except ArithmeticError as error:
            return Cell(options, problem=str(error))
        return Cell(options, drawn=True, scores={"worth": np.array(worth)})


def worth(images, prompts):
    """Is never called: what cells are worth is `Drawing`'s."""
    raise NotImplementedError
