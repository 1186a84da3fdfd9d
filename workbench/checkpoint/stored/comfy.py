"""Weights as ComfyUI stores them: which layers it has marked, and as what; scaled fp8 also by its scale alone. Nothing is calculated.

Source: ComfyUI's comfy/quant_ops.py and `_load_quantized_module` in comfy/ops.py; comfy-kitchen 0.2.40 for what the codes mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.files.json_object import parse_object
from workbench.checkpoint.stored.encoding import Encoding, Format, StoredTensors
from workbench.checkpoint.stored.mxfp8 import MXFP8_BLOCK, MxFp8
from workbench.checkpoint.stored.nvfp4 import NVFP4_BLOCK, NvFp4
from workbench.checkpoint.stored.rotated import Rotated, is_power_of_four
from workbench.checkpoint.stored.row_scaled import PackedRowScaled, RowScaled
from workbench.checkpoint.stored.scales import FLOAT8, by_tensor_or_row, few_bits, required, setting
from workbench.checkpoint.stored.tiled_scales import tiled_shape
from workbench.errors import CheckpointError

_LAYERS = "_quantization_metadata"  # in the header: what each layer is stored as, where it does not stand beside it

_MARK = ".comfy_quant"
_SCALES = ("scale_weight", "weight_scale")  # the older name and the newer
_OF_INPUTS = ("scale_input", "input_scale")  # what only a fast calculation asks for
_WHOLE = re.compile(r"(.+\.)?scaled_fp8")
_PREFIXES = ("", "model.diffusion_model.", "diffusion_model.")  # that names in the header may lack
_NEXT = "use an fp16 or bf16 version of this model"

Setting = Mapping[str, Any]


def find(model: Checkpoint) -> StoredTensors:
    """Every layer that is marked, and fp8 beside a scale. Raises CheckpointError for what is marked and cannot be read."""
    encodings: dict[str, Encoding] = {}
    beside = {key for key in model if _WHOLE.fullmatch(key)}
    marks = _marks(model)
    for module in dict.fromkeys((*marks, *_modules_with_scales(model))):
        key = f"{module}.weight"
        if key not in model:
            continue
        if module in marks and few_bits(model.info(key)):
            encodings[key] = _marked(model, key, marks[module])
        elif model.info(key).code in FLOAT8 and _scale_of(model, module):
            encodings[key] = _float8(model, key, {"format": model.info(key).dtype_name})
        beside |= {f"{module}{_MARK}"} & model.keys()
        beside.update(encodings[key].beside if key in encodings else ())
        if few_bits(model.info(key)):
            beside |= {f"{module}.{end}" for end in _OF_INPUTS} & model.keys()
    return StoredTensors(encodings, frozenset(beside), frozenset({_LAYERS}))


def _modules_with_scales(model: Checkpoint) -> Iterator[str]:
    ends = tuple(f".{end}" for end in (*_SCALES, *_OF_INPUTS))
    yield from (key.rpartition(".")[0] for key in model if key.endswith(ends))


def _scale_of(model: Checkpoint, module: str) -> str | None:
    return next((name for end in _SCALES if (name := f"{module}.{end}") in model), None)


def _marks(model: Checkpoint) -> dict[str, Setting]:
    """What each layer is marked as, beside it or in the header."""
    where = model.path or Path(model.name)
    found: dict[str, Setting] = {}
    header = parse_object(where, _LAYERS, text.encode()) if (text := model.metadata.get(_LAYERS)) else {}
    layers = header.get("layers")
    for module, conf in layers.items() if isinstance(layers, dict) else ():
        spelled = next((prefix + module for prefix in _PREFIXES if f"{prefix}{module}.weight" in model), module)
        found[spelled] = {"format": conf} if isinstance(conf, str) else conf if isinstance(conf, dict) else {}
    for key in (key for key in model if key.endswith(_MARK) and f"{key.removesuffix(_MARK)}.weight" in model):
        found[key.removesuffix(_MARK)] = parse_object(where, repr(key), setting(model, key))
    return found


def _marked(model: Checkpoint, key: str, conf: Setting) -> Encoding:
    kind = conf.get("format")
    read = _READ.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise _error(model, key, f"is stored as ComfyUI's {str(kind)[:99]!r}, which is not read; {_NEXT}; read are {', '.join(_READ)}")
    return read(model, key, conf)


def _float8(model: Checkpoint, key: str, conf: Setting) -> Encoding:
    _check_codes(model, key, conf, FLOAT8)
    scale = _scale(model, key, conf)
    info = model.info(key)
    by_tensor_or_row(model, key, scale)
    return RowScaled(model, key, info.shape, f"scaled {info.dtype_name}", (scale,), scale=scale)


def _int8(model: Checkpoint, key: str, conf: Setting) -> Encoding:
    _check_codes(model, key, conf, ("I8",))
    scale = _scale(model, key, conf)
    shape = model.info(key).shape
    by_tensor_or_row(model, key, scale)
    stored = RowScaled(model, key, shape, "scaled int8", (scale,), scale=scale)
    return _rotated_back(stored, conf) if _option(conf, "convrot", False) else stored


def _int4(model: Checkpoint, key: str, conf: Setting) -> Encoding:
    _check_codes(model, key, conf, ("I8", "U8"), matrix=True)
    scale = _scale(model, key, conf)
    rows, columns = model.info(key).shape
    by_tensor_or_row(model, key, scale)
    return _rotated_back(PackedRowScaled(model, key, (rows, 2 * columns), "scaled int4", (scale,), block=2, scale=scale), conf)


def _rotated_back(stored: Encoding, conf: Setting) -> Encoding:
    size = _option(conf, "convrot_groupsize", 256)
    if type(size) is not int or not is_power_of_four(size):
        raise stored.error(f"is rotated in groups of {size!r}; powers of 4 are allowed; the file is damaged")
    if len(stored.shape) != 2 or stored.shape[1] % size:
        raise stored.error(f"{list(stored.shape)} is rotated in groups of {size} of a row, which its rows do not divide into; {_NEXT}")
    kind = f"{stored.kind}, rotated"
    return Rotated(stored.holder, stored.key, stored.shape, kind, stored.beside, block=size, inner=stored)


def _mxfp8(model: Checkpoint, key: str, conf: Setting) -> Encoding:
    _check_codes(model, key, conf, FLOAT8, matrix=True)
    scale = _scale(model, key, conf)
    rows, columns = shape = model.info(key).shape
    _check_tiles(model, key, scale, ("F8_E8M0", "U8"), (rows, columns), MXFP8_BLOCK)
    return MxFp8(model, key, shape, "mxfp8", (scale,), block=MXFP8_BLOCK, scale=scale)


def _nvfp4(model: Checkpoint, key: str, conf: Setting) -> Encoding:
    _check_codes(model, key, conf, ("U8", "I8"), matrix=True)
    of_blocks, scale = _scale(model, key, conf), required(model, key, f"{key}_scale_2", "nvfp4")
    rows, columns = model.info(key).shape
    shape = (rows, 2 * columns)
    _check_tiles(model, key, of_blocks, ("F8_E4M3", "U8"), shape, NVFP4_BLOCK)
    by_tensor_or_row(model, key, scale, only_tensor=True)
    smoothing = f"{key.removesuffix('.weight')}.pre_quant_scale"
    if smoothing not in model:
        return NvFp4(model, key, shape, "nvfp4", (scale, of_blocks), block=NVFP4_BLOCK, scale=scale, of_blocks=of_blocks, smoothing=None)
    if not model.info(smoothing).is_float or model.info(smoothing).numel != shape[1]:
        raise _error(model, smoothing, f"{list(model.info(smoothing).shape)} should be one float for each of {shape[1]} columns of {key!r}")
    beside = (scale, of_blocks, smoothing)
    return NvFp4(model, key, shape, "nvfp4", beside, block=NVFP4_BLOCK, scale=scale, of_blocks=of_blocks, smoothing=smoothing)


_READ: dict[str, Callable[[Checkpoint, str, Setting], Encoding]] = {
    "float8_e4m3fn": _float8,
    "float8_e4m3fn_rowwise": _float8,  # silveroxides' convert_to_quant
    "float8_e5m2": _float8,
    "int8_tensorwise": _int8,
    "mxfp8": _mxfp8,
    "nvfp4": _nvfp4,
    "convrot_w4a4": _int4,
}


def _scale(model: Checkpoint, key: str, conf: Setting) -> str:
    module = key.removesuffix(".weight")
    return _scale_of(model, module) or required(model, key, f"{module}.{_SCALES[1]}", str(conf["format"]))


def _option(conf: Setting, name: str, usual: object) -> object:
    """A setting of a layer, beside its format or among its `params`."""
    params = conf.get("params")
    return conf.get(name, params.get(name, usual) if isinstance(params, dict) else usual)


def _check_codes(model: Checkpoint, key: str, conf: Setting, codes: tuple[str, ...], matrix: bool = False) -> None:
    info = model.info(key)
    if info.code not in codes or (matrix and len(info.shape) != 2):
        told = f"({info.dtype_name} {list(info.shape)}) is marked as {conf['format']}, which {'a matrix of ' if matrix else ''}"
        raise _error(model, key, f"{told}{' or '.join(codes)} holds; {_NEXT}")


def _check_tiles(model: Checkpoint, key: str, scale: str, codes: tuple[str, ...], shape: tuple[int, int], size: int) -> None:
    """The scales of blocks fill tiles, or are as many. Raises CheckpointError."""
    info, (rows, columns) = model.info(scale), shape
    tiles = tiled_shape(rows, -(-columns // size))
    if columns % size or info.code not in codes or info.numel != tiles[0] * tiles[1]:
        told = f"({info.dtype_name} {list(info.shape)}) should be {list(tiles)} scales of {key!r} {list(shape)}, of blocks of {size}"
        raise _error(model, scale, f"{told}; {_NEXT}")


def _error(model: Checkpoint, key: str, told: str) -> CheckpointError:
    return CheckpointError(f"{model.path or model.name}: {key!r} {told}")


FORMATS = (
    Format("fp8, scaled", "ComfyUI and others", "`x.weight_scale` or `x.scale_weight` beside float8, for the tensor or each row", find),
    Format("int8, also rotated (ConvRot)", "ComfyUI", "`x.comfy_quant` with `int8_tensorwise`", find),
    Format("int4, rotated (ConvRot)", "ComfyUI", "`x.comfy_quant` with `convrot_w4a4`", find),
    Format("mxfp8", "ComfyUI", "`x.comfy_quant` with `mxfp8`", find),
    Format("nvfp4", "ComfyUI", "`x.comfy_quant` with `nvfp4`", find),
)
