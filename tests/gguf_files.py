"""Writes GGUF files for tests, with the `gguf` library's own writer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES

Type = gguf.GGMLQuantizationType
# every type that the library decodes
QUANTISED = [kind for kind in Type if kind in gguf.quants._type_traits and kind is not Type.BF16]


def blocks(kind: Type, shape: Sequence[int], seed: int = 0, halves: str = "usual") -> np.ndarray:
    """Random bytes as rows of blocks. Of `usual` ones, the scales in half precision are small numbers, and not NaN or infinity."""
    block, nbytes = GGML_QUANT_SIZES[kind]
    rows, columns = math.prod(shape[:-1]), shape[-1] // block * nbytes
    found = np.random.default_rng(seed).integers(0, 256, (rows, columns), dtype=np.uint8)
    if halves == "usual":
        found &= np.uint8(0xBB)  # no exponent of 16 or 8 bits is all ones, and none is large
    return found.reshape(*shape[:-1], columns)


def decoded(data: np.ndarray, kind: Type) -> np.ndarray:
    """What the library makes of rows of blocks."""
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(data, kind)


def write_gguf(
    path: Path,
    tensors: Mapping[str, np.ndarray | tuple[np.ndarray, Type]],
    architecture: str | None = "flux",
    shapes: Mapping[str, Sequence[int]] | None = None,
    texts: Mapping[str, str] | None = None,
    endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
) -> Path:
    """A file of arrays as they are, or of blocks of a type; `shapes` are those before tensors were reshaped."""
    writer = gguf.GGUFWriter(path, architecture or "", endianess=endianess)
    if architecture is None:
        writer.kv_data[0].pop("general.architecture", None)
    for name, text in (texts or {}).items():
        writer.add_string(name, text)
    for name, shape in (shapes or {}).items():
        writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(number) for number in shape])
    for name, given in tensors.items():
        array, kind = given if isinstance(given, tuple) else (given, None)
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
