"""`Scaling`: IA3, factors of a layer's inputs or outputs; `Glora`: GLoRA, a product with the layer, and a change of low rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.changes.change import Base, LoraParts, float32, same_rows
from workbench.tensors import Rows, Scope, TensorInfo

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Scaling:
    """W times a factor for each input, or output (Liu et al. 2022, arXiv:2205.05638, section 3.3), less `start` * W.

    PEFT stores the factors, `start` is 1; LyCORIS what they differ from 1 by, and `start` is 0.
    """

    factors: str
    on_input: bool
    start: float
    info: TensorInfo

    kind: ClassVar[str] = "IA3"
    relative: ClassVar[bool] = True
    scope: ClassVar[Scope] = Scope.ROW

    @property
    def names(self) -> tuple[str, ...]:
        return (self.factors,)

    def fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) > 0 and self.info.numel == (shape[1] if self.on_input and len(shape) > 1 else shape[0])

    def rows(self, file: Checkpoint, rows: Rows, base: Base) -> torch.Tensor:
        tensor = base(rows)
        factors = file.read(self.factors).float().reshape(-1) - self.start
        if self.on_input:
            return tensor * factors.reshape(1, -1, *[1] * (tensor.dim() - 2))
        return tensor * factors[rows.start : rows.stop].reshape(-1, *[1] * (tensor.dim() - 1))


@dataclass(frozen=True)
class Glora:
    """scale * (W @ a1 @ a2 + b1 @ b2), along the input channels of W (Chavan et al. 2023, arXiv:2306.07967, as LyCORIS has it)."""

    a: tuple[str, str]
    b: tuple[str, str]
    middle: str | None
    scale: float
    info: TensorInfo

    kind: ClassVar[str] = "GLoRA"
    relative: ClassVar[bool] = True
    scope: ClassVar[Scope] = Scope.ROW

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.a, *self.b, *((self.middle,) if self.middle else ()))

    def fits(self, shape: tuple[int, ...]) -> bool:
        return same_rows(self.info, shape)

    def rows(self, file: Checkpoint, rows: Rows, base: Base) -> torch.Tensor:
        import torch

        tensor = base(rows)
        a1, a2, b2 = (file.read(name).float().flatten(1) for name in (*self.a, self.b[1]))
        b1 = file.read(self.b[0], rows).float().flatten(1)
        moved = torch.einsum("oi...,ir,rj->oj...", tensor, a1, a2)
        added = b1 @ b2 if self.middle is None else torch.einsum("mn...,im,nj->ij...", file.read(self.middle).float(), b1, b2)
        return (moved + added.reshape(tensor.shape)) * self.scale


def scaling(parts: LoraParts) -> Scaling:
    """An IA3 of LyCORIS (`weight`, `on_input`) or PEFT (`ia3_l`). Raises CheckpointError for factors of more than one dimension."""
    lycoris = "on_input" in parts
    role = "ia3_weight" if lycoris else "ia3_l"
    shape = parts.shape(role)
    if sum(size != 1 for size in shape) > 1:
        raise parts.misfit(role)
    if lycoris:
        on_input = bool(parts.file.read(parts.roles["on_input"]).item())
    else:
        listed = parts.settings.feedforward(parts.module) if parts.settings else None
        on_input = listed if listed is not None else len(shape) > 1 and shape[0] == 1 != shape[1]
    return Scaling(parts.roles[role], on_input, 0.0 if lycoris else 1.0, float32((math.prod(shape),)))


def glora(parts: LoraParts) -> Glora:
    """A GLoRA. Raises CheckpointError when its shapes do not multiply."""
    roles = ("a1", "a2", "b1", "b2")
    a1, a2, b1, b2 = map(parts.shape, roles)
    if min(map(len, (a1, a2, b1, b2))) < 2 or not a1[1] == a2[0] == b1[1] == b2[0] or a1[0] != a2[1]:
        raise parts.misfit(*roles)
    middle = parts.roles.get("bm")
    shape = (b1[0], a1[0], *(parts.shape("bm")[2:] if middle else b2[2:]))
    names = [parts.roles[role] for role in roles]
    return Glora((names[0], names[1]), (names[2], names[3]), middle, parts.scale(a1[1]), float32(shape))
