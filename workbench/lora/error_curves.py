"""`error`: how much of a change a LoRA of each rank would miss, by layer and block. Nothing is taken out; that is `extraction`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.placing import ALL, by_place
from workbench.errors import OptionError
from workbench.figures.results import Result
from workbench.lora.decomposition import spectrum
from workbench.lora.differences import TensorPair, nothing, side_by_side, streamed
from workbench.lora.targets import Include, LoraForm

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import torch

_WHO = "error"
_RANKS = (1, 2, 4, 8, 16, 32, 64, 128)


def error(
    tuned: Checkpoint, base: Checkpoint, ranks: Sequence[int] = _RANKS, *, include: Include = None, progress: bool = True
) -> ErrorCurves:
    """How much of tuned - base a LoRA of each rank would miss, from all singular values of every tensor, found once.

    `include` is that of `extract`. Models and merges are read once, tensor by tensor, and only the singular values are kept.
    Raises OptionError for ranks that make no sense, else as `extract` does.
    """
    numbers = isinstance(ranks, Sequence) and all(isinstance(rank, int) and not isinstance(rank, bool) for rank in ranks)
    asked = sorted(set(ranks)) if numbers else []
    if not asked or asked[0] < 1:
        raise OptionError(f"{_WHO}: ranks must be one or more whole numbers from 1, got {ranks!r}")
    side, pairs = side_by_side(tuned, base, include, False, _WHO)
    factored = [one for one in pairs if one.form is LoraForm.FACTORS]
    found: dict[str, np.ndarray] = {}

    def work(pair: TensorPair, change: torch.Tensor, total: float) -> None:
        found[pair.key] = spectrum(change)

    rest = streamed(side, factored, work, who=_WHO, progress=progress)
    if not found:
        raise nothing(side, rest, _WHO)
    same = {one.key for one in (*rest.equal, *rest.rounded)}
    layers = tuple(Curve(one.key, one.place, found.get(one.key, np.zeros(0))) for one in factored if one.key in found.keys() | same)
    return ErrorCurves(side.tuned, side.base, side.models[side.base], tuple(asked), layers)


@dataclass(frozen=True, eq=False)
class Curve:
    """The squared singular values of a tensor's change, largest first; none where it does not differ."""

    key: str
    place: str
    squares: np.ndarray

    @cached_property
    def left(self) -> np.ndarray:
        """The squared error with 0, 1, ... all directions."""
        return np.append(self.squares[::-1].cumsum()[::-1], 0)

    def missed(self, rank: int) -> float:
        """The squared error with so many directions."""
        return float(self.left[min(rank, len(self.squares))])


@dataclass(frozen=True, repr=False)
class ErrorCurves(Result):
    """What LoRAs of some `ranks` would miss of the change from `base` to `tuned`."""

    tuned: str
    base: str
    anchor: Checkpoint
    ranks: tuple[int, ...]
    layers: tuple[Curve, ...]

    def frame(self, by: Literal["layer", "block"] = "layer") -> pd.DataFrame:
        """A row for each layer (or block by depth) and rank, last those of `all`.

        Columns: `layer` (by layer), `block` (the component where it lies in none), `rank`, `relative_error` (norm of what is missed
        over that of the change), `captured_energy` (share of the change's sum of squares), `note`: why there is no number, or that
        a layer has fewer directions.
        """
        import pandas as pd

        rows = [(*names, rank, *_share(curves, rank)) for names, curves in self._groups(by) for rank in self.ranks]
        frame = pd.DataFrame(rows, columns=["layer", "block", "rank", "relative_error", "captured_energy", "note"])
        if by == "layer":
            return frame
        frame["block"] = pd.Categorical(frame["block"], list(dict.fromkeys(frame["block"])), ordered=True)
        return frame.drop(columns="layer")

    def needed(self, target_error: float) -> pd.DataFrame:
        """The lowest rank at which the relative error of each layer is at or below a target; of `all`, with one rank for all layers.

        Columns: `layer`, `block`, `rank` (NaN where nothing differs). Raises OptionError for a target outside (0, 1).
        """
        import pandas as pd

        if isinstance(target_error, bool) or not isinstance(target_error, int | float) or not 0 < target_error < 1:
            raise OptionError(f"needed: target_error must be above 0 and below 1, got {target_error!r}")
        rows = []
        for names, curves in self._groups("layer"):
            left = _left(curves)
            rows.append((*names, int(np.argmax(left <= target_error**2 * left[0])) if left[0] else np.nan))
        return pd.DataFrame(rows, columns=["layer", "block", "rank"])

    @property
    def headline(self) -> str:
        differ = sum(len(layer.squares) > 0 for layer in self.layers)
        first, *last = [(rank, _share(self.layers, rank)[0]) for rank in dict.fromkeys([self.ranks[0], self.ranks[-1]])]
        told = f"misses {first[1]:.1%} of the change at rank {first[0]}" + "".join(
            f", and {error:.1%} at rank {rank}" for rank, error in last
        )
        return f"a LoRA of {differ} layers of {self.tuned} {told}; rank {self.needed(0.5)['rank'].iloc[-1]:.0f} misses less than half"

    def plot(self) -> go.Figure:
        """The error over the rank, a line for each block and a thick one for all; both axes logarithmic."""
        from workbench import figures

        frame = self.frame("block")
        title = f"What a LoRA of {self.tuned} on {self.base} misses, by rank"
        frame = frame[frame["relative_error"] > 0]
        figure = figures.lines(frame, x="rank", y="relative_error", colour="block", title=title, y_title="relative error")
        figure.update_traces(selector={"name": ALL}, line={"width": 4, "color": figures.INK, "dash": "solid"}, marker={"size": 9})
        figure.update_xaxes(type="log", tickvals=self.ranks)
        return figure.update_yaxes(type="log", tickvals=[step / 10**power for power in range(8) for step in (1, 0.5, 0.2)], tickformat="~g")

    def _groups(self, by: str) -> list[tuple[tuple[str, str], Sequence[Curve]]]:
        """Names of layer and block of each group of rows, and the layers in it."""
        if by not in ("layer", "block"):
            raise OptionError(f"frame: by must be 'layer' or 'block', got {by!r}")
        if by == "layer":
            return [((layer.key, layer.place), [layer]) for layer in self.layers] + [((ALL, ALL), self.layers)]
        return [(("", place), layers) for place, layers in by_place(self.anchor, ((layer.place, layer) for layer in self.layers)).items()]


def _left(curves: Sequence[Curve]) -> np.ndarray:
    """The squared error of several layers with 0, 1, ... directions of each."""
    left = np.zeros(max(len(curve.left) for curve in curves))
    for curve in curves:
        left[: len(curve.left)] += curve.left
    return left


def _share(curves: Sequence[Curve], rank: int) -> tuple[float, float, str]:
    """Relative error, captured energy and note."""
    total, missed = sum(curve.missed(0) for curve in curves), sum(curve.missed(rank) for curve in curves)
    if not total:
        return np.nan, np.nan, "does not differ"
    most = max(len(curve.squares) for curve in curves)
    return (missed / total) ** 0.5, 1 - missed / total, f"has only {most} directions" if rank > most else ""
