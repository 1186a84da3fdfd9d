"""Points of the span of several tensors, as the factors that these are multiplied by and summed: inner products alone tell their
lengths, distances and angles, so that a search among them reads the tensors once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from workbench.operators import geometry


class Span:
    """That of tensors whose inner products are known, or of those of them that are `used`.

    A point is an array of a factor for each. Nearer than about 1e-8 of the tensors' lengths, distances are rounding.
    """

    def __init__(self, products: geometry.Products, used: Sequence[int]) -> None:
        self.points = np.eye(len(used))  # the tensors themselves
        pairs = [(min(one, other), max(one, other)) for one in used for other in used]
        self._inner = np.array([products.of[pair].item() for pair in pairs]).reshape(self.points.shape)

    def lengths(self, points: np.ndarray) -> np.ndarray:
        """Of a point, or of each row."""
        return np.asarray(np.sqrt(np.maximum(((points @ self._inner) * points).sum(-1), 0)))

    def angle(self, one: np.ndarray, other: np.ndarray) -> float:
        """Between points of length 1, from 0 to pi (Kahan 2006)."""
        apart, together = self.lengths(np.stack([one - other, one + other]))
        return 2 * math.atan2(apart, together)


def point(tensors: Sequence[torch.Tensor], factors: Sequence[float]) -> torch.Tensor:
    """The sum of the tensors times their factors; one whose factor is 0 has no say, whatever it holds."""
    left = [(tensor, factor) for tensor, factor in zip(tensors, factors, strict=True) if factor]
    if not left:
        return torch.zeros_like(tensors[0])
    (tensor, factor), *others = left
    result: torch.Tensor = tensor * factor
    for tensor, factor in others:
        result.add_(tensor, alpha=factor)
    return result
