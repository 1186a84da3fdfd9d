"""`Report`: how well a LoRA holds what it was made from, as a frame and a figure. Nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.placing import ALL, by_place
from workbench.figures.results import Result

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

WHOLE = "kept whole"


@dataclass(frozen=True)
class Layer:
    """A tensor that differs: the sum of squares of its change, and of what the LoRA misses of it."""

    key: str
    place: str
    rank: int
    total: float
    missed: float
    nbytes: int
    note: str = ""


@dataclass(frozen=True, repr=False)
class Report(Result):
    """How well a LoRA holds what it was made from; `notes` are what it does not hold, in words.

    `anchor` is the model whose blocks the layers lie in.
    """

    name: str
    anchor: Checkpoint
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """What is missed, over the change: the norms of all layers together."""
        return relative(self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of all factors and whole changes in the file."""
        return sum(layer.nbytes for layer in self.layers)

    def frame(self) -> pd.DataFrame:
        """A row for each layer in the model's order, and last `all`.

        Columns: `layer`, `block` (its component where it lies in none), `rank` (0: left out; NaN: kept whole, and of `all`),
        `relative_error` (norm of what is missed over that of the change), `captured_energy` (share of the change's sum of squares
        that is held), `bytes` (of the numbers in the file), `note`.
        """
        import pandas as pd

        rows = [
            (one.key, one.place, math.nan if one.note == WHOLE else one.rank, *_share([one]), one.nbytes, one.note) for one in self.layers
        ]
        rows.append((ALL, ALL, math.nan, *_share(self.layers), self.nbytes, "; ".join(self.notes)))
        return pd.DataFrame(rows, columns=["layer", "block", "rank", "relative_error", "captured_energy", "bytes", "note"])

    @property
    def headline(self) -> str:
        ranks = sorted({layer.rank for layer in self.layers if layer.rank})
        told = f", of ranks {ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else f", of rank {ranks[0]}" if ranks else ""
        held = sum(bool(layer.nbytes) for layer in self.layers)
        said = f"{held} changes{told}, in {self.nbytes / 1e6:.3g} MB; relative error {self.error:.3g}"
        return "; ".join([said, *self.notes])

    def plot(self) -> go.Figure:
        """By block, as deep as they lie: the relative error, the mean rank, and the size."""
        import pandas as pd

        from workbench import figures

        rows = []
        for place, layers in by_place(self.anchor, ((layer.place, layer) for layer in self.layers)).items():
            if place == ALL:
                continue
            ranks = [layer.rank for layer in layers if layer.note != WHOLE]
            rows.append((place, "relative error", relative(layers)))
            rows.append((place, "mean rank", float(np.mean(ranks)) if ranks else math.nan))
            rows.append((place, "kilobytes", sum(layer.nbytes for layer in layers) / 1e3))
        frame = pd.DataFrame(rows, columns=["block", "quantity", "value"]).assign(lora=self.name)
        figure = figures.panels(
            frame, x="block", y="value", panel="quantity", colour="lora", title=f"What {self.name} holds", told=self.headline
        )
        return figure.update_yaxes(rangemode="tozero")


def relative(layers: Sequence[Layer]) -> float:
    """The norm of what layers miss over that of their change; NaN where nothing changes."""
    return _share(layers)[0]


def _share(layers: Sequence[Layer]) -> tuple[float, float]:
    """Relative error and captured energy."""
    total, missed = sum(layer.total for layer in layers), sum(layer.missed for layer in layers)
    if not total:
        return math.nan, math.nan
    return math.sqrt(missed / total), 1 - missed / total
