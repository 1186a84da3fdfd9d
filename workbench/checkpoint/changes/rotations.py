"""Rotations of a layer: OFT and BOFT as LyCORIS and kohya's tools have them, of its outputs, and as PEFT does, of its inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.changes.change import Base, LoraParts, float32
from workbench.tensors import Rows, Scope, TensorInfo

if TYPE_CHECKING:
    import torch

_NEUMANN = 5  # terms of the series that PEFT takes for the inverse, unless its settings say otherwise
_CLOSE = 6e-5  # how far PEFT's constrained OFT may turn, likewise


@dataclass(frozen=True)
class OutputRotation:
    """Rows of W are mixed by orthogonal blocks (Qiu et al. 2023, arXiv:2306.07280; Liu et al. 2023, arXiv:2311.06243).

    The blocks are blocks x size x size (OFT, Diag-OFT), or factors x blocks x size x size (BOFT), whose factors are a butterfly.
    `limit` is what LyCORIS calls the constraint, over the number of rows; 0 is none. `rescale` are factors of rows.
    """

    blocks: str
    rescale: str | None
    limit: float
    kind: str
    info: TensorInfo

    relative: ClassVar[bool] = True
    scope: ClassVar[Scope] = Scope.TENSOR

    @property
    def names(self) -> tuple[str, ...]:
        return (self.blocks, self.rescale) if self.rescale else (self.blocks,)

    def fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) > 1 and shape[0] == self.info.shape[0]

    def rows(self, file: Checkpoint, rows: Rows, base: Base) -> torch.Tensor:
        import torch

        tensor = base(None)
        turned = tensor.flatten(1)
        rotation = _cayley(_limited(file.read(self.blocks).float(), self.limit * len(tensor)))
        if rotation.dim() == 3:
            turned = torch.einsum("knm,knc->kmc", rotation, turned.reshape(*rotation.shape[:2], -1)).flatten(0, 1)
        else:
            for i, factor in enumerate(rotation):
                turned = _butterfly(factor, turned, 2**i * (factor.shape[1] // 2))
        if self.rescale:
            turned = turned * file.read(self.rescale).float().reshape(-1, 1)
        return turned.reshape(tensor.shape).sub_(tensor)[rows.start : rows.stop]


@dataclass(frozen=True)
class InputRotation:
    """Columns of W are mixed by orthogonal blocks, as PEFT's OFT and BOFT do; BOFT also scales rows.

    `blocks` holds the upper triangles, blocks x elements (OFT), or whole blocks, factors x blocks x size x size (BOFT). `terms` of a
    series stand for the inverse, 0 inverts; `close` is how far a block may turn, None without a limit; `shared` is one block for all.
    """

    blocks: str
    scales: str | None
    terms: int
    close: float | None
    shared: bool
    kind: str
    info: TensorInfo

    relative: ClassVar[bool] = True
    scope: ClassVar[Scope] = Scope.ROW

    @property
    def names(self) -> tuple[str, ...]:
        return (self.blocks, self.scales) if self.scales else (self.blocks,)

    def fits(self, shape: tuple[int, ...]) -> bool:
        columns = math.prod(shape[1:])
        return len(shape) > 1 and (self.info.shape[0] == columns or (self.shared and columns % self.info.shape[0] == 0))

    def rows(self, file: Checkpoint, rows: Rows, base: Base) -> torch.Tensor:
        import torch

        tensor = base(rows)
        flat = tensor.flatten(1)
        rotation = self._rotation(file.read(self.blocks).float())
        cut = flat.reshape(len(flat), -1, rotation.shape[-1])
        # W @ R transposed, since PEFT multiplies the inputs by R
        turned = torch.einsum("kij,okj->oki", rotation.expand(cut.shape[1], -1, -1), cut).flatten(1)
        if self.scales:
            turned = turned * file.read(self.scales).float().reshape(-1, 1)[rows.start : rows.stop]
        return turned.reshape(tensor.shape).sub_(tensor)

    def _rotation(self, stored: torch.Tensor) -> torch.Tensor:
        """The blocks, blocks x size x size; one for all where there is one."""
        import torch

        if stored.dim() == 4:  # BOFT with one factor
            skew = (stored[0] - stored[0].transpose(1, 2)) / 2
            return _inverted(skew)
        size = _size_of(stored.shape[1])
        skew = stored.new_zeros(len(stored), size, size)
        skew[:, *torch.triu_indices(size, size, 1)] = stored
        skew = skew - skew.transpose(1, 2)
        if self.close is not None:
            lengths = skew.norm(dim=(1, 2), keepdim=True)
            limit = self.close / len(skew) ** 0.5
            skew = torch.where(lengths <= limit, skew, limit * skew / lengths.clamp(min=1e-30))
        return _series(skew, self.terms) if self.terms else _inverted(skew)


def _inverted(skew: torch.Tensor) -> torch.Tensor:
    """(I - Q) (I + Q)^-1: PEFT's Cayley transform."""
    import torch

    one = torch.eye(skew.shape[-1])
    rotation: torch.Tensor = torch.linalg.solve(one + skew, one - skew, left=False)
    return rotation


