"""How many bytes of a LoRA's file are not its numbers: kohya's names, which are the longer ones. Nothing is written here."""

from __future__ import annotations

import json

from workbench.checkpoint import Checkpoint
from workbench.errors import ExportError
from workbench.lora.module_names import module_name

HEAD = 640  # bytes of the metadata, with a title as long as file names get, and of what fills the header up


def pair_overhead(model: Checkpoint, limit: int, key: str) -> int:
    """Most bytes that a change of low rank takes beside its factors, in a file of at most `limit`: three names in the header, and alpha."""
    shape = model.info(key).shape
    ones = [1] * (len(shape) - 2)
    rank = min(shape[0], max(shape[1:]))
    entries = {".lora_up.weight": [shape[0], rank, *ones], ".lora_down.weight": [rank, *shape[1:]], ".alpha": []}
    return sum(_entry(_module(model, key) + end, found, limit) for end, found in entries.items()) + 4


def whole_overhead(model: Checkpoint, limit: int, key: str) -> int:
    """Most bytes that a whole change takes beside its numbers, in a file of at most `limit`."""
    return _entry(f"{_module(model, key)}.diff_b", list(model.info(key).shape), limit)


def _module(model: Checkpoint, key: str) -> str:
    try:
        return module_name(model.structure, key, "kohya", model.name)
    except ExportError:  # no part of a pipeline: the file cannot be written, but its size be reckoned
        return key


def _entry(name: str, shape: list[int], limit: int) -> int:
    entry = {name: {"dtype": "BF16", "shape": shape, "data_offsets": [limit, limit]}}
    return len(json.dumps(entry, separators=(",", ":")))
