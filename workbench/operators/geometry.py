"""Lengths, cosines, angles and singular vectors of tensors, as methods need them. Pure functions; no method is here.

Nothing has an absolute floor: changes a thousandth as large have the same angles. A vector of zeros stands at a right angle to all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch

from workbench.tensors import Scope, cut, pieces

Over = Literal["tensor", "row", "column"]


def vectors(tensor: torch.Tensor, over: Over) -> tuple[torch.Tensor, int]:
    """A tensor as a matrix of vectors, and the dimension they lie along: all of it, its rows (what follows dimension 0) or its columns.

    Of fewer than two dimensions it is one vector.
    """
    if tensor.dim() < 2 or over == "tensor":
        return tensor.reshape(1, -1), 1
    return tensor.reshape(tensor.shape[0], tensor.shape[1:].numel()), 1 if over == "row" else 0


def length(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """Lengths of the vectors along a dimension, which stays with one place."""
    found: torch.Tensor = torch.linalg.vector_norm(tensor, dim=dim, keepdim=True)
    return found


def unit(tensor: torch.Tensor, dim: int) -> torch.Tensor:
    """The vectors along a dimension, of length 1; those of zeros stay so."""
    found = length(tensor, dim)
    result: torch.Tensor = tensor / found.masked_fill_(found == 0, 1)
    return result


def svd(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Singular vectors and values, the strongest first: rows x k, k, k x columns. Raises LinAlgError for NaN and infinity."""
    if not matrix.isfinite().all():  # LAPACK may give anything for them
        raise torch.linalg.LinAlgError("the matrix holds NaN or infinity")  # type: ignore[attr-defined]
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left, values, right


def cosine(first: torch.Tensor, second: torch.Tensor, dim: int) -> torch.Tensor:
    """Cosines of the vectors along a dimension, which stays with one place."""
    found: torch.Tensor = torch.linalg.vecdot(unit(first, dim), unit(second, dim), dim=dim)
    return found.unsqueeze(dim).clamp_(-1, 1)


def angle(first: torch.Tensor, second: torch.Tensor, dim: int) -> torch.Tensor:
    """Angles of the vectors along a dimension, from 0 to pi; exact for small ones too, where a cosine is not (Kahan 2006)."""
    one, other = unit(first, dim), unit(second, dim)
    return 2 * torch.atan2(length(one - other, dim), length(one + other, dim))


@dataclass(frozen=True)
class ColumnProducts:
    """Of two tensors' columns (along dimension 0): the lengths of the first's and of the second's, and their inner products."""

    first: torch.Tensor
    second: torch.Tensor
    product: torch.Tensor


Blocks = Callable[[], Iterable[Sequence[torch.Tensor]]]  # each call goes through some tensors' parts, of one place in all, anew


def flat_blocks(*tensors: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Tensors of one shape in the flat parts in which large ones are read: what is summed over them has one order."""
    for part in pieces(None, Scope.ELEMENT, tensors[0].shape):
        yield [cut(tensor, part).reshape(-1) for tensor in tensors]


def row_blocks(*tensors: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Tensors of one shape in the blocks of rows in which large ones are read: what is summed over them has one order."""
    for part in pieces(None, Scope.ROW, tensors[0].shape):
        yield [cut(tensor, part) for tensor in tensors]


def column_products(blocks: Iterable[Sequence[torch.Tensor]]) -> ColumnProducts:
    """Those of two tensors that come in blocks of rows, summed over the blocks in float64."""
    total, dtype = torch.zeros((), dtype=torch.float64), torch.float32
    for one, other in blocks:
        pairs = ((one, one), (other, other), (one, other))  # vecdot is many times as fast as vector_norm here
        products = torch.stack([torch.linalg.vecdot(*pair, dim=0) for pair in pairs]).double()
        total, dtype = products + total.to(products.device), one.dtype
    first, second = total[:2].sqrt().to(dtype)
    return ColumnProducts(first, second, total[2].to(dtype))


def block_lengths(blocks: Iterable[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """The lengths of tensors that come in parts; squares are summed over the parts in float64."""
    squares: list[torch.Tensor] = []
    dtype = torch.float32
    for tensors in blocks:
        each = [torch.linalg.vector_norm(one).double().square_() for one in tensors]
        squares = [one + other for one, other in zip(squares, each, strict=True)] if squares else each
        dtype = tensors[0].dtype
    return [one.sqrt_().to(dtype) for one in squares]


def block_units(blocks: Blocks, lengths: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The parts of tensors of these lengths, made of length 1; those of zeros stay so."""
    divisors = [one.masked_fill(one == 0, 1) for one in lengths]
    for tensors in blocks():
        yield [tensor / divisor for tensor, divisor in zip(tensors, divisors, strict=True)]


def block_cosines(blocks: Blocks) -> list[torch.Tensor]:
    """The cosines of all pairs of tensors that come in parts."""
    units = block_units(blocks, block_lengths(blocks()))
    total: list[torch.Tensor] = []
    dtype = torch.float32
    for each in units:
        products = [torch.linalg.vecdot(one.reshape(-1), other.reshape(-1)).double() for one, other in combinations(each, 2)]
        total = [one + other for one, other in zip(total, products, strict=True)] if total else products
        dtype = each[0].dtype
    return [one.to(dtype) for one in total]


def block_angle(blocks: Blocks) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The lengths of two tensors that come in parts, and the angle between them, as `angle` has it."""
    lengths = block_lengths(blocks())
    apart, together = block_lengths([one - other, one + other] for one, other in block_units(blocks, lengths))
    return lengths, 2 * torch.atan2(apart, together)
