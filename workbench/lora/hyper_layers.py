"""Takes one layer of several models to small matrices that hold what LoRAs could carry of it. What they come to is not decided here."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from workbench.engine.reading import Tensors

_SPARE = 16  # directions of a layer beyond the ranks: the alternation may turn towards them (Halko et al. 2011, section 4.2)
_EXACT = 2  # a side whose directions are all known is kept whole up to so many times what ranks ask for


@dataclass(frozen=True, eq=False)
class ReducedLayer:
    """The layer `key` of `shape`: `cores` (changes x p x q) between orthonormal `left` (rows x p) and `right` (others x q).

    A side without a basis is kept as it is.
    """

    key: str
    shape: tuple[int, ...]
    left: torch.Tensor | None
    right: torch.Tensor | None
    cores: torch.Tensor

    def expanded(self, up: torch.Tensor, down: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Factors of a small matrix (p x rank, rank x q) as those of the layer's change, on the CPU."""
        up = up if self.left is None else self.left @ up
        down = down if self.right is None else down @ self.right.T
        return up.cpu().contiguous(), down.cpu().contiguous()


def reduced(tensors: Tensors, turn: np.ndarray, widths: Sequence[int], seed: int, device: str) -> ReducedLayer:
    """One layer of the models, read once, as cores of the changes that `turn` (models x changes, columns of sum 0) makes of them.

    `widths` says how many directions of each change LoRAs will need; these and a few more are kept, of both sides, for all
    changes together. They are found by power iteration from random directions, which depend on `seed` and the layer's name alone.
    Source: Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithm 4.4, with one iteration.
    """
    import torch

    shape = tensors.shape
    rows, others = shape[0], math.prod(shape[1:])
    matrix = torch.from_numpy(turn[1:].T.copy())
    changes = torch.empty(turn.shape[1], rows * others)
    done = 0
    for chunk in tensors.chunks():
        width = chunk.shape[1]
        changes[:, done : done + width] = matrix @ (chunk[1:] - chunk[0])
        done += width
    changes = changes.view(-1, rows, others).to(device)
    left, right = _bases(changes, [width + _SPARE for width in widths], _generator(tensors.key, seed))
    cores = changes if left is None else left.T @ changes
    cores = cores if right is None else cores @ right
    return ReducedLayer(tensors.key, shape, left, right, cores.contiguous())


def _bases(changes: torch.Tensor, widths: Sequence[int], generator: torch.Generator) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Orthonormal bases of rows and of columns; None for a side that is kept as it is."""
    import torch

    count, rows, others = changes.shape
    total = sum(widths)
    if rows <= total and others <= total:
        return None, None
    if rows <= total and count * rows <= _EXACT * total:
        return None, torch.linalg.qr(changes.reshape(-1, others).T)[0]
    if others <= total and count * others <= _EXACT * total:
        return torch.linalg.qr(changes.transpose(0, 1).reshape(rows, -1))[0], None
    pairs = [_leading(change, min(width, rows, others), generator) for change, width in zip(changes, widths, strict=True)]
    left, right = (torch.linalg.qr(torch.cat(side, 1))[0] for side in zip(*pairs, strict=True))
    return None if rows <= total else left, None if others <= total else right


def _leading(matrix: torch.Tensor, width: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a matrix is strongest: orthonormal directions of its rows' side and of its columns' side."""
    import torch

    right = torch.randn(matrix.shape[1], width, generator=generator).to(matrix.device)
    for _ in range(2):
        left = torch.linalg.qr(matrix @ right)[0]
        right = torch.linalg.qr(matrix.T @ left)[0]
    return left, right


def _generator(key: str, seed: int) -> torch.Generator:
    import torch

    number = int.from_bytes(hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest(), "little") >> 1
    return torch.Generator().manual_seed(number)
