"""`extract`: what a tuned model has learned on top of its base, as a LoRA. How a change is taken apart is in `decomposition`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import MergeWarning, warn
from workbench.lora.choosing import LoraLimit
from workbench.lora.decomposition import decompose
from workbench.lora.differences import TensorPair, Unlearned, nothing, side_by_side, streamed
from workbench.lora.gathering import Gathered
from workbench.lora.targets import Include, LoraForm
from workbench.tensors import SavedDtype
from workbench.wording import listed

if TYPE_CHECKING:
    import torch

_WHO = "extract"


def extract(
    tuned: Checkpoint,
    base: Checkpoint,
    *,
    rank: int | None = None,
    target_error: float | None = None,
    max_bytes: int | None = None,
    include: Include = None,
    whole: bool = False,
    dtype: SavedDtype = "float16",
    progress: bool = True,
) -> LowRank:
    """A LoRA that makes `base` into `tuned`, as nearly as its size allows: tensor by tensor the strongest directions of tuned - base.

    Exactly one limit is given: a `rank` for all tensors; a `target_error`, the norm of what is missed over that of the change, for
    which every tensor takes as many directions as it needs; or `max_bytes` of the file that `export` writes in `dtype`, shared out
    where they buy most squared error. `include` says which tensors, by component (`"unet"`, `"text_encoder"`) or name
    (`"*attn2*"`), one or several; by default the matrices and convolutions that LoRAs are trained for, in the denoiser's blocks and the
    text encoders' layers: kohya's tools load no others. `whole` keeps what of it has no rank, norms and biases, as it is. Convolutions
    are taken apart as rows x (channels x height x width).

    Models and merges are read once, merges unrounded, tensor by tensor. What does not differ is not in the LoRA, nor what differs by
    rounding to another dtype alone. OpenCLIP's fused queries, keys and values are three tensors, as transformers and LoRAs have
    them. `.report` tells what the LoRA holds, and what it leaves behind: `.frame()`, `.plot()`, `.error`.

    Raises OptionError for a limit that makes no sense, InputError for what is no checkpoint and an `include` that fits nothing,
    MergeError for models that do not fit together or do not differ. Warns of tensors that only one of them has or that hold NaN, and of
    a rank that no tensor has.
    """
    wanted = LoraLimit(rank, target_error, max_bytes, dtype)
    wanted.check(_WHO)
    side, pairs = side_by_side(tuned, base, include, whole, _WHO)
    _warn_of_rank(rank, pairs)
    gathered = Gathered(wanted, side.models[side.base])

    def work(pair: TensorPair, change: torch.Tensor, total: float) -> None:
        if pair.form is LoraForm.FACTORS:
            gathered.add(decompose(pair.key, change, total, rank))
        else:
            gathered.keep(pair.key, change, total)

    rest = streamed(side, pairs, work, who=_WHO, progress=progress)
    if not gathered.totals:
        raise nothing(side, rest, _WHO)
    return gathered.lora(f"{side.tuned}-lora", [one.key for one in pairs], _notes(rest), _WHO)


def _warn_of_rank(rank: int | None, pairs: Sequence[TensorPair]) -> None:
    """Tell of a rank that no tensor has; where only some have less, the report notes it."""
    most = max((min(one.shape[0], math.prod(one.shape[1:])) for one in pairs if one.form is LoraForm.FACTORS), default=0)
    if rank is not None and 0 < most < rank:
        warn(f"{_WHO}: rank {rank} is above the smaller dimension of every tensor, and is reduced to {most} or less", MergeWarning)


def _notes(rest: Unlearned) -> tuple[str, ...]:
    """What differs and is not in the LoRA, in words."""
    told = ((rest.lost, "more tensors differ and are left out"), (rest.rounded, "more tensors differ by rounding alone and are left out"))
    return tuple(f"{len(pairs)} {what} ({listed([one.key for one in pairs])})" for pairs, what in told if pairs)
