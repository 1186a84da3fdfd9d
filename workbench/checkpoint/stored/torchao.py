"""Weights as torchao stores them: int8 and float8 with a scale, and a zero, for the tensor or for each row. Its other tensors are refused.

Source: torchao 0.15, `flatten_tensor_state_dict`, `Float8Tensor`, `Int8Tensor`.
"""

from __future__ import annotations

import re

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.stored.encoding import Encoding, Format, StoredTensors
from workbench.checkpoint.stored.row_scaled import RowScaled
from workbench.checkpoint.stored.scales import FLOAT8, by_tensor_or_row, required
from workbench.errors import CheckpointError

_CODES = re.compile(r"((?:.+\.)?)_([^.]+)_qdata")
_NAMES = "tensor_names"  # in the header, which also has an entry for each


def find(model: Checkpoint) -> StoredTensors:
    """Every weight in codes of 8 bits. Raises CheckpointError for other kinds of tensors, and scales that do not fit."""
    encodings: dict[str, Encoding] = {}
    beside: set[str] = set()
    for key in model:
        if (spelled := _CODES.fullmatch(key)) is None:
            continue
        module, name = spelled.groups()
        info = model.info(key)
        if info.code not in ("I8", *FLOAT8):
            told = f"({info.dtype_name} {list(info.shape)}) is a tensor of torchao in packed bits, which is not read"
            raise CheckpointError(f"{model.path or model.name}: {key!r} {told}; use an fp16 or bf16 version of this model, or a GGUF")
        scale, zero = required(model, key, f"{module}_{name}_scale", info.dtype_name), f"{module}_{name}_zero_point"
        by_tensor_or_row(model, key, scale)
        kind = f"scaled {info.dtype_name}"
        if zero in model:
            by_tensor_or_row(model, key, zero, floats=False)
            encodings[module + name] = RowScaled(model, key, info.shape, kind, (scale, zero), scale=scale, zero=zero)
        else:
            encodings[module + name] = RowScaled(model, key, info.shape, kind, (scale,), scale=scale)
        beside |= {key, *encodings[module + name].beside}
    return StoredTensors(encodings, frozenset(beside), frozenset({_NAMES, *encodings, *model} if encodings else ()))


FORMATS = (Format("int8, fp8", "torchao", "`x._weight_qdata` and `x._weight_scale`", find),)
