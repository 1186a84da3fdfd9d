"""`Encoding`: how one tensor is stored, and what it stands for. The formats are in files of their own, the view in `dequantised`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.checkpoint.base import Checkpoint
from workbench.errors import CheckpointError
from workbench.tensors import PIECE, Part, elements, part_shape, rounded

if TYPE_CHECKING:
    import torch

READ_AS = "BF16"  # what such models were made from, and never beyond its largest; docs/decisions/0025


@dataclass(frozen=True)
class Encoding(ABC):
    """A tensor of `shape` that is stored in `holder` as the codes in `key`, with the tensors `beside` it.

    `kind` names the format, with the dtype `code` it reads as; `block` elements are decoded together.
    """

    holder: Checkpoint
    key: str
    shape: tuple[int, ...]
    kind: str
    beside: tuple[str, ...] = ()
    code: str = READ_AS
    block: int = 1

    @abstractmethod
    def decoded(self, first: int, last: int) -> torch.Tensor:
        """Flat elements `first:last` in float32: whole blocks, of which the tensor's last may be shorter."""

    def values(self, part: Part, dtype: torch.dtype) -> torch.Tensor:
        """A part of the tensor, decoded piece by piece: beside the result, no more than a piece is in memory."""
        import torch

        (first, last), count = elements(part, self.shape), math.prod(self.shape)
        out = torch.empty(last - first, dtype=dtype)
        step = max(PIECE // self.block, 1) * self.block
        for start in range(first // self.block * self.block, last, step):
            stop = min(start + step, -(-last // self.block) * self.block, count)
            low, high = max(start, first), min(stop, last)
            out[low - first : high - first] = rounded(self.decoded(start, stop)[low - start : high - start], dtype)
        return out.reshape(part_shape(part, self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and of all beside them."""
        return sum(self.holder.info(key).nbytes for key in (self.key, *self.beside))

    def error(self, told: str, key: str | None = None) -> CheckpointError:
        """What to say of one of its tensors that cannot be read."""
        return CheckpointError(f"{self.holder.path or self.holder.name}: {key or self.key!r} {told}")


@dataclass(frozen=True)
class StoredTensors:
    """What a format has in a file: the weights that it stores, by name, and the names of what means nothing without them.

    `untrue` are names in the header that say how weights are stored.
    """

    encodings: Mapping[str, Encoding]
    beside: frozenset[str]
    untrue: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Format:
    """One format: its `name`, who writes it, and what tells it, for people; and how to find its tensors in a file."""

    name: str
    written_by: str
    told_by: str
    find: Callable[[Checkpoint], StoredTensors]
