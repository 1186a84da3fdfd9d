"""The `config.json` of what is exported: the first input's, corrected to the tensors that are written, or told by them. Writes nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.checkpoint.files.folders import CONFIG
from workbench.checkpoint.files.json_object import read_object
from workbench.errors import RenderError
from workbench.families.shapes import Shapes
from workbench.families.sizes import fit_config, is_known
from workbench.tensors import TensorInfo
from workbench.wording import listed

Infos = Mapping[str, TensorInfo]  # by the names that diffusers has, without prefix

_LEFT_OUT = ("_name_or_path", "quantization_config")  # where the input lay; and what is written is not quantised any more
_FLUX = "FluxTransformer2DModel"
_STACK = re.compile(r"(transformer_blocks|single_transformer_blocks)\.(\d+)\.")
_AXES = {128: [16, 56, 56]}  # a head's size -> how its positions are split; no tensor tells it


def config_beside(folder: Path, infos: Infos, had: Infos) -> tuple[dict[str, Any], str] | None:
    """The config in a component's folder, as it is right for these tensors, and what may be wrong with it; None without one.

    `had` are the tensors that it was written for. Raises CheckpointError for a file that is no config.
    """
    if not (folder / CONFIG).is_file():
        return None
    found = {name: value for name, value in read_object(folder / CONFIG).items() if name not in _LEFT_OUT}
    found, wrong = _fitted(found, _shapes(infos), _shapes(had))
    for name in ("dtype", "torch_dtype"):  # what transformers loads a text encoder in
        if isinstance(found.get(name), str):
            found[name] = Counter(info.dtype_name for info in infos.values() if info.is_float).most_common(1)[0][0]
    return found, wrong


def _fitted(config: dict[str, Any], shapes: Shapes, had: Shapes) -> tuple[dict[str, Any], str]:
    """The config with what tensors of other shapes change in it, and why it could not be corrected, if so."""
    kind = str(config.get("_class_name") or next(iter(config.get("architectures") or ()), "a model without a class"))
    if kind == _FLUX:  # its shapes tell all of it
        had = {}
    elif shapes == had:
        return config, ""
    changed = listed([name for name in {**had, **shapes} if shapes.get(name) != had.get(name)], 1)
    wrong = f"{CONFIG} is that of other tensors ({changed}), and may not fit these: "
    if not is_known(kind):
        return config, f"{wrong}what shapes say of {kind} is not known"
    try:
        before, after = fit_config(kind, config, had), fit_config(kind, config, shapes)
    except RenderError as error:
        return config, f"{wrong}{error}"
    return config | {name: value for name, value in after.items() if name not in before or before[name] != value}, ""


def _shapes(infos: Infos) -> Shapes:
    return {name: info.shape for name, info in infos.items()}


def flux_config(infos: Infos) -> dict[str, Any] | None:
    """The config of a Flux transformer, told by its tensors' shapes; None where they do not tell all of it."""
    try:
        width, channels = infos["x_embedder.weight"].shape
        head = next(info.shape[0] for name, info in infos.items() if name.endswith(".attn.norm_q.weight"))
        out = infos["proj_out.weight"].shape[0]
        text, pooled = (infos[f"{name}.weight"].shape[1] for name in ("context_embedder", "time_text_embed.text_embedder.linear_1"))
    except (KeyError, StopIteration):  # a part of a model
        return None
    if head not in _AXES:
        return None
    return {
        "_class_name": _FLUX, "patch_size": 1, "in_channels": channels, "out_channels": None if out == channels else out,
        "attention_head_dim": head, "num_attention_heads": width // head, "joint_attention_dim": text, "pooled_projection_dim": pooled,
        "axes_dims_rope": _AXES[head], **_counted(infos),
    }  # fmt: skip


def _counted(infos: Infos) -> dict[str, Any]:
    """How many blocks of each kind there are, and whether there is a guidance embedder."""
    blocks = {(found[1], found[2]) for found in map(_STACK.match, infos) if found}
    counts = Counter(stack for stack, _ in blocks)
    guidance = any("guidance_embedder." in name for name in infos)
    return {
        "num_layers": counts["transformer_blocks"],
        "num_single_layers": counts["single_transformer_blocks"],
        "guidance_embeds": guidance,
    }
