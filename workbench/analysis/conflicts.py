"""`interference`: how the changes that models made to a common base get in each other's way. What to make of it is in `advice`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from workbench.analysis.advice import advice
from workbench.analysis.metrics import over
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.placing import ALL, by_place
from workbench.engine.inputs import Models, check, checkpoint, matched, named
from workbench.engine.reading import Tensors, measured
from workbench.errors import OptionError
from workbench.figures.results import Result
from workbench.merge.call import unique

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_PIECE = 1 << 15  # elements of all changes that stay in the cache together
_COPIES = 2  # the tensors, and what finding the largest elements takes
_LINES = 7  # pairs that a figure has colours for
# sums of one tensor, each models x models: what belongs to the first of the pair, or to both
_SUMS = ("base", "square", "inner", "kept", "shared", "opposite", "chance")


def interference(base: Checkpoint, models: Models, *, density: float = 0.2, progress: bool = True) -> Interference:
    """How the changes of two or more models from a common base get in each other's way: by block, and over all.

    A change, or delta, is model - base. Its largest elements are those that `ties` keeps at this `density`, in (0, 1]: of
    each tensor the int(density * elements) of largest magnitude and what ties with the smallest of them; zeros never
    count. Of two changes a and b, over the elements of all tensors in a place:

    - norm: |a| over the base's norm, where |a| is the root of the sum of squares;
    - cosine: sum(a * b) / (|a| * |b|), from -1 to 1; changes that have nothing to do with each other have about 0;
    - overlap: 2 * shared / (those of a + those of b), the share of the largest elements that are both models', from 0 to 1;
      where each model's lie independently of the other's it would be `overlap_by_chance`, about `density`;
    - conflict: the share of these shared elements whose signs differ, 0.5 by chance: what the election in TIES decides
      (Yadav et al. 2023, arXiv:2306.01708, sections 2 and 3).

    Every file is read once; a whole tensor of every model is in memory at once, in float64. Tensors match by the base's
    names without prefix; markers, integers and empty tensors do not count. The same numbers on any number of threads.

    Raises, before a weight is read: InputError for what is no checkpoint or no list of two or more, OptionError for a
    density out of range, MergeError for a merge that cannot be made or a model that shares nothing with the base. Warns
    (MergeWarning) of tensors that the base or a model lacks, and (NonFiniteWarning) of NaN and infinity. A model that is
    the base itself has no change: its numbers are NaN, and the note says why.
    """
    if not isinstance(density, (int, float)) or not 0 < density <= 1:
        raise OptionError(f"interference: density must be in (0, 1], got {density!r}")
    checkpoint(base, "interference: base")
    tuned = named(models, "interference")
    origin = unique(base.name, tuned)
    sides = {origin: base, **tuned}
    check(sides, "interference")
    tensors = matched(sides, "interference")
    index = {name: number for number, name in enumerate(tuned)}

    def work(tensor: Tensors) -> tuple[str, np.ndarray]:
        return tensor.place, _sums(tensor, density, index)

    found = measured(sides, tensors, work, who="interference", copies=_COPIES, progress=progress)
    groups = by_place(base, found)
    totals = {place: np.nansum(group, axis=0) for place, group in groups.items()}
    counts = {place: np.isfinite([sums[0] for sums in group]).sum(0) for place, group in groups.items()}
    return Interference(base.name, tuple(tuned), float(density), totals, counts)


@dataclass(frozen=True, repr=False)
class Interference(Result):
    """How changes from a base get in each other's way. `sums` and `tensors` hold models x models for each place."""

    base: str
    models: tuple[str, ...]
    density: float
    sums: Mapping[str, np.ndarray]
    tensors: Mapping[str, np.ndarray]

    def frame(self) -> pd.DataFrame:
        """A row for each place and pair of models: blocks by depth, last `all`, which is every tensor.

        Columns: `place`, `first` and `second` (ordered categories); `first_norm` and `second_norm` (of the changes, over the
        base's norm), `cosine`, `overlap`, `overlap_by_chance` and `conflict`, numbers without a unit; `tensors` compared;
        and `note`: why a number is missing.
        """
        import pandas as pd

        pairs = list(combinations(range(len(self.models)), 2))
        rows = [self._row(place, i, j) for place in self.sums for i, j in pairs]
        frame = pd.DataFrame(rows)
        for column, names in (("place", list(self.sums)), ("first", self.models), ("second", self.models)):
            frame[column] = pd.Categorical(frame[column], names, ordered=True)
        return frame

    @cached_property
    def hint(self) -> str:
        """Which method the numbers over all tensors speak for, in plain words, with these numbers."""
        return advice(self.base, self.models, self.density, self._values(ALL))

    @property
    def headline(self) -> str:
        return self.hint

    def plot(self) -> go.Figure:
        """Norms, cosine, overlap and conflict over the blocks, a line for each model or pair; dotted is what chance gives."""
        import pandas as pd

        from workbench import figures

        where = [place for place in self.sums if place != ALL]
        values = {place: self._values(place) for place in where}
        pairs = list(combinations(range(len(self.models)), 2))
        pairs = pairs if len(pairs) <= _LINES else [(0, j) for j in range(1, len(self.models))]
        norm, cosine = "length of the change, over the base's", "cosine of two changes"
        overlap, conflict = (
            f"share of the largest {self.density:.0%} that is both models' (dotted: by chance)",
            "share of these with opposite signs",
        )
        rows = [(norm, name, place, values[place]["norm"][i, i]) for i, name in enumerate(self.models) for place in where]
        for title, quantity in ((cosine, "cosine"), (overlap, "overlap"), (conflict, "conflict")):
            rows += [
                (title, f"{self.models[i]} · {self.models[j]}", place, values[place][quantity][i, j]) for i, j in pairs for place in where
            ]
        frame = pd.DataFrame(rows, columns=["panel", "of", "block", "value"])
        levels = {cosine: 0, overlap: self._values(ALL)["chance"][0, 1], conflict: 0.5}
        levels = {panel: height for panel, height in levels.items() if math.isfinite(height)}
        title = f"Changes from {self.base}, and how they meet"
        return figures.panels(frame, x="block", y="value", panel="panel", colour="of", title=title, told=self.hint, levels=levels)

    def _values(self, place: str) -> dict[str, np.ndarray]:
        """Every quantity in a place, models x models; `norm` is that of the first of the pair."""
        sums = dict(zip(_SUMS, self.sums[place], strict=True))
        both = sums["kept"] + sums["kept"].T
        return {
            "norm": np.sqrt(over(sums["square"], sums["base"])),
            "cosine": np.clip(over(sums["inner"], np.sqrt(sums["square"] * sums["square"].T)), -1, 1),
            "overlap": over(2 * sums["shared"], both),
            "chance": over(2 * sums["chance"], both),
            "conflict": over(sums["opposite"], sums["shared"]),
        }

    def _row(self, place: str, i: int, j: int) -> dict[str, object]:
        values = self._values(place)
        return {
            "place": place,
            "first": self.models[i],
            "second": self.models[j],
            "first_norm": values["norm"][i, j],
            "second_norm": values["norm"][j, i],
            "cosine": values["cosine"][i, j],
            "overlap": values["overlap"][i, j],
            "overlap_by_chance": values["chance"][i, j],
            "conflict": values["conflict"][i, j],
            "tensors": int(self.tensors[place][i, j]),
            "note": self._note(place, i, j),
        }

    def _note(self, place: str, i: int, j: int) -> str:
        """Why a number is missing."""
        if not self.tensors[place][i, j]:
            return "no tensor that could be compared"
        sums = dict(zip(_SUMS, self.sums[place], strict=True))
        notes = [f"{self.base} is all zero"] if not sums["base"][i, j] else []
        still = [self.models[one] for one, other in ((i, j), (j, i)) if not sums["square"][one, other]]
        notes += [f"{name} does not differ from {self.base}" for name in still]
        if not still and not sums["kept"][i, j] + sums["kept"][j, i]:
            notes.append(f"tensors too small to have a largest {self.density:.0%}")
        elif not still and not sums["shared"][i, j]:
            notes.append("conflict: none of the largest is both models'")
        return "; ".join(notes)


