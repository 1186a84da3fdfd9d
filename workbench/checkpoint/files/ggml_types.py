"""What the numbers of GGUF's tensor types mean, asked of the `gguf` library: sizes of blocks, and the values of their elements."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from workbench.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    import torch

_PLAIN = {"F32": "F32", "F16": "F16", "BF16": "BF16", "F64": "F64", "I8": "I8", "I16": "I16", "I32": "I32", "I64": "I64"}


@dataclass(frozen=True)
class GgmlType:
    """Blocks of `block` elements in `nbytes` bytes. `code` is the dtype of what needs no decoding, as safetensors calls it."""

    number: int
    name: str
    block: int
    nbytes: int
    code: str | None


@lru_cache(256)
def ggml_type(number: int) -> GgmlType | None:
    """The type of a number; None for one that is unknown, or that the library cannot decode. Raises CheckpointError without it."""
    constants = _library().constants
    try:
        found = constants.GGMLQuantizationType(number)
        block, nbytes = constants.GGML_QUANT_SIZES[found]
    except (ValueError, KeyError):
        return None
    kind = GgmlType(number, found.name, block, nbytes, _PLAIN.get(found.name))
    return kind if kind.code or _decodable(kind) else None


@lru_cache(1)
def ggml_types() -> tuple[GgmlType, ...]:
    """Every type that is read. Raises CheckpointError without the library."""
    numbers = sorted(_library().constants.GGMLQuantizationType)
    return tuple(kind for number in numbers if (kind := ggml_type(int(number))))


def language_models() -> frozenset[str]:
    """The architectures that llama.cpp runs, all of them models of text."""
    return frozenset(_library().constants.MODEL_ARCH_NAMES.values())


def decoded(blocks: torch.Tensor, kind: GgmlType) -> torch.Tensor:
    """The values of whole blocks, given and returned flat: bytes, and float32."""
    import torch

    return torch.from_numpy(_dequantised(blocks.numpy()[None], kind)).reshape(-1)


def _dequantised(rows: np.ndarray, kind: GgmlType) -> np.ndarray:
    import numpy as np

    library = _library()
    with np.errstate(all="ignore"):  # NaN and infinity in a damaged file are found where numbers are read
        found: np.ndarray = library.quants.dequantize(rows, library.constants.GGMLQuantizationType(kind.number))
    return found


def _decodable(kind: GgmlType) -> bool:
    import numpy as np

    try:
        _dequantised(np.zeros((1, kind.nbytes), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _library() -> Any:
    try:
        import gguf
        import gguf.constants
        import gguf.quants
    except ImportError as error:
        raise CheckpointError("reading GGUF needs the library gguf: pip install 'workbench[quantised]'") from error
    return gguf
