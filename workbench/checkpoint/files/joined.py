"""Several checkpoints read as one: the shards of a model, the components of a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, final

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files.folders import is_index, variants, weights_among
from workbench.checkpoint.files.json_object import read_object
from workbench.checkpoint.files.pickle_file import PickleFile
from workbench.checkpoint.files.safetensors_file import SafetensorsFile
from workbench.errors import CheckpointError
from workbench.tensors import Part, Storage, TensorInfo

if TYPE_CHECKING:
    import torch


@final
class Joined(Checkpoint):
    """The tensors of several checkpoints; `where` maps each name to the checkpoint that holds it and its name there."""

    def __init__(
        self, path: Path, where: Mapping[str, tuple[Checkpoint, str]], metadata: Mapping[str, str], notes: Iterable[str] = ()
    ) -> None:
        self.path = path
        self.name = path.parent.name if is_index(path.name) else path.name
        self._where = where
        self._holders = tuple(dict.fromkeys(holder for holder, _ in where.values()))
        self.metadata = dict(metadata)
        self.notes = (*notes, *(note for holder in self._holders for note in holder.notes))

    @property
    def entries(self) -> Mapping[str, tuple[Checkpoint, str]]:
        return self._where

    def info(self, key: str) -> TensorInfo:
        holder, inner = self.entry(key)
        return holder.info(inner)

    def storage(self, key: str) -> Storage:
        holder, inner = self.entry(key)
        return holder.storage(inner)

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        holder, inner = self.entry(key)
        return holder.read(inner, part)

    def exact(self, key: str, part: Part = None) -> torch.Tensor:
        holder, inner = self.entry(key)
        return holder.exact(inner, part)

    def origin(self, key: str) -> tuple[Checkpoint, str] | None:
        holder, inner = self.entry(key)
        return (self, key) if holder.origin(inner) else None

    def fingerprint(self, key: str) -> str:
        holder, inner = self.entry(key)
        return holder.fingerprint(inner)

    def sources(self) -> tuple[Path, ...]:
        return tuple(path for holder in self._holders for path in holder.sources())

    def replaced(self) -> tuple[Path, ...]:
        return tuple(path for holder in self._holders for path in holder.replaced())


def open_sharded(index: Path) -> Joined:
    """The shards that an `*.index.json` names, as one checkpoint. Raises CheckpointError where they are not what it says."""
    found = read_object(index)
    weight_map = weight_map_of(index, found)
    paths = {file: inside(index, file) for file in sorted(set(weight_map.values()))}
    if others := [file for file in paths if variants(file) != variants(index.name)]:
        told = f"names shards of another variant ({others[0]!r}); fetch the index of that variant, or its own shards, into {index.parent}"
        raise CheckpointError(f"{index}: {told}")
    if missing := [file for file, path in paths.items() if not path.is_file()]:
        told, what = ("shard", "is missing; fetch it") if len(missing) == 1 else ("shards", "are missing; fetch them")
        raise CheckpointError(f"{index}: {told} {', '.join(map(repr, missing))} {what} into {index.parent}")
    shards = {file: (PickleFile if path.suffix == ".bin" else SafetensorsFile)(path) for file, path in paths.items()}
    _check(index, weight_map, shards)
    joined = Joined(index, {key: (shards[file], key) for key, file in weight_map.items()}, _shared(shards.values()), _stale(index, paths))
    size = found["metadata"].get("total_size") if isinstance(found.get("metadata"), dict) else None
    pickled = any(isinstance(shard, PickleFile) for shard in shards.values())  # tensors that share their storage counted once there
    if size is not None and size != joined.nbytes and not pickled:
        raise CheckpointError(
            f"{index}: says that the tensors have {size} bytes (total_size), but those in the shards have {joined.nbytes}; "
            "index and shards are of different versions, fetch them again together"
        )
    return joined


def weight_map_of(index: Path, found: Mapping[str, object]) -> dict[str, str]:
    """Which file each tensor lies in, as an index says. Raises CheckpointError."""
    weight_map = found.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{index}: is no index of shards; it needs a `weight_map` from tensor names to file names")
    return weight_map


def weight_files(folder: Path) -> list[Path]:
    """The files that a component's weights lie in, with their index. Raises CheckpointError for a damaged index."""
    weights = weights_among(path.name for path in folder.iterdir() if path.is_file())
    if weights is None or not is_index(weights):
        return [folder / weights] if weights else []
    index = folder / weights
    return [index, *(inside(index, file) for file in dict.fromkeys(weight_map_of(index, read_object(index)).values()))]


def inside(index: Path, name: str) -> Path:
    """Where what `index` names lies; by name only, since download caches link their files elsewhere. Raises CheckpointError."""
    for style in (PurePosixPath(name), PureWindowsPath(name)):
        if style.anchor or ".." in style.parts:
            raise CheckpointError(f"{index}: {name!r} lies outside the folder; only files inside it are read")
    return index.parent / name


def _check(index: Path, weight_map: Mapping[str, str], shards: Mapping[str, Checkpoint]) -> None:
    """Each tensor lies in the shard that the index says, and in no other; no shard has one that the index does not know."""
    for key, file in weight_map.items():
        if key not in shards[file]:
            raise CheckpointError(f"{index}: {key!r} should be in {file}, and is not; index and shards do not belong together")
    for file, shard in shards.items():
        for key in shard:
            if key not in weight_map:
                raise CheckpointError(f"{index}: {key!r} in {file} is not in the index; index and shards do not belong together")
            if weight_map[key] != file:
                raise CheckpointError(
                    f"{index}: {key!r} lies in two shards, {weight_map[key]} and {file}; fetch the index and its shards again together"
                )


def _shared(shards: Iterable[Checkpoint]) -> dict[str, str]:
    """What the headers of all shards say."""
    first, *others = (shard.metadata for shard in shards)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _stale(index: Path, paths: Mapping[str, Path]) -> list[str]:
    """A note of shards that lie beside the named ones and belong to another index, which are not read."""
    suffix = next(iter(paths.values())).suffix
    beside = {path.name for path in index.parent.glob(f"*-of-*{suffix}")}
    extra = sorted(beside - {PurePosixPath(name).name for name in paths})
    return [f"{', '.join(extra)} {'is' if len(extra) == 1 else 'are'} not in {index.name}, and not read"] if extra else []
