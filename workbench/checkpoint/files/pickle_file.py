"""Reads `.ckpt`, `.pt` and `.bin` files: weights only, memory-mapped, and never any code."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import weakref
from collections.abc import Mapping
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files.identity import identity, lies_at
from workbench.checkpoint.files.pickle_scan import check
from workbench.checkpoint.files.stand_ins import stand_ins
from workbench.errors import CheckpointError
from workbench.tensors import DTYPE_CODES, Part, TensorInfo, cut, dtype_code
from workbench.untrusted import Refused, open_regular
from workbench.wording import few

if TYPE_CHECKING:
    import torch


@final
class PickleFile(Checkpoint):
    """The tensors of a pickled state dict; entries that are no tensors (step counts, settings) are left out."""

    path: Path

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.path = path
        self.name = name or path.stem
        self.metadata: Mapping[str, str] = {}
        try:
            self._file = BufferedReader(open_regular(path))
            weakref.finalize(self, self._file.close)
            found = os.fstat(self._file.fileno())
            self._identity = identity(found)
            check(self._file, found.st_size)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened: {error.strerror}") from error
        except Refused as error:
            raise CheckpointError(f"{path}: refused unread: {error}") from error
        self._tensors = _tensors(path, _load(path, zipped=self._file.read(4) == b"PK\x03\x04"))
        self._infos = {key: _info(path, key, tensor) for key, tensor in self._tensors.items()}

    @property
    def entries(self) -> Mapping[str, TensorInfo]:
        return self._infos

    def info(self, key: str) -> TensorInfo:
        return self.entry(key)

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        import torch

        self.entry(key)
        if identity(os.fstat(self._file.fileno())) != self._identity:  # what is mapped and gone would end the process
            raise CheckpointError(f"{self.path}: the file was changed after it was opened, {key!r} cannot be read; open it again")
        return cut(self._tensors[key], part).clone(memory_format=torch.contiguous_format)

    @cached_property
    def _identifier(self) -> str:
        return f"{self.path.resolve()} {self._identity}"

    def sources(self) -> tuple[Path, ...]:
        return (self.path,)

    def replaced(self) -> tuple[Path, ...]:
        return () if lies_at(self.path, self._identity) else (self.path,)


def _load(path: Path, zipped: bool) -> Any:
    import torch

    try:
        with stand_ins(), warnings.catch_warnings(action="ignore"):  # of pickle protocols that torch does not write itself
            # files of before torch 1.6 are no archives, and cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged pickle can fail in any way
        if isinstance(error, pickle.UnpicklingError) and (asked := re.search(r"GLOBAL (\S+)", str(error))):
            raise CheckpointError(
                f"{path}: refused, since unpickling it would run code (it asks for {asked[1]}); "
                "use a safetensors version of this model, or save its state dict alone with torch.save"
            ) from error
        told = "" if isinstance(error, (pickle.UnpicklingError, KeyError)) else f": {str(error).split('. ')[0][:200]}"
        raise CheckpointError(
            f"{path}: cannot be read as a PyTorch file of tensors, it is truncated or none ({type(error).__name__}{told})"
        ) from error


def _tensors(path: Path, found: Any) -> dict[str, torch.Tensor]:
    import torch

    seen: set[int] = set()  # one may hold itself
    while isinstance(found, dict) and isinstance(found.get("state_dict"), dict) and id(found) not in seen:
        seen.add(id(found))
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}, not a state dict of tensors")
    tensors = {str(key): value.detach() for key, value in found.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors; its entries are {few([str(name) for name in found], 8) or 'none'}")
    return tensors


def _info(path: Path, key: str, tensor: torch.Tensor) -> TensorInfo:
    import torch

    if tensor.layout is not torch.strided:
        raise CheckpointError(f"{path}: {key!r} is a {tensor.layout} tensor; only ordinary ones are read")
    try:
        return TensorInfo(tuple(tensor.shape), dtype_code(tensor.dtype))
    except KeyError:
        raise CheckpointError(f"{path}: {key!r} has dtype {tensor.dtype}; known are {', '.join(DTYPE_CODES)}") from None
