"""Bradley-Terry strengths of a few known candidates, with how sure they are. Candidates that are points of a space: `surrogate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.errors import PreferenceError
from workbench.preferences.duels import Duel

# The deviation of strengths before anything is chosen, in log-odds: two candidates picked at random are then decided about as 4 to 1,
# in the middle of all pairs. Wider, one win would say too much; narrower, the best would take long to stand out.
PRIOR_DEVIATION = 1.5


def bradley_terry(count: int, duels: Sequence[Duel]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the strengths, in log-odds, of `count` candidates: the first beats the second with logistic(difference).

    The most probable strengths under a normal prior, which keeps them finite whatever is chosen, and Laplace's approximation around
    them. The bar, where somebody chose neither, is fitted as one more and left out of the answer.
    Source: Bradley and Terry 1952; Maystre's choix; Laplace: MacKay 2003, chapter 27. The bar: the no-choice option of choice models.
    """
    choix = check_choix()
    contestants = count + any(count in (duel.first, duel.second) for duel in duels)
    # choix counts whole wins only: every one counts twice, a tie once for each, and the prior twice as well
    wins = [pair for duel in duels for pair in _twice(duel)]
    penalty = 1 / PRIOR_DEVIATION**2
    mean = choix.opt_pairwise(contestants, wins, alpha=penalty)
    information = choix.opt.PairwiseFcts(wins, penalty).hessian(mean) / 2
    return mean[:count], np.linalg.inv(information)[:count, :count]


def _twice(duel: Duel) -> list[tuple[int, int]]:
    first = round(2 * duel.share)
    return [(duel.first, duel.second)] * first + [(duel.second, duel.first)] * (2 - first)


def check_choix() -> Any:
    try:
        import choix
        import choix.opt
    except ImportError as error:
        raise PreferenceError("choices by eye need choix: pip install 'workbench[search]'") from error
    return choix
