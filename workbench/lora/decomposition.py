"""Takes a change apart into directions, the strongest first: singular values and factors. Which tensors, and how many, is the caller's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

SHORT = 384  # a side that is decomposed whole, because that takes no longer
_BLOCKS = 4  # of random directions: the first, and those that the matrix and its transpose make of it
_SHARE = 0.625  # of the rank that is asked for, in each block
_COLUMNS = 2048  # that are in float64 at once
_CHUNK = 1 << 15  # elements that stay in the cache in float64
_ROUNDING = 1e-12  # of the largest square: what is below is float32's rounding
_CANCELS = 1e-4  # a share of the energy that a difference of sums cannot tell any more, and is measured


@dataclass(frozen=True, eq=False)
class Decomposed:
    """The change of tensor `key`, of any `shape`, as rows x others: its strongest directions.

    `up` (rows x rank) times `down` (rank x others) is the change, as far as it is known, in float32, each singular value
    shared by both. `squares` are the singular values squared, as many as are known; `beyond` is the sum of squares of what is in none
    of them, `total` that of the whole change.
    """

    key: str
    shape: tuple[int, ...]
    total: float
    beyond: float
    squares: np.ndarray
    up: torch.Tensor
    down: torch.Tensor

    @property
    def rank(self) -> int:
        return self.up.shape[1]

    @property
    def width(self) -> int:
        """Numbers that one direction takes."""
        return self.up.shape[0] + self.down.shape[1]

    @cached_property
    def left(self) -> np.ndarray:
        """The squared error with 0, 1, ... all known directions."""
        return self.beyond + np.append(self.squares[::-1].cumsum()[::-1], 0)

    def first(self, rank: int) -> Decomposed:
        """The first `rank` directions, or all there are, in memory of their own."""
        if rank >= self.rank:
            return self
        return replace(self, up=self.up[:, :rank].clone(), down=self.down[:rank].clone())


def decompose(key: str, change: torch.Tensor, total: float, rank: int | None = None) -> Decomposed:
    """The directions of a finite change in float32 whose squares sum up to `total`, above 0: all, or the `rank` strongest.

    All come from the Gram matrix of the shorter side in float64. A few are looked for where they show: in the space that the
    matrix and its transpose span from random directions, which are the same for one `key` on any number of threads.
    Source: Musco and Musco 2015, arXiv:1504.05477, algorithm 2 (block Krylov iteration), each block made orthogonal to all before.
    """
    import torch

    matrix = change.flatten(1)
    turned = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if turned else matrix
    if rank is None or len(wide) <= max(SHORT, _BLOCKS * _block(rank)):
        basis, reduced = None, wide
    else:
        basis, reduced = _krylov(wide, _block(rank), key)
    squares, left = _strongest(reduced, rank)
    if basis is not None and total - squares.sum() < _CANCELS * total:  # so little is left that rounding shows: once more, with these alone
        basis = torch.linalg.qr(wide @ (reduced.T @ left))[0]
        reduced = basis.T @ wide
        squares, left = _strongest(reduced, rank)
    roots = torch.from_numpy(squares**0.25).float()
    right = (left.T @ reduced) / roots[:, None]
    left = (left if basis is None else basis @ left) * roots
    up, down = (right.T, left.T) if turned else (left, right)
    beyond = 0.0 if len(squares) == len(wide) else _beyond(matrix, up, down, total, total - float(squares.sum()))
    return Decomposed(key, tuple(change.shape), total, beyond, squares, up.contiguous(), down.contiguous())


def spectrum(change: torch.Tensor) -> np.ndarray:
    """The squares of all singular values, largest first, in float64; what is only float32's rounding is 0."""
    import torch

    matrix = change.flatten(1)
    squares = torch.linalg.eigvalsh(gram(matrix.T if matrix.shape[0] > matrix.shape[1] else matrix)).flip(0).numpy()
    return np.where(squares > _ROUNDING * squares[0], squares, 0)


def decompose_product(key: str, shape: tuple[int, ...], up: torch.Tensor, down: torch.Tensor) -> Decomposed | None:
    """All directions of up @ down, in float64 from matrices as small as the rank; None where the product is zero."""
    import torch

    (tall, outer), (wide, inner) = torch.linalg.qr(up.double()), torch.linalg.qr(down.double().T)
    left, values, right = torch.linalg.svd(outer @ inner.T)
    squares = values.numpy() ** 2
    if not squares[0] > 0:
        return None
    kept = int((squares > _ROUNDING * squares[0]).sum())
    roots = values[:kept].sqrt()
    factors = (tall @ left[:, :kept]) * roots, roots[:, None] * (right[:kept] @ wide.T)
    return Decomposed(key, shape, float(squares.sum()), 0.0, squares[:kept], *(factor.float().contiguous() for factor in factors))


def gram(matrix: torch.Tensor) -> torch.Tensor:
    """The products of all rows, in float64."""
    import torch

    found = torch.zeros(len(matrix), len(matrix), dtype=torch.float64)
    for columns in torch.split(matrix, _COLUMNS, 1):
        wide = columns.double()
        found.addmm_(wide, wide.T)
    return found


def energy(tensor: torch.Tensor) -> float:
    """The sum of squares, in float64."""
    import torch

    parts = (part.double() for part in torch.split(tensor.reshape(-1), _CHUNK))
    return sum(float(part @ part) for part in parts)


def _strongest(matrix: torch.Tensor, rank: int | None) -> tuple[np.ndarray, torch.Tensor]:
    """The squared singular values, largest first and at most `rank`, less those that are rounding, and the directions of the rows."""
    import torch

    squares, directions = torch.linalg.eigh(gram(matrix))
    squares, directions = squares.flip(0), directions.flip(1)
    kept = min(rank or len(matrix), int((squares > _ROUNDING * squares[0]).sum()))
    return squares[:kept].numpy(), directions[:, :kept].float()


def _block(rank: int) -> int:
    return max(8, round(_SHARE * rank))


def _krylov(matrix: torch.Tensor, width: int, key: str) -> tuple[torch.Tensor, torch.Tensor]:
    """An orthonormal basis of where the matrix is strongest, rows x 4 blocks of `width`, and the matrix in it."""
    import torch

    seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 1
    start = torch.randn(matrix.shape[1], width, generator=torch.Generator().manual_seed(seed))
    block = basis = torch.linalg.qr(matrix @ start)[0]
    reduced = [block.T @ matrix]
    for _ in range(_BLOCKS - 1):
        block = _new(matrix @ reduced[-1].T, basis)
        basis = torch.cat([basis, block], 1)
        reduced.append(block.T @ matrix)
    return basis, torch.cat(reduced)


def _new(block: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis of what is in the block and not in the basis; zero columns where that is only rounding."""
    import torch

    for _ in range(2):  # once leaves what rounding brings back
        block = torch.linalg.qr(block - basis @ (basis.T @ block))[0]
    block[:, (basis.T @ block).norm(dim=0) > 1e-4] = 0
    return block


def _beyond(matrix: torch.Tensor, up: torch.Tensor, down: torch.Tensor, total: float, difference: float) -> float:
    """The squared error of the product: a difference of sums, or measured where that cancels."""
    import torch

    if difference > _CANCELS * total:
        return difference
    pairs = zip(torch.split(matrix, _COLUMNS, 1), torch.split(down, _COLUMNS, 1), strict=True)
    return sum(energy(columns - up @ part) for columns, part in pairs)
