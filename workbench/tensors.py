"""What a tensor is to the rest of the package: its shape and dtype, its parts, and the space it lives in.

Nothing here reads a file, and nothing imports torch before a dtype is asked for.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

if TYPE_CHECKING:
    import torch

# safetensors' dtype codes: torch's name and the bytes of one element
_DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),  # powers of two, in which other tensors are scaled
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "C64": ("complex64", 8),
}
_CODES = {name: code for code, (name, _) in _DTYPES.items()}
DTYPE_CODES = tuple(_DTYPES)

SavedDtype = Literal["float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]  # what a result can be rounded to
Precision = Literal["float32", "float64"]  # what is calculated in


def dtype_code(dtype: torch.dtype | str) -> str:
    """The safetensors code (`"F16"`) of a torch dtype or its name (`"float16"`); KeyError when there is none."""
    return _CODES[str(dtype).removeprefix("torch.")]


@dataclass(frozen=True)
class TensorInfo:
    """Shape and dtype of a tensor that has not been read."""

    shape: tuple[int, ...]
    code: str

    @property
    def dtype(self) -> torch.dtype:
        import torch

        found: torch.dtype = getattr(torch, self.dtype_name)
        return found

    @property
    def dtype_name(self) -> str:
        return _DTYPES[self.code][0]

    @property
    def itemsize(self) -> int:
        return _DTYPES[self.code][1]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.itemsize

    @property
    def is_float(self) -> bool:
        return self.code.startswith(("F", "BF"))

    def with_dtype(self, dtype: str) -> TensorInfo:
        """The same shape in another dtype; integers, booleans and markers keep theirs."""
        return TensorInfo(self.shape, dtype_code(dtype)) if self.is_float else self


@dataclass(frozen=True)
class Storage:
    """What a tensor is stored as, in words, and in how many bytes, with all that belongs to it."""

    kind: str
    nbytes: int


@dataclass(frozen=True)
class Rows:
    """Indices `start:stop` of dimension 0."""

    start: int
    stop: int


@dataclass(frozen=True)
class Flat:
    """Elements `start:stop` of the tensor laid out flat; read as one dimension."""

    start: int
    stop: int


Part = Rows | Flat | None


PIECE = 1 << 18  # elements that are worked on at once, 1 MiB in float32: they stay in the cache, and their memory is used again


def elements(part: Part, shape: Sequence[int]) -> tuple[int, int]:
    """First and one-past-last flat element of `part` in a contiguous tensor of `shape`. Raises IndexError."""
    if part is None:
        return 0, math.prod(shape)
    if isinstance(part, Flat):
        step, count = 1, math.prod(shape)
    else:
        step, count = math.prod(shape[1:]), shape[0] if shape else 0
    if not 0 <= part.start <= part.stop <= count:
        raise IndexError(f"{part} lies outside a tensor of shape {list(shape)}; start and stop must be in order, from 0 to {count}")
    return part.start * step, part.stop * step


def part_shape(part: Part, shape: Sequence[int]) -> tuple[int, ...]:
    """Shape of `part` of a tensor of `shape`."""
    if part is None:
        return tuple(shape)
    if isinstance(part, Flat):
        return (part.stop - part.start,)
    return (part.stop - part.start, *shape[1:])


def cut(tensor: torch.Tensor, part: Part) -> torch.Tensor:
    """`part` of a whole tensor, as a view. Raises IndexError."""
    if part is None:
        return tensor
    elements(part, tensor.shape)
    if isinstance(part, Flat):
        return tensor.reshape(-1)[part.start : part.stop]
    return tensor[part.start : part.stop]


def rounded(tensor: torch.Tensor, dtype: torch.dtype, device: str = "cpu") -> torch.Tensor:
    """Each value rounded to the nearest of `dtype`, on a device. In float8 what lies beyond the largest becomes the largest."""
    limit = largest(dtype)
    if limit is not None and tensor.dtype != dtype:
        wide = tensor if tensor.element_size() > 1 else tensor.float()  # torch has no arithmetic in float8
        tensor = wide.clamp(-limit, limit)
    return tensor.to(device, dtype)


def largest(dtype: torch.dtype) -> float | None:
    """The largest value of a dtype that saturates; None for one that has infinity beyond it."""
    import torch

    return torch.finfo(dtype).max if dtype in (torch.float8_e4m3fn, torch.float8_e5m2) else None


class Scope(enum.IntEnum):
    """How much of a tensor an operator must see at once."""

    ELEMENT = 0  # any flat slice
    ROW = 1  # blocks of dimension 0; tensors of fewer than two dimensions whole
    TENSOR = 2  # whole tensors
    MODEL = 3  # whole tensors, or what `prepared_scope` says, after a pass over all of them


def widened(part: Part, scope: Scope, shape: Sequence[int]) -> Part:
    """The smallest part that holds `part` and that an operator of this scope can work on."""
    if part is None or scope is Scope.ELEMENT:
        return part
    if scope >= Scope.TENSOR or len(shape) < 2:
        return None
    row = max(math.prod(shape[1:]), 1)
    first, last = elements(part, shape)
    return Rows(first // row, -(-last // row))


def narrowed(tensor: torch.Tensor, held: Part, part: Part, shape: Sequence[int]) -> torch.Tensor:
    """`part` of a tensor of `shape`, from a wider part of it that is at hand."""
    first, last = elements(part, shape)
    begin, _ = elements(held, shape)
    return tensor.reshape(-1)[first - begin : last - begin].reshape(part_shape(part, shape))


def pieces(part: Part, scope: Scope, shape: Sequence[int], unit: int = 1, size: int | None = None) -> Iterator[Part]:
    """What makes up `part` of a tensor, of about `size` (PIECE) elements each, as an operator of this scope can work on; of whole units."""
    size = PIECE if size is None else size
    first, last = elements(part, shape)
    if last - first <= max(size, unit) or scope >= Scope.TENSOR or (scope is Scope.ROW and len(shape) < 2):
        yield part
    elif scope is Scope.ELEMENT:
        step = max(1, size // unit) * unit
        for start in range(first, last, step):
            yield Flat(start, min(start + step, last))
    else:
        row = math.prod(shape[1:])
        whole = unit // math.gcd(unit, row)  # so many rows are whole units
        step = max(1, size // row // whole) * whole
        for start in range(first // row, last // row, step):
            yield Rows(start, min(start + step, last // row))


class Space(enum.Enum):
    """Whether numbers are weights, or changes to be added to weights."""

    WEIGHT = "weight"
    DELTA = "delta"


@dataclass(frozen=True)
class Slot:
    """What an operator's positional parameter holds; the metadata of the four annotations below."""

    space: Space
    many: bool


