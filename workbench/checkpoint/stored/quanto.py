"""Weights as quanto stores them: int8 and float8 with a scale for the tensor or for each row. Its packed bits are refused.

Source: optimum-quanto 0.2.7, `WeightQBytesTensor`.
"""

from __future__ import annotations

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.stored.encoding import Encoding, Format, StoredTensors
from workbench.checkpoint.stored.row_scaled import RowScaled
from workbench.checkpoint.stored.scales import FLOAT8, by_tensor_or_row, required

_CODES, _SCALE, _SHIFT = "._data", "._scale", "._shift"
_OF_INPUTS = ("input_scale", "output_scale")  # of activations


def find(model: Checkpoint) -> StoredTensors:
    """Every weight in codes of 8 bits. Raises CheckpointError for a scale that is missing or does not fit."""
    encodings: dict[str, Encoding] = {}
    beside: set[str] = set()
    for key in (key for key in model if key.endswith(_CODES) and key.removesuffix(_CODES) + _SHIFT not in model):
        name = key.removesuffix(_CODES)
        info = model.info(key)
        if info.code not in ("I8", *FLOAT8):
            continue
        scale = required(model, key, name + _SCALE, info.dtype_name)
        by_tensor_or_row(model, key, scale)
        code = model.info(scale).code
        encodings[name] = RowScaled(model, key, info.shape, f"scaled {info.dtype_name}", (scale,), code, scale=scale)
        module = name.rpartition(".")[0]
        beside |= {key, scale, *(other for end in _OF_INPUTS if (other := f"{module}.{end}") in model)}
    return StoredTensors(encodings, frozenset(beside))


FORMATS = (Format("int8, fp8", "quanto", "`x.weight._data` and `x.weight._scale`", find),)
