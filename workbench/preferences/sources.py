"""Where candidates come from: a list that is known, or a space in which new merges are proposed. Both say what choices mean for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol, final

import numpy as np

from workbench.checkpoint import Checkpoint
from workbench.errors import PreferenceError
from workbench.preferences.bradley_terry import bradley_terry
from workbench.preferences.candidates import Candidate
from workbench.preferences.choices import Comparison, Seen
from workbench.preferences.duels import Duel, duels_of
from workbench.preferences.pairing import MOST_LEFT, choices_left, next_pair
from workbench.preferences.proposing import Cube, proposal, still_to_win
from workbench.preferences.ranking import Ranking
from workbench.preferences.surrogate import Surrogate, fit_surrogate
from workbench.searches.space import Point
from workbench.sweeps.combinations import name_of
from workbench.sweeps.drawing import in_words

_FAILURES = 8  # proposals in a row that cannot be made or drawn

Plans = Mapping[str, Callable[[], Candidate]]  # by name
PlanPoint = Callable[[str, Callable[[], Checkpoint], Point], Candidate]


class CandidateSource(Protocol):
    """What an elicitation asks about.

    `problems` are what went wrong with candidates, which are left out, by name; `patience` is how many pairs in a row may be so.
    """

    problems: dict[str, str]
    patience: int

    def counted(self, choices: Sequence[Comparison]) -> list[Comparison]:
        """Those between candidates of this source."""

    def pair(self, choices: Sequence[Comparison], seed: int) -> tuple[Candidate, Candidate]:
        """The two whose comparison tells most; the same for the same choices. Raises PreferenceError where there are none."""

    def ranking(self, choices: Sequence[Comparison]) -> Ranking:
        """What choices say of the candidates."""

    def progress(self, choices: Sequence[Comparison]) -> str:
        """How far it is, in words that name no candidate."""

    def leave_out(self, candidate: Candidate, problem: str) -> None:
        """Ask no more about a candidate, whose pictures cannot be had."""


@final
class Known:
    """A few candidates, ranked by Bradley and Terry's model. They are planned when something is first asked of them."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._candidates: list[Candidate] | None = None
        self.problems: dict[str, str] = {}
        self.patience = len(plans)  # each time there is one less

    @property
    def candidates(self) -> list[Candidate]:
        """Those that can be drawn, as far as is known."""
        if self._candidates is None:
            self._candidates = []
            for name, plan in self._plans.items():
                self._add(name, plan)
        return self._candidates

    def counted(self, choices: Sequence[Comparison]) -> list[Comparison]:
        keys = {one.key for one in self.candidates}
        return [one for one in choices if {one.left.key, one.right.key} <= keys]

    def pair(self, choices: Sequence[Comparison], seed: int) -> tuple[Candidate, Candidate]:
        if len(self.candidates) < 2:
            raise PreferenceError(f"two candidates are needed, and {len(self.candidates)} of {len(self._plans)} can be drawn")
        first, second = next_pair(*self._strengths(choices), seed)
        return self.candidates[first], self.candidates[second]

    def ranking(self, choices: Sequence[Comparison]) -> Ranking:
        if not self.candidates:
            raise PreferenceError(
                f"none of the {len(self._plans)} candidates can be drawn, so there is nothing to rank; .problems says why"
            )
        return Ranking.of(self.candidates, self._strengths(choices), choices)

    def progress(self, choices: Sequence[Comparison]) -> str:
        count = len(self.counted(choices))
        mean, covariance = self._strengths(choices)
        left = choices_left(mean, covariance)
        if not left:
            return f"{_choices(count)}: sure enough of the top"
        if left >= MOST_LEFT:
            return f"{_choices(count)}: more than {MOST_LEFT} more to be sure of the top, for the best are much alike"
        return f"{_choices(count)}: about {left} more to be sure of the top"

    def leave_out(self, candidate: Candidate, problem: str) -> None:
        self.candidates.remove(candidate)
        self.problems[candidate.name] = problem

    def _strengths(self, choices: Sequence[Comparison]) -> tuple[np.ndarray, np.ndarray]:
        numbers = {one.key: number for number, one in enumerate(self.candidates)}
        return bradley_terry(len(numbers), duels_of(choices, numbers))

    def _add(self, name: str, plan: Callable[[], Candidate]) -> None:
        assert self._candidates is not None
        try:
            found = plan()
        except Exception as error:  # anything may go wrong in what makes a merge: it is left out, and said
            self.problems[name] = in_words(error)
            return
        twin = next((one.name for one in self._candidates if one.key == found.key), None)
        if twin is None:
            self._candidates.append(found)
        else:
            self.problems[name] = f"is the same as {twin}"


