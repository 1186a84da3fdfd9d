"""The header of a GGUF file to be written: what it says of itself, and where each tensor lies. What the types mean is in `ggml_types`.

Source: the GGUF specification, ggml-org/ggml docs/gguf.md, version 3; city96/ComfyUI-GGUF, tools/convert.py, for shapes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.checkpoint.files.ggml_types import GgmlType
from workbench.checkpoint.files.gguf_header import MAGIC

_VERSION, _ALIGNMENT = 3, 32
_UINT32, _INT32, _TEXT, _LIST = 4, 5, 8, 9
_MOST_DIMENSIONS = 4
_ROW = 256  # elements in which a tensor is cut whose rows are no whole blocks
_SHAPE = "comfy.gguf.orig_shape."

Value = str | int | Sequence[int]


@dataclass(frozen=True)
class GgufTensorToBe:
    """A tensor of a type, `shape` in torch's order; `cut` is what the file has where that is not a shape of its own."""

    kind: GgmlType
    shape: tuple[int, ...]
    cut: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // self.kind.block * self.kind.nbytes


def shape_in_gguf(shape: tuple[int, ...], block: int, cutting: bool) -> tuple[int, ...] | None:
    """The shape that a file has of a tensor: its own; where its rows are no whole blocks and `cutting` is allowed, or it has more than
    four dimensions, rows of 256. None where it cannot be one.
    """
    count, row = math.prod(shape), shape[-1] if shape else 1
    if len(shape) <= _MOST_DIMENSIONS:
        if row % block == 0:
            return shape
        return (count // _ROW, _ROW) if cutting and count % _ROW == 0 and _ROW % block == 0 else None
    if row % block == 0:
        return (count // max(row, 1), row)
    return (count // _ROW, _ROW) if count % _ROW == 0 and _ROW % block == 0 else None


def gguf_header(tensors: Mapping[str, GgufTensorToBe], values: Mapping[str, Value]) -> tuple[bytes, dict[str, int]]:
    """The bytes before the data, and where in the file each tensor begins."""
    shapes = {_SHAPE + name: tensor.shape for name, tensor in tensors.items() if tensor.cut != tensor.shape}
    entries, offsets, offset = [], {}, 0
    for name, tensor in tensors.items():
        offsets[name] = offset
        dimensions = tensor.cut[::-1]
        numbers = struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, tensor.kind.number, offset)
        entries.append(_text(name) + numbers)
        offset = _aligned(offset + tensor.nbytes)
    said = {**values, **shapes}
    head = MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(said))
    text = head + b"".join(_text(name) + _value(value) for name, value in said.items()) + b"".join(entries)
    header = text.ljust(_aligned(len(text)), b"\0")
    return header, {name: len(header) + begin for name, begin in offsets.items()}


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _TEXT) + _text(value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    return struct.pack(f"<IIQ{len(value)}i", _LIST, _INT32, len(value), *value)
