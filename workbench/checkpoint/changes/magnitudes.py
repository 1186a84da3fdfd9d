"""`Magnitude`: DoRA, another change after which each row (or column) of the layer is given a length that was learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.changes.change import Base, LoraChange, LoraParts, same_rows
from workbench.tensors import Rows, Scope, TensorInfo

if TYPE_CHECKING:
    import torch

_LEAST = 1.2e-7  # that a length is divided by: LyCORIS adds as much


@dataclass(frozen=True)
class Magnitude:
    """lengths * (W + change) / |W + change| - W (Liu et al. 2024, arXiv:2402.09353, equation 5), of the tensor W that it changes.

    `by_row`: a length for each output, as kohya's, PEFT's and today's LyCORIS have it; else for each input channel (older LyCORIS).
    """

    inner: LoraChange
    lengths: str
    by_row: bool
    info: TensorInfo

    kind: ClassVar[str] = "DoRA"
    relative: ClassVar[bool] = True

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.inner.names, self.lengths)

    @property
    def scope(self) -> Scope:
        return Scope.ROW if self.by_row else Scope.TENSOR

    def fits(self, shape: tuple[int, ...]) -> bool:
        return same_rows(self.info, shape)

    def rows(self, file: Checkpoint, rows: Rows, base: Base) -> torch.Tensor:
        if self.by_row:
            tensor = base(rows)
            moved = tensor + self.inner.rows(file, rows, base).reshape(tensor.shape)
            lengths = file.read(self.lengths).float().reshape(-1)[rows.start : rows.stop]
            ratio = lengths / moved.flatten(1).norm(dim=1).clamp_(min=_LEAST)
            return moved.mul_(ratio.reshape(-1, *[1] * (moved.dim() - 1))).sub_(tensor)
        tensor = base(None)
        moved = tensor + self.inner.rows(file, Rows(0, len(tensor)), base).reshape(tensor.shape)
        lengths = file.read(self.lengths).float().reshape(-1)
        ratio = lengths / moved.transpose(0, 1).flatten(1).norm(dim=1).clamp_(min=_LEAST)
        moved.mul_(ratio.reshape(1, -1, *[1] * (moved.dim() - 2))).sub_(tensor)
        return moved[rows.start : rows.stop]


def magnitude(parts: LoraParts, inner: LoraChange) -> Magnitude:
    """A change with lengths. Raises CheckpointError for lengths that are as many as neither rows nor columns."""
    shape, whole, name = parts.shape("magnitude"), inner.info.shape, parts.roles["magnitude"]
    count = math.prod(shape)
    by_row = "lora_magnitude_vector" in name or len(shape) < 2 or shape[0] != 1 or whole[0] == 1
    if (count != whole[0]) if by_row else (count == 0 or math.prod(whole[1:]) % count):
        raise parts.misfit(*parts.roles)
    return Magnitude(inner, name, by_row, inner.info)
