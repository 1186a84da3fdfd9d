"""Weights as bitsandbytes stores them: NF4 and FP4 in blocks with a largest value each, int8 with one for each row.

Source: bitsandbytes 0.48, `QuantState.from_dict`, `dequantize_4bit`, `int8_vectorwise_dequant`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files.json_object import parse_object
from workbench.checkpoint.stored.encoding import Encoding, Format, StoredTensors
from workbench.checkpoint.stored.row_scaled import RowScaled
from workbench.checkpoint.stored.scales import by_tensor_or_row, judged, required, scaled, setting
from workbench.errors import CheckpointError
from workbench.tensors import Flat, dtype_code

if TYPE_CHECKING:
    import torch

_STATE = ".quant_state.bitsandbytes__"
_STATES = (f"{_STATE}nf4", f"{_STATE}fp4")
_LARGEST, _OF_ROWS = ".absmax", ".SCB"
_TO_ONE = 7.874015718698502e-3  # 1 / 127, as bitsandbytes writes it
_DTYPES = ("float16", "bfloat16", "float32")
_LARGEST_BLOCK = 1 << 16


@final
@dataclass(frozen=True, kw_only=True)
class FourBits(Encoding):
    """Two codes in each byte, the first in its upper half: values in `table`, times the block's largest value.

    With a `second` quantisation the largest values are codes themselves: values in its table, times the largest of so many, plus `offset`.
    """

    table: str
    largest: str
    second: tuple[str, str, int] | None  # table, the largest values, and how many share one
    offset: float

    def decoded(self, first: int, last: int) -> torch.Tensor:
        import torch

        packed = self.holder.read(self.key, Flat(first // 2, -(-last // 2))).reshape(-1)
        codes = torch.stack([packed >> 4, packed & 15], dim=-1).reshape(-1)[: last - first]
        values = self.holder.read(self.table).float()[codes.int()]
        largest = self._largest(first // self.block, -(-last // self.block))
        scales = largest.repeat_interleave(self.block)[: last - first]
        return scaled(self, self.largest, values, scales) if self.second is None else values.mul_(scales)

    def _largest(self, first: int, last: int) -> torch.Tensor:
        import torch

        stored = self.holder.read(self.largest, Flat(first, last))
        if self.second is None:
            return judged(self, self.largest, stored.float())
        table, name, count = self.second
        begin = first // count
        outer = judged(self, name, self.holder.read(name, Flat(begin, -(-last // count))).float())
        return self.holder.read(table).float()[stored.int()] * outer[torch.arange(first, last) // count - begin] + self.offset


def find(model: Checkpoint) -> StoredTensors:
    """Every weight with a state of 4 bits, or with a largest value for each row. Raises CheckpointError for what cannot be read."""
    encodings: dict[str, Encoding] = {}
    beside: set[str] = set()
    for state in (key for key in model if key.endswith(_STATES)):
        one = _four_bits(model, state)
        encodings[one.key] = one
        beside.update(one.beside)
    for scale in (key for key in model if key.endswith(_OF_ROWS)):
        module = scale.removesuffix(_OF_ROWS)
        key = f"{module}.weight"
        if key in model and model.info(key).code == "I8":
            encodings[key] = _int8(model, key, scale)
            beside |= {scale, f"{module}.weight_format"} & model.keys()
    for key in model:
        weight = key.removesuffix(_LARGEST)
        if weight != key and weight in model and weight not in encodings and not model.info(weight).is_float:
            raise _error(model, weight, f"is stored in 4 bits, and what says how is missing ({weight}{_STATES[0]}); fetch the file again")
    return StoredTensors(encodings, frozenset(beside))


def _int8(model: Checkpoint, key: str, scale: str) -> Encoding:
    by_tensor_or_row(model, key, scale)
    return RowScaled(model, key, model.info(key).shape, "scaled int8", (scale,), scale=scale, factor=_TO_ONE)


def _four_bits(model: Checkpoint, state: str) -> FourBits:
    """One weight by its state. Raises CheckpointError for a state or a tensor that does not fit."""
    kind = state.rpartition("__")[2]
    key = state.removesuffix(f"{_STATE}{kind}")
    said = _State.of(model, state)
    largest, table = (required(model, key, f"{key}.{name}", kind.upper()) for name in ("absmax", "quant_map"))
    required(model, state, key, kind.upper())
    count = math.prod(said.shape)
    blocks = -(-count // said.block)
    _check(model, key, ("U8",), -(-count // 2))
    _check(model, table, ("F32",), 16)
    beside = (state, largest, table)
    if said.second is None:
        _check(model, largest, ("F32",), blocks)
        return FourBits(
            model, key, said.shape, kind.upper(), beside, said.code, said.block, table=table, largest=largest, second=None, offset=0.0
        )
    _check(model, largest, ("U8",), blocks)
    outer, second = (required(model, key, f"{key}.{name}", kind.upper()) for name in ("nested_absmax", "nested_quant_map"))
    _check(model, outer, ("F32",), -(-blocks // said.second))
    _check(model, second, ("F32",), 256)
    return FourBits(
        model, key, said.shape, kind.upper(), (*beside, outer, second), said.code, said.block,
        table=table, largest=largest, second=(second, outer, said.second), offset=said.offset,
    )  # fmt: skip


@dataclass(frozen=True)
class _State:
    """What is written beside a weight: its shape and dtype, the size of its blocks, and of those of a second quantisation."""

    shape: tuple[int, ...]
    code: str
    block: int
    second: int | None
    offset: float

    @classmethod
    def of(cls, model: Checkpoint, key: str) -> _State:
        said = parse_object(model.path or Path(model.name), repr(key), setting(model, key))
        shape, dtype, block = said.get("shape"), said.get("dtype"), said.get("blocksize")
        second, offset = said.get("nested_blocksize"), said.get("nested_offset", 0.0)
        if not isinstance(shape, list) or not all(type(number) is int and number >= 0 for number in shape):
            raise _error(model, key, f"has shape {str(shape)[:99]}; a list of natural numbers is allowed")
        if dtype not in _DTYPES:
            raise _error(model, key, f"has dtype {str(dtype)[:99]!r}; allowed are {', '.join(_DTYPES)}")
        for size in (block, *([] if second is None else [second])):
            if type(size) is not int or not 0 < size <= _LARGEST_BLOCK or size % 2:
                raise _error(model, key, f"has blocks of {str(size)[:99]}; even numbers up to {_LARGEST_BLOCK} are allowed")
        if type(offset) not in (int, float) or not math.isfinite(offset):
            raise _error(model, key, f"has nested_offset {str(offset)[:99]}; a number is allowed")
        return cls(tuple(shape), dtype_code(str(dtype)), int(str(block)), second, float(offset))


def _check(model: Checkpoint, key: str, codes: tuple[str, ...], count: int) -> None:
    info = model.info(key)
    if info.code not in codes or info.numel != count:
        told = f"({info.dtype_name} {list(info.shape)}) should be {count} of {codes[0]}; the file is damaged, or packed in another way"
        raise _error(model, key, told)


def _error(model: Checkpoint, key: str, told: str) -> CheckpointError:
    return CheckpointError(f"{model.path or model.name}: {key!r} {told}")


FORMATS = (
    Format("NF4, FP4", "bitsandbytes", "`x.weight.quant_state.bitsandbytes__nf4`, `__fp4`", find),
    Format("int8", "bitsandbytes", "`x.SCB` beside int8", find),
)
