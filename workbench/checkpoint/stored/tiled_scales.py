"""One scale for each block of a row, in the order that cuBLAS wants them: tiles of 128 rows and 4 blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.checkpoint.stored.encoding import Encoding
from workbench.tensors import Flat

if TYPE_CHECKING:
    import torch

_ROWS, _COLUMNS = 128, 4  # of a tile
_TILE = _ROWS * _COLUMNS


def tiled_shape(rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of the scales of so many, with those that only fill tiles."""
    return -(-rows // _ROWS) * _ROWS, -(-columns // _COLUMNS) * _COLUMNS


def tiled(encoding: Encoding, scale: str, columns: int, first: int, last: int) -> torch.Tensor:
    """Scales `first:last`, counted row by row of `columns`, as they are stored.

    Row r of a tile lies in line r % 32, there behind the scales of r // 32 other rows.
    Source: NVIDIA's cuBLAS documentation, 1D block scaling factors layout.
    """
    import torch

    line = -(-columns // _COLUMNS) * _TILE  # scales in a row of tiles
    begin, end = first // columns // _ROWS, ((last - 1) // columns) // _ROWS + 1
    held = encoding.holder.read(scale, Flat(begin * line, end * line))
    number = torch.arange(first, last)
    row, column = number // columns, number % columns
    inside = row % 32 * 16 + row % _ROWS // 32 * 4 + column % _COLUMNS
    return held[(row // _ROWS - begin) * line + column // _COLUMNS * _TILE + inside]
