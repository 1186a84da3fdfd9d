"""Which pair tells most about the best, and how many more choices it takes to be sure. From strengths alone: how they come, is not here."""

from __future__ import annotations

import numpy as np

SURE = 0.9  # of the top being the best
MOST_LEFT = 100  # choices that are counted ahead

_DRAWS = 1000
_CONTENDERS = 40  # the likeliest to be the best, between whom pairs are looked for
_WORLDS = 40  # draws for which choices are counted ahead


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
    wins = 1 / (1 + np.exp(np.clip(drawn[:, second] - drawn[:, first], -500, 500)))  # draws x pairs
    after_win, after_loss = _entropy(best.T @ wins), _entropy(best.T @ (1 - wins))  # of who is the best, by answer
    chance = wins.mean(axis=0)
    chosen = int(np.argmin(chance * after_win + (1 - chance) * after_loss))
    return int(first[chosen]), int(second[chosen])


def choices_left(mean: np.ndarray, covariance: np.ndarray) -> int:
    """About how many more choices until the top is the best with a probability of 0.9: 0 when it is; MOST_LEFT for as many or more.

    For some draws of the strengths, taken to be true, it counts the comparisons of the best with whoever is hardest to tell from it, each
    of which adds its Fisher information, until all others together are less than 0.1; and takes the median of these. How that compares
    with what it takes in simulations is in benchmarks/README.md.
    """
    if chances(mean, covariance).max() >= SURE:
        return 0
    counts = [_count(true, covariance.copy()) for true in draws(mean, covariance, _WORLDS, seed=1)]
    return max(1, round(float(np.median(counts))))


def _count(true: np.ndarray, covariance: np.ndarray) -> int:
    top = int(true.argmax())
    gaps = true[top] - true
    for number in range(MOST_LEFT):
        deviations = np.sqrt(np.maximum(covariance[top, top] + covariance.diagonal() - 2 * covariance[top], 1e-12))
        doubts = _above(gaps / deviations)
        doubts[top] = 0
        if doubts.sum() <= 1 - SURE:
            return number
        rival = int(doubts.argmax())
        odds = 1 / (1 + np.exp(-gaps[rival]))
        along = covariance[top] - covariance[rival]
        # Sherman and Morrison: one comparison more of these two
        covariance -= np.outer(along, along) / (1 / (odds * (1 - odds)) + along[top] - along[rival])
    return MOST_LEFT


def _above(deviations: np.ndarray) -> np.ndarray:
    """How probable a normal variable is beyond so many deviations."""
    from scipy.special import ndtr

    found: np.ndarray = ndtr(-deviations)
    return found


def _entropy(weights: np.ndarray) -> np.ndarray:
    """Of each column, whose weights need not add up to 1."""
    shares = weights / weights.sum(axis=0)
    found: np.ndarray = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=0)
    return found