@final
class Proposed:
    """Merges at points of a space: those that choices were made between, and new ones where they may be better."""

    def __init__(self, make: Callable[..., Checkpoint], cube: Cube, plan: PlanPoint, seed: int) -> None:
        self._make, self._cube, self._plan, self._seed = make, cube, plan, seed
        self._planned: dict[tuple[tuple[str, Any], ...], Candidate | None] = {}  # by point; None where it cannot be made
        self._fitted: tuple[list[str], list[Duel], Surrogate] | None = None
        self.problems: dict[str, str] = {}
        self.patience = _FAILURES

    def counted(self, choices: Sequence[Comparison]) -> list[Comparison]:
        return [one for one in choices if self._known(one.left) and self._known(one.right)]

    def pair(self, choices: Sequence[Comparison], seed: int) -> tuple[Candidate, Candidate]:
        choices = self.counted(choices)
        if not choices:
            return self._first()
        tried = self._tried(choices)
        surrogate = self._surrogate(tried, choices)
        mean, covariance = surrogate(surrogate.points)
        best = int(mean.argmax())
        for _ in range(_FAILURES):
            failed = [dict(key) for key, one in self._planned.items() if one is None]
            looking = self._away_from(failed, tried, best, choices) if failed else surrogate
            point = proposal(looking, self._cube, _point(tried[best]), [*map(_point, tried), *failed], seed)
            if point is None:  # everything was tried
                first, second = next_pair(mean, covariance, seed)
                return tried[first], tried[second]
            if (found := self._candidate(point)) is not None:
                return tried[best], found
        raise self._failing()

    def ranking(self, choices: Sequence[Comparison]) -> Ranking:
        choices = self.counted(choices)
        tried = self._tried(choices)
        if not tried:
            raise PreferenceError("nothing was chosen yet, so there is nothing to rank; choose between a few pairs first")
        surrogate = self._surrogate(tried, choices)
        return Ranking.of(tried, surrogate(surrogate.points), choices)

    def progress(self, choices: Sequence[Comparison]) -> str:
        choices = self.counted(choices)
        if not choices:
            return f"{_choices(0)}: two merges to begin with"
        tried = self._tried(choices)
        surrogate = self._surrogate(tried, choices)
        best = _point(tried[int(surrogate(surrogate.points)[0].argmax())])
        share = still_to_win(surrogate, self._cube, best, self._seed)
        beside = f"the best there may be would win about {100 * share:.0f} of 100 against the best so far"
        return f"{_choices(len(choices))}, {len(tried)} merges: {beside}"

    def leave_out(self, candidate: Candidate, problem: str) -> None:
        self._planned[_key(_point(candidate))] = None
        self.problems[candidate.name] = problem

    def _first(self) -> tuple[Candidate, Candidate]:
        """Two that lie apart, and can be made."""
        points = self._cube.spread(self._seed)[:_FAILURES]
        found = list(islice((one for point in points if (one := self._candidate(point)) is not None), 2))
        if len(found) < 2:
            raise self._failing()
        return found[0], found[1]

    def _known(self, side: Seen) -> bool:
        """Whether what was seen on that side is what this space has there."""
        if side.point is None or not self._cube.holds(side.point):
            return False
        found = self._candidate(side.point)
        return found is not None and found.key == side.key

    def _tried(self, choices: Sequence[Comparison]) -> list[Candidate]:
        points = {_key(side.point): side.point for one in choices for side in (one.left, one.right) if side.point is not None}
        found = [one for point in points.values() if (one := self._candidate(point)) is not None]
        return list({one.key: one for one in found}.values())  # two points may mean the same merge

    def _surrogate(self, tried: Sequence[Candidate], choices: Sequence[Comparison]) -> Surrogate:
        keys = [one.key for one in tried]
        duels = duels_of(choices, {key: number for number, key in enumerate(keys)})
        if self._fitted is None or self._fitted[:2] != (keys, duels):
            self._fitted = keys, duels, fit_surrogate(self._rows([_point(one) for one in tried]), duels)
        return self._fitted[2]

    def _away_from(self, failed: Sequence[Point], tried: Sequence[Candidate], best: int, choices: Sequence[Comparison]) -> Surrogate:
        """The surrogate that a proposal is made by where merges failed: as if each of them had lost against the best."""
        names = [*(one.key for one in tried), *(f"failed {number}" for number in range(len(failed)))]
        duels = duels_of(choices, {name: number for number, name in enumerate(names)})
        lost = [Duel(best, number, 1.0) for number in range(len(tried), len(names))]
        return fit_surrogate(self._rows([*map(_point, tried), *failed]), [*duels, *lost])

    def _rows(self, points: Sequence[Point]) -> np.ndarray:
        return np.stack([self._cube.row(point) for point in points])

    def _candidate(self, point: Point) -> Candidate | None:
        """The merge at a point, planned; None where it cannot be made, which is among the problems then."""
        key = _key(point)
        if key not in self._planned:
            options = self._cube.options(point)
            try:
                self._planned[key] = self._plan(name_of(options), partial(self._make, **options), point)
            except Exception as error:  # anything may go wrong in what makes a merge: it is left out, and said
                self._planned[key] = None
                self.problems[name_of(options)] = in_words(error)
        return self._planned[key]

    def _failing(self) -> PreferenceError:
        reason = next(reversed(self.problems.values()), "the space has a single point")
        return PreferenceError(f"no two merges of the space can be made and drawn; the last one says: {reason}")


def _point(candidate: Candidate) -> Point:
    assert candidate.point is not None
    return candidate.point


def _key(point: Point) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(point.items()))


def _choices(count: int) -> str:
    return f"{count} choice{'' if count == 1 else 's'}"
