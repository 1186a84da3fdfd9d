"""Several checkpoints read as one: the shards of a model, the components of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, final

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.json_object import read_object
from workbench.checkpoint.pickle_file import PickleFile
from workbench.checkpoint.safetensors_file import SafetensorsFile
from workbench.errors import CheckpointError
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
        self._holders = tuple(dict.fromkeys(holder for holder, _ in where.values()))
        self.metadata = {}

    @property
    def entries(self) -> Mapping[str, tuple[Checkpoint, str]]:
        return self._where

    def info(self, key: str) -> TensorInfo:
        holder, inner = self.entry(key)
        return holder.info(inner)

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        holder, inner = self.entry(key)
        return holder.read(inner, part)

    def fingerprint(self, key: str) -> str:
        holder, inner = self.entry(key)
        return holder.fingerprint(inner)

    def sources(self) -> tuple[Path, ...]:
        return tuple(path for holder in self._holders for path in holder.sources())

    def replaced(self) -> tuple[Path, ...]:
        return tuple(path for holder in self._holders for path in holder.replaced())


def open_sharded(index: Path) -> Joined:
    """The shards that an `*.index.json` names, as one checkpoint."""
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{index}: is no index of shards; it needs a `weight_map` from tensor names to file names")
    paths = {file: inside(index, file) for file in sorted(set(weight_map.values()))}
    for file, path in paths.items():
        if not path.is_file():
            raise CheckpointError(f"{index}: shard {file!r} is missing; fetch it into {index.parent}")
    shards = {file: (PickleFile if path.suffix == ".bin" else SafetensorsFile)(path) for file, path in paths.items()}
    for key, file in weight_map.items():
        if key not in shards[file]:
            raise CheckpointError(f"{index}: {key!r} should be in {file}, and is not; index and shards do not belong together")
    return Joined(index, {key: (shards[file], key) for key, file in weight_map.items()})


def inside(index: Path, name: str) -> Path:
    """Where what `index` names lies; by name only, since download caches link their files elsewhere. Raises CheckpointError."""
    for style in (PurePosixPath(name), PureWindowsPath(name)):
        if style.anchor or ".." in style.parts:
            raise CheckpointError(f"{index}: {name!r} lies outside the folder; only files inside it are read")
    return index.parent / name
