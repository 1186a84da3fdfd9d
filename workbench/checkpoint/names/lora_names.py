"""The names in LoRA files: the module that each tensor belongs to, and which part of a change it is, in every dialect that is read.

What the module is called in a model is in `lora_modules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from workbench.errors import CheckpointError

Tensor = Literal["weight", "bias", ""]  # of the module, that a part changes; "" where the name is the tensor's own

# which part a tensor is, by how its name ends; `@` is a name of PEFT's for the adapter, or nothing
_ENDS: dict[str, str] = {
    "lora_up.weight": "up", "lora_down.weight": "down", "lora_mid.weight": "mid", "alpha": "alpha", "dora_scale": "magnitude",
    "lora_B@.weight": "up", "lora_A@.weight": "down", "lora_B@.bias": "up_bias", "lora_magnitude_vector@": "magnitude",
    "lora_magnitude_vector@.weight": "magnitude",
    "lora.up.weight": "up", "lora.down.weight": "down",
    "lora_linear_layer.up.weight": "up", "lora_linear_layer.down.weight": "down",
    "diff": "diff", "diff_b": "diff_b", "w_norm": "diff", "b_norm": "diff_b", "set_weight": "value",
    **{f"hada_w{n}_{x}@": f"w{n}_{x}" for n in (1, 2) for x in "ab"}, "hada_t1@": "t1", "hada_t2@": "t2",
    **{f"lokr_w{n}@": f"k{n}" for n in (1, 2)}, **{f"lokr_w{n}_{x}@": f"k{n}_{x}" for n in (1, 2) for x in "ab"}, "lokr_t2@": "k_t2",
    "oft_blocks": "oft_blocks", "rescale": "rescale", "oft_R@.weight": "oft_R", "boft_R@": "boft_R", "boft_s@": "boft_s",
    "on_input": "on_input", "ia3_l@": "ia3_l",
    "a1.weight": "a1", "a2.weight": "a2", "b1.weight": "b1", "b2.weight": "b2", "bm.weight": "bm",
}  # fmt: skip
_PLAIN = {end.replace("@", ""): role for end, role in _ENDS.items()}  # those of one or two words are looked up, which is fast
_PART = re.compile(r"(.+?)\.(" + "|".join(re.escape(end).replace("@", r"(?:\.\w+)?") for end in sorted(_ENDS, key=len, reverse=True)) + ")")
_OLDER = re.compile(r"(.+\.processor\.\w+_lora\d?)\.(up|down)\.weight")  # of diffusers' older attention processors, and XLabs'
_OF_MODELS = {"alpha", "rescale", "on_input", "a1", "a2", "b1", "b2", "bm"}  # parts whose names a model may have too
# kinds that are refused, by what only their names have
_REFUSED = {
    ".lora_E": "AdaLoRA", ".vera_lambda_": "VeRA", ".hra_u": "HRA", ".fourierft_": "FourierFT", ".vblora_": "VB-LoRA",
    ".randlora_": "RandLoRA",
    ".lora_embedding_": "a LoRA of an embedding", ".bone_": "Bone", ".miss_": "MiSS", ".road_": "RoAd", ".shira_": "SHiRA", ".c3a_": "C3A",
    ".reshape_weight": "a LoRA that gives layers other shapes", ".poly_lora": "Poly",
    ".oft_r.": "OFT of PEFT before 0.15", ".oft_diag": "COFT",
}  # fmt: skip
# how names begin, or what they have in them, in LoRAs alone: what is of no known kind is no model
_OF_LORAS = re.compile(
    r"(lora|lycoris)_(unet|transformer|prior|te\d?)[_.]|lycoris_|.*base_model\.model\.|.*\.(lora|hada|lokr|oft|boft|ia3|glora)_\w"
)
_NORM = re.compile(r"(.+\.)?\w*norm\w*(\.\w+)*\.(scale|weight|bias)")  # a norm's own value, in control LoRAs
_EMBEDDING, _ON_INPUT = "bundle_emb.", ".on_input"


@dataclass(frozen=True)
class LoraTensor:
    """What a file has for one tensor of a model: `module` as the file writes it, the tensor of it, and part -> name in the file."""

    module: str
    tensor: Tensor
    roles: Mapping[str, str]


def is_lora(keys: Iterable[str]) -> bool:
    """Whether these are names of changes to a model, and not of a model."""
    unsure: dict[str, set[str]] = {}
    for key in keys:
        if key.startswith(_EMBEDDING) or _OF_LORAS.match(key) or _refused(key):
            return True
        if found := part_of(key):
            if found[1] not in _OF_MODELS:
                return True
            unsure.setdefault(found[0], set()).add(found[1])
    return any({"a1", "a2", "b1", "b2"} <= parts or "on_input" in parts for parts in unsure.values())


def part_of(key: str) -> tuple[str, str] | None:
    """The module's name in the file, and the part; None for what is no part of a change."""
    module, _, last = key.rpartition(".")
    before, _, first = module.rpartition(".")
    if before and (role := _PLAIN.get(f"{first}.{last}")):
        return before, role
    if module and (role := _PLAIN.get(last)):
        return module, role
    if ".processor." in key and (older := _OLDER.fullmatch(key)):
        return older[1], older[2]
    if (found := _PART.fullmatch(key)) is None:
        return None
    return found[1], _role(found[2])


