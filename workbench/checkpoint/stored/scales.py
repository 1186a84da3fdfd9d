"""Scales beside stored codes: read for the elements they are wanted for, and judged. What the codes mean is each format's own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.stored.encoding import Encoding
from workbench.errors import CheckpointError
from workbench.tensors import Flat, TensorInfo

if TYPE_CHECKING:
    import torch

FLOAT8 = ("F8_E4M3", "F8_E5M2")
_MOST_OF_A_SETTING = 1 << 16  # bytes of JSON beside a tensor


def few_bits(info: TensorInfo) -> bool:
    """Whether a tensor may hold codes: integers, or floats of 8 bits."""
    return not info.is_float or info.code in FLOAT8


def required(holder: Checkpoint, key: str, name: str, kind: str) -> str:
    """The name of a tensor that a weight cannot be read without. Raises CheckpointError where it is missing."""
    if name not in holder:
        told = f"is stored as {kind}, and its {name!r} is missing"
        raise CheckpointError(f"{holder.path or holder.name}: {key!r} {told}; the file is not whole, fetch it again")
    return name


def by_tensor_or_row(holder: Checkpoint, key: str, name: str, *, only_tensor: bool = False, floats: bool = True) -> None:
    """Raise CheckpointError for what is neither one number for the tensor `key` nor one for each of its rows."""
    info, shape = holder.info(name), holder.info(key).shape
    by_row = not only_tensor and bool(shape) and info.shape[:1] == shape[:1] and info.numel == shape[0]
    if (floats and not info.is_float) or (info.numel != 1 and not by_row):
        raise CheckpointError(
            f"{holder.path or holder.name}: {name!r} ({info.dtype_name} {list(info.shape)}) is no scale of {key!r} {list(shape)} that is "
            "read: one float for the tensor, or one for each row; use an fp16 or bf16 version of this model"
        )


def spread(encoding: Encoding, key: str, first: int, last: int) -> torch.Tensor:
    """What a tensor has for every element `first:last`, flat, in float32: one number for all, or one for each row."""
    holder = encoding.holder
    if holder.info(key).numel == 1:
        return holder.read(key).float().reshape(1).expand(last - first)
    row = max(math.prod(encoding.shape[1:]), 1)
    begin = first // row
    of_rows = holder.read(key, Flat(begin, -(-last // row))).float().reshape(-1)
    return of_rows.repeat_interleave(row)[first - begin * row : last - begin * row]


def judged_spread(encoding: Encoding, scale: str, first: int, last: int) -> torch.Tensor:
    """The scale of every element. Raises CheckpointError, as `judged`."""
    return judged(encoding, scale, spread(encoding, scale, first, last))


def judged(encoding: Encoding, scale: str, values: torch.Tensor) -> torch.Tensor:
    """The scales. Raises CheckpointError for one that is negative, NaN or infinite."""
    bad = ~(values.isfinite() & (values >= 0))
    if bad.any():
        told = f"holds a scale of {values[bad][0].item()}; a scale is positive, the file is damaged, fetch it again"
        raise encoding.error(told, scale)
    return values


def scaled(encoding: Encoding, scale: str, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Codes times their scales, in place. Raises CheckpointError for a scale of zero beside codes that are not."""
    if not scales.all() and bool(((scales == 0) & (codes != 0)).any()):
        raise encoding.error(f"is zero where {encoding.key!r} is not, which would be lost; the file is damaged, fetch it again", scale)
    return codes.mul_(scales)


def setting(holder: Checkpoint, key: str) -> bytes:
    """The text that a tensor of bytes spells. Raises CheckpointError for what is none."""
    info = holder.info(key)
    if info.code not in ("U8", "I8") or info.nbytes > _MOST_OF_A_SETTING:
        told = f"({info.dtype_name} {list(info.shape)}) should be a text of at most {_MOST_OF_A_SETTING} bytes"
        raise CheckpointError(f"{holder.path or holder.name}: {key!r} {told}; the file is damaged")
    return holder.read(key).reshape(-1).numpy().tobytes()
