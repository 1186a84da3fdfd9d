"""What the modules in LoRA files are called in models: by the names of the model that is changed, or as well as the name alone tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from workbench.checkpoint.names.components import DENOISER
from workbench.checkpoint.names.lora_names import Named, Tensor
from workbench.checkpoint.names.structure import Structure
from workbench.families.clip_names import TEXT_MODEL

_WRAPPER = "base_model.model."  # PEFT's, wherever it stands
# a program's own prefix of a component; kohya's tools write underscores for dots
_HEAD = re.compile(r"(?:lora|lycoris)_(unet|transformer|prior|te1|te2|te3|te)[_.]|lycoris_")
_ENCODERS = {"te": ("text_encoder",), "te1": ("text_encoder",), "te2": ("text_encoder_2",), "te3": ("text_encoder_3", "text_encoder_2")}
_PREFIXES = {
    "model.diffusion_model.": DENOISER, "diffusion_model.": DENOISER, "unet.": DENOISER, "transformer.": DENOISER, "net.": DENOISER,
    **{f"text_encoder{n}.": f"text_encoder{n}" for n in ("", "_2", "_3", "_4")},
}  # fmt: skip
_BUNDLED = re.compile(r"(text_encoders\.)?(clip_l|clip_g|t5xxl)\.")  # text encoders in ComfyUI's and other programs' names
_BUNDLES = {"clip_l": ("text_encoder",), "clip_g": ("text_encoder_2",), "t5xxl": ("text_encoder_3", "text_encoder_2")}
_PROCESSOR = re.compile(r"\.processor\.(\w+?)_lora(?=$)")  # of diffusers' older attention processors
# the words with an underscore of their own in the module names of U-Nets, CLIP, T5 and Flux, in all layouts: for names without a model
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


@dataclass(frozen=True)
class Module:
    """A module as a file names it: the components it may be of, in order; none where nothing tells. `flat`: underscores may be dots."""

    components: tuple[str, ...]
    name: str
    flat: bool
    prefix: str  # as it is written, or would be for its component

    @property
    def usual(self) -> str:
        """Its name with a prefix, as well as the name alone tells it."""
        if not self.flat:
            return self.prefix + self.name
        return self.prefix + _WORD.sub(lambda word: word[0].replace("_", "\0"), self.name).replace("_", ".").replace("\0", "_")


def module_of(written: str) -> Module:
    """The module that a name in a file means, in whichever dialect it is."""
    name = written.replace(_WRAPPER, "")
    if head := _HEAD.match(name):
        rest = name[head.end() :]
        encoder = head[1] if head[1] in _ENCODERS else None
        if encoder or rest.startswith("text_model_"):
            components = _ENCODERS[encoder or "te"]
            return Module(components, rest, "." not in rest, f"{components[-1]}.")
        return Module((DENOISER,), rest, "." not in rest, "diffusion_model.")
    name = _PROCESSOR.sub(lambda found: f".{'to_out.0' if found[1] == 'to_out' else found[1]}", name)
    if bundle := _BUNDLED.match(name):
        components = _BUNDLES[bundle[2]]
        return Module(components, name[bundle.end() :].removeprefix("transformer."), False, f"{components[-1]}.")
    for prefix, component in _PREFIXES.items():
        if name.startswith(prefix) and not name.startswith("transformer.resblocks."):
            return Module((component,), name[len(prefix) :], False, prefix)
    return Module((), name, "." not in name and "_" in name, "")


class ModuleNames:
    """The modules of a model, found by what LoRA files call them: names in either of its layouts, with dots or underscores."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure

    def find(self, named: Named) -> str | None:
        """The name that a tensor has in the model, or would have in its other layout; None for one that it has not."""
        module = module_of(named.module)
        known = [*dict.fromkeys(component for component, _ in self._own)]
        name = module.name.removeprefix("text_model_").removeprefix(TEXT_MODEL).replace(".", "_")
        for table in (self._own, self._other):
            for component in module.components or known:
                for key in (name, f"{name}_0"):  # `to_out` is a list of modules, which older diffusers leaves out
                    if found := _tensor(table.get((component, key), {}), named.tensor):
                        return found
        return None

    @cached_property
    def _own(self) -> Mapping[tuple[str, str], dict[str, str]]:
        """Component, and flat name -> what is there of it: the end of its name, and the whole name."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        for (component, rest), key in self._structure.by_bare.items():
            _enter(found, component, rest, key)
        return found

    @cached_property
    def _other(self) -> Mapping[tuple[str, str], dict[str, str]]:
        """The same in the other layout; of a transformer diffusers may have to be asked for it."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        structure = self._structure
        for (component, _), key in structure.by_bare.items():
            for rest in structure.spelled_otherwise(key):
                prefix = f"{structure.denoiser}." if component == DENOISER else f"{component}."
                _enter(found, component, rest, prefix + rest)
        return found


def _enter(table: dict[tuple[str, str], dict[str, str]], component: str, rest: str, name: str) -> None:
    module, dot, end = rest.rpartition(".")
    if component != "other":
        table.setdefault((component, rest.replace(".", "_")), {}).setdefault("", name)
        if dot:
            table.setdefault((component, module.replace(".", "_")), {}).setdefault(end, name)


def _tensor(ends: Mapping[str, str], tensor: Tensor) -> str | None:
    """The tensor of a module that is meant: its bias; its weight, which some norms call a scale; or, by its whole name, itself."""
    if tensor == "bias":
        return ends.get("bias")
    if tensor == "weight":
        return ends.get("weight") or ends.get("scale") or ends.get("")
    return ends.get("")
