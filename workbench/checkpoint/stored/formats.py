"""The formats that are read: the one list of them, and a file as what its tensors stand for."""

from __future__ import annotations

from pathlib import Path

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files.gguf_file import GgufFile
from workbench.checkpoint.stored import bitsandbytes, comfy, quanto, torchao
from workbench.checkpoint.stored.dequantised import Dequantised
from workbench.checkpoint.stored.gguf_blocks import gguf_encodings
from workbench.checkpoint.stored.refused import refuse
from workbench.errors import CheckpointError

FORMATS = (*comfy.FORMATS, *bitsandbytes.FORMATS, *quanto.FORMATS, *torchao.FORMATS)


def dequantised(model: Checkpoint) -> Checkpoint:
    """The model itself, or what its stored tensors stand for. Raises CheckpointError for a format that is not read."""
    found = [find(model) for find in dict.fromkeys(one.find for one in FORMATS)]
    encodings = {name: encoding for one in found for name, encoding in one.encodings.items()}
    beside = {key for one in found for key in one.beside}
    refuse(model, beside | {one.key for one in encodings.values()})
    if clash := next((name for name, one in encodings.items() if name != one.key and name in model), None):
        told = f"is there as it is, and quantised ({encodings[clash].key!r}): nothing tells which is meant; save the model with one of them"
        raise CheckpointError(f"{model.path or model.name}: {clash!r} {told}")
    if not beside:
        return model
    untrue = {name for one in found for name in one.untrue}
    return Dequantised(model, encodings, beside, {name: text for name, text in model.metadata.items() if name not in untrue})


def open_gguf(path: Path, name: str | None = None) -> Dequantised:
    """A GGUF file as what its tensors stand for. Raises CheckpointError."""
    file = GgufFile(path, name)
    return Dequantised(file, gguf_encodings(file), (), file.metadata)
