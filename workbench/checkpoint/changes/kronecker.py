"""`Kronecker`: LoKr, the Kronecker product of two matrices, each whole or of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.changes.change import Base, LoraParts, float32, same_rows
from workbench.tensors import Rows, Scope, TensorInfo

if TYPE_CHECKING:
    import torch

Side = tuple[str, ...]  # the name of a whole matrix; or of two factors; or of two and the core between them (Tucker's form)


@dataclass(frozen=True)
class Kronecker:
    """scale * kron(left, right) (Edalati et al. 2022, arXiv:2212.10650, section 3). `rank` is 0 where both are whole."""

    left: Side
    right: Side
    scale: float
    rank: int
    info: TensorInfo

    kind: ClassVar[str] = "LoKr"
    relative: ClassVar[bool] = False
    scope: ClassVar[Scope] = Scope.ROW

    @property
    def names(self) -> tuple[str, ...]:
        return self.left + self.right

    def fits(self, shape: tuple[int, ...]) -> bool:
        return same_rows(self.info, shape)

    def rows(self, file: Checkpoint, rows: Rows, base: Base) -> torch.Tensor:
        import torch

        left, right = _matrix(file, self.left), _matrix(file, self.right)
        height = len(right)
        first, last = rows.start // height, -(-rows.stop // height)  # the rows of `left` that these come from
        product = torch.kron(left[first:last] * self.scale, right)
        return product[rows.start - first * height : rows.stop - first * height].reshape(-1, *self.info.shape[1:])


def _matrix(file: Checkpoint, side: Side) -> torch.Tensor:
    """One side, its columns and kernel flat."""
    import torch

    tensors = [file.read(name).float() for name in side]
    if len(tensors) == 1:
        return tensors[0].flatten(1)
    if len(tensors) == 2:
        return tensors[0] @ tensors[1].flatten(1)
    a, b, core = tensors
    return torch.einsum("ij...,ip,jr->pr...", core, a, b).flatten(1)


def kronecker(parts: LoraParts) -> Kronecker:
    """The change of a LoKr. Raises CheckpointError when its shapes do not multiply.

    kohya's and LyCORIS's files scale by alpha / rank, and by 1 where both sides are whole; PEFT's always by alpha / r.
    """
    left, (rows, columns, kernel), rank = _side(parts, "k1")
    right, (height, width, right_kernel), right_rank = _side(parts, "k2")
    if kernel:
        raise parts.misfit(*parts.roles)
    rank = rank or right_rank
    scale = parts.scale(rank) if rank or parts.alpha is None else 1.0
    return Kronecker(left, right, scale, rank, float32((rows * height, columns * width, *right_kernel)))


def _side(parts: LoraParts, side: str) -> tuple[Side, tuple[int, int, tuple[int, ...]], int]:
    """The names of one side, its rows, columns and kernel, and its rank, 0 where it is whole."""
    if side in parts:
        shape = parts.shape(side)
        if len(shape) < 2:
            raise parts.misfit(side)
        return (parts.roles[side],), (shape[0], shape[1], shape[2:]), 0
    core = f"k_t{side[1]}"
    a, b = parts.shape(f"{side}_a"), parts.shape(f"{side}_b")
    rank = b[0] if b else 0
    names = (parts.roles[f"{side}_a"], parts.roles[f"{side}_b"])
    if core in parts:
        middle = parts.shape(core)
        if len(a) != 2 or len(b) != 2 or middle[:2] != (a[0], rank):
            raise parts.misfit(f"{side}_a", f"{side}_b", core)
        return (*names, parts.roles[core]), (a[1], b[1], middle[2:]), rank
    if len(a) != 2 or len(b) < 2 or a[1] != rank:
        raise parts.misfit(f"{side}_a", f"{side}_b")
    return names, (a[0], b[1], b[2:]), rank
