"""Reads the header of a GGUF file, judged: what it says of itself, and of each tensor its type's number, shape and place.

Source: the GGUF specification, ggml-org/ggml docs/gguf.md, versions 2 and 3. What the types mean is not known here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workbench.errors import CheckpointError

MAGIC = b"GGUF"

_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # type -> as `struct` has it
_TEXT, _LIST = 8, 9
_LEAST = 12  # bytes of the entry of a value, and so of a tensor
_LARGEST = 100_000_000  # bytes of a header, as of a safetensors file's
_MOST_LEVELS = 4  # of lists in lists
_MOST_DIMENSIONS = 64  # that a tensor has in torch
_MOST_ALIGNMENT = 1 << 20
_UNCOUNTABLE = 1 << 63  # torch counts and seeks in 64 bits
_AGAIN = "it is truncated or damaged, fetch it again"


@dataclass(frozen=True)
class GgufEntry:
    """A tensor as the header has it: its type's number, its dimensions in torch's order, and where it begins among the tensors."""

    type: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class GgufHeader:
    """`values` are what the file says of itself; the tensors begin at byte `start`."""

    values: Mapping[str, Any]
    tensors: Mapping[str, GgufEntry]
    start: int


def read_gguf_header(path: Path, stream: BinaryIO, size: int) -> GgufHeader:
    """The header of a file of `size` bytes, from its first byte on. Raises CheckpointError for what is none."""
    return _Reader(path, stream, size).header()


class _Reader:
    """Takes one thing after another from a stream, and never more than there is."""

    def __init__(self, path: Path, stream: BinaryIO, size: int) -> None:
        self._path, self._stream, self._left, self._read = path, stream, min(size, _LARGEST), 0

    def header(self) -> GgufHeader:
        self._check_version()
        count, values_count = self._counted("tensors"), self._counted("values")
        values: dict[str, Any] = {}
        for _ in range(values_count):
            name = self._name(values, "value")
            values[name] = self._value(self._number("I"), name)
        tensors: dict[str, GgufEntry] = {}
        for _ in range(count):
            name = self._name(tensors, "tensor")
            tensors[name] = self._entry(name)
        alignment = values.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= _MOST_ALIGNMENT or alignment & (alignment - 1):
            raise self._error(f"general.alignment is {alignment!r}; a power of two is allowed, up to {_MOST_ALIGNMENT}")
        return GgufHeader(values, tensors, -(-self._read // alignment) * alignment)

    def _check_version(self) -> None:
        if self._take(len(MAGIC), "the magic") != MAGIC:
            raise self._error("is no GGUF file; it begins with other bytes")
        version = self._number("I")
        if version and version & 0xFFFF == 0:  # the bytes of a small number, the other way round
            raise self._error("is a GGUF file of big-endian numbers, which is not read; use the usual, little-endian version")
        if version not in _VERSIONS:
            raise self._error(f"is a GGUF file of version {version}; read are {' and '.join(map(str, _VERSIONS))}")

    def _entry(self, name: str) -> GgufEntry:
        dimensions = self._number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise self._error(f"{name!r} has {dimensions} dimensions; at most {_MOST_DIMENSIONS} are allowed")
        shape = struct.unpack(f"<{dimensions}Q", self._take(8 * dimensions, f"the shape of {name!r}"))[::-1]
        entry = GgufEntry(self._number("I"), shape, self._number("Q"))
        if not all(number < _UNCOUNTABLE for number in (*shape, entry.offset)):
            raise self._error(f"{name!r} has shape {list(shape)} and offset {entry.offset}, numbers beyond counting; {_AGAIN}")
        return entry

    def _value(self, kind: int, name: str, level: int = 0) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _TEXT:
            return self._text(name)
        if kind != _LIST or level == _MOST_LEVELS:
            raise self._error(f"the value {name!r} is of type {kind} at level {level}, which GGUF has not; {_AGAIN}")
        inner, count = self._number("I"), self._number("Q")
        if inner not in _SCALARS:
            return [self._value(inner, name, level + 1) for _ in range(self._checked(count, 8, name))]
        size = struct.calcsize(_SCALARS[inner])
        return list(struct.unpack(f"<{count}{_SCALARS[inner]}", self._take(self._checked(count, size, name) * size, name)))

    def _name(self, known: Mapping[str, Any], what: str) -> str:
        name = self._text(f"the name of a {what}")
        if name in known:
            raise self._error(f"there are two {what}s called {name!r}; {_AGAIN}")
        return name

    def _text(self, what: str) -> str:
        try:
            return self._take(self._number("Q"), what).decode()
        except UnicodeDecodeError as error:
            raise self._error(f"{what} is not text ({error.reason}); {_AGAIN}") from error

    def _counted(self, what: str) -> int:
        return self._checked(self._number("Q"), _LEAST, what)

    def _checked(self, count: int, least: int, what: str) -> int:
        """A count of things of so many bytes at least, if there is room for them."""
        if count * least > self._left:
            raise self._error(f"should have {count} of {what}, but {self._left} bytes are left; {_AGAIN}")
        return count

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}"), "a number"))[0]

    def _take(self, count: int, what: str) -> bytes:
        if count > self._left:
            raise self._error(f"the header ends inside {what}: {count} bytes should follow, and {self._left} are left; {_AGAIN}")
        try:
            found = self._stream.read(count)
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror}") from error
        if len(found) < count:
            raise self._error(f"the file ended inside {what}; it was cut short after it was opened")
        self._left, self._read = self._left - count, self._read + count
        return found

    def _error(self, told: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {told}")