@cache
def _role(end: str) -> str:
    """The part that a name ends with; the name of an adapter may be in it."""
    return next(role for one, role in _ENDS.items() if re.fullmatch(re.escape(one).replace("@", r"(?:\.\w+)?"), end))


def grouped(keys: Iterable[str], path: object, own_values: Iterable[str] = ()) -> tuple[list[LoraTensor], tuple[str, ...]]:
    """What the file has for each tensor, in its order, and the names that are no changes of a tensor and left out.

    `own_values` are modules whose tensors are stored as they are to be (PEFT's `modules_to_save`). Raises CheckpointError, which names
    `path`, for a kind that is not read, a name that is none of a LoRA's, or a part that is there twice.
    """
    keys = list(keys)
    ia3 = {key.removesuffix(_ON_INPUT) for key in keys if key.endswith(_ON_INPUT)}
    saved = {*own_values}
    found: dict[tuple[str, Tensor], dict[str, str]] = {}
    left_out = []
    for key in keys:
        if key.startswith(_EMBEDDING):
            left_out.append(key)
            continue
        module, tensor, role = _place(key, path, ia3, saved)
        roles = found.setdefault((module, tensor), {})
        if role in roles:
            raise CheckpointError(f"{path}: {key!r} and {roles[role]!r} are both the {role} of {f'{module}.{tensor}'!r}; leave one out")
        roles[role] = key
    for (module, _), roles in found.items():  # a bias has the scale of the pair that it belongs to
        if "up_bias" in roles and (pair := found.get((module, "weight"))):
            roles |= {f"of_{role}" if role == "down" else role: name for role, name in pair.items() if role in ("down", "alpha")}
    return [LoraTensor(module, tensor, roles) for (module, tensor), roles in found.items()], tuple(left_out)


def _place(key: str, path: object, ia3: set[str], saved: set[str]) -> tuple[str, Tensor, str]:
    """Module, tensor and part. Raises CheckpointError."""
    if kind := _refused(key):
        raise CheckpointError(f"{path}: {key!r} belongs to {kind}, which is not read; convert it to a plain LoRA (kohya or PEFT)")
    if split := part_of(key):
        module, role = split
        if role == "diff_b":
            return module, "bias", "diff"
        return module, "bias" if role == "up_bias" else "weight", role
    module, _, end = key.rpartition(".")
    if module in ia3 and end == "weight":
        return module, "weight", "ia3_weight"
    own = key.replace("base_model.model.", "").replace(".modules_to_save", "")
    if _NORM.fullmatch(key) or any(own.startswith(f"{one}.") or f".{one}." in own for one in saved):
        return key.replace(".modules_to_save", ""), "", "value"
    raise CheckpointError(f"{path}: {key!r} is no name in a LoRA (kohya's end in .lora_up.weight, PEFT's in .lora_B.weight)")


def _refused(key: str) -> str | None:
    within = key[1:] if key[-1:] not in "_." else ""  # a module before it, and a part after
    return next((kind for mark, kind in _REFUSED.items() if mark in within), None)
