"""One extracted LoRA at many ranks: the strongest directions come first, so that each smaller one lies in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.low_rank import LowRank
from workbench.lora.formats import in_memory


@dataclass(frozen=True)
class Cut:
    """A LoRA of one rank: what it misses, over the change, and the bytes of its factors in half precision."""

    rank: int
    lora: LowRank
    error: float
    nbytes: int


def cuts(lora: LowRank, base: Checkpoint, ranks: Sequence[int]) -> list[Cut]:
    """What `extract` made, cut to each of the ranks. Exact: a cut is what `extract` gives at that rank."""
    factors = {key: lora.factors(key) for key in lora}
    layers = {layer.key: layer for layer in lora.report.layers}
    squares = {key: (up.double().square().sum(0) * down.double().square().sum(1)).tolist() for key, (up, down) in factors.items()}
    total = math.fsum(layer.total for layer in layers.values())
    found = []
    for rank in ranks:
        parts = {key: (up[:, :rank], down[:rank], lora.info(key).shape) for key, (up, down) in factors.items()}
        missed = math.fsum([layers[key].missed + math.fsum(squares[key][rank:]) for key in factors])
        nbytes = sum(2 * (up.numel() + down.numel()) for up, down, _ in parts.values())
        found.append(Cut(rank, in_memory(parts, {}, f"rank {rank}", base), math.sqrt(missed / total), nbytes))
    return found
