"""Where a search looks next: points that optuna suggests from the scores of those before. Nothing is drawn here."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, final, get_args

from workbench.errors import SearchError
from workbench.searches.space import Dimension, Point, SearchSpace

if TYPE_CHECKING:
    import optuna

Sampler = Literal["tpe", "cmaes"]


@final
class Suggestions:
    """Points to try, each told afterwards what it came to; the first are `starts`.

    The same seed and the same values give the same points. Raises SearchError for a sampler that is none or does not fit the space, and
    where optuna is not installed.
    """

    def __init__(self, space: SearchSpace, sampler: Sampler, seed: int, least: Sequence[bool], starts: Sequence[Point] = ()) -> None:
        self._space = space
        self._optuna = _optuna()
        self._asked: list[optuna.trial.Trial] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            chosen = self._sampler(sampler, seed, len(least), starts)
        directions = ["minimize" if one else "maximize" for one in least]
        self._study = self._optuna.create_study(sampler=chosen, directions=directions)
        for start in starts:
            self._study.enqueue_trial({one.name: _place(one, start[one.name]) for one in space.dimensions})

    def ask(self, count: int) -> list[Point]:
        """So many points, suggested before any of them is told."""
        distributions = {one.name: self._distribution(one) for one in self._space.dimensions}
        self._asked = [self._study.ask(distributions) for _ in range(count)]
        return [{one.name: _value(one, trial.params[one.name]) for one in self._space.dimensions} for trial in self._asked]

    def tell(self, values: Sequence[Sequence[float]]) -> None:
        """What the points that were asked for came to, by objective; nothing for one that failed."""
        for trial, own in zip(self._asked, values, strict=True):
            if own:
                self._study.tell(trial, list(own))
            else:
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def _sampler(self, name: str, seed: int, objectives: int, starts: Sequence[Point]) -> Any:
        samplers, space = self._optuna.samplers, self._space
        if name not in get_args(Sampler):
            raise SearchError(f"sampler must be one of {', '.join(map(repr, get_args(Sampler)))}, got {name!r}")
        if name == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        if any(one.choices for one in space.dimensions) or len(space.dimensions) < 2 or objectives > 1:
            raise SearchError("sampler='cmaes' takes two or more numbers, no choices, and one objective; 'tpe' takes all")
        return samplers.CmaEsSampler(x0=dict(starts[0]) if starts else None, seed=seed)

    def _distribution(self, one: Dimension) -> Any:
        kinds = self._optuna.distributions
        if one.choices:
            return kinds.CategoricalDistribution(range(len(one.choices)))  # which may be of any type
        kind = kinds.IntDistribution if one.whole else kinds.FloatDistribution
        return kind(one.low, one.high, log=one.log)


def at_random(space: SearchSpace, count: int, seed: int) -> list[Point]:
    """Points of a space, every value as likely as any other."""
    numbers = random.Random(seed)
    return [{one.name: _random(one, numbers) for one in space.dimensions} for _ in range(count)]


def _random(one: Dimension, numbers: random.Random) -> Any:
    return numbers.choice(one.choices) if one.choices else one.fitted(one.at(numbers.random()))


def _value(one: Dimension, suggested: Any) -> Any:
    return one.choices[suggested] if one.choices else one.fitted(suggested)


def _place(one: Dimension, value: Any) -> Any:
    return one.choices.index(value) if one.choices else value


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise SearchError("a search needs optuna: pip install 'workbench[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
