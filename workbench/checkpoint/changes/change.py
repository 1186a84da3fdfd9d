"""What every kind of change can do, and the parts of a LoRA file that one is made of. The kinds are in modules beside this one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.names.peft_settings import PeftSettings
from workbench.errors import CheckpointError
from workbench.tensors import Rows, Scope, TensorInfo

if TYPE_CHECKING:
    import torch

Base = Callable[["Rows | None"], "torch.Tensor"]  # rows of the tensor that is changed, in float32; None asks for all


class LoraChange(Protocol):
    """A change of one tensor. Frozen; nothing is read before it is asked for."""

    @property
    def kind(self) -> str:
        """What people call it: LoRA, LoHa, ..."""

    @property
    def info(self) -> TensorInfo:
        """Shape and dtype of the change."""

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors of the file that it is made of."""

    @property
    def relative(self) -> bool:
        """Whether it depends on the tensor that it changes."""

    @property
    def scope(self) -> Scope:
        """ROW where some rows of it cost what they hold; TENSOR where all have to be made."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape can be changed so."""

    def rows(self, file: Checkpoint, rows: Rows, base: Base) -> torch.Tensor:
        """Those rows of the change, in float32."""


@dataclass(frozen=True)
class LoraParts:
    """What a file holds for one tensor: `roles` maps what each part is to its name; `name` is the tensor's, for messages."""

    file: Checkpoint
    where: object
    name: str
    module: str
    roles: Mapping[str, str]
    alpha: float | None
    settings: PeftSettings | None

    def __contains__(self, role: str) -> bool:
        return role in self.roles

    def shape(self, role: str) -> tuple[int, ...]:
        return self.file.info(self.roles[role]).shape

    def scale(self, rank: int) -> float:
        """What the product of factors is scaled by: alpha / rank of the file, or as PEFT's settings say; 1 where nothing does."""
        if self.alpha is not None:
            return self.alpha / rank
        return 1.0 if self.settings is None else self.settings.scale(self.module, rank, self.roles.values())

    def told(self, *roles: str) -> str:
        """Parts with their shapes, for a message."""
        return " and ".join(f"{self.roles[role]!r} of shape {self.shape(role)}" for role in roles if role in self.roles)

    def misfit(self, *roles: str) -> CheckpointError:
        """The error for parts whose shapes do not go together."""
        told = self.told(*roles)
        return CheckpointError(
            f"{self.where}: {told} do not multiply to a change of {self.name!r}; the file is damaged, or of another kind"
        )


def float32(shape: tuple[int, ...]) -> TensorInfo:
    """A change of this shape: all are calculated in float32."""
    return TensorInfo(shape, "F32")


def same_rows(info: TensorInfo, shape: tuple[int, ...]) -> bool:
    """Whether a change is one of a tensor of another form: a matrix that is a 1x1 convolution there, or a flat kernel."""
    return bool(shape) and len(info.shape) > 0 and info.shape[0] == shape[0] and info.numel == math.prod(shape)
