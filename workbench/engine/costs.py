"""What quantising cost, tensor by tensor and by block, as frames. What was lost of each tensor is summed in `quantising.losses`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from workbench.checkpoint import Checkpoint
from workbench.engine.quantising.losses import Loss
from workbench.engine.quantising.quantiser import Quantiser
from workbench.engine.streaming import Findings
from workbench.errors import ExportError
from workbench.wording import percent

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SHARES = ("error", "kept", "change error")


@final
@dataclass(frozen=True)
class Cost:
    """A tensor, the block (or else the module or component) it lies in, what it is written as, in how many bytes, and what that loses."""

    tensor: str
    place: str
    kind: str
    nbytes: int
    loss: Loss


@final
@dataclass(frozen=True)
class TypeChoice:
    """Types for all tensors, by the name of the choice: the bytes of the file, and what they lose together."""

    name: str
    nbytes: int
    loss: Loss


def costs(checkpoint: Checkpoint, quantisers: Mapping[str, Quantiser], findings: Findings) -> tuple[Cost, ...]:
    """That of every tensor of which loss was measured, in the checkpoint's order."""
    lossy = {key: one for key, one in quantisers.items() if one.lossy and key in findings.losses}
    return tuple(Cost(key, _place(checkpoint, key), one.kind, one.nbytes, findings.losses[key]) for key, one in lossy.items())


def _place(checkpoint: Checkpoint, key: str) -> str:
    location = checkpoint.structure.location(key)
    return location.block.name if location.block else location.module or checkpoint.structure.component(key)


def by_block(found: Sequence[Cost]) -> pd.DataFrame:
    """A row for each block: its types, megabytes, relative error; of what the merge changes, the share that is left and its error.

    The last two are None where the merge changes nothing.
    """
    import pandas as pd

    rows = []
    for place in dict.fromkeys(one.place for one in found):
        of_place = [one for one in found if one.place == place]
        total = sum((one.loss for one in of_place), Loss())
        kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(one.kind for one in of_place).most_common())
        nbytes = sum(one.nbytes for one in of_place)
        rows.append((place, kinds, len(of_place), nbytes / 1e6, total.error, total.kept, total.change_error))
    return pd.DataFrame(rows, columns=["block", "stored as", "tensors", "MB", "error", "kept", "change error"])


def by_choice(found: Sequence[TypeChoice]) -> pd.DataFrame:
    """A row for each choice: megabytes of the file, and what it loses, as `by_block` has it."""
    import pandas as pd

    rows = [(one.name, one.nbytes / 1e6, one.loss.error, one.loss.kept, one.loss.change_error) for one in found]
    return pd.DataFrame(rows, columns=["types", "MB", "error", "kept", "change error"])


def cost_plot(found: Sequence[Cost], name: str) -> go.Figure:
    """By block, one panel below the other: the error; of what the merge changes, what is left and its error; megabytes.

    Raises ExportError where nothing is quantised.
    """
    from workbench import figures

    if not found:
        raise ExportError(
            f"{name}: nothing in it is quantised, so there is no cost to plot; export it with quantise=, max_bytes= or scaled="
        )
    frame = by_block(found).drop(columns=["stored as", "tensors"]).assign(file=name)
    for share in _SHARES:
        frame[share] = 100 * frame[share].astype(float)
    panels = {"error": "relative error, %", "kept": "of the change left, %", "change error": "relative error of the change, %", "MB": "MB"}
    long = frame.rename(columns=panels).melt(["block", "file"], list(panels.values()), "quantity").dropna()
    told = in_words(sum((one.loss for one in found), Loss()))
    figure = figures.panels(long, x="block", y="value", panel="quantity", colour="file", title=f"What quantising costs {name}", told=told)
    return figure.update_yaxes(rangemode="tozero")


def in_words(total: Loss) -> str:
    """The error, and what is left of a change under how much noise."""
    told = f"relative error {total.error:.2%}"
    if total.kept is None:
        return told
    left, noise = percent(max(total.kept, 0.0)), percent(total.change_error or 0.0)
    return f"{told}; of what this merge changed, {left} is left, under noise of {noise}"


def as_html(frame: pd.DataFrame) -> str:
    """One of the frames as a table, with shares in percent."""
    formats = {"MB": "{:.2f}".format, "error": "{:.2%}".format, "kept": "{:.1%}".format, "change error": "{:.1%}".format}
    shares = frame.astype(dict.fromkeys(_SHARES, float))
    return str(shares.to_html(index=False, border=0, formatters=formats, na_rep=""))
