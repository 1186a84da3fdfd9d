"""`open`: from a path to a checkpoint, whatever lies there."""

from __future__ import annotations

import json
import os
from pathlib import Path

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.joined import Joined, open_sharded
from workbench.checkpoint.pickle_file import PickleFile
from workbench.checkpoint.safetensors_file import SafetensorsFile
from workbench.errors import CheckpointError

_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model")


def open(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint lazily: names, shapes and dtypes now, tensors when they are read.

    `path` is a `.safetensors` file; a `.ckpt`, `.pt`, `.pth` or `.bin` file (weights only, no code is run); a folder of shards
    with an `*.index.json`; or a diffusers folder, a whole pipeline or a single component.
    Raises CheckpointError for anything else, and for a damaged file.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _open_pipeline(path) if (path / "model_index.json").is_file() else _open_component(path)
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file; the current folder is {Path.cwd()}")
    if path.name.endswith(".index.json"):
        return open_sharded(path)
    if path.suffix.lower() in _PICKLES:
        return PickleFile(path)
    if path.suffix.lower() in (".safetensors", ".sft"):
        return SafetensorsFile(path)
    raise CheckpointError(f"{path}: {path.suffix or 'no suffix'} is not known; allowed are .safetensors, .sft, {', '.join(_PICKLES)}")


def _open_pipeline(folder: Path) -> Joined:
    """Every component with weights, each under its own name: `unet.conv_in.weight`."""
    try:
        names = [name for name in json.loads((folder / "model_index.json").read_text()) if not name.startswith("_")]
    except ValueError as error:
        raise CheckpointError(f"{folder / 'model_index.json'}: is not JSON: {error}") from error
    parts = {name: _open_component(folder / name) for name in names if _weights_of(folder / name)}
    if not parts:
        raise CheckpointError(f"{folder}: is a pipeline without weights; model_index.json names {', '.join(names)}")
    return Joined(folder, {f"{name}.{key}": (part, key) for name, part in parts.items() for key in part})


def _open_component(folder: Path) -> Checkpoint:
    weights = _weights_of(folder)
    if weights is None:
        raise CheckpointError(f"{folder}: holds no weights; expected an *.index.json, a model_index.json or {_WEIGHTS[0]}.safetensors")
    if weights.name.endswith(".index.json"):
        return open_sharded(weights)
    return PickleFile(weights) if weights.suffix == ".bin" else SafetensorsFile(weights, folder.name)


def _weights_of(folder: Path) -> Path | None:
    """The file that holds a component's weights: shards before one file, safetensors before pickles."""
    candidates = [*sorted(folder.glob("*.safetensors.index.json")), *sorted(folder.glob("*.index.json"))]
    candidates += [folder / f"{stem}{suffix}" for suffix in (".safetensors", ".bin") for stem in _WEIGHTS]
    safetensors = sorted(folder.glob("*.safetensors"))
    # the only file there is the right one, whatever it is called (`diffusion_pytorch_model.fp16.safetensors`)
    candidates += safetensors if len(safetensors) == 1 else []
    return next((candidate for candidate in candidates if candidate.is_file()), None)
