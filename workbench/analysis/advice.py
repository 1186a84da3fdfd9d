"""What numbers about changes from a base speak for, in plain words. Measuring them is `conflicts`' business."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

_STRANGE = 0.5  # of the base's norm: tuning changes a model by a tenth or so, another model differs by all of it
_EQUAL = 0.9  # the cosine of changes from which on they are nearly one
_ALIKE = 0.2  # the cosine, either way, up to which changes are as good as orthogonal
_SIBLINGS = 0.4  # the cosine from which on the base may be none: what a sibling learned is in both changes, negated
_CLASH = 1.5  # times chance: how often the largest changes meet with opposite signs before it matters
_FAR = 3.0  # how many times as long as another a change is before it drowns it
_SIGHT = "Only pictures tell: draw the merge with ab_grid."


def advice(base: str, models: Sequence[str], density: float, values: Mapping[str, np.ndarray]) -> str:
    """Which method the numbers speak for, and the numbers.

    `values` holds `norm`, `cosine`, `overlap`, `chance` and `conflict`, each models x models. The thresholds are rules of
    thumb: in the embedded family, changes with cosines of about 0.1 that meet no more than by chance were best added.
    """
    norms = np.diag(values["norm"])
    if np.isnan(norms).any():
        return f"{base} is all zero where it could be compared: there is nothing that changed."
    still = [name for name, norm in zip(models, norms, strict=True) if not norm]
    if still:
        verb = "does" if len(still) == 1 else "do"
        return f"{' and '.join(still)} {verb} not differ from {base}: there is no change to merge. Leave out what is the base itself."
    pairs = [pair for pair in combinations(range(len(models)), 2) if math.isfinite(values["cosine"][pair])]
    if not pairs:
        return "No two models have a tensor in common that could be compared: their changes cannot meet."
    if norms.min() >= _STRANGE:
        return (
            f"The changes are {_spread(norms)} of the base's own length: {base} seems to be no common base of these models, and what is "
            "added to it would be two models, not two changes. Look for the base they were tuned from."
        )
    doubt = (
        f"Changes as alike as these are also what comes of a base that is none: make sure that all were tuned from {base}."
        if min(values["cosine"][pair] for pair in pairs) >= _SIBLINGS
        else ""
    )
    return " ".join(filter(None, [_method(models, density, values, pairs), _balance(models, norms), doubt, _SIGHT]))


def _method(models: Sequence[str], density: float, values: Mapping[str, np.ndarray], pairs: Sequence[tuple[int, int]]) -> str:
    """The method, for what the pairs are like."""
    cosines = np.array([values["cosine"][pair] for pair in pairs])
    clash, worst = max((_clash(values, pair), pair) for pair in pairs)
    if clash >= _CLASH:
        first, second = (models[i] for i in worst)
        return (
            f"This speaks for ties: of the largest {density:.0%} of the changes of {first} and {second}, "
            f"{values['overlap'][worst]:.0%} are both models' (by chance {values['chance'][worst]:.0%}), and of these "
            f"{values['conflict'][worst]:.0%} have opposite signs, {clash:.1f} times as many as chance would give: in a sum they cancel."
        )
    if cosines.min() <= -_ALIKE:
        first, second = (models[i] for i in pairs[int(cosines.argmin())])
        return (
            f"This speaks for ties, which elects a sign, or for giving each model blocks of its own: the changes of {first} and {second} "
            f"point against each other (cosine {cosines.min():.2f}), and in a sum they cancel."
        )
    if cosines.min() >= _EQUAL:
        return (
            f"This speaks for weighted_average: the changes are nearly the same (cosine {_spread(cosines, '.2f')}), so that an average "
            f"keeps them, and a sum would go {_number(len(models))} times as far."
        )
    carried = 1 + (len(models) - 1) * max(cosines.mean(), 0)  # how much of each change is in the sum, if all are as long
    weights = "of about 1" if cosines.max() < _ALIKE else f"of about {1 / carried:.2g} (with 1 it carries what they share too often)"
    apart = "nearly orthogonal" if cosines.max() < _ALIKE else "partly alike"
    overlap, chance, conflict = (np.array([values[name][pair] for pair in pairs]) for name in ("overlap", "chance", "conflict"))
    met = conflict[np.isfinite(conflict)]
    signs = f", and of these {_spread(met)} have opposite signs (by chance 50%)" if len(met) else ""
    shared = f"Of the largest {density:.0%}, {_spread(overlap)} are both models' (by chance {_spread(chance)}){signs}"
    return (
        f"This speaks for task_arithmetic with weights {weights}: the changes are {apart} (cosine {_spread(cosines, '.2f')}), so their "
        f"sum keeps each, where an average keeps {carried / len(models):.0%}."
        + (f" {shared}: TIES has little to settle." if np.isfinite(overlap).all() else "")
    )


def _balance(models: Sequence[str], norms: np.ndarray) -> str:
    """What to do where one change is far longer than another."""
    long, short = int(norms.argmax()), int(norms.argmin())
    times = norms[long] / norms[short]
    if times < _FAR:
        return ""
    return (
        f"The change of {models[long]} ({norms[long]:.1%} of the base) is {times:.1f} times as long as that of {models[short]} "
        f"({norms[short]:.1%}): weigh it down, between 1 and {1 / times:.2g} of the other's weight."
    )


def _clash(values: Mapping[str, np.ndarray], pair: tuple[int, int]) -> float:
    """How often the largest changes meet with opposite signs, over how often independent ones would; 0 where they never meet."""
    met = values["overlap"][pair] * values["conflict"][pair] / (values["chance"][pair] / 2)
    return met if math.isfinite(met) else 0.0


def _spread(values: np.ndarray, style: str = ".0%") -> str:
    """The least and the greatest, or one number where they read the same."""
    return " to ".join(dict.fromkeys([format(values.min(), style), format(values.max(), style)]))


def _number(count: int) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(count, str(count))
