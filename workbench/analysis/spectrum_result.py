"""`Spectrum`: what was measured in bands of frequency, as frames and figures. Nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from workbench.analysis.bands import APART, BETWEEN, COUNT, ENERGY, IN_PHASE, MOVED, PHASES
from workbench.analysis.metrics import over as quotient
from workbench.errors import InputError, OptionError
from workbench.figures import COLOURS
from workbench.figures.results import Result

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_AXIS = "frequency (1: the highest)"
ALL = "all"  # the last place: every tensor
OF_PARTS = (COLOURS[4], COLOURS[5])  # of the weights that were asked for: other colours than the models'
_UNITS = {
    "energy": "sum of squares",
    "amplitude": "amplitude",
    "share": "share of the energy",
    "apart": "amplitude of the difference",
    "coherence": "mean cosine of phases",
    "taken": "share of {first}",
}
_TITLES = {
    "energy": "Energy of {model}",
    "amplitude": "Amplitude of {model}",
    "share": "Share of the energy of {model}",
    "apart": "Difference of {model} from {first}",
    "coherence": "Coherence of {model} with {first}",
    "taken": "What {model} took of {first}",
}
_UNDEFINED = {
    "amplitude": "no tensor has such a frequency",
    "share": "the model is all zero",
    "coherence": "no phase to compare",
    "taken": "the first two are equal here",
}

Value = Literal["energy", "amplitude", "share", "apart", "coherence", "taken"]


@dataclass(frozen=True, repr=False)
class Spectrum(Result):
    """Weights by frequency. `sums` holds tensors x 7 x models x bands (see `bands`), `asked` tensors x 2 x bands, of a merge."""

    models: tuple[str, ...]
    edges: np.ndarray
    places: tuple[str, ...]
    blocks: tuple[str, ...]
    tensors: tuple[str, ...]
    sums: np.ndarray
    asked: np.ndarray | None = None
    parts: tuple[str, ...] = ()

    @property
    def frequencies(self) -> np.ndarray:
        """The middle of each band."""
        middles: np.ndarray = (self.edges[:-1] + self.edges[1:]) / 2
        return middles

    def frame(self, by: Literal["block", "tensor"] = "block") -> pd.DataFrame:
        """A row for each block (or tensor), model and band: blocks by depth, last `all`, which is every tensor.

        Columns: `block` and `model` (ordered categories), by tensor also `tensor`; `frequency`, the middle of the band,
        from 0 to 1; `energy`, `amplitude` and `share`; where there are several models `apart`,
        `coherence` and `taken`; and `note`:
        why a number is missing. See `spectrum` for what they are.
        """
        import pandas as pd

        groups = self._groups(by)
        sums = np.stack([np.nansum(self.sums[rows], axis=0) for _, _, rows in groups])
        frame = self._index(groups, self.models)
        values = _values(sums)
        for name in list(_UNITS)[: 3 if len(self.models) == 1 else None]:
            frame[name] = values[name].ravel()
        frame["model"] = pd.Categorical(frame["model"], self.models, ordered=True)
        frame["note"] = _notes(frame)
        return frame if by == "tensor" else frame.drop(columns="tensor")

    def curves(self, by: Literal["block", "tensor"] = "block") -> pd.DataFrame:
        """Of a merge, the first model's weights in every band: a row for each block (or tensor) and band.

        Columns: `block`, `frequency`; a column for each of the two parts that are weighted: the mean weight that was asked
        for, after strength and decoherence (of magnitudes and phases only about what comes of it); `taken`, what was
        measured; `note`. Raises InputError for what is no FFT merge.
        """
        if self.asked is None:
            raise InputError("curves: only an fft_blend merge has curves; these are checkpoints side by side")
        groups = self._groups(by)
        frame = self._index(groups, [self.models[-1]]).drop(columns="model")
        sums = np.stack([np.nansum(self.sums[rows], axis=0) for _, _, rows in groups])
        weights = quotient(np.stack([self.asked[rows].sum(0) for _, _, rows in groups]), sums[:, COUNT, :1])
        for i, part in enumerate(self.parts):
            frame[part] = weights[:, i].ravel()
        frame["taken"] = _values(sums)["taken"][:, -1].ravel()
        frame["note"] = np.where(frame["taken"].isna(), _UNDEFINED["taken"], "")
        frame.loc[frame[self.parts[0]].isna(), "note"] = _UNDEFINED["amplitude"]
        return frame if by == "tensor" else frame.drop(columns="tensor")

    @property
    def headline(self) -> str:
        told = f"{len(self.tensors)} tensors"
        values = _values(np.nansum(self.sums, axis=0)[None])
        name, row = ("taken", -1) if self.asked is not None else ("amplitude", 0)
        there = values[name][0, row][np.isfinite(values[name][0, row])]
        if not len(there):
            return f"{told}: {_UNDEFINED[name]}"
        low, high = (f"{value:z.0%}" if name == "taken" else f"{value:.3g}" for value in there[[0, -1]])
        what = f"of {self.models[0]}, {self.models[-1]} has" if name == "taken" else f"{self.models[0]} has an amplitude of"
        return f"{told}: {what} {low} at the lowest frequencies and {high} at the highest"

    def plot(self, block: str = ALL) -> go.Figure:
        """Amplitudes over frequency; below, the share of the first model in the merge, or the coherence with it."""
        from workbench import figures

        where = "" if block == ALL else f" in {self._known(block)}"
        frame = self.frame()
        frame = frame[(frame["block"] == block) & frame["amplitude"].notna()]
        upper = _lines(self._amplitudes(frame), "amplitude", "of", f"Amplitude of the weights{where}")
        if len(self.models) == 1:
            return upper.update_yaxes(rangemode="tozero")
        colours: Sequence[str]
        if self.asked is None:
            others = frame[frame["model"] != self.models[0]]
            of = f" of {self.models[1]}" if len(self.models) == 2 else ""
            lower, colours = _lines(others, "coherence", "model", f"Coherence{of} with {self.models[0]}", "cosine"), COLOURS[1:]
        else:
            curves = self.curves().rename(columns={"taken": "as measured"})
            curves = curves[curves["block"] == block].drop(columns=["block", "note"])
            tidy = curves.melt("frequency", var_name="of", value_name="share").dropna()
            lower, colours = _lines(tidy, "share", "of", f"Share of {self.models[0]} in the {self.models[-1]}"), OF_PARTS
        for line, colour in zip(lower.data, colours, strict=False):
            line.update(line_color=colour)
        return figures.stacked(upper.update_yaxes(type="log", dtick="D2"), lower.update_yaxes(rangemode="tozero"))

    def _amplitudes(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Those of the models, and of what the first two differ by, which is all that a blend has to choose from."""
        import pandas as pd

        own = frame[["frequency", "amplitude"]].assign(of=frame["model"].astype(str))
        if len(self.models) == 1:
            return own
        apart = frame[(frame["model"] == self.models[1]) & (frame["apart"] > 0)]
        difference = apart[["frequency"]].assign(amplitude=apart["apart"], of=f"{self.models[0]} − {self.models[1]}")
        return pd.concat([own, difference])

    def heat(self, value: Value | None = None, model: str | None = None) -> go.Figure:
        """Blocks downwards, frequencies across; of a merge by default what it took of the first model. Raises OptionError."""
        from workbench import figures

        value = value or ("taken" if self.asked is not None else "amplitude")
        model = model or self.models[-1 if value in ("apart", "coherence", "taken") else 0]
        frame = self.frame()
        if model not in self.models or value not in _UNITS or value not in frame:
            raise OptionError(f"heat: there is no {value!r} of {model!r}; there are {', '.join(self.models)}, and {', '.join(_UNITS)}")
        digits = max(2, -math.floor(math.log10(np.diff(self.edges).min())))  # as many as tell the bands apart
        frame = frame[frame["model"] == model]
        frame = frame.assign(frequency=[f"{one:.{digits}f}" for one in frame["frequency"]])
        table = frame.pivot(index="block", columns="frequency", values=value).dropna(how="all", axis=1)
        table = table.round(2) if value == "taken" else table  # what rounding leaves below 0 is no second way
        told = {"model": model, "first": self.models[0]}
        title = f"{_TITLES[value].format(**told)}, by block and frequency"
        return figures.heat(table, title=title, x_title=_AXIS, y_title="", unit=_UNITS[value].format(**told))

    def _groups(self, by: str) -> list[tuple[str, str, list[int]]]:
        """Block and tensor of each group of rows, and which they are."""
        if by == "tensor":
            return [(block, key, [i]) for i, (block, key) in enumerate(zip(self.blocks, self.tensors, strict=True))]
        if by != "block":
            raise OptionError(f"frame: by must be 'block' or 'tensor', got {by!r}")
        inside = {place: [i for i, block in enumerate(self.blocks) if block == place] for place in self.places}
        return [(place, "", rows) for place, rows in (inside | {ALL: list(range(len(self.tensors)))}).items()]

    def _index(self, groups: Sequence[tuple[str, str, list[int]]], models: Sequence[str]) -> pd.DataFrame:
        import pandas as pd

        rows = [(block, key, model, one) for block, key, _ in groups for model in models for one in self.frequencies]
        frame = pd.DataFrame(rows, columns=["block", "tensor", "model", "frequency"])
        frame["block"] = pd.Categorical(frame["block"], [*self.places, ALL], ordered=True)
        return frame

    def _known(self, block: str) -> str:
        if block not in self.places:
            raise OptionError(f"plot: block must be one of {', '.join(map(repr, [*self.places, ALL]))}, got {block!r}")
        return block


