"""Changes that are stored whole: as a difference in another shape or at another scale, or as the new value (`Replaced`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.changes.change import Base, LoraParts, float32, same_rows
from workbench.tensors import Rows, Scope, TensorInfo

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Whole:
    """A difference as it is stored, times a scale."""

    stored: str
    scale: float
    info: TensorInfo

    kind: ClassVar[str] = "full"
    relative: ClassVar[bool] = False
    scope: ClassVar[Scope] = Scope.ROW

    @property
    def names(self) -> tuple[str, ...]:
        return (self.stored,)

    def fits(self, shape: tuple[int, ...]) -> bool:
        return same_rows(self.info, shape)

    def rows(self, file: Checkpoint, rows: Rows, base: Base) -> torch.Tensor:
        return (file.read(self.stored, rows).float() * self.scale).reshape(-1, *self.info.shape[1:])


@dataclass(frozen=True)
class Replaced:
    """The value that a tensor is to have, as control LoRAs store norms: the change is what it differs by."""

    stored: str
    info: TensorInfo

    kind: ClassVar[str] = "replaced"
    relative: ClassVar[bool] = True
    scope: ClassVar[Scope] = Scope.ROW

    @property
    def names(self) -> tuple[str, ...]:
        return (self.stored,)

    def fits(self, shape: tuple[int, ...]) -> bool:
        return same_rows(self.info, shape)

    def rows(self, file: Checkpoint, rows: Rows, base: Base) -> torch.Tensor:
        return file.read(self.stored, rows).float().reshape(-1, *self.info.shape[1:]) - base(rows)


def bias_of_up(parts: LoraParts) -> Whole | str:
    """The bias of the upper factor (`lora_B.bias`), which is added at the scale of its pair: to the bias of the layer."""
    name = parts.roles["up_bias"]
    scale = parts.scale(parts.shape("of_down")[0]) if "of_down" in parts else 1.0
    return name if scale == 1 else Whole(name, scale, float32(parts.shape("up_bias")))


def replaced(parts: LoraParts) -> Replaced:
    """The new value of a tensor."""
    return Replaced(parts.roles["value"], float32(parts.shape("value")))
