"""Choices as duels between numbered candidates, which is all that a fit needs to know of them; and the tally of each candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from workbench.preferences.choices import Comparison

_SHARES = {"left": 1.0, "right": 0.0, "tie": 0.5}


@final
@dataclass(frozen=True)
class Duel:
    """`share` of a win for `first`, the rest for `second`; both are numbers of candidates, the last of which may be the bar."""

    first: int
    second: int
    share: float


@final
@dataclass(frozen=True)
class Tally:
    """How often a candidate was chosen, not chosen, tied, and turned down together with the other one."""

    won: int = 0
    lost: int = 0
    tied: int = 0
    neither: int = 0


def duels_of(choices: Sequence[Comparison], numbers: Mapping[str, int]) -> list[Duel]:
    """The duels between candidates, whose `numbers` go by key; choices of others are left out.

    A tie is half a win for each. "Neither" says nothing of which of the two is better, but that both lie below what would do: each loses
    against the bar, one more contestant after the last candidate, which is never shown and never wins as the best.
    """
    bar, duels = len(numbers), []
    for choice in choices:
        if choice.left.key not in numbers or choice.right.key not in numbers:
            continue
        left, right = numbers[choice.left.key], numbers[choice.right.key]
        if choice.answer == "neither":
            duels += [Duel(bar, left, 1.0), Duel(bar, right, 1.0)]
        else:
            duels.append(Duel(left, right, _SHARES[choice.answer]))
    return duels


def tallies_of(choices: Sequence[Comparison], keys: Sequence[str]) -> tuple[Tally, ...]:
    """The tally of each candidate, against all the others that are among them."""
    known = set(keys)
    met = [one for one in choices if {one.left.key, one.right.key} <= known]
    return tuple(_tally([_outcome(one, key) for one in met if key in (one.left.key, one.right.key)]) for key in keys)


def _outcome(choice: Comparison, key: str) -> str:
    """What a choice was to one of its candidates."""
    if choice.answer in ("tie", "neither"):
        return choice.answer
    return "won" if key == (choice.left.key if choice.answer == "left" else choice.right.key) else "lost"


def _tally(outcomes: Sequence[str]) -> Tally:
    return Tally(*(outcomes.count(kind) for kind in ("won", "lost", "tie", "neither")))
