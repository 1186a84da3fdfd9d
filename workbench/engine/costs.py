"""What quantising cost, tensor by tensor and by block, as frames. What was lost of each tensor is summed in `quantising.losses`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from workbench.checkpoint import Checkpoint
from workbench.engine.quantising.choosing import QuantisedPlan
from workbench.engine.quantising.losses import Loss
from workbench.engine.streaming import Findings

if TYPE_CHECKING:
    import pandas as pd


@final
@dataclass(frozen=True)
class Cost:
    """A tensor, the block (or else the module or component) it lies in, what it is written as, in how many bytes, and what that loses."""

    tensor: str
    place: str
    kind: str
    nbytes: int
    loss: Loss


def costs(checkpoint: Checkpoint, choice: QuantisedPlan, findings: Findings) -> tuple[Cost, ...]:
    """That of every tensor of which loss was measured, in the checkpoint's order."""
    lossy = {key: one for key, one in choice.quantisers.items() if one.lossy and key in findings.losses}
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


def as_html(frame: pd.DataFrame) -> str:
    """The frame as a table, with shares in percent."""
    shares = frame.astype({"error": float, "kept": float, "change error": float})
    formats = {"MB": "{:.2f}".format, "error": "{:.2%}".format, "kept": "{:.1%}".format, "change error": "{:.1%}".format}
    return str(shares.to_html(index=False, border=0, formatters=formats, na_rep=""))
