"""A Gaussian process for strengths that are only known by choices: what points of the unit cube are worth, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import final

import numpy as np

from workbench.preferences.duels import Duel

_LENGTHS = (0.1, 0.2, 0.3, 0.5, 0.9)  # over which strengths change, as shares of the cube's diagonal
_DEVIATIONS = (1.0, 2.0, 4.0)  # of strengths, in log-odds
_USUAL = (0.3, 2.0)  # the middles of their priors, ...
_SPREAD = (0.7, 0.6)  # ... and the deviations of these, in logarithms
_JITTER = 1e-6
_STEPS = 50


@final
@dataclass(frozen=True, eq=False)
class Surrogate:
    """The posterior of strengths, given choices between `points`: the most probable strengths are `root` times `whitened`."""

    points: np.ndarray
    length: float
    deviation: float
    root: np.ndarray  # of the prior's covariance
    whitened: np.ndarray
    precision: np.ndarray  # of `whitened`
    evidence: float

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the strengths at other points, or the same."""
        across = self._across(points)
        prior = self.deviation**2 * _matern(points, points, self.length)
        return across.T @ self.whitened, prior - across.T @ across + across.T @ np.linalg.solve(self.precision, across)

    def gains(self, points: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of how much stronger each of many points is than `best`, one point."""
        across, own = self._across(points), self._across(best[None])
        beside = across - own
        prior = 2 * self.deviation**2 * (1 - _matern(points, best[None], self.length)[:, 0])
        variance = prior - (beside**2).sum(axis=0) + (beside * np.linalg.solve(self.precision, beside)).sum(axis=0)
        return beside.T @ self.whitened, np.sqrt(np.maximum(variance, _JITTER))

    def _across(self, points: np.ndarray) -> np.ndarray:
        from scipy.linalg import solve_triangular

        count = len(self.points)  # the bar comes after them, and goes with no other point
        prior = np.zeros((len(self.root), len(points)))
        prior[:count] = self.deviation**2 * _matern(self.points, points, self.length)
        found: np.ndarray = solve_triangular(self.root, prior, lower=True)
        return found


def fit_surrogate(points: np.ndarray, duels: Sequence[Duel]) -> Surrogate:
    """The surrogate of `points` (rows in the unit cube), whose numbers duels go by; the bar's is the one after the last.

    A Matern 5/2 kernel, the logistic likelihood of Bradley and Terry with half wins for ties, Laplace's approximation; length and deviation
    are the most probable of a small grid. Source: Chu and Ghahramani 2005, "Preference learning with Gaussian processes", section 2, with
    the logistic for their probit; Rasmussen and Williams 2006, algorithm 3.1.
    """
    bar = any(len(points) in (duel.first, duel.second) for duel in duels)
    diagonal = np.sqrt(points.shape[1])
    fits = [_laplace(points, duels, length * diagonal, deviation, bar) for length, deviation in product(_LENGTHS, _DEVIATIONS)]
    return max(fits, key=lambda fit: fit.evidence + _prior(fit.length / diagonal, fit.deviation))


def _laplace(points: np.ndarray, duels: Sequence[Duel], length: float, deviation: float, bar: bool) -> Surrogate:
    from scipy.special import expit, log_expit

    count = len(points) + bar
    prior = deviation**2 * np.eye(count)
    prior[: len(points), : len(points)] = deviation**2 * _matern(points, points, length)
    root = np.linalg.cholesky(prior + _JITTER * deviation**2 * np.eye(count))
    contrast = root[[duel.first for duel in duels]] - root[[duel.second for duel in duels]]
    shares = np.array([duel.share for duel in duels])
    whitened, precision = np.zeros(count), np.eye(count)
    for _ in range(_STEPS):  # Newton's method: the posterior has one mode
        odds = expit(contrast @ whitened)
        precision = np.eye(count) + contrast.T @ (contrast * (odds * (1 - odds))[:, None])
        step = np.linalg.solve(precision, contrast.T @ (shares - odds) - whitened)
        whitened = whitened + step
        if np.abs(step).max() < 1e-6:
            break
    gaps = contrast @ whitened
    likelihood = (shares * log_expit(gaps) + (1 - shares) * log_expit(-gaps)).sum()
    evidence = float(likelihood - whitened @ whitened / 2 - np.linalg.slogdet(precision)[1] / 2)
    return Surrogate(points, length, deviation, root, whitened, precision, evidence)


def _matern(first: np.ndarray, second: np.ndarray, length: float) -> np.ndarray:
    """Matern's 5/2 correlation of rows with rows."""
    squares = ((first[:, None] - second[None]) ** 2).sum(axis=-1)
    distance = np.sqrt(5 * squares) / length
    found: np.ndarray = (1 + distance + distance**2 / 3) * np.exp(-distance)
    return found


def _prior(length: float, deviation: float) -> float:
    """The logarithm of how probable these are before anything is chosen."""
    far = [np.log(value / usual) / spread for value, usual, spread in zip((length, deviation), _USUAL, _SPREAD, strict=True)]
    return -float(np.square(far).sum()) / 2
