"""`Quantiser`: how one tensor is written. `Plain` rounds it to a dtype; the types of GGUF and of ComfyUI are in files of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from workbench.tensors import TensorInfo, largest, rounded

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Encoded:
    """Some elements as they are written: for each tensor in the file, in the order of `stored`, the byte it goes to and what goes there.

    `values` are what a reader makes of it, in the dtype of what was given.
    """

    pieces: tuple[tuple[int, torch.Tensor], ...]
    values: torch.Tensor


@dataclass(frozen=True)
class Quantiser(ABC):
    """How a tensor that reads as `info` is written. `kind` names the type, as `wb.open` does when it reads it back."""

    info: TensorInfo
    kind: str

    @property
    @abstractmethod
    def unit(self) -> int:
        """Elements that are encoded together: of a flat tensor those from one multiple of it to the next."""

    @property
    def lossy(self) -> bool:
        """Whether so much is lost that it is measured: 8 bits and less."""
        return True

    @property
    def limit(self) -> float | None:
        """The largest value, to which all beyond are set; None where there is none."""
        return None

    @abstractmethod
    def stored(self, name: str) -> Mapping[str, TensorInfo]:
        """The tensors that the file has of it, the codes first."""

    @abstractmethod
    def encode(self, values: torch.Tensor, first: int) -> Encoded:
        """Flat elements from `first` on, whole units of them."""

    @property
    def nbytes(self) -> int:
        """Bytes of all that the file has of it."""
        return sum(info.nbytes for info in self.stored("").values())


@final
@dataclass(frozen=True)
class Plain(Quantiser):
    """Each value rounded to the nearest of the dtype of `info`; float8 saturates."""

    @classmethod
    def of(cls, info: TensorInfo) -> Plain:
        return cls(info, info.dtype_name)

    @property
    def unit(self) -> int:
        return 1

    @property
    def lossy(self) -> bool:
        return self.limit is not None

    @property
    def limit(self) -> float | None:
        return largest(self.info.dtype)

    def stored(self, name: str) -> Mapping[str, TensorInfo]:
        return {name: self.info}

    def encode(self, values: torch.Tensor, first: int) -> Encoded:
        result = rounded(values, self.info.dtype)
        return Encoded(((first * self.info.itemsize, result),), result)