def _sums(tensors: Tensors, density: float, index: Mapping[str, int]) -> np.ndarray:
    """The sums of one tensor, quantities x models x models; models that lack it are NaN."""
    import torch

    from workbench.operators import sparsify

    tensor = tensors.matrices().flatten(1)
    base, deltas = tensor[0], tensor[1:]
    deltas -= base
    keeps = [sparsify.largest(delta, density) for delta in deltas]
    inner, counted, agreed = torch.zeros(3, len(deltas), len(deltas), dtype=torch.float64)
    for start in range(0, deltas.shape[1], _PIECE):
        place = slice(start, start + _PIECE)
        inner += deltas[:, place] @ deltas[:, place].T
        signs = torch.stack([keep(delta[place], place, 1) for keep, delta in zip(keeps, deltas, strict=True)]).sign().float()
        counted += signs.abs() @ signs.abs().T  # counts within a piece are exact in float32
        agreed += signs @ signs.T
    kept = counted.diagonal()
    each = [base.square().sum(), inner.diagonal()[:, None], inner, kept[:, None], counted, (counted - agreed) / 2]
    each.append(kept[:, None] * kept / deltas.shape[1])
    sums = np.full((len(_SUMS), len(index), len(index)), np.nan)
    there = np.array([index[name] for name in tensors.names[1:]])
    sums[:, there[:, None], there] = torch.stack([one.expand_as(inner) for one in each]).numpy()
    return sums
