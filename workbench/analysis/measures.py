"""A few numbers that say how the changes of models from a base meet: what `advise` goes by. Each is measured elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workbench.analysis.conflicts import interference
from workbench.analysis.singular import singular_values
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.placing import ALL
from workbench.engine.inputs import Models, named
from workbench.errors import InputError

# name -> what it says, and how much of a difference in it is a large one
MEASURES: Mapping[str, tuple[str, float]] = {
    "models": ("how many models", 1.0),
    "predictions": ("how many kinds of prediction they have, epsilon or v", 0.1),
    "cosine": ("cosine of two changes", 0.25),
    "overlap": ("how often the largest elements of two changes meet, over chance", 0.5),
    "conflict": ("share of these with opposite signs", 0.15),
    "length": ("length of the changes, over the base's", 0.1),
    "balance": ("the shortest change over the longest", 0.3),
    "directions": ("effective rank of the changes, over the full rank", 0.2),
}


def measures(base: Checkpoint, models: Models, *, progress: bool = True) -> dict[str, float]:
    """The numbers of `MEASURES` over all tensors, pairs of models and models being averaged.

    Raises what `interference` raises, and InputError, with its hint, where there is no change that could be measured.
    """
    found = interference(base, models, progress=progress)
    frame = found.frame()
    pairs = frame[frame["place"] == ALL]
    lengths = np.concatenate([pairs["first_norm"], pairs["second_norm"]])
    if not np.isfinite(pairs["cosine"]).all() or not lengths.min() > 0:
        raise InputError(f"advise: {found.hint}")
    ranks = singular_values(models, base=base, progress=progress).frame()
    numbers = {
        "models": len(tuned := named(models, "advise")),
        "predictions": len({one.structure.prediction for one in (base, *tuned.values())} - {"unknown"}) or 1,
        "cosine": pairs["cosine"].mean(),
        "overlap": (pairs["overlap"] / pairs["overlap_by_chance"]).mean(),
        "conflict": pairs["conflict"].mean(),
        "length": lengths.mean(),
        "balance": lengths.min() / lengths.max(),
        "directions": ranks.loc[ranks["block"] == ALL, "share"].mean(),
    }
    return {name: round(float(number), 4) for name, number in numbers.items()}


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """How unlike two sets of these numbers are: root mean square, in large differences. What is no number in one counts as one."""
    apart = [(one[name] - other[name]) / large for name, (_, large) in MEASURES.items()]
    return float(np.sqrt(np.mean([value**2 if np.isfinite(value) else 1.0 for value in apart])))
