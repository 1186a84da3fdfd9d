"""Reads `.ckpt`, `.pt` and `.bin` files: weights only, memory-mapped, and never any code."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint.base import Checkpoint
from workbench.errors import CheckpointError, MissingTensorError
from workbench.tensors import Part, TensorInfo, cut, dtype_code

if TYPE_CHECKING:
    import torch


@final
class PickleFile(Checkpoint):
    """The tensors of a pickled state dict; entries that are no tensors (step counts, settings) are left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self.metadata: Mapping[str, str] = {}
        self._tensors = _tensors(path, _load(path))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def info(self, key: str) -> TensorInfo:
        tensor = self._tensor(key)
        return TensorInfo(tuple(tensor.shape), dtype_code(tensor.dtype))

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        return cut(self._tensor(key), part).clone()

    def sources(self) -> tuple[Path, ...]:
        return (self.path,)

    def _tensor(self, key: str) -> torch.Tensor:
        try:
            return self._tensors[key]
        except KeyError:
            raise MissingTensorError(f"{self.path}: there is no tensor {key!r}; `keys()` lists the {len(self)} there are") from None


def _load(path: Path) -> Any:
    import torch

    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        # files of before torch 1.6 are no archives, and cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        asked = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), str(error).splitlines()[0])
        raise CheckpointError(
            f"{path}: refused, since unpickling it would run code ({asked}); "
            "use a safetensors version of this model, or save its state dict alone with torch.save"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read as a PyTorch file, it is truncated or none: {str(error)[:300]}") from error


def _tensors(path: Path, found: Any) -> dict[str, torch.Tensor]:
    import torch

    while isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}, not a state dict of tensors")
    tensors = {str(key): value.detach() for key, value in found.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors; its entries are {', '.join(map(str, list(found)[:8]))}")
    return tensors
