"""`Factors`: a change of low rank (LoRA, LoCon), up times down, with a middle between them where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.changes.change import Base, LoraParts, float32, same_rows
from workbench.tensors import Rows, Scope, TensorInfo

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Factors:
    """What a change is made of: scale * up @ down, with `mid` between them where there is one. Names in the LoRA's file."""

    up: str
    down: str
    mid: str | None
    scale: float
    rank: int
    info: TensorInfo

    kind: ClassVar[str] = "LoRA"
    relative: ClassVar[bool] = False
    scope: ClassVar[Scope] = Scope.ROW

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.up, self.down, self.mid) if name)

    def fits(self, shape: tuple[int, ...]) -> bool:
        return same_rows(self.info, shape)

    def rows(self, file: Checkpoint, rows: Rows, base: Base) -> torch.Tensor:
        up = file.read(self.up, rows).float().flatten(1)
        down = file.read(self.down).float()
        if self.mid is not None:  # rank x rank x height x width between two 1x1 convolutions
            down = file.read(self.mid).float().permute(0, 2, 3, 1) @ down.flatten(1)
            down = down.permute(0, 3, 1, 2)
        return (up @ down.flatten(1) * self.scale).reshape(len(up), *self.info.shape[1:])


def factors(parts: LoraParts) -> Factors:
    """The factors of one change. Raises CheckpointError when their shapes do not multiply."""
    up, down = parts.shape("up"), parts.shape("down")
    mid = parts.shape("mid") if "mid" in parts else None
    rank = down[0] if down else 0
    fits = len(up) > 1 < len(down) and up[1] == rank > 0 and set(up[2:]) <= {1} and (len(up) == len(down) or set(down[2:]) <= {1})
    if not fits or (mid is not None and (len(mid) != 4 or mid[:2] != (rank, rank) or set(down[2:]) > {1})):
        raise parts.misfit("up", "down", "mid")
    shape = (up[0], down[1], *(mid[2:] if mid else down[2:]))
    return Factors(parts.roles["up"], parts.roles["down"], parts.roles.get("mid"), parts.scale(rank), rank, float32(shape))