Weight = Annotated["torch.Tensor", Slot(Space.WEIGHT, many=False)]
Weights = Annotated["Sequence[torch.Tensor]", Slot(Space.WEIGHT, many=True)]
Delta = Annotated["torch.Tensor", Slot(Space.DELTA, many=False)]
Deltas = Annotated["Sequence[torch.Tensor]", Slot(Space.DELTA, many=True)]


class KeptTensors(Protocol):
    """Keeps tensors of files on a device, between calculations that read them again."""

    def tensor(self, fingerprint: str, read: Callable[[], torch.Tensor]) -> torch.Tensor:
        """A whole tensor on the device in its own dtype, read when it is new. Not to be changed."""
        ...


@dataclass(frozen=True)
class Calculation:
    """How numbers are calculated: precision, device, who hears of NaN and infinity (model name, tensor name), and who keeps inputs."""

    precision: str = "float32"
    device: str = "cpu"
    on_nonfinite: Callable[[str, str], None] | None = None
    kept: KeptTensors | None = None

    @property
    def dtype(self) -> torch.dtype:
        import torch

        found: torch.dtype = getattr(torch, self.precision)
        return found

    def hear(self, model: str, key: str) -> None:
        """Report a tensor that is known to hold NaN or infinity."""
        if self.on_nonfinite is not None:
            self.on_nonfinite(model, key)

    def watch(self, model: str, key: str, tensor: torch.Tensor) -> None:
        """Report a tensor that holds NaN or infinity to whoever wants to hear of it."""
        if self.on_nonfinite is None or not tensor.is_floating_point():
            return
        # one pass: NaN and infinity survive a sum; a sum of finite values that overflows is looked at again
        if not tensor.sum(dtype=self.dtype).isfinite() and not tensor.to(self.dtype).isfinite().all():
            self.hear(model, key)
