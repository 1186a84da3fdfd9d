"""Which pair tells most about the best, and how many more choices it takes to be sure. From strengths alone: how they come, is not here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SURE = 0.9  # of the top being the best
MOST_LEFT = 100  # choices that are counted ahead

_DRAWS = 1000
_CONTENDERS = 40  # the likeliest to be the best, between whom pairs are looked for
_SITTINGS = 100  # that are simulated


def draws(mean: np.ndarray, covariance: np.ndarray, count: int = _DRAWS, seed: int = 0) -> np.ndarray:
    """Strengths as they may be: a row for each draw; the same for the same numbers."""
    return np.random.default_rng(seed).multivariate_normal(mean, covariance, size=count, method="eigh")


def chances(mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """The probability of each candidate to be the best, to about 0.01."""
    drawn = draws(mean, covariance, 4 * _DRAWS)
    return np.bincount(drawn.argmax(axis=1), minlength=len(mean)) / len(drawn)


def next_pair(mean: np.ndarray, covariance: np.ndarray, seed: int) -> tuple[int, int]:
    """The pair whose comparison is expected to tell most about which candidate is the best.

    That is the mutual information of the answer and of who is the best, by draws of the strengths; the first of equals, in an order
    that `seed` shuffles. Source: the entropy search of Hennig and Schuler 2012, with pairs for points.
    """
    drawn = draws(mean, covariance, seed=seed)
    best = np.eye(len(mean))[drawn.argmax(axis=1)]  # draws x candidates
    contenders = np.argsort(-best.mean(axis=0), kind="stable")[:_CONTENDERS]
    pairs = contenders[np.stack(np.triu_indices(len(contenders), 1), axis=1)]
    first, second = np.random.default_rng(seed).permutation(pairs).T
    wins = _odds(drawn[:, first] - drawn[:, second])  # draws x pairs
    after_win, after_loss = _entropy(best.T @ wins), _entropy(best.T @ (1 - wins))  # of who is the best, by answer
    chance = wins.mean(axis=0)
    chosen = int(np.argmin(chance * after_win + (1 - chance) * after_loss))
    return int(first[chosen]), int(second[chosen])


def choices_left(mean: np.ndarray, covariance: np.ndarray) -> int:
    """About how many more choices until the top is the best with a probability of 0.9: 0 when it is; MOST_LEFT for as many or more.

    The median of simulated sittings: each takes a draw of the strengths for true, and goes on with the strongest against whoever is hardest
    to tell from it, one extended Kalman step for each choice, until all others together are less than 0.1. How that compares with what it
    takes is in benchmarks/README.md.
    """
    chance = chances(mean, covariance)
    if chance.max() >= SURE:
        return 0
    some = np.argsort(-chance, kind="stable")[:_CONTENDERS]
    mean, covariance = mean[some], covariance[np.ix_(some, some)]
    sittings = _Sittings(draws(mean, covariance, _SITTINGS, seed=1), np.tile(mean, (_SITTINGS, 1)), np.tile(covariance, (_SITTINGS, 1, 1)))
    counts, numbers = np.full(_SITTINGS, MOST_LEFT), np.random.default_rng(2)
    for count in range(1, MOST_LEFT):
        sittings.choose(numbers)
        counts = np.where(sittings.sure, np.minimum(counts, count), counts)
        if (counts < MOST_LEFT).mean() > 0.5:  # the median is known
            break
    return round(float(np.median(counts)))


@dataclass
class _Sittings:
    """People who go on choosing, each with own true strengths (a row each), and what would be known of them meanwhile."""

    true: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray

    @property
    def sure(self) -> np.ndarray:
        found: np.ndarray = self._doubts.sum(axis=1) <= 1 - SURE
        return found

    @property
    def _doubts(self) -> np.ndarray:
        """How probably each candidate is stronger than the one that leads."""
        from scipy.special import ndtr

        rows, top = np.arange(len(self.mean)), self.mean.argmax(axis=1)
        across = self.covariance[rows, top]
        variance = across[rows, top][:, None] + np.diagonal(self.covariance, axis1=1, axis2=2) - 2 * across
        doubts: np.ndarray = ndtr((self.mean - self.mean[rows, top][:, None]) / np.sqrt(np.maximum(variance, 1e-12)))
        doubts[rows, top] = 0
        return doubts

    def choose(self, numbers: np.random.Generator) -> None:
        """One choice each, between the one that leads and whoever is hardest to tell from it."""
        rows, top, rival = np.arange(len(self.mean)), self.mean.argmax(axis=1), self._doubts.argmax(axis=1)
        won = numbers.random(len(rows)) < _odds(self.true[rows, top] - self.true[rows, rival])
        expected = _odds(self.mean[rows, top] - self.mean[rows, rival])
        information = expected * (1 - expected)
        along = self.covariance[rows, top] - self.covariance[rows, rival]
        variance = along[rows, top] - along[rows, rival]
        self.mean = self.mean + along * ((won - expected) / (1 + information * variance))[:, None]
        spread = 1 / information + variance
        self.covariance = self.covariance - along[:, :, None] * along[:, None, :] / spread[:, None, None]


def _odds(gaps: np.ndarray) -> np.ndarray:
    """How often the first of two is chosen, whose strength is so far above the second's."""
    from scipy.special import expit

    found: np.ndarray = expit(gaps)
    return found


def _entropy(weights: np.ndarray) -> np.ndarray:
    """Of each column, whose weights need not add up to 1."""
    shares = weights / weights.sum(axis=0)
    found: np.ndarray = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=0)
    return found
