"""`shares`: which frequencies of which parent a prompt asks for, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from workbench.checkpoint import Checkpoint
from workbench.families import Location
from workbench.figures.results import Result
from workbench.operators.spectral import weights

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.merge import Merge

_FREQUENCIES = 64  # at which a merge is asked
_ELSEWHERE = "elsewhere"


@final
@dataclass(frozen=True, repr=False)
class Shares(Result):
    """What FFT merges take of their first input, by block and frequency; see `shares`. Merges of one shape show as one figure."""

    merges: Mapping[str, Merge]
    table: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """`merge`, `block` (`elsewhere`: tensors in none), `frequency` (0 the mean, 1 the highest), `real`, `imaginary`.

        The last two are the share of the first input in the real and in the imaginary parts: 1 all, 0.5 the average, 0 none.
        """
        return self.table.copy()

    def plot(self) -> go.Figure:
        """The mean of both shares: one map for each merge, its blocks downwards, its frequencies across."""
        from workbench.figures import heats

        mean = self.table.assign(share=(self.table["real"] + self.table["imaginary"]) / 2)
        maps = {name: _by_block(own) for name, own in mean.groupby("merge", sort=False)}
        first, second = next(iter(self.merges.values())).call.names[:2]
        return heats(maps, title=f"Share of {first}; the rest is {second}'s", unit=f"share of {first}", middle=0.5)

    @property
    def headline(self) -> str:
        told = self.table.groupby("merge", sort=False)[["real", "imaginary"]].mean().mean(axis=1)
        return "share of the first input: " + ", ".join(f"{value:.0%} for {name!r}" for name, value in told.items())


def shares(merges: Mapping[str, Checkpoint] | Sequence[Checkpoint] | Checkpoint) -> Shares:
    """How much of its first input each of these FFT merges takes, by block and frequency; merges of the same models, by name.

    It follows from the options alone, and no tensor is read. Raises TypeError for another operator's merge.
    """
    import pandas as pd

    listed = [merges] if isinstance(merges, Checkpoint) else merges  # a checkpoint is a mapping too
    named = listed if isinstance(listed, Mapping) else {f"merge {i}": one for i, one in enumerate(listed, 1)}
    blends = {name: _blend(name, one) for name, one in named.items()}
    return Shares(blends, pd.concat([_table(name, merge) for name, merge in blends.items()], ignore_index=True))


def _blend(name: str, given: Any) -> Merge:
    merge = given.merge if isinstance(given, Checkpoint) else None
    if merge is None or merge.call.operator.name != "fft_blend":
        raise TypeError(f"shares: {name!r} is {given!r}; give merges made by fft_blend")
    return merge


def _table(name: str, merge: Merge) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for block in (*merge.depth.blocks, None):
        own = {option: at(Location(block)) for option, at in merge.bound.items()}
        given = own["coefficients"]
        frequency = np.linspace(0, 1, _FREQUENCIES if own["smooth"] else max(_FREQUENCIES, len(given)))
        real, imaginary = (one.numpy() for one in weights(frequency, given, own["smooth"], (own["low"], own["high"])))
        blended = own["entanglement_strength"] * (1 - own["decoherence_factor"])  # the rest is the average
        told = {"real": 0.5 + blended * (real - 0.5), "imaginary": 0.5 + blended * (imaginary - 0.5)}
        rows.append(pd.DataFrame({"merge": name, "block": block.name if block else _ELSEWHERE, "frequency": frequency, **told}))
    return pd.concat(rows, ignore_index=True)


def _by_block(table: pd.DataFrame) -> pd.DataFrame:
    wide = table.pivot(index="block", columns="frequency", values="share")
    return wide.loc[list(dict.fromkeys(table["block"]))]