def _series(skew: torch.Tensor, terms: int) -> torch.Tensor:
    """PEFT's approximation: I + 2 Q + 2 Q^2 + ... with the last power once; with 2 terms I + 2 Q."""
    import torch

    total = torch.eye(skew.shape[-1]).expand_as(skew)
    power = skew
    if terms > 1:
        total = total + 2 * skew
    if terms > 2:
        power = skew @ skew
        total = total + 2 * power
        for _ in range(3, terms - 1):
            power = power @ skew
            total = total + 2 * power
        total = total + power @ skew
    return total


def _limited(blocks: torch.Tensor, limit: float) -> torch.Tensor:
    """The skew-symmetric part, twice, no longer than the limit."""
    skew = blocks - blocks.transpose(-1, -2)
    length = skew.norm() + 1e-8
    return skew * (limit / length) if 0 < limit < length else skew


def _cayley(skew: torch.Tensor) -> torch.Tensor:
    """(I + Q) (I - Q)^-1: LyCORIS's Cayley transform."""
    import torch

    one = torch.eye(skew.shape[-1])
    return (one + skew) @ (one - skew).inverse()


def _butterfly(factor: torch.Tensor, tensor: torch.Tensor, stride: int) -> torch.Tensor:
    """One factor of a butterfly: rows that lie `stride` apart are brought together, mixed block by block, and put back."""
    import torch

    columns = tensor.shape[1]
    gathered = tensor.reshape(-1, 2, stride, columns).transpose(1, 2).reshape(*factor.shape[:2], columns)
    mixed = torch.einsum("bij,bjc->bic", factor, gathered)
    return mixed.reshape(-1, stride, 2, columns).transpose(1, 2).reshape(-1, columns)


def _size_of(elements: int) -> int:
    """The size of a block whose upper triangle has so many elements."""
    return int((1 + (1 + 8 * elements) ** 0.5) / 2 + 0.5)


def output_rotation(parts: LoraParts) -> OutputRotation:
    """OFT, Diag-OFT or BOFT of LyCORIS and kohya's tools. Raises CheckpointError for blocks that are not square."""
    shape = parts.shape("oft_blocks")
    if len(shape) not in (3, 4) or shape[-1] != shape[-2] or not all(shape):
        raise parts.misfit("oft_blocks")
    rescale = parts.roles.get("rescale")
    name = "OFT" if len(shape) == 3 else "BOFT"
    # how many columns it has, the layer knows
    return OutputRotation(parts.roles["oft_blocks"], rescale, parts.alpha or 0.0, name, float32((shape[-3] * shape[-1],)))


def input_rotation(parts: LoraParts) -> InputRotation:
    """OFT or BOFT of PEFT. Raises CheckpointError for blocks that are not square, and for several factors (PEFT's are CUDA's alone)."""
    boft = "boft_R" in parts
    role = "boft_R" if boft else "oft_R"
    shape = parts.shape(role)
    size = shape[-1] if boft else (_size_of(shape[1]) if len(shape) == 2 else 0)
    fits = (len(shape) == 4 and shape[0] == 1 and shape[2] == size) if boft else size * (size - 1) == 2 * shape[-1]
    if not fits or not all(shape):
        raise parts.misfit(role)
    given = parts.settings.values if parts.settings else {}
    terms = int(given.get("num_cayley_neumann_terms") or _NEUMANN) if given.get("use_cayley_neumann", True) else 0
    close = float(given.get("eps") or _CLOSE) if given.get("coft") else None
    columns = (shape[1] if boft else shape[0]) * size
    kind = "BOFT" if boft else "OFT"
    shared = not boft and shape[0] == 1 and bool(given.get("block_share"))
    return InputRotation(parts.roles[role], parts.roles.get("boft_s"), terms, close, shared, kind, float32((columns,)))
