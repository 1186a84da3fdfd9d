"""`plainly_named`: LoRAs of XLabs for Flux, named after attention processors, under the names of the layers that they change."""

from __future__ import annotations

import re
from collections.abc import Iterator

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.views.view import Composite, Piece, View, Where
from workbench.errors import CheckpointError
from workbench.tensors import TensorInfo

_DOUBLE = re.compile(r"(.*double_blocks\.\d+)\.processor\.(qkv|proj)_lora([12])\.(up|down)\.weight")
_SINGLE = re.compile(r"(.*?)single_blocks\.(\d+)\.processor\.(qkv|proj)_lora\.(up|down)\.weight")
_STREAMS = {"1": "img_attn", "2": "txt_attn"}


def plainly_named(file: Checkpoint) -> Checkpoint:
    """The file's tensors; of XLabs' dialect, under BFL's names, the three parts of a single block's q, k and v under diffusers'.

    Raises CheckpointError for three parts that are not of one size.
    """
    if not any(_DOUBLE.fullmatch(key) or _SINGLE.fullmatch(key) for key in file):
        return file
    return View(file, dict(where for key in file for where in _renamed(file, key)))


def _renamed(file: Checkpoint, key: str) -> Iterator[tuple[str, Where]]:
    if double := _DOUBLE.fullmatch(key):
        yield f"{double[1]}.{_STREAMS[double[3]]}.{double[2]}.lora_{double[4]}.weight", key
    elif (single := _SINGLE.fullmatch(key)) and single[3] == "proj":
        yield f"{single[1]}single_blocks.{single[2]}.linear2.lora_{single[4]}.weight", key
    elif single:
        for i, one in enumerate("qkv"):
            name = f"{single[1]}single_transformer_blocks.{single[2]}.attn.to_{one}.lora_{single[4]}.weight"
            yield name, _third(file, key, i) if single[4] == "up" else key
    else:
        yield key, key


def _third(file: Checkpoint, key: str, which: int) -> Composite:
    info = file.info(key)
    if not info.shape or info.shape[0] % 3:
        raise CheckpointError(f"{file.path or file.name}: {key!r} of shape {list(info.shape)} is no q, k and v, which have equal rows")
    size = info.numel // 3
    return Composite(TensorInfo((info.shape[0] // 3, *info.shape[1:]), info.code), (Piece(key, which * size, (which + 1) * size),))
