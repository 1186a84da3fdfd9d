"""`Balanced`: strengths that were found, what is lost with them and with 1 each, as a frame and a figure. Nothing is drawn here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from workbench.figures.results import Result

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.lora.applying import Strength

_ALL = "all"
_SURE = 2.0  # standard errors that a difference is above chance
_CONDITIONS = ("alone", "1 each", "balanced")


@dataclass(frozen=True)
class Scores:
    """For each LoRA the scores of its prompts: prompts x seeds."""

    each: tuple[np.ndarray, ...]

    def losses(self, together: Scores) -> list[tuple[float, np.ndarray]]:
        """For each LoRA what is lost of these when all are drawn together: over all seeds, and with each seed."""
        pairs = zip(self.each, together.each, strict=True)
        return [(float(np.maximum((own - other).mean(1), 0).mean()), np.maximum(own - other, 0).mean(0)) for own, other in pairs]

    def lost(self, together: Scores) -> tuple[float, float]:
        """What is lost, the mean over LoRAs, and its standard deviation between seeds."""
        losses = self.losses(together)
        return float(np.mean([lost for lost, _ in losses])), _deviation(np.mean([each for _, each in losses], axis=0))


@dataclass(frozen=True)
class Trial:
    """A merge that was drawn: its strengths, LoRA by LoRA, what is lost, and its standard deviation between seeds."""

    strengths: tuple[float, ...]
    lost: float
    spread: float


@final
@dataclass(frozen=True, repr=False)
class Balanced(Result):
    """Strengths that were found. `checked` has the scores with seeds that the search did not see: alone, at 1 each, and balanced."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    found: tuple[float, ...]
    tried: tuple[Trial, ...]
    checked: Mapping[str, Scores]

    @property
    def strengths(self) -> list[Strength]:
        """For each LoRA its strength, as `apply` takes it: `wb.lora.apply(base, list(zip(loras, found.strengths)))`."""
        return laid_out(self.found, self.groups)

    @property
    def gain(self) -> tuple[float, float]:
        """How much less is lost than at 1 each, with seeds that the search did not see, and the standard error of that."""
        own = self.checked["alone"]
        each = [np.mean([seeds for _, seeds in own.losses(self.checked[one])], axis=0) for one in ("1 each", "balanced")]
        difference = own.lost(self.checked["1 each"])[0] - own.lost(self.checked["balanced"])[0]
        return difference, _deviation(each[0] - each[1]) / math.sqrt(len(each[0]))

    @property
    def helps(self) -> bool:
        """Whether the gain is above twice its standard error, and so more than chance."""
        gain, error = self.gain
        return gain > _SURE * error and gain > 0

    def frame(self) -> pd.DataFrame:
        """With seeds that the search did not see, a row for each LoRA, and `all`, and each of `alone`, `1 each`, `balanced`.

        Columns: `lora`, `strengths` (which of the three), `strength` (what it is), `score` (mean over prompts and seeds), `spread`
        (standard deviation between seeds), `lost` (of the score alone).
        """
        import pandas as pd

        rows = []
        for condition in _CONDITIONS:
            scores, losses = self.checked[condition], self.checked["alone"].losses(self.checked[condition])
            for name, told, values, (lost, _) in zip(self.names, self._told(condition), scores.each, losses, strict=True):
                rows.append((name, condition, told, float(values.mean()), _deviation(values.mean(0)), lost))
            means = np.mean([values.mean(0) for values in scores.each], axis=0)
            rows.append((_ALL, condition, "", float(means.mean()), _deviation(means), float(np.mean([lost for lost, _ in losses]))))
        return pd.DataFrame(rows, columns=["lora", "strengths", "strength", "score", "spread", "lost"])

    def trials(self) -> pd.DataFrame:
        """What the search drew, in its order: a column for each strength, `lost`, and `spread` (standard deviation between seeds)."""
        import pandas as pd

        places = [*self.groups, "default"] if self.groups else [""]
        columns = [" ".join(filter(None, (f"{i + 1} {name}", place))) for i, name in enumerate(self.names) for place in places]
        return pd.DataFrame([(*one.strengths, one.lost, one.spread) for one in self.tried], columns=[*columns, "lost", "spread"])

    @property
    def headline(self) -> str:
        own = self.checked["alone"]
        (before, wide), (after, spread) = (own.lost(self.checked[one]) for one in ("1 each", "balanced"))
        strengths = "; ".join(f"{name} {told}" for name, told in zip(self.names, self._told("balanced"), strict=True))
        lost = f"lose {after:.3g} ± {spread:.2g} of what each draws alone, strengths of 1 each {before:.3g} ± {wide:.2g}"
        gain, error = self.gain
        verdict = "which helps" if self.helps else f"which does not help: the difference, {gain:.2g} ± {error:.2g}, may be chance"
        if all(strength == 1 for strength in self.found):
            verdict = "for nothing better than 1 each was found"
        return f"{strengths}: {lost}, with seeds that the search did not see; {verdict}"

    def plot(self) -> go.Figure:
        """By LoRA: the score alone, with all at 1 each, and balanced; and what is lost."""
        import pandas as pd

        from workbench import figures

        frame = self.frame()
        rows = [
            frame.assign(panel=title, value=frame[column]) for column, title in (("score", "score"), ("lost", "lost of the score alone"))
        ]
        told = pd.concat(rows)
        return figures.panels(
            told, x="lora", y="value", panel="panel", colour="strengths", title="What LoRAs lose together", told=self.headline
        )

    def _told(self, condition: str) -> list[str]:
        """The strength of each LoRA, in words."""
        if condition != "balanced":
            return ["1"] * len(self.names)
        places = [f"{place} " for place in (*self.groups, "default")] if self.groups else [""]
        return [
            ", ".join(f"{place}{value:.3g}" for place, value in zip(places, row, strict=True)) for row in _rows(self.found, self.groups)
        ]


def laid_out(strengths: Sequence[float], groups: Sequence[str]) -> list[Strength]:
    """For each LoRA its strength, as `apply` takes it, of strengths LoRA by LoRA: for each group, and for what lies in none."""
    if not groups:
        return list(strengths)
    return [{"blocks": {**dict(zip(groups, row[:-1], strict=True)), "default": row[-1]}} for row in _rows(strengths, groups)]


def _rows(strengths: Sequence[float], groups: Sequence[str]) -> list[list[float]]:
    found: list[list[float]] = np.reshape(strengths, (-1, len(groups) + 1)).tolist()
    return found


def _deviation(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
