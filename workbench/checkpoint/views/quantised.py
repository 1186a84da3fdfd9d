"""Which tensors are stored as fewer bits with something beside them, told by names and dtypes. Nothing is calculated here."""

from __future__ import annotations

import re
from pathlib import Path

from workbench.checkpoint.base import Checkpoint
from workbench.errors import CheckpointError
from workbench.tensors import TensorInfo
from workbench.untrusted import open_regular

# how the name of a tensor ends that only this format has; the surest first
_REFUSED = {
    ".quant_state.bitsandbytes__nf4": "NF4 of bitsandbytes",
    ".quant_state.bitsandbytes__fp4": "FP4 of bitsandbytes",
    ".absmax": "NF4 or FP4 of bitsandbytes",
    ".SCB": "int8 of bitsandbytes",
    ".weight_scale_2": "nvfp4",
    ".weight_scale_inv": "fp8 with a scale for each block",
    ".qweight": "4 bits of GPTQ, AWQ or SVDQuant",
}
_NEXT = "use an fp16 or bf16 version of this model, or a plain or scaled fp8 one"
_SCALE = re.compile(r"(.+)\.(?:scale_weight|weight_scale)")  # ComfyUI's names, the older and the newer
_BESIDE = re.compile(r"(.+)\.(?:scale_input|input_scale|comfy_quant)")  # what only a fast fp8 calculation asks for
_MARKER = re.compile(r"(.+\.)?scaled_fp8")
_FLOAT8 = ("F8_E4M3", "F8_E5M2")


def refuse_gguf(path: Path) -> None:
    """Raise CheckpointError for a GGUF file, whatever it is called."""
    try:
        with open_regular(path) as file:
            magic = file.read(4)
    except OSError:
        return  # whoever opens it next says why it cannot be
    if magic == b"GGUF":
        raise CheckpointError(f"{path}: is a GGUF file, whose quantised weights are not read; use a safetensors version of this model")


def scales(model: Checkpoint) -> tuple[dict[str, str], frozenset[str]]:
    """The scale of each fp8 weight that has one, both by name, and the names of what means nothing without fp8 (the scales too).

    Raises CheckpointError for a format that is not read, or a scale that does not fit its weight.
    """
    where = model.path or model.name
    _refuse(where, model)
    found: dict[str, str] = {}
    beside = set()
    for key in model:
        if scale := _SCALE.fullmatch(key):
            weight = f"{scale[1]}.weight"
            if weight in model and _scaled(where, weight, model.info(weight), key, model.info(key)):
                found[weight] = key
                beside.add(key)
        elif _MARKER.fullmatch(key) or ((extra := _BESIDE.fullmatch(key)) and f"{extra[1]}.weight" in model):
            beside.add(key)
    return found, frozenset(beside)


def _refuse(where: object, model: Checkpoint) -> None:
    for end, kind in _REFUSED.items():
        for key in (key for key in model if key.endswith(end)):
            module = key.removesuffix(end)
            if module and any(name in model and _few_bits(model.info(name)) for name in (key, module, f"{module}.weight")):
                raise CheckpointError(f"{where}: {key!r} belongs to weights in {kind}, which are not read; {_NEXT}")


def _few_bits(info: TensorInfo) -> bool:
    return not info.is_float or info.code in _FLOAT8


def _scaled(where: object, weight: str, info: TensorInfo, key: str, scale: TensorInfo) -> bool:
    """Whether a weight is fp8 and has this scale, for the whole tensor or for each row; wider floats need none."""
    if info.code not in _FLOAT8:
        if info.is_float:
            return False
        raise CheckpointError(f"{where}: {weight!r} is {info.dtype_name} with a scale beside it ({key!r}), which is not read; {_NEXT}")
    by_row = bool(info.shape) and scale.shape in ((info.shape[0],), (info.shape[0], *[1] * (len(info.shape) - 1)))
    if not scale.is_float or (scale.numel != 1 and not by_row):
        raise CheckpointError(
            f"{where}: {key!r} ({scale.dtype_name} {list(scale.shape)}) is no scale of {weight!r} {list(info.shape)} that is read: "
            f"one float for the tensor, or one for each row; {_NEXT}"
        )
    return True
