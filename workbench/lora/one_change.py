"""What there is to know of one change of a LoRA: its directions, and its size. From its factors alone, where it has some."""

from __future__ import annotations

from workbench.checkpoint.views.low_rank import LowRank
from workbench.lora.decomposition import Decomposed, decompose, decompose_product, energy


def directions(lora: LowRank, key: str) -> Decomposed | None:
    """All directions of a change; None where it is zero."""
    if (pair := lora.factors(key)) is not None:
        return decompose_product(key, lora.info(key).shape, *pair)
    change = lora.read(key).float()
    return decompose(key, change, total) if (total := energy(change)) else None


def squares(lora: LowRank, key: str) -> float:
    """The sum of squares of a change, from matrices as small as its rank."""
    if (pair := lora.factors(key)) is None:
        return energy(lora.read(key).float())
    up, down = (factor.double() for factor in pair)
    return float(((up.T @ up) * (down @ down.T)).sum())
