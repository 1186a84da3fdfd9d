"""The formats that are read: the one list of them, and a file as what its tensors stand for."""

from __future__ import annotations

from pathlib import Path

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files.gguf_file import GgufFile
from workbench.checkpoint.stored import bitsandbytes, comfy, quanto
from workbench.checkpoint.stored.dequantised import Dequantised
from workbench.checkpoint.stored.encoding import Encoding
from workbench.checkpoint.stored.gguf_blocks import gguf_encodings
from workbench.checkpoint.stored.refused import refuse

FORMATS = (*comfy.FORMATS, *bitsandbytes.FORMATS, *quanto.FORMATS)


def dequantised(model: Checkpoint) -> Checkpoint:
    """The model itself, or what its stored tensors stand for. Raises CheckpointError for a format that is not read."""
    encodings: dict[str, Encoding] = {}
    beside: set[str] = set()
    for find in dict.fromkeys(one.find for one in FORMATS):
        found = find(model)
        encodings |= found.encodings
        beside |= found.beside
    refuse(model, frozenset(beside | {one.key for one in encodings.values()}))
    if not encodings and not beside:
        return model
    return Dequantised(model, encodings, beside, {name: text for name, text in model.metadata.items() if name != comfy.LAYERS})


def open_gguf(path: Path, name: str | None = None) -> Dequantised:
    """A GGUF file as what its tensors stand for. Raises CheckpointError."""
    file = GgufFile(path, name)
    return Dequantised(file, gguf_encodings(file), (), file.metadata)
