"""Lengths, cosines, angles and singular vectors of tensors, as methods need them. Pure functions; no method is here.

Nothing has an absolute floor: changes a thousandth as large have the same angles. A vector of zeros stands at a right angle to all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any, Literal

import torch

from workbench.devices import at_once
from workbench.tensors import Scope, cut, pieces

if TYPE_CHECKING:
    from workbench.merge.preparing import Reading, ReadingPart

Over = Literal["tensor", "row", "column"]


def vectors(tensor: torch.Tensor, over: Over) -> tuple[torch.Tensor, int]:
    """A tensor as a matrix of vectors, and the dimension they lie along: all of it, its rows (what follows dimension 0) or its columns.

    Of fewer than two dimensions it is one vector.
    """
    if tensor.dim() < 2 or over == "tensor":
        return tensor.reshape(1, -1), 1
    return tensor.reshape(tensor.shape[0], tensor.shape[1:].numel()), 1 if over == "row" else 0


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """In float64, for sums; as it is on a device that has none."""
    return tensor if tensor.device.type == "mps" else tensor.double()


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


def flat_blocks(*tensors: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Tensors of one shape in the flat parts in which large ones are read: what is summed over them has one order."""
    for part in pieces(None, Scope.ELEMENT, tensors[0].shape, size=at_once(tensors[0].device.type)):
        yield [cut(tensor, part).reshape(-1) for tensor in tensors]


def row_blocks(*tensors: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Tensors of one shape in the blocks of rows in which large ones are read: what is summed over them has one order."""
    for part in pieces(None, Scope.ROW, tensors[0].shape, size=at_once(tensors[0].device.type)):
        yield [cut(tensor, part) for tensor in tensors]


@dataclass(frozen=True)
class Products:
    """Inner products of each two of several tensors, or of their columns (along dimension 0), and what they tell. All is float64."""

    of: Mapping[tuple[int, int], torch.Tensor]  # by two tensors' numbers, the first not behind the second

    def length(self, number: int) -> torch.Tensor:
        """That of a tensor, or of its columns."""
        return self.of[number, number].sqrt()

    def cosines(self) -> list[torch.Tensor]:
        """Of all pairs; 0 where one of the two is zeros."""
        return [self._cosine(one, other) for one, other in self.of if one != other]

    def angle(self) -> torch.Tensor:
        """From the first to the second, from 0 to pi; none where both are zeros. Nearer than 1e-7 to either end it may be that end."""
        first, product, second = self.of[0, 0], self.of[0, 1], self.of[1, 1]
        across = (first * second - product.square()).clamp_(min=0).sqrt()
        return torch.atan2(across, product).masked_fill((first == 0) != (second == 0), math.pi / 2)

    def _cosine(self, one: int, other: int) -> torch.Tensor:
        size = (self.of[one, one] * self.of[other, other]).sqrt()  # of opposite tensors it is -1 to the bit
        return self.of[one, other] / size.masked_fill(size == 0, 1)


def products(blocks: Iterable[Sequence[torch.Tensor]], columns: bool = False) -> Products:
    """Those of tensors that come in parts, on the CPU; of their columns, in blocks of rows, where the tensors are."""
    found = _summed(_products(tensors, columns) for tensors in blocks)
    return found if columns else Products({pair: one.cpu() for pair, one in found.of.items()})


def row_products(*tensors: torch.Tensor) -> Products:
    """Those of the rows (all that follows dimension 0) of tensors; of each with one place for every other dimension."""
    rows = [_exactly(one).flatten(1) for one in tensors]
    shape = (-1, *[1] * (tensors[0].dim() - 1))
    return Products({(one, other): torch.linalg.vecdot(rows[one], rows[other], dim=1).reshape(shape) for one, other in _pairs(len(rows))})


def read_products(reading: Reading, columns: bool = False) -> Products:
    """Those of what goes into an operator's inputs: of the deltas, where it takes a base and those, else of all."""
    return _summed(_read(part, columns) for part in reading.parts())


def _summed(found: Iterable[Products]) -> Products:
    return functools.reduce(lambda one, other: Products({pair: one.of[pair] + other.of[pair] for pair in one.of}), found)


def _pairs(count: int) -> Iterator[tuple[int, int]]:
    return combinations_with_replacement(range(count), 2)


def _products(tensors: Sequence[torch.Tensor], columns: bool) -> Products:
    found = [_exactly(one) if columns else _exactly(one).reshape(-1) for one in tensors]
    return Products({(one, other): torch.linalg.vecdot(found[one], found[other], dim=0) for one, other in _pairs(len(found))})


def _exactly(tensor: torch.Tensor) -> torch.Tensor:
    """In float64; on the CPU where the device has none."""
    return wide(tensor.cpu() if tensor.device.type == "mps" else tensor)


def _read(part: ReadingPart, columns: bool) -> Products:
    if (stored := part.stored()) is not None:
        from workbench.kernels import products as loops

        base, tensors = _base_and_others(stored)
        found = loops.inner(base, tensors) if not columns else loops.of_columns(*tensors) if base is None else None
        if found is not None:
            return Products(dict(zip(_pairs(len(tensors)), found, strict=True)))
    return _products(_base_and_others(part())[1], columns)


def _base_and_others(given: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """Of an operator's inputs."""
    *before, last = given
    return (before[0] if before else None, last) if isinstance(last, list) else (None, given)
