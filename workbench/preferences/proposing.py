"""Where in a space the next merge should lie: points as rows of the unit cube, and the one that may be better than the best so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from workbench.preferences.pairing import draws
from workbench.preferences.surrogate import Surrogate
from workbench.searches.space import Dimension, Point, SearchSpace

_FIRST = 16  # points that lie apart, of which the first two are taken that can be drawn
_ANYWHERE, _NEAR = 1000, 300  # points that are looked at: all over the space, and around the best
_STEPS = (0.1, 0.03)  # how far around it, as shares of the space
_ROUNDED = 1e-6  # how far values lie from where they were meant, at most
_STILL = 400  # points of which the best is what there may be at most


@final
@dataclass(frozen=True)
class Cube:
    """A space as the unit cube: a column for each number (in logarithms where it is varied so), and one for each choice.

    A point's value for choices is the number of the chosen one, so that it can be kept as data whatever is chosen from.
    """

    space: SearchSpace

    def row(self, point: Point) -> np.ndarray:
        """Where a point lies; two that differ in one choice are 1 apart, as the ends of a number are."""
        return np.concatenate([_columns(one, point[one.name]) for one in self.space.dimensions])

    def options(self, point: Point) -> dict[str, Any]:
        """What a point means for the merge."""
        chosen = {one.name: one.choices[point[one.name]] if one.choices else point[one.name] for one in self.space.dimensions}
        return self.space.options(chosen)

    def holds(self, point: Point) -> bool:
        """Whether a point lies in this space, and not in one of other names, bounds or choices."""
        return set(point) == {one.name for one in self.space.dimensions} and all(
            _holds(one, point[one.name]) for one in self.space.dimensions
        )

    def spread(self, seed: int) -> list[Point]:
        """A few points all over the space, each once, to begin with."""
        from scipy.stats import qmc

        shares = qmc.Sobol(len(self.space.dimensions), rng=np.random.default_rng(seed)).random(_FIRST)
        return _each_once(map(self._point, shares))

    def pool(self, best: Point, seed: int) -> list[Point]:
        """Points to choose from, each once: all over the space, and more of them around the best so far."""
        numbers, middle = np.random.default_rng(seed), self._shares(best)
        around = [middle + step * numbers.normal(size=(_NEAR, len(middle))) for step in _STEPS]
        rows = np.clip(np.concatenate([numbers.random((_ANYWHERE, len(middle))), *around]), 0, 1)
        return _each_once(map(self._point, rows))

    def _point(self, shares: Sequence[float]) -> dict[str, Any]:
        """The point that lies so far along each dimension."""
        return {
            one.name: min(int(share * len(one.choices)), len(one.choices) - 1) if one.choices else one.fitted(one.at(float(share)))
            for one, share in zip(self.space.dimensions, shares, strict=True)
        }

    def _shares(self, point: Point) -> np.ndarray:
        return np.array(
            [(point[one.name] + 0.5) / len(one.choices) if one.choices else _share(one, point[one.name]) for one in self.space.dimensions]
        )


def proposal(surrogate: Surrogate, cube: Cube, best: Point, left_out: Sequence[Point], seed: int) -> Point | None:
    """The point whose picture is worth most beside that of the best so far; None when there is none that was not tried.

    It has the largest expected utility of the better of the two, which for a fixed best is expected improvement over it.
    Source: Astudillo, Lin, Bakshy and Frazier 2023, arXiv:2303.15746 (qEUBO), section 4, for pairs with the best so far.
    """
    from scipy.special import ndtr

    pool = [point for point in cube.pool(best, seed) if point not in left_out]
    if not pool:
        return None
    mean, deviation = surrogate.gains(np.stack([cube.row(point) for point in pool]), cube.row(best))
    far = mean / deviation
    improvement = mean * ndtr(far) + deviation * np.exp(-(far**2) / 2) / math.sqrt(2 * math.pi)
    return pool[int(improvement.argmax())]


def still_to_win(surrogate: Surrogate, cube: Cube, best: Point, seed: int) -> float:
    """How often the best there may be in the space would be chosen over the best so far: from 0.5, when there is nothing to win, to 1."""
    pool = cube.pool(best, seed)
    some = [pool[int(number)] for number in np.linspace(0, len(pool) - 1, min(_STILL, len(pool)))]
    mean, covariance = surrogate(np.stack([cube.row(point) for point in [best, *some]]))
    drawn = draws(mean, covariance, 200, seed)
    return float((1 / (1 + np.exp(drawn[:, 0] - drawn.max(axis=1)))).mean())


def _each_once(points: Iterable[Point]) -> list[Point]:
    return list({tuple(point.values()): point for point in points}.values())


def _holds(dimension: Dimension, value: Any) -> bool:
    if dimension.choices:
        return value in range(len(dimension.choices))
    return isinstance(value, int | float) and dimension.low - _ROUNDED <= value <= dimension.high + _ROUNDED


def _columns(dimension: Dimension, value: Any) -> np.ndarray:
    if not dimension.choices:
        return np.array([_share(dimension, value)])
    column = np.zeros(len(dimension.choices))
    column[value] = 1 / math.sqrt(2)
    return column


def _share(dimension: Dimension, value: float) -> float:
    """How far a value lies from `low` to `high`: the inverse of `Dimension.at`."""
    if dimension.log:
        return math.log(value / dimension.low) / math.log(dimension.high / dimension.low)
    return (value - dimension.low) / (dimension.high - dimension.low)
