"""`GgufFile`: one GGUF file by position, each tensor as it is stored. What quantised blocks stand for is in `stored.gguf_blocks`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, final

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files import sd_cpp
from workbench.checkpoint.files.by_position import OpenFile
from workbench.checkpoint.files.ggml_types import GgmlType, ggml_type, ggml_types, language_models
from workbench.checkpoint.files.gguf_header import MAGIC, GgufEntry, GgufHeader, read_gguf_header
from workbench.errors import CheckpointError
from workbench.tensors import Part, TensorInfo, elements, part_shape
from workbench.untrusted import open_regular

if TYPE_CHECKING:
    import torch

_ARCHITECTURE = "general.architecture"
_SHAPE = "comfy.gguf.orig_shape."  # of a tensor that was reshaped into rows of whole blocks, in torch's order
_OF_THE_FILE = ("general.", "comfy.gguf.", "tokenizer.")  # what it says of itself as a GGUF


@dataclass(frozen=True)
class GgufTensor:
    """A tensor's type, the shape of what it stands for, and the byte at which it begins."""

    kind: GgmlType
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // self.kind.block * self.kind.nbytes


@final
class GgufFile(Checkpoint):
    """The tensors of a GGUF file: plain ones as they are, quantised ones as the bytes of their blocks, one after another."""

    path: Path

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = name or path.stem
        self._file = OpenFile(path)
        reader = BufferedReader(self._file.stream)
        header = read_gguf_header(path, reader, self._file.size)
        reader.detach()  # else the file is closed with it
        _refuse_language_models(path, header)
        self.metadata = {key: text for key, text in header.values.items() if isinstance(text, str) and not key.startswith(_OF_THE_FILE)}
        self._tensors = {key: _tensor(path, key, entry, header) for key, entry in header.tensors.items()}
        if _ARCHITECTURE not in header.values:
            self._tensors = _usual(self._tensors)
        _check_layout(path, self._tensors, header.start, self._file.size)

    @property
    def entries(self) -> Mapping[str, GgufTensor]:
        return self._tensors

    def info(self, key: str) -> TensorInfo:
        tensor = self.entry(key)
        return TensorInfo(tensor.shape, tensor.kind.code) if tensor.kind.code else TensorInfo((tensor.nbytes,), "U8")

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        import torch

        info = self.info(key)
        first, last = elements(part, info.shape)
        buffer = torch.empty((last - first) * info.itemsize, dtype=torch.uint8)
        self._file.read_into(buffer.numpy().data, self.entry(key).start + first * info.itemsize, repr(key))
        return buffer.view(info.dtype).reshape(part_shape(part, info.shape))

    def sources(self) -> tuple[Path, ...]:
        return (self.path,)

    def replaced(self) -> tuple[Path, ...]:
        return (self.path,) if self._file.replaced else ()

    @cached_property
    def _identifier(self) -> str:
        return self._file.identifier


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF does, whatever it is called."""
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False  # whoever opens it next says why it cannot be


def _refuse_language_models(path: Path, header: GgufHeader) -> None:
    found = header.values.get(_ARCHITECTURE)  # stable-diffusion.cpp writes none
    if found in language_models():
        told = f"is a GGUF of a language model ({_ARCHITECTURE} is {found!r}), with llama.cpp's names"
        raise CheckpointError(f"{path}: {told}; of image models denoisers and whole models are read, and text encoders as safetensors")


def _tensor(path: Path, key: str, entry: GgufEntry, header: GgufHeader) -> GgufTensor:
    kind = ggml_type(entry.type)
    if kind is None:
        known = ", ".join(f"{one.name} ({one.number})" for one in ggml_types())
        raise CheckpointError(f"{path}: {key!r} is of type {entry.type}, which is unknown or cannot be decoded; known are {known}")
    row = entry.shape[-1] if entry.shape else 1
    if row % kind.block:
        raise CheckpointError(f"{path}: {key!r} has rows of {row} elements, and {kind.name} blocks of {kind.block}; the file is damaged")
    return GgufTensor(kind, _shape(path, key, entry, header), header.start + entry.offset)


def _shape(path: Path, key: str, entry: GgufEntry, header: GgufHeader) -> tuple[int, ...]:
    """The shape that a tensor had before it was reshaped."""
    found = header.values.get(_SHAPE + key)
    if found is None:
        return entry.shape
    if not isinstance(found, list) or not all(type(number) is int and number >= 0 for number in found):
        raise CheckpointError(f"{path}: {_SHAPE}{key} is {str(found)[:99]}; a list of natural numbers is allowed")
    if math.prod(found) != math.prod(entry.shape):
        told = f"says {found}, {math.prod(found)} elements, but the tensor has {list(entry.shape)}, {math.prod(entry.shape)}"
        raise CheckpointError(f"{path}: {_SHAPE}{key} {told}; the file is damaged")
    return tuple(found)


def _usual(tensors: dict[str, GgufTensor]) -> dict[str, GgufTensor]:
    """The tensors of a file that says nothing of its architecture, which stable-diffusion.cpp writes, as other programs have them."""
    starts, matrices = sd_cpp.prefixes(tensors), sd_cpp.has_matrices(tensors)
    found = {}
    for key, tensor in tensors.items():
        start = next((start for start in starts if key.startswith(start)), "")
        shape = sd_cpp.as_matrix(key, tensor.shape) if matrices else tensor.shape
        found[starts.get(start, "") + key.removeprefix(start)] = replace(tensor, shape=shape)
    return found if len(found) == len(tensors) else tensors


def _check_layout(path: Path, tensors: Mapping[str, GgufTensor], start: int, size: int) -> None:
    """The tensors lie in the file, none on another."""
    end, previous = start, "the header"
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if tensor.start < end:
            raise CheckpointError(f"{path}: {key!r} begins at byte {tensor.start} and overlaps {previous!r}, which ends at {end}")
        end, previous = tensor.start + tensor.nbytes, key
    if end > size:
        raise CheckpointError(f"{path}: truncated: {previous!r} ends at byte {end}, but the file has {size}; fetch it again")
