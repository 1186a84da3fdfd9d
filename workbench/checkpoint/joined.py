"""Several checkpoints read as one: the shards of a model, the components of a pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, final

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.safetensors_file import SafetensorsFile
from workbench.errors import CheckpointError, MissingTensorError
from workbench.tensors import Part, TensorInfo

if TYPE_CHECKING:
    import torch


@final
class Joined(Checkpoint):
    """The tensors of several checkpoints; `where` maps each name to the checkpoint that holds it and its name there."""

    def __init__(self, path: Path, where: Mapping[str, tuple[Checkpoint, str]]) -> None:
        self.path = path
        self.name = path.parent.name if path.name.endswith(".index.json") else path.name
        self._where = where
        self.metadata = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, key: object) -> bool:
        return key in self._where

    def info(self, key: str) -> TensorInfo:
        holder, inner = self._find(key)
        return holder.info(inner)

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        holder, inner = self._find(key)
        return holder.read(inner, part)

    def sources(self) -> tuple[Path, ...]:
        holders = dict.fromkeys(holder for holder, _ in self._where.values())
        return tuple(path for holder in holders for path in holder.sources())

    def _find(self, key: str) -> tuple[Checkpoint, str]:
        try:
            return self._where[key]
        except KeyError:
            raise MissingTensorError(f"{self.name}: there is no tensor {key!r}; `keys()` lists the {len(self)} there are") from None


def open_sharded(index: Path) -> Joined:
    """The shards that an `*.index.json` names, as one checkpoint."""
    try:
        weight_map = json.loads(index.read_text())["weight_map"]
        files = {str(file) for file in weight_map.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: is no index of shards ({error!r}); it needs a `weight_map` from tensor to file") from error
    shards = {file: SafetensorsFile(_shard_path(index, file)) for file in sorted(files)}
    for key, file in weight_map.items():
        if key not in shards[file]:
            raise CheckpointError(f"{index}: {key!r} should be in {file}, and is not; index and shards do not belong together")
    return Joined(index, {key: (shards[file], key) for key, file in weight_map.items()})


def _shard_path(index: Path, file: str) -> Path:
    """Where a shard lies; by name only, since download caches link their shards elsewhere."""
    for style in (PurePosixPath(file), PureWindowsPath(file)):
        if style.is_absolute() or style.drive or ".." in style.parts:
            raise CheckpointError(f"{index}: shard {file!r} lies outside the folder; only files inside it are read")
    path = index.parent / file
    if not path.is_file():
        raise CheckpointError(f"{index}: shard {file!r} is missing; fetch it into {index.parent}")
    return path
