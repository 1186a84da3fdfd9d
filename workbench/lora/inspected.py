"""`InspectedLora`: what was found in a LoRA, as a frame, a figure, a page in a notebook, and text. Nothing is read here."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.checkpoint.views.low_rank import LowRank
from workbench.checkpoint.views.placing import ALL, by_place
from workbench.figures.results import Result
from workbench.lora.training import Training
from workbench.wording import few, listed, printable

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SHOWN = 30  # words in a table
_SAID = 8  # words in a line


@dataclass(frozen=True)
class Inspected:
    """A tensor that is changed. `rank` and `alpha` are NaN where there are none; `norm` is the Frobenius norm of the change."""

    key: str
    place: str
    kind: str
    rank: float
    alpha: float
    norm: float


@dataclass(frozen=True, repr=False)
class InspectedLora(Result):
    """What is in a LoRA: the changes, and what its header tells of its training."""

    lora: LowRank
    layers: tuple[Inspected, ...]
    training: Training

    @property
    def architecture(self) -> str:
        """What it is for, as its names prove it or its header says; else `unknown`."""
        return self.lora.architecture

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of change in it, the most frequent first."""
        names = [layer.kind for layer in self.layers]
        return tuple(sorted(dict.fromkeys(names), key=names.count, reverse=True))

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to mind."""
        relative = self.lora.relative
        bad = [layer.key for layer in self.layers if math.isnan(layer.norm) and layer.key not in relative]
        told = []
        if bad:
            told.append(f"{len(bad)} changes hold NaN or infinity ({listed(bad)}); they are in no sum")
        if relative:
            told.append(
                f"{len(relative)} changes depend on the model that they are put on ({listed(relative)}); their norms are not known here"
            )
        return (*told, *self.lora.notes, *self.training.notes)

    @property
    def norm(self) -> float:
        """The Frobenius norm of all changes together that have one known here; NaN where none has."""
        return _norm(self.layers)

    def frame(self) -> pd.DataFrame:
        """A row for each tensor that is changed, in the file's order.

        Columns: `layer`, `block` (its component where it lies in none), `kind`, `rank`, `alpha` (as kohya counts: the factors are scaled
        by alpha / rank; both NaN for what has none), `norm` (Frobenius norm of the change at strength 1).
        """
        import pandas as pd

        rows = [(one.key, one.place, one.kind, one.rank, one.alpha, one.norm) for one in self.layers]
        return pd.DataFrame(rows, columns=["layer", "block", "kind", "rank", "alpha", "norm"])

    def blocks(self) -> pd.DataFrame:
        """A row for each block by depth, then components, then `all`.

        Columns: `block`, `layers` (how many), `kind`, `rank` and `alpha` (one number, or least to most), `norm` (of all its changes).
        """
        import pandas as pd

        rows = [
            (where, len(layers), ", ".join(dict.fromkeys(one.kind for one in layers)), _range([one.rank for one in layers]),
             _range([one.alpha for one in layers]), _norm(layers))
            for where, layers in self._by_place.items()
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["block", "layers", "kind", "rank", "alpha", "norm"])

    @property
    def headline(self) -> str:
        rank, alpha = _range([one.rank for one in self.layers]), _range([one.alpha for one in self.layers])
        told = f" of rank {rank} and alpha {alpha}" if rank else ""
        what = f"{' and '.join(self.kinds)}{told} for {self.architecture} ({', '.join(self.lora.components)})"
        norm = f", by {self.norm:.3g} in all" if math.isfinite(self.norm) else ""
        return f"{self.lora.name}: {what}; {len(self.layers)} tensors changed{norm}"

    def plot(self) -> go.Figure:
        """By block, as deep as they lie: the norm of the change, and the mean rank."""
        import pandas as pd

        from workbench import figures

        rows = []
        for where, layers in self._by_place.items():
            ranks = [one.rank for one in layers if not math.isnan(one.rank)]
            if where != ALL:
                rows += [(where, "norm of the change", _norm(layers)), (where, "mean rank", sum(ranks) / len(ranks) if ranks else math.nan)]
        frame = pd.DataFrame(rows, columns=["block", "quantity", "value"]).assign(lora=self.lora.name)
        title = f"What {printable(self.lora.name)} changes"
        figure = figures.panels(frame, x="block", y="value", panel="quantity", colour="lora", title=title, told=printable(self.headline))
        return figure.update_yaxes(rangemode="tozero")

    def __str__(self) -> str:
        lines = [self.headline]
        if self.training.triggers:
            lines.append(f"called by: {few(self.training.triggers, _SAID)}")
        if self.training.words:
            lines.append(f"trained words: {few([f'{word} ({count})' for word, count in self.training.words.items()], _SAID)}")
        lines += [f"{name}: {value}" for name, value in self.training.settings.items()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*map(printable, lines), *self.blocks().to_string(index=False, float_format="%.3g").splitlines()])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}

    def _repr_html_(self) -> str:
        import pandas as pd

        training = self.training
        words = [(word, count) for word, count in list(training.words.items())[:_SHOWN]]
        named = "".join(f"<p>called by: <b>{html.escape(printable(word))}</b></p>" for word in training.triggers)
        noted = "".join(f"<li>{html.escape(printable(note))}</li>" for note in self.notes)
        left_out = len(training.words) - len(words)
        tables = {
            "blocks": self.blocks(),
            f"trained words{f' (the first {_SHOWN} of {len(training.words)})' if left_out else ''}": pd.DataFrame(
                words, columns=["word", "pictures"]
            ),
            "header": pd.DataFrame(training.settings.items(), columns=["name", "value"]),
        }
        shown = "".join(_folded(title, table) for title, table in tables.items() if len(table))
        return f"<p><b>{html.escape(printable(self.headline))}</b></p>{named}<ul>{noted}</ul>{shown}"

    @cached_property
    def _by_place(self) -> dict[str, list[Inspected]]:
        return by_place(self.lora, ((layer.place, layer) for layer in self.layers))


def _folded(title: str, table: pd.DataFrame) -> str:
    """A table under its title, which opens it; the first one is open."""
    told = table.map(lambda value: printable(value) if isinstance(value, str) else value)
    inner: str = told.to_html(index=False, float_format="%.3g", na_rep="", border=0)
    return f"<details{' open' * (title == 'blocks')}><summary>{html.escape(title)}</summary>{inner}</details>"


def _norm(layers: Sequence[Inspected]) -> float:
    """Of all changes together, but for those that have none."""
    known = [one.norm for one in layers if not math.isnan(one.norm)]
    return math.hypot(*known) if known else math.nan


def _range(numbers: Sequence[float]) -> str:
    """`8`, or `4 to 16`; nothing where all are NaN."""
    there = [number for number in numbers if not math.isnan(number)]
    if not there:
        return ""
    least, most = min(there), max(there)
    return f"{least:.4g}" if f"{least:.4g}" == f"{most:.4g}" else f"{least:.4g} to {most:.4g}"
