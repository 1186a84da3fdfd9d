"""`open`: from a path or an address to a checkpoint, whatever lies there."""

from __future__ import annotations

import os
from pathlib import Path

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files import hub
from workbench.checkpoint.files.folders import PIPELINE, is_index, metadata_in, no_weights, weights_among
from workbench.checkpoint.files.gguf_file import is_gguf
from workbench.checkpoint.files.joined import Joined, inside, open_sharded
from workbench.checkpoint.files.journal import heal
from workbench.checkpoint.files.json_object import read_object
from workbench.checkpoint.files.pickle_file import PickleFile
from workbench.checkpoint.files.safetensors_file import SafetensorsFile
from workbench.checkpoint.names.lora_names import is_lora
from workbench.checkpoint.names.peft_settings import HEADER, PeftSettings
from workbench.checkpoint.stored.formats import dequantised, open_gguf
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import CheckpointError

_ADAPTER_CONFIG, _ADAPTERS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")  # of a folder of PEFT's
_GGUF = ".gguf"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


def open(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint lazily: names, shapes and dtypes now, tensors when they are read.

    `path` is a `.safetensors` or `.gguf` file; a `.ckpt`, `.pt`, `.pth` or `.bin` file (weights only, no code is run); a folder of shards
    with an `*.index.json`; or a diffusers folder, a whole pipeline or a single component. An address, `hf://org/repo/file` or
    `hf://org/repo@revision/folder`, is fetched from the hub first, into its cache. A LoRA of any kind, or a
    folder of PEFT's, gives the changes it makes, under the model's own names (docs/loras.md); what is quantised gives what it stands
    for (docs/formats.md).
    Raises CheckpointError for anything else, for a damaged file, for what cannot be fetched, and for an IA3, which is nothing without
    its model: `workbench.lora.apply` takes its path.
    """
    found = open_input(path)
    if isinstance(found, LowRank) and any(found.kind(key) == "IA3" for key in found):
        told = f"{found.path}: is an IA3, factors of what a model has, and no change by itself"
        raise CheckpointError(f"{told}; put it on a model by its path: wb.lora.apply(base, [({str(path)!r}, 1.0)])")
    return found


def open_input(path: str | os.PathLike[str]) -> Checkpoint:
    """As `open`, for an input of a merge, which may be anything that a model tells in full."""
    if hub.is_address(path):
        place = hub.fetched(path)
        checkpoint = _open(place.path)
        checkpoint.name, checkpoint.address = place.name, place.address
        return checkpoint
    file = hub.local(path).absolute()  # so that it still says where the file lies when the current folder changes
    try:
        return _open(file)
    except OSError as error:  # a disk may fail at any question
        raise CheckpointError(f"{file}: cannot be opened: {error.strerror or error}") from error


def _open(path: Path) -> Checkpoint:
    for folder in (path, path.parent):
        heal(folder)
    if path.is_dir():
        return _open_pipeline(path) if (path / PIPELINE).is_file() else _open_component(path)
    if not os.path.exists(path):  # and so is none whose name cannot be one
        raise CheckpointError(f"{path}: there is no such file; the current folder is {Path.cwd()}")
    if is_index(path.name):
        return _whole(open_sharded(path))
    if path.suffix.lower() == _GGUF or is_gguf(path):
        return _whole(open_gguf(path))
    if path.suffix.lower() in _PICKLES:
        return _whole(PickleFile(path))
    if path.suffix.lower() in (".safetensors", ".sft"):
        return _whole(SafetensorsFile(path))
    known = ", ".join((".safetensors", ".sft", *_PICKLES, _GGUF))
    raise CheckpointError(f"{path}: {path.suffix or 'no suffix'} is not known; allowed are {known}")


def _whole(model: Checkpoint) -> Checkpoint:
    """A model's tensors as they are or, quantised, what they stand for; of a LoRA, the changes that they make."""
    model = dequantised(model)
    return LowRank(model, config=_config_beside(model)) if is_lora(model) else model


def _config_beside(file: Checkpoint) -> PeftSettings | None:
    """PEFT's settings of a LoRA: those beside `adapter_model`, or beside the only file there is. None for what is not PEFT's."""
    if file.path is None or HEADER in file.metadata or any(key.endswith(".alpha") for key in file):
        return None
    folder = file.path if file.path.is_dir() else file.path.parent
    if not (folder / _ADAPTER_CONFIG).is_file():
        return None
    weights = [name for name in _names(folder) if name.endswith((".safetensors", ".bin"))]
    theirs = [name for name in weights if name in _ADAPTERS] or weights
    if folder != file.path and theirs != [file.path.name] and file.path.name not in _ADAPTERS:
        return None
    source = f"{folder / _ADAPTER_CONFIG} (beside {theirs[0] if folder == file.path else file.path.name})"
    return PeftSettings(source, read_object(folder / _ADAPTER_CONFIG))


def _open_pipeline(folder: Path) -> Joined:
    """Every component with weights, each under its own name: `unet.conv_in.weight`."""
    index = folder / PIPELINE
    found = read_object(index)
    names = [name for name in found if not name.startswith("_")]
    folders = {name: inside(index, name) for name in names}
    parts = {name: _open_component(part) for name, part in folders.items() if weights_among(_names(part))}
    if not parts:
        raise CheckpointError(f"{folder}: is a pipeline without weights; {PIPELINE} names {', '.join(names) or 'no component'}")
    return Joined(folder, {f"{name}.{key}": (part, key) for name, part in parts.items() for key in part}, metadata_in(found))


def _open_component(folder: Path) -> Checkpoint:
    names = _names(folder)
    adapter = next((name for name in _ADAPTERS if name in names), None) if _ADAPTER_CONFIG in names else None
    weights = adapter or weights_among(names)
    if weights is None:
        raise CheckpointError(no_weights(folder, names))
    if is_index(weights):
        return _whole(open_sharded(folder / weights))
    file = folder / weights
    if weights.endswith(_GGUF):
        return _whole(open_gguf(file, folder.name))
    return _whole((PickleFile if weights.endswith(".bin") else SafetensorsFile)(file, folder.name))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
