"""`compare`: how like an anchor other models are, block by block. What is calculated lives in similarities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.analysis.similarities import measure
from workbench.engine.inputs import Models, named

if TYPE_CHECKING:
    import pandas as pd

_METRICS = ("cosine", "distance", "norm_ratio", "scale")


def compare(checkpoints: Models, *, progress: bool = True) -> pd.DataFrame:
    """How like the first checkpoint, the anchor, the others are: block by block, and over all.

    Takes checkpoints, merged or not: in a list (named as they are, made unique), or by name. The frame has a row for each
    `block` and `model`: the anchor's blocks by depth; what lies in no block under its component (`unet` is what the U-Net
    has outside its blocks); last `all`. The index keeps that order: `frame["cosine"].unstack()` is a table of blocks and
    models. The columns are the metrics `cosine`, `distance`, `norm_ratio` and `scale` of `workbench.analysis.similarity`,
    numbers without a unit, the anchor first of the pair; and `tensors`: how many were compared. `scale` is what `nearest`
    takes as alpha for the first candidate, and as beta for the second, to bring it to the anchor's scale.

    What would be divided by a norm of zero is NaN. `frame.attrs["anchor"]` is the anchor's name. Errors and warnings are
    those of `similarity`.
    """
    models = named(checkpoints, "compare")
    found = measure(models, "block", _METRICS, base=None, who="compare", progress=progress)
    anchor = next(iter(models))
    frame = found.frame()
    frame = frame[frame["first"] == anchor].drop(columns=["first", "note"]).rename(columns={"place": "block", "second": "model"})
    frame["model"] = frame["model"].cat.remove_categories(anchor)
    frame = frame.set_index(["block", "model"])
    frame.attrs["anchor"] = anchor
    return frame