def _values(sums: np.ndarray) -> dict[str, np.ndarray]:
    """What the sums of groups x 7 x models x bands come to: each groups x models x bands."""
    count, energy = sums[:, COUNT], sums[:, ENERGY]
    return {
        "energy": np.where(count == 0, np.nan, energy),
        "amplitude": np.sqrt(quotient(energy, count)),
        "share": np.where(count == 0, np.nan, quotient(energy, energy.sum(-1, keepdims=True))),
        "apart": np.sqrt(quotient(sums[:, APART], count)),
        "coherence": quotient(sums[:, IN_PHASE], sums[:, PHASES]),
        "taken": quotient(sums[:, MOVED], sums[:, BETWEEN]),
    }


def _lines(frame: pd.DataFrame, y: str, colour: str, title: str, y_title: str | None = None) -> go.Figure:
    from workbench import figures

    return figures.lines(frame, x="frequency", y=y, colour=colour, title=title, x_title=_AXIS, y_title=y_title)


def _notes(frame: pd.DataFrame) -> np.ndarray:
    """Why numbers are missing."""
    told = [np.where(frame[name].isna(), why, "") for name, why in _UNDEFINED.items() if name in frame]
    absent = frame["amplitude"].isna().to_numpy()
    return np.array([next(iter(words)) if gone else "; ".join(filter(None, words)) for gone, *words in zip(absent, *told, strict=True)])
