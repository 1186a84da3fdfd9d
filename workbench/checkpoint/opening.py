"""`open`: from a path to a checkpoint, whatever lies there."""

from __future__ import annotations

import os
from pathlib import Path

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.joined import Joined, inside, open_sharded
from workbench.checkpoint.json_object import read_object
from workbench.checkpoint.lora_names import is_lora
from workbench.checkpoint.low_rank import LowRank
from workbench.checkpoint.pickle_file import PickleFile
from workbench.checkpoint.safetensors_file import SafetensorsFile
from workbench.errors import CheckpointError

_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model", "pytorch_lora_weights")


def open(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint lazily: names, shapes and dtypes now, tensors when they are read.

    `path` is a `.safetensors` file; a `.ckpt`, `.pt`, `.pth` or `.bin` file (weights only, no code is run); a folder of shards
    with an `*.index.json`; or a diffusers folder, a whole pipeline or a single component. A LoRA (kohya's or PEFT's names) gives
    the changes it makes, under the model's own names.
    Raises CheckpointError for anything else, and for a damaged file.
    """
    path = Path(path).expanduser().absolute()  # so that it still says where the file lies when the current folder changes
    if path.is_dir():
        return _open_pipeline(path) if (path / "model_index.json").is_file() else _open_component(path)
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file; the current folder is {Path.cwd()}")
    if path.name.endswith(".index.json"):
        return open_sharded(path)
    if path.suffix.lower() in _PICKLES:
        return _whole(PickleFile(path))
    if path.suffix.lower() in (".safetensors", ".sft"):
        return _whole(SafetensorsFile(path))
    raise CheckpointError(f"{path}: {path.suffix or 'no suffix'} is not known; allowed are .safetensors, .sft, {', '.join(_PICKLES)}")


def _whole(file: Checkpoint) -> Checkpoint:
    """A file's tensors as they are, or, of a LoRA, the changes that they make."""
    return LowRank(file) if is_lora(file) else file


def _open_pipeline(folder: Path) -> Joined:
    """Every component with weights, each under its own name: `unet.conv_in.weight`."""
    index = folder / "model_index.json"
    names = [name for name in read_object(index) if not name.startswith("_")]
    folders = {name: inside(index, name) for name in names}
    parts = {name: _open_component(part) for name, part in folders.items() if _weights_of(part)}
    if not parts:
        raise CheckpointError(f"{folder}: is a pipeline without weights; model_index.json names {', '.join(names) or 'no component'}")
    return Joined(folder, {f"{name}.{key}": (part, key) for name, part in parts.items() for key in part})


def _open_component(folder: Path) -> Checkpoint:
    weights = _weights_of(folder)
    if weights is None:
        several = sorted(path.name for path in folder.glob("*.safetensors"))
        held = f"holds {len(several)} models, name one: {', '.join(several[:5])}" if several else "holds no weights"
        raise CheckpointError(f"{folder}: {held}; of a folder, an *.index.json, a model_index.json or {_WEIGHTS[0]}.safetensors is opened")
    if weights.name.endswith(".index.json"):
        return open_sharded(weights)
    return _whole((PickleFile if weights.suffix == ".bin" else SafetensorsFile)(weights, folder.name))


def _weights_of(folder: Path) -> Path | None:
    """The file that holds a component's weights: shards before one file, safetensors before pickles, no variant before `fp16`."""
    indices = sorted(folder.glob("*.index.json"), key=lambda path: (".safetensors." not in path.name, path.name.count("."), path.name))
    candidates = [*indices, *(folder / f"{stem}{suffix}" for suffix in (".safetensors", ".bin") for stem in _WEIGHTS)]
    safetensors = sorted(folder.glob("*.safetensors"))
    # the only file there is the right one, whatever it is called (`diffusion_pytorch_model.fp16.safetensors`)
    candidates += safetensors if len(safetensors) == 1 else []
    return next((candidate for candidate in candidates if candidate.is_file()), None)
