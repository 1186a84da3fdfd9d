"""`recover`: what a checkpoint is made of, told from what it might be made of. How ratios are found lives in least_squares."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from workbench.analysis.least_squares import LeastSquaresFit, Remainder, Sums, alike, least_squares, rounding_left
from workbench.analysis.metrics import Gram, tensor_sums
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.placing import ALL, by_place
from workbench.engine.inputs import Models, check, matched, named
from workbench.engine.inputs import checkpoint as judged
from workbench.engine.reading import Tensors, measured
from workbench.figures.results import Result
from workbench.merge.call import unique
from workbench.wording import enumerated, percent

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_WHO = "recover"
_LEAST = 0.005  # what is not 0.00 in a sentence


def recover(checkpoint: Checkpoint, candidates: Models, *, progress: bool = True) -> Recovery:
    """Of what candidates a checkpoint is the weighted sum, and with which ratios: by block, and as a whole.

    Takes a checkpoint and one or more that it may be made of, by name or in a list. In every block, and over all elements at once,
    the ratios are those of the least squares |checkpoint - sum(ratio * candidate)|. A weighted average saved in float16 is
    found to about 0.001, a ramp block by block, task arithmetic with the base as a candidate of its own, whose ratio is then 1 minus the
    others. What a residual means is judged by two things, since all fine-tunes of one base are close to each other: what
    rounding to the files' dtypes leaves, and how far the nearest candidate is. Candidates that are equal in a block, or
    sums of each other to within the rounding of their files, have no ratios there.

    Every file is read once, in pieces; tensors match by the checkpoint's names without prefix. A tensor counts if all candidates
    have it, but for those that have nothing in its block. Calculated in float64, the same on any number of threads.

    Raises, before a weight is read: InputError for what is no checkpoint or no list of them, MergeError for a merge that cannot be
    made or a candidate that shares nothing with the checkpoint. Warns (MergeWarning) of tensors that only one has, and
    (NonFiniteWarning) of NaN and infinity.
    """
    found = named(candidates, f"{_WHO}: candidates", least=1)
    models = {unique(judged(checkpoint, _WHO).name, found): checkpoint, **found}
    check(models, _WHO)
    tensors = measured(models, matched(models, _WHO), _summed, who=_WHO, progress=progress)
    groups = by_place(checkpoint, [(one.place, one) for one in tensors])
    rows = {place: _row(group, tuple(found)) for place, group in groups.items()}
    return Recovery(checkpoint.name, tuple(found), rows, len(rows.keys() - {ALL, *checkpoint.components}))


@dataclass(frozen=True)
class _Tensor:
    place: str
    names: tuple[str, ...]
    sums: Sums


@dataclass(frozen=True)
class PlaceFit:
    """What was found in one place: the fit of the candidates that have tensors there (None if there are none), and from how many."""

    names: tuple[str, ...]
    fit: LeastSquaresFit | None
    tensors: int
    note: str

    def of(self, values: str, candidate: str) -> float:
        """The candidate's number among the fit's `values`; NaN where it means nothing."""
        if self.fit is None or candidate not in self.names:
            return math.nan
        at = self.names.index(candidate)
        return float(getattr(self.fit, values)[at]) if self.fit.known[at] else math.nan

    def relative(self, square: str) -> float:
        return self.fit.rest.relative(square) if self.fit else math.nan


@dataclass(frozen=True, repr=False)
class Recovery(Result):
    """What a checkpoint is made of. `rows` holds what was found in each place: first `blocks` by depth, components, last `all`."""

    checkpoint: str
    candidates: tuple[str, ...]
    rows: Mapping[str, PlaceFit]
    blocks: int

    @property
    def ratios(self) -> pd.DataFrame:
        """A row for each block, last `all`, and a column for each candidate; NaN where `notes` says why."""
        import pandas as pd

        values = [[row.of("ratios", name) for name in self.candidates] for row in self.rows.values()]
        return pd.DataFrame(values, self._index, self.candidates, dtype=float)

    @property
    def residual(self) -> pd.Series:
        """|checkpoint - fit| / |checkpoint| of each block, last of `all`; NaN where the checkpoint is all zero."""
        return self._series("residual", [row.relative("left") for row in self.rows.values()])

    @property
    def notes(self) -> pd.Series:
        """What there is to know of each block: which candidates cannot be told apart there, and why; often empty."""
        return self._series("note", [row.note for row in self.rows.values()])

    def frame(self) -> pd.DataFrame:
        """A row for each place and candidate: blocks by depth, what lies in none under its component, last `all`.

        Columns: `block` and `candidate` (ordered categories), `ratio`, and `error`, its standard error if what is left is noise.
        The others are the place's, and so the same for each candidate: `residual`, `rounding` (what rounding to the files' dtypes
        leaves, about) and `nearest` (how far the nearest candidate is), each over the checkpoint's norm; `explained`, the share of
        the squared distance from the nearest candidate that the fit explains; `fits`: whether the residual is no more than
        rounding, or 99 % are explained; `tensors` that were compared; and `note`: why a number is missing.
        """
        import pandas as pd

        rows = [
            {
                "block": place,
                "candidate": name,
                "ratio": row.of("ratios", name),
                "error": row.of("errors", name),
                "residual": row.relative("left"),
                "rounding": row.relative("rounding"),
                "nearest": row.relative("far"),
                "explained": row.fit.rest.explained if row.fit else math.nan,
                "fits": row.fit is not None and row.fit.rest.fits,
                "tensors": row.tensors,
                "note": row.note,
            }
            for place, row in self.rows.items()
            for name in self.candidates
        ]
        frame = pd.DataFrame(rows)
        for column, names in (("block", tuple(self.rows)), ("candidate", self.candidates)):
            frame[column] = pd.Categorical(frame[column], names, ordered=True)
        return frame

    @property
    def headline(self) -> str:
        """What it is made of, or that the candidates do not make it."""
        whole = self.rows[ALL]
        if whole.fit is None:
            return f"{self.checkpoint}: {whole.note}"
        if not whole.fit.rest.far:
            return f"{self.checkpoint}: the same numbers as {whole.names[whole.fit.nearest]}"
        if whole.fit.rest.exact:
            return f"{self.checkpoint}: {_told(_mix(whole.names, whole.fit), whole.fit.rest)}"
        by_block = reduce(add, (row.fit.rest for place, row in self.rows.items() if place != ALL and row.fit))
        if by_block.exact or (by_block.fits and not whole.fit.rest.fits):
            return f"{self.checkpoint}: {_told(f'ratios differ by block, {self._ranges()}', by_block)}"
        if whole.fit.rest.fits:
            return f"{self.checkpoint}: {_told(_mix(whole.names, whole.fit), whole.fit.rest)}"
        fitting = [place for place, row in self.rows.items() if row.fit and row.fit.rest.fits]
        return f"{self.checkpoint}: {_misfit(whole.names, whole.fit)}" + (f"; it fits only in {enumerated(fitting)}" if fitting else "")

    def plot(self) -> go.Figure:
        """The ratios of each candidate along the blocks, and below them what is left."""
        from workbench import figures

        return figures.ratio_lines(self.frame(), self.blocks, title=f"What {self.checkpoint} is made of", told=self.headline)

    def _series(self, name: str, values: Sequence[object]) -> pd.Series:
        import pandas as pd

        return pd.Series(values, self._index, name=name)

    @property
    def _index(self) -> pd.Index:
        import pandas as pd

        return pd.Index(self.rows, name="block")

    def _ranges(self) -> str:
        """`A 0.00 to 1.00, B 0.50 to 0.75`, of the candidates that are in it."""
        ratios = self.ratios.drop(index=ALL)
        there = ratios.loc[:, ratios.abs().max() >= _LEAST]
        return ", ".join(f"{name} {low:z.2f} to {high:z.2f}" for name, low, high in zip(there, there.min(), there.max(), strict=True))


def _summed(tensors: Tensors) -> _Tensor:
    """What the fit needs to know of one tensor."""
    import torch

    ((_, _, inner, apart),) = tensor_sums(tensors, [Gram], False)
    numel = math.prod(tensors.shape)
    limits = [torch.finfo(tensors.models[name].info(key).dtype) for name, key in tensors.matched.names.items()]
    rounding = [
        rounding_left(square, numel, one.eps, one.smallest_normal * one.eps) for square, one in zip(np.diag(inner), limits, strict=True)
    ]
    return _Tensor(tensors.place, tensors.names, Sums(inner, apart, np.array(rounding), numel))


def _row(group: Sequence[_Tensor], candidates: Sequence[str]) -> PlaceFit:
    """The fit over the tensors that all candidates have that have any of them."""
    there = {name for tensor in group for name in tensor.names}
    shared = [tensor for tensor in group if len(tensor.names) == len(there) > 1]
    if not shared:
        return PlaceFit((), None, 0, "no tensor that all candidates have")
    names = shared[0].names[1:]
    sums = reduce(add, (tensor.sums for tensor in shared))
    fit = least_squares(sums)
    notes = [*_notes(names, sums, fit), *(f"{name} has no tensor here" for name in candidates if name not in names)]
    return PlaceFit(names, fit, len(shared), "; ".join(notes))


def _notes(names: Sequence[str], sums: Sums, fit: LeastSquaresFit) -> Iterator[str]:
    """Why numbers are missing, or mean little."""
    unknown = [at for at in range(len(names)) if not fit.known[at]]
    if unknown:
        told = alike(sums, [at + 1 for at in unknown])
        together = f", {fit.ratios[unknown].sum():.2f} together" if len(unknown) > 1 else ""
        yield f"{enumerated([names[at] for at in unknown], len(unknown))} {told}{together}"
    if fit.rough:
        yield "the candidates differ by little more than rounding: ratios are rough"
    if not fit.rest.square:
        yield "the checkpoint is all zero"
    if fit.spare <= 0:
        yield "no more elements than candidates: any numbers would fit"


def _mix(names: Sequence[str], fit: LeastSquaresFit) -> str:
    """`0.62 A + 0.35 B`, the largest first; candidates that cannot be told apart are one."""
    terms = [(fit.ratios[at], name) for at, name in enumerate(names) if fit.known[at]]
    if unknown := [name for at, name in enumerate(names) if not fit.known[at]]:
        terms.append((fit.ratios[~fit.known].sum(), " or ".join(unknown)))
    signs = sorted((term for term in terms if abs(term[0]) >= _LEAST), key=lambda term: -round(term[0], 2))
    told = " ".join(f"{'-' if ratio < 0 else '+'} {abs(ratio):.2f} {name}" for ratio, name in signs)
    return told.removeprefix("+ ") or "nothing of them"


def _told(mix: str, rest: Remainder) -> str:
    """The mix with its residual, and how that compares with rounding."""
    left, rounding = rest.relative("left"), rest.relative("rounding")
    more = "no more than rounding leaves" if rest.exact else f"where rounding leaves {percent(rounding)}: something else is in it too"
    return f"{mix}, residual {percent(left)}, {more}"


def _misfit(names: Sequence[str], fit: LeastSquaresFit) -> str:
    nearest, far, left = names[fit.nearest], percent(fit.rest.relative("far")), percent(fit.rest.relative("left"))
    return f"no candidates fit: the nearest, {nearest}, is {far} away, and the best mix, {_mix(names, fit)}, leaves a residual of {left}"
