"""`Hadamard`: LoHa, the elementwise product of two changes of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.changes.change import Base, LoraParts, float32, same_rows
from workbench.tensors import Rows, Scope, TensorInfo

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Hadamard:
    """scale * (a1 @ b1) * (a2 @ b2) (Hyeon-Woo et al. 2021, arXiv:2108.06098, proposition 1).

    `halves` are the names of a, b and, of a convolution in Tucker's form (appendix), the core t: rank x rank x kernel, with a
    rank x rows then.
    """

    halves: tuple[tuple[str, str, str | None], tuple[str, str, str | None]]
    scale: float
    rank: int
    info: TensorInfo

    kind: ClassVar[str] = "LoHa"
    relative: ClassVar[bool] = False
    scope: ClassVar[Scope] = Scope.ROW

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for half in self.halves for name in half if name)

    def fits(self, shape: tuple[int, ...]) -> bool:
        return same_rows(self.info, shape)

    def rows(self, file: Checkpoint, rows: Rows, base: Base) -> torch.Tensor:
        one, other = (_half(file, half, rows) for half in self.halves)
        return (one * other * self.scale).reshape(-1, *self.info.shape[1:])


def _half(file: Checkpoint, half: tuple[str, str, str | None], rows: Rows) -> torch.Tensor:
    import torch

    a, b, core = half
    if core is None:
        return file.read(a, rows).float().flatten(1) @ file.read(b).float().flatten(1)
    left = file.read(a).float()[:, rows.start : rows.stop]
    return torch.einsum("ij...,ip,jr->pr...", file.read(core).float(), left, file.read(b).float()).flatten(1)


def hadamard(parts: LoraParts) -> Hadamard:
    """The change of a LoHa. Raises CheckpointError when its shapes do not multiply."""
    core = "t1" in parts
    roles = ("w1_a", "w1_b", "w2_a", "w2_b", *(("t1", "t2") if core else ()))
    a, b = parts.shape("w1_a"), parts.shape("w1_b")
    rank = b[0] if b else 0
    kernel = parts.shape("t1")[2:] if core else ()
    alike = parts.shape("w2_b")[1:] == b[1:] and len(parts.shape("w2_a")) == len(a)
    if core:
        fits = len(a) == len(b) == 2 and all(parts.shape(t) == (rank, rank, *kernel) for t in ("t1", "t2")) and a[0] == rank
        out, alike = a[-1], alike and parts.shape("w2_a") == a and parts.shape("w2_b") == b
    else:
        fits = len(a) == 2 <= len(b) and a[1] == rank and parts.shape("w2_a")[1] == parts.shape("w2_b")[0]
        out, alike = a[0] if a else 0, alike and parts.shape("w2_a")[0] == a[0]
    if not fits or not alike or not rank:
        raise parts.misfit(*roles)
    halves = tuple((parts.roles[f"w{n}_a"], parts.roles[f"w{n}_b"], parts.roles.get(f"t{n}")) for n in (1, 2))
    return Hadamard(halves, parts.scale(rank), rank, float32((out, *b[1:], *kernel)))  # type: ignore[arg-type]
