"""Reads one safetensors file by position, lazily, after judging its header. Why not the library: docs/decisions/0002."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files.by_position import OpenFile
from workbench.checkpoint.files.json_object import parse_object
from workbench.errors import CheckpointError
from workbench.tensors import DTYPE_CODES, Part, TensorInfo, elements, part_shape

if TYPE_CHECKING:
    import torch

_LENGTH = 8  # bytes of the header's length, little-endian
_LARGEST_HEADER = 100_000_000  # as in the safetensors library
_PLENTY = 1 << 20  # bytes that most headers have less than
_MOST_DIMENSIONS = 64  # that a tensor has in torch
_UNCOUNTABLE = 1 << 63  # torch counts and seeks in 64 bits


@final
class SafetensorsFile(Checkpoint):
    """One safetensors file. The file stays open, so replacing it on disk does not change what is read here."""

    path: Path

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = name or path.stem
        self._file = OpenFile(path)
        header, self._start = _read_header(self._file)
        self.metadata: Mapping[str, str] = _metadata(path, header.pop("__metadata__", None))
        self._offsets = {key: _entry(path, key, entry) for key, entry in header.items()}
        _check_layout(path, self._offsets, self._file.size - self._start)

    @property
    def entries(self) -> Mapping[str, tuple[TensorInfo, int]]:
        return self._offsets

    def info(self, key: str) -> TensorInfo:
        return self.entry(key)[0]

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        import torch

        info, offset = self.entry(key)
        first, last = elements(part, info.shape)
        buffer = torch.empty((last - first) * info.itemsize, dtype=torch.uint8)
        self._file.read_into(buffer.numpy().data, self._start + offset + first * info.itemsize, repr(key))
        return buffer.view(info.dtype).reshape(part_shape(part, info.shape))

    def head(self) -> bytes:
        """The bytes before the tensors, as they are in the file."""
        buffer = bytearray(self._start)
        self._file.read_into(memoryview(buffer), 0, "the header")
        return bytes(buffer)

    def sources(self) -> tuple[Path, ...]:
        return (self.path,)

    def replaced(self) -> tuple[Path, ...]:
        return (self.path,) if self._file.replaced else ()

    @cached_property
    def _identifier(self) -> str:
        return self._file.identifier


def _read_header(file: OpenFile) -> tuple[dict[str, Any], int]:
    """The header as it was written, and the byte at which the tensors begin."""
    path, size = file.path, file.size
    if size < _LENGTH:
        raise CheckpointError(f"{path}: {size} bytes are too few for a safetensors file; it is truncated, fetch it again")
    (length,) = struct.unpack("<Q", file.stream.read(_LENGTH))
    if length > min(size - _LENGTH, _LARGEST_HEADER):
        raise CheckpointError(
            f"{path}: the header should have {length} bytes, but the file has {size}; "
            "it is truncated or no safetensors file, fetch it again"
        )
    text = file.stream.read(min(length, _PLENTY))
    if length > _PLENTY and text.startswith(b"{"):  # as the format asks
        text += file.stream.read(length - _PLENTY)
    return parse_object(path, "the header", text), _LENGTH + length


def _metadata(path: Path, found: Any) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CheckpointError(f"{path}: __metadata__ must map names to strings")
    return found


def _entry(path: Path, key: str, entry: Any) -> tuple[TensorInfo, int]:
    """Shape, dtype and offset of one tensor, judged."""
    try:
        code, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise CheckpointError(f"{path}: {key!r} needs dtype, shape and data_offsets, got {str(entry)[:200]}") from None
    if code not in DTYPE_CODES:
        raise CheckpointError(f"{path}: {key!r} has dtype {code!r}; known are {', '.join(DTYPE_CODES)}")
    if not all(type(number) is int and 0 <= number < _UNCOUNTABLE for number in (*shape, begin, end)):
        raise CheckpointError(
            f"{path}: {key!r} has shape {str(shape)[:99]} and offsets {str([begin, end])[:99]}; natural numbers are allowed"
        )
    if len(shape) > _MOST_DIMENSIONS:
        raise CheckpointError(f"{path}: {key!r} has {len(shape)} dimensions; at most {_MOST_DIMENSIONS} are allowed")
    info = TensorInfo(shape, code)
    if end - begin != info.nbytes:
        raise CheckpointError(f"{path}: {key!r} ({code} {list(shape)}) takes {info.nbytes} bytes, but its offsets span {end - begin}")
    return info, begin


def _check_layout(path: Path, offsets: dict[str, tuple[TensorInfo, int]], size: int) -> None:
    """The tensors lie end to end and fill the file, as the format asks."""
    end, previous = 0, "the header"
    for key, (info, begin) in sorted(offsets.items(), key=lambda item: (item[1][1], item[1][0].nbytes)):
        if begin != end:
            what = "overlaps" if begin < end else f"leaves a hole of {begin - end} bytes after"
            raise CheckpointError(f"{path}: {key!r} begins at byte {begin} and {what} {previous!r}, which ends at {end}")
        end, previous = begin + info.nbytes, key
    if end > size:
        raise CheckpointError(
            f"{path}: truncated: {previous!r} is out of range, it ends at byte {end} of the data, but there are {size}; fetch it again"
        )
    if end < size:
        raise CheckpointError(f"{path}: {size - end} bytes follow the last tensor; the header does not belong to this file")
