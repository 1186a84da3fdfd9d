"""How many bytes of a LoRA's file are not its numbers: kohya's names, which are the longer ones. Nothing is written here."""

from __future__ import annotations

import json

from workbench.checkpoint import Checkpoint
from workbench.errors import ExportError
from workbench.lora.formats import module_name

HEAD = 640  # bytes of the metadata, with a title as long as file names get, and of what fills the header up
_OFFSET = 10**10  # stands for where a tensor lies


def pair_overhead(model: Checkpoint, key: str) -> int:
    """Most bytes that a change of low rank takes beside its factors: three names in the header, and alpha."""
    shape = model.info(key).shape
    ones = [1] * (len(shape) - 2)
    rank = min(shape[0], max(shape[1:]))
    entries = {".lora_up.weight": [shape[0], rank, *ones], ".lora_down.weight": [rank, *shape[1:]], ".alpha": []}
    return sum(_entry(_module(model, key) + end, found) for end, found in entries.items()) + 4


def whole_overhead(model: Checkpoint, key: str) -> int:
    """Most bytes that a whole change takes beside its numbers."""
    return _entry(f"{_module(model, key)}.diff_b", list(model.info(key).shape))


def _module(model: Checkpoint, key: str) -> str:
    try:
        return module_name(model, model.name, key, "kohya")
    except ExportError:  # no part of a pipeline: the file cannot be written, but its size be reckoned
        return key


def _entry(name: str, shape: list[int]) -> int:
    entry = {name: {"dtype": "BF16", "shape": shape, "data_offsets": [_OFFSET, _OFFSET]}}
    return len(json.dumps(entry, separators=(",", ":")))
