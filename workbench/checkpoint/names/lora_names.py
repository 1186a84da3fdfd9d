"""The names in LoRA files: which tensor of a model each belongs to, and what it is of the pair. In kohya's and PEFT's dialects."""

from __future__ import annotations

import re
from collections.abc import Iterable

from workbench.errors import CheckpointError

# what a tensor is of the pair, by how its name ends
_ROLES = {
    ".lora_up.weight": "up", ".lora_down.weight": "down", ".lora_mid.weight": "mid", ".alpha": "alpha",
    ".lora_B.weight": "up", ".lora_A.weight": "down", ".lora_B.default.weight": "up", ".lora_A.default.weight": "down",
    ".lora.up.weight": "up", ".lora.down.weight": "down",
    ".lora_linear_layer.up.weight": "up", ".lora_linear_layer.down.weight": "down",
    ".diff": "diff", ".diff_b": "diff_b",
}  # fmt: skip
_FOREIGN = {".hada_w1_a": "LoHa", ".lokr_w1": "LoKr", ".lokr_w1_a": "LoKr", ".oft_blocks": "OFT", ".dora_scale": "DoRA",
            ".lora_magnitude_vector": "DoRA", ".glora_a": "GLoRA", ".a1.weight": "GLoRA"}  # fmt: skip
_KOHYA = re.compile(r"lora_(unet|transformer|te1|te2|te3|te)_")
_KOHYA_HEADS = {"te": "text_encoder.", "te1": "text_encoder.", "te2": "text_encoder_2.", "te3": "text_encoder_2."}  # te3 is T5
# the words with an underscore of their own in the module names of U-Nets, CLIP, T5 and Flux, in all layouts
_WORD = re.compile(
    r"""(?<![^_]) (?: down_blocks | up_blocks | mid_block | transformer_blocks | single_transformer_blocks | to_q | to_k | to_v | to_out |
    to_add_out | add_q_proj | add_k_proj | add_v_proj | proj_in | proj_out | proj_mlp | conv_in | conv_out | conv_shortcut |
    time_emb_proj | time_embedding | add_embedding | linear_1 | linear_2 | ff_context | norm1_context | norm_out | x_embedder |
    context_embedder | time_text_embed | timestep_embedder | guidance_embedder | text_embedder | input_blocks | middle_block |
    output_blocks | in_layers | out_layers | emb_layers | skip_connection | time_embed | label_emb | text_model | self_attn |
    q_proj | k_proj | v_proj | out_proj | layer_norm1 | layer_norm2 | token_embedding | position_embedding | text_projection |
    double_blocks | single_blocks | img_attn | txt_attn | img_mlp | txt_mlp | img_mod | txt_mod | img_in | txt_in | time_in |
    vector_in | guidance_in | in_layer | out_layer | final_layer_norm | final_layer | adaLN_modulation | conv_norm_out |
    wi_0 | wi_1 | embed_tokens | relative_attention_bias ) (?![^_])""",
    re.VERBOSE,
)


def is_lora(keys: Iterable[str]) -> bool:
    """Whether these are names of changes to a model, and not of a model."""
    return any(((role := _role(key)) and role[1] != "alpha") or _foreign(key) for key in keys)  # an alpha alone may be a model's own


def pairs(keys: Iterable[str], path: object) -> dict[str, dict[str, str]]:
    """For each tensor that is changed, under the model's own name, what changes it: role -> name in the file.

    The roles are `up`, `down`, `mid` and `alpha`, or `diff` alone. Raises CheckpointError, which names `path`, for a kind of
    LoRA that is not known, a name that is no LoRA's, or half a pair.
    """
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        if kind := _foreign(key):
            raise CheckpointError(f"{path}: {key!r} belongs to a {kind}, which is not known; convert it to a plain LoRA (kohya or PEFT)")
        if (split := _role(key)) is None:
            raise CheckpointError(f"{path}: {key!r} is no name in a LoRA (kohya's end in .lora_up.weight, PEFT's in .lora_B.weight)")
        module, role = split
        name = _dotted(module) + (".bias" if role == "diff_b" else ".weight")
        role = "diff" if role == "diff_b" else role
        if role in found.setdefault(name, {}):
            raise CheckpointError(f"{path}: {key!r} and {found[name][role]!r} are both the {role} of {name!r}; leave one out")
        found[name][role] = key
    for name, roles in found.items():
        _check(path, name, roles)
    return found


def _check(path: object, name: str, roles: dict[str, str]) -> None:
    if roles.keys() == {"diff"}:
        return
    there = next(iter(roles.values()))
    for role in ("down", "up"):
        if role not in roles:
            raise CheckpointError(
                f"{path}: {there!r} has no lora_{role} beside it, so the change of {name!r} is not known; get the whole file"
            )
    if "diff" in roles:
        raise CheckpointError(f"{path}: {roles['diff']!r} changes a tensor that {roles['up']!r} changes too; leave one out")


def _role(key: str) -> tuple[str, str] | None:
    """The module's name in the file, and what of the pair it is."""
    return next(((key[: -len(end)], role) for end, role in _ROLES.items() if key.endswith(end)), None)


def _foreign(key: str) -> str | None:
    return next((kind for end, kind in _FOREIGN.items() if key.endswith(end)), None)


def _dotted(module: str) -> str:
    """A module's name as its model has it: kohya writes underscores for dots, PEFT may begin with its own wrapper."""
    if head := _KOHYA.match(module):
        rest = _WORD.sub(lambda word: word[0].replace("_", "\0"), module[head.end() :]).replace("_", ".").replace("\0", "_")
        return _KOHYA_HEADS.get(head[1], "diffusion_model.") + rest
    return module.removeprefix("base_model.model.")
